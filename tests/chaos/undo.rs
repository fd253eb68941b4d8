//! What a scenario has broken is put back, also when it fails or is interrupted.

use std::sync::Mutex;

use annulus_tests::{Kubernetes, OPERATOR_NAMESPACE, Operator, Plug, plug, seconds, signal, until};
use anyhow::{Result, anyhow, ensure};

/// Something to be put back.
#[derive(Debug, Clone)]
pub enum Step {
    /// Processes go on.
    Continue(Vec<u32>),
    /// A node is on the network again.
    Heal(String),
    /// A node takes pods again.
    Uncordon(String),
    /// The operator has so many replicas.
    Operators(i32),
}

/// What is still to be put back, the last first.
#[derive(Default)]
pub struct Undo(Mutex<Vec<Step>>);

impl Undo {
    /// To be called before the thing is broken.
    pub fn owe(&self, step: Step) -> Result<()> {
        self.0
            .lock()
            .map_err(|_| anyhow!("a scenario panicked"))?
            .push(step);
        Ok(())
    }

    fn next(&self) -> Option<Step> {
        self.0.lock().ok()?.pop()
    }

    /// Puts everything back, whatever of it fails; the first failure.
    pub async fn all(&self, kubernetes: &Kubernetes) -> Result<()> {
        let mut outcome = Ok(());
        while let Some(step) = self.next() {
            let done = put_back(kubernetes, &step).await;
            outcome = outcome.and(done.map_err(|error| error.context(format!("putting back {step:?}"))));
        }
        outcome
    }
}

async fn put_back(kubernetes: &Kubernetes, step: &Step) -> Result<()> {
    match step {
        Step::Continue(pids) => {
            let there = |pid: &u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
            let left: Vec<u32> = pids.iter().copied().filter(there).collect();
            signal(&left, "CONT")
        }
        Step::Heal(node) => {
            plug(kubernetes, Plug::Heal, node).await?;
            until(&format!("{node} Ready"), seconds(60), async || {
                let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
                let ready = kubernetes
                    .kubectl(&["get", "node", node, "--output", path])
                    .await?;
                ensure!(ready.stdout == "True", "{ready:?}");
                Ok(())
            })
            .await
        }
        Step::Uncordon(node) => {
            kubernetes.kubectl(&["uncordon", node]).await?.success()?;
            Ok(())
        }
        Step::Operators(replicas) => {
            scale_operators(kubernetes, *replicas).await?;
            Operator::wait_available(kubernetes).await
        }
    }
}

/// `kubectl scale` of the operator.
pub async fn scale_operators(kubernetes: &Kubernetes, replicas: i32) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    kubernetes
        .kubectl(&[
            "scale",
            "--namespace",
            OPERATOR_NAMESPACE,
            "deployment/annulus",
            &replicas,
        ])
        .await?
        .success()?;
    Ok(())
}

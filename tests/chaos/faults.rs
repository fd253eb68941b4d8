//! What happens to a cluster under load, and the waiting until it could be undone.

use std::time::Duration;

use annulus_ring::{NodeId, RingDocument};
use annulus_tests::{
    Cache, Choice, Ledger, Operator, Plug, Test, component, ended, kill, node_processes, plug, processes,
    seconds, signal, until,
};
use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use tokio::time::{Instant, sleep};

use crate::scenario::{PATIENCE, ROLLED, Scenario, WHOLE};
use crate::undo::{Step, Undo, scale_operators};

const VICTIM: &str = "demo-1";
/// The host reaches Services through it.
const GATEWAY: &str = "node-1";
const API_STOPPED: Duration = Duration::from_secs(20);
const OPERATORS_GONE_SECONDS: u64 = 60;
/// Long enough to see that nobody takes over.
const UNATTENDED: Duration = Duration::from_secs(10);

/// A cluster with a load, before the fault.
pub struct World<'a> {
    /// The running scenario.
    pub test: &'a Test,
    /// Three nodes, two copies.
    pub cache: &'a Cache<'a>,
    /// The load.
    pub ledger: &'a Ledger,
    /// The ring before.
    pub before: &'a RingDocument,
    /// What is to be put back.
    pub undo: &'a Undo,
}

/// A fault that happened.
pub struct Fault {
    /// When; where that can't be told, when it was asked for.
    pub at: Instant,
    /// Whose slots lost their owner.
    pub hit: Option<NodeId>,
}

impl World<'_> {
    /// Makes it happen; afterwards there is nothing left to be undone, but the cluster may still be busy.
    pub async fn happen(&self, scenario: Scenario) -> Result<Fault> {
        let lives = self.cache.lives().await?;
        let fault = match scenario {
            Scenario::Kill => self.killed().await?,
            Scenario::Stop => self.stopped().await?,
            Scenario::Delete => self.deleted().await?,
            Scenario::Force => self.deleted_by_force().await?,
            Scenario::Scale => self.scaled().await?,
            Scenario::Roll => self.rolled().await?,
            Scenario::Cut => self.cut().await?,
            Scenario::Drain => self.drained().await?,
            Scenario::OperatorsInHandoff => self.operators_killed_in_handoff().await?,
            Scenario::ApiStopped => self.api_stopped().await?,
            Scenario::OperatorsGone => self.operators_gone().await?,
            Scenario::OperatorsGoneKill => self.operators_gone_and_a_node_killed().await?,
            Scenario::LeaderAndNode => self.leader_and_node_killed().await?,
            Scenario::Flap => self.flapped().await?,
        };
        if matches!(scenario, Scenario::ApiStopped | Scenario::OperatorsGone) {
            Operator::wait_available(&self.test.kubernetes).await?;
            self.leader().await?;
            self.cache.whole(3, WHOLE).await?;
            let now = self.cache.lives().await?;
            ensure!(
                now == lives,
                "nodes were replaced or restarted: {lives:?}, now {now:?}"
            );
        }
        Ok(fault)
    }

    async fn undone(&self) -> Result<()> {
        self.undo.all(&self.test.kubernetes).await
    }

    async fn pod(&self, name: &str) -> Result<Pod> {
        self.cache
            .pods()
            .await?
            .remove(name)
            .with_context(|| format!("no pod {name}"))
    }

    async fn victims(&self) -> Result<Vec<u32>> {
        let found = node_processes(&self.pod(VICTIM).await?)?;
        ensure!(
            !found.is_empty(),
            "the process of {VICTIM} is not on this machine: use the development cluster (make cluster-up NODES=3)"
        );
        Ok(found)
    }

    fn hit(at: Instant) -> Result<Fault> {
        Ok(Fault {
            at,
            hit: Some(VICTIM.parse()?),
        })
    }

    /// Waits until the operator has noticed.
    async fn another_ring(&self) -> Result<()> {
        until("another ring", seconds(60), async || {
            let document = self.cache.document().await?;
            ensure!(document.epoch > self.before.epoch, "epoch {}", document.epoch);
            Ok(())
        })
        .await
    }

    async fn leader(&self) -> Result<String> {
        until("a leading operator", seconds(60), async || {
            self.test.operator.leader(&self.test.kubernetes).await
        })
        .await
    }

    async fn killed(&self) -> Result<Fault> {
        let victims = self.victims().await?;
        kill(&victims)?;
        let at = Instant::now();
        self.another_ring().await?;
        Self::hit(at)
    }

    async fn stopped(&self) -> Result<Fault> {
        let victims = self.victims().await?;
        self.undo.owe(Step::Continue(victims.clone()))?;
        signal(&victims, "STOP")?;
        let at = Instant::now();
        self.another_ring().await?;
        self.ledger.all_written(PATIENCE).await?;
        self.undone().await?;
        Self::hit(at)
    }

    async fn deleted(&self) -> Result<Fault> {
        let at = Instant::now();
        self.cache
            .api::<Pod>()
            .delete(VICTIM, &DeleteParams::default())
            .await?;
        self.another_ring().await?;
        Self::hit(at)
    }

    async fn deleted_by_force(&self) -> Result<Fault> {
        let victims = self.victims().await?;
        self.cache
            .api::<Pod>()
            .delete(VICTIM, &DeleteParams::default().grace_period(0))
            .await?;
        let at = ended(&victims, seconds(30)).await?;
        self.another_ring().await?;
        Self::hit(at)
    }

    async fn scale(&self, nodes: usize) -> Result<()> {
        let replicas = format!("--replicas={nodes}");
        self.cache.kubectl(&["scale", "cc/demo", &replicas]).await?;
        Ok(())
    }

    async fn scaled(&self) -> Result<Fault> {
        let at = Instant::now();
        for nodes in [4, 3] {
            self.scale(nodes).await?;
            self.cache.whole(nodes, WHOLE).await?;
        }
        Ok(Fault { at, hit: None })
    }

    async fn rolled(&self) -> Result<Fault> {
        let lives = self.cache.lives().await?;
        let at = Instant::now();
        self.cache
            .apply(&crate::scenario::spec(3, ROLLED))
            .await?
            .success()?;
        self.cache.replaced(&lives, WHOLE).await?;
        Ok(Fault { at, hit: None })
    }

    /// A cache's node on a worker that carries neither the leader nor the way to Services.
    async fn cut(&self) -> Result<Fault> {
        let leader = self.leader().await?;
        let operators = self.test.operator.pods(&self.test.kubernetes).await?;
        let leads = operators
            .iter()
            .find(|pod| pod.name_any() == leader)
            .and_then(worker_of);
        let pods = self.cache.pods().await?;
        let (pod, worker) = pods
            .iter()
            .filter_map(|(name, pod)| Some((name, worker_of(pod)?)))
            .find(|(_, worker)| worker != GATEWAY && Some(worker) != leads.as_ref())
            .with_context(|| {
                format!("no node is on another worker than {GATEWAY} and {leads:?}: it takes three workers")
            })?;
        let hit: NodeId = pod.parse()?;
        self.undo.owe(Step::Heal(worker.clone()))?;
        plug(&self.test.kubernetes, Plug::Cut, &worker).await?;
        let at = Instant::now();
        until("somebody in its place", seconds(60), async || {
            let owned = self
                .cache
                .document()
                .await?
                .ring()
                .owned_counts()
                .get(&hit)
                .copied();
            ensure!(owned.is_none(), "{hit} still owns {owned:?} slots");
            Ok(())
        })
        .await?;
        self.ledger.all_written(PATIENCE).await?;
        self.undone().await?;
        Ok(Fault { at, hit: Some(hit) })
    }

    async fn drained(&self) -> Result<Fault> {
        let worker = worker_of(&self.pod(VICTIM).await?).context("the victim is nowhere")?;
        self.undo.owe(Step::Uncordon(worker.clone()))?;
        let at = Instant::now();
        let drain = [
            "drain",
            worker.as_str(),
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--timeout=180s",
        ];
        self.test.kubernetes.kubectl(&drain).await?.success()?;
        self.cache.whole(3, WHOLE).await?;
        self.undone().await?;
        Operator::wait_available(&self.test.kubernetes).await?;
        Self::hit(at)
    }

    async fn operators_killed_in_handoff(&self) -> Result<Fault> {
        let mut epoch = self.before.epoch;
        let mut first = None;
        for nodes in [4, 3] {
            Operator::wait_available(&self.test.kubernetes).await?;
            let victims = self
                .test
                .operator
                .victims(&self.test.kubernetes, Choice::All)
                .await?;
            self.scale(nodes).await?;
            until("slots that move", seconds(60), async || {
                let document = self.cache.document().await?;
                ensure!(document.epoch > epoch, "epoch {}", document.epoch);
                Ok(())
            })
            .await?;
            victims.kill(&self.test.kubernetes).await?;
            first.get_or_insert_with(Instant::now);
            epoch = self.cache.whole(nodes, WHOLE).await?.epoch;
        }
        Operator::wait_available(&self.test.kubernetes).await?;
        let at = first.context("nothing was killed")?;
        Ok(Fault { at, hit: None })
    }

    async fn api_stopped(&self) -> Result<Fault> {
        let server = vec![component(&self.test.kubernetes, "kube-apiserver")?];
        self.undo.owe(Step::Continue(server.clone()))?;
        signal(&server, "STOP")?;
        let at = Instant::now();
        sleep(API_STOPPED).await;
        self.undone().await?;
        Ok(Fault { at, hit: None })
    }

    /// From here on no operator runs.
    async fn without_operators(&self) -> Result<Instant> {
        let replicas = i32::try_from(self.test.operator.pods(&self.test.kubernetes).await?.len())?;
        ensure!(replicas > 0, "no operator runs");
        self.undo.owe(Step::Operators(replicas))?;
        scale_operators(&self.test.kubernetes, 0).await?;
        until("no operator", seconds(90), async || {
            let left = self.test.operator.pods(&self.test.kubernetes).await?.len();
            ensure!(left == 0, "{left} are left");
            Ok(Instant::now())
        })
        .await
    }

    async fn operators_gone(&self) -> Result<Fault> {
        let gone = match std::env::var("ANNULUS_CHAOS_GONE_SECONDS") {
            Ok(number) => number
                .parse()
                .context("ANNULUS_CHAOS_GONE_SECONDS must be a number")?,
            Err(_) => OPERATORS_GONE_SECONDS,
        };
        let at = self.without_operators().await?;
        sleep(seconds(gone)).await;
        self.undone().await?;
        Ok(Fault { at, hit: None })
    }

    /// The time counts from the first operator's process.
    async fn operators_gone_and_a_node_killed(&self) -> Result<Fault> {
        let victims = self.victims().await?;
        self.without_operators().await?;
        kill(&victims)?;
        sleep(UNATTENDED).await;
        let (at, undone) = tokio::join!(self.operator_started(), self.undone());
        undone?;
        self.another_ring().await?;
        Self::hit(at?)
    }

    async fn operator_started(&self) -> Result<Instant> {
        until("an operator's process", seconds(60), async || {
            for pod in self.test.operator.pods(&self.test.kubernetes).await? {
                let uid = pod.uid().context("no UID")?;
                if !processes(&uid, "annulus-operator")?.is_empty() {
                    return Ok(Instant::now());
                }
            }
            bail!("there is none")
        })
        .await
    }

    async fn leader_and_node_killed(&self) -> Result<Fault> {
        let victims = self.victims().await?;
        self.leader().await?;
        let operator = self
            .test
            .operator
            .victims(&self.test.kubernetes, Choice::Leader)
            .await?;
        kill(&victims)?;
        let at = Instant::now();
        operator.kill(&self.test.kubernetes).await?;
        self.another_ring().await?;
        Operator::wait_available(&self.test.kubernetes).await?;
        Self::hit(at)
    }

    /// Each spec as soon as the operator has seen the one before.
    async fn flapped(&self) -> Result<Fault> {
        let at = Instant::now();
        for nodes in [4, 3, 5, 3] {
            self.scale(nodes).await?;
            until("the spec seen by the operator", seconds(60), async || {
                let cluster = self.cache.get().await?;
                let seen = cluster.status.and_then(|status| status.observed_generation);
                ensure!(seen == cluster.metadata.generation, "generation {seen:?}");
                Ok(())
            })
            .await?;
        }
        Ok(Fault { at, hit: None })
    }
}

fn worker_of(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

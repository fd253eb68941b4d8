//! A pod that does nothing itself: programs of this machine are run in its network, to see what a pod there can reach.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::process::Command;

use crate::kubernetes::{Answer, Kubernetes};
use crate::machine::node_processes;
use crate::wait::{seconds, until};

/// A running pod.
pub struct Bystander {
    kubernetes: Kubernetes,
    process: u32,
}

impl Bystander {
    /// Starts one in that namespace: a node of no cluster, since the node's image is there in any case.
    pub(crate) async fn start(kubernetes: &Kubernetes, namespace: &str) -> Result<Self> {
        ensure!(
            kubernetes.is_development,
            "a pod's network can be entered on the development cluster only"
        );
        let image = node_image(kubernetes).await?;
        let wanted: Pod = serde_json::from_value(json!({
            "metadata": {"generateName": "bystander-"},
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "bystander",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": ["serve", "--bind", "127.0.0.1:6379", "--max-memory", "16Mi"],
                    "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": true,
                        "runAsNonRoot": true,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }],
            },
        }))?;
        let pods: Api<Pod> = Api::namespaced(kubernetes.client.clone(), namespace);
        let name = pods.create(&PostParams::default(), &wanted).await?.name_any();
        let process = until(&format!("{name} runs"), seconds(60), async || {
            let pod = pods.get(&name).await?;
            let found = node_processes(&pod)?;
            let process = found.first().context("it does not run yet")?;
            let phase = pod.status.and_then(|status| status.phase);
            ensure!(phase.as_deref() == Some("Running"), "it is {phase:?}");
            Ok(*process)
        })
        .await?;
        Ok(Self {
            kubernetes: kubernetes.clone(),
            process,
        })
    }

    /// Runs a program of this machine in the pod's network.
    pub async fn run(&self, program: &[&str], stdin: &str) -> Result<Answer> {
        let network = format!("--net=/proc/{}/ns/net", self.process);
        let mut command = Command::new("nsenter");
        command.arg(network).args(program);
        self.kubernetes.run(&mut command, stdin).await
    }

    /// Whether a connection to that address comes about within two seconds.
    pub async fn reaches(&self, host: &str, port: u16) -> Result<bool> {
        let connect = format!("exec 3<>/dev/tcp/{host}/{port}");
        let answer = self.run(&["timeout", "2", "bash", "-c", &connect], "").await?;
        Ok(answer.succeeded)
    }

    /// redis-cli with these arguments, one command.
    pub async fn redis(&self, arguments: &[&str], files: Option<&Path>) -> Result<Answer> {
        let mut program = vec!["timeout", "5", "redis-cli", "--no-auth-warning"];
        let authorities = files.map(|folder| folder.join("ca.crt").display().to_string());
        if let Some(authorities) = &authorities {
            program.extend(["--tls", "--cacert", authorities]);
        }
        program.extend(arguments);
        self.run(&program, "").await
    }
}

/// The image that the operator gives to nodes.
async fn node_image(kubernetes: &Kubernetes) -> Result<String> {
    let arguments = [
        "get",
        "deployment",
        "annulus",
        "--namespace",
        crate::operator::NAMESPACE,
        "--output",
        "jsonpath={.spec.template.spec.containers[0].env[?(@.name==\"ANNULUS_NODE_IMAGE\")].value}",
    ];
    let image = kubernetes.kubectl(&arguments).await?.success()?;
    ensure!(!image.is_empty(), "the operator names no image for nodes");
    Ok(image)
}

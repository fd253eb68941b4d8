//! The example's origin as a pod: told what to do, and asked what it was asked.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::kubernetes::Kubernetes;
use crate::wait::{seconds, until};

/// The image, as `make images` calls it.
const IMAGE: &str = concat!("annulus-origin:", env!("CARGO_PKG_VERSION"));
const PORT: u16 = 8080;

/// What it was asked since it was last reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginFigures {
    /// Requests for users.
    pub requests: u64,
    /// The most that were under way at a time.
    pub under_way_max: u64,
    /// Different users.
    pub ids: u64,
    /// For the user that was asked for most often.
    pub most_for_one_id: u64,
    /// By second.
    pub per_second: Vec<u64>,
}

/// A running origin, a Service of the same name before it.
pub struct Origin {
    /// Of the Service.
    pub name: String,
    /// Where both are.
    pub namespace: String,
    ip: Ipv4Addr,
}

impl Origin {
    /// Starts one, and waits until it answers.
    pub async fn start(kubernetes: &Kubernetes, namespace: &str, name: &str) -> Result<Self> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "origin",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": PORT}],
                    "readinessProbe": {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "512Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "capabilities": {"drop": ["ALL"]},
                        "readOnlyRootFilesystem": true,
                        "runAsNonRoot": true,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                }],
            },
        });
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": PORT}]},
        });
        for object in [pod, service] {
            kubernetes
                .apply(namespace, &object.to_string())
                .await?
                .success()?;
        }
        let pods: Api<Pod> = Api::namespaced(kubernetes.client.clone(), namespace);
        let ip = until(&format!("origin {name} answers"), seconds(60), async || {
            let pod = pods.get(name).await?;
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
            let ip: Ipv4Addr = ip
                .with_context(|| format!("{} has no address", pod.name_any()))?
                .parse()?;
            ask(ip, "GET", "/healthz", "").await?;
            Ok(ip)
        })
        .await?;
        Ok(Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            ip,
        })
    }

    /// The URL of its users, as a group writes it.
    pub fn template(&self) -> String {
        format!("http://{}.{}.svc/users/{{key}}", self.name, self.namespace)
    }

    /// Does this from now on; JSON, as the program describes it.
    pub async fn set(&self, mode: &serde_json::Value) -> Result<()> {
        ask(self.ip, "PUT", "/-/mode", &mode.to_string()).await?;
        Ok(())
    }

    /// Begins to count anew.
    pub async fn reset(&self) -> Result<()> {
        ask(self.ip, "POST", "/-/reset", "").await?;
        Ok(())
    }

    /// What it was asked.
    pub async fn figures(&self) -> Result<OriginFigures> {
        let answer = ask(self.ip, "GET", "/-/figures", "").await?;
        Ok(serde_json::from_str(&answer)?)
    }
}

/// One request on a connection of its own; the body of an answer that is fine.
async fn ask(ip: Ipv4Addr, method: &str, path: &str, body: &str) -> Result<String> {
    let mut stream = TcpStream::connect((ip, PORT)).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: origin\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no whole answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{method} {path}: {answer}");
    Ok(body.to_owned())
}

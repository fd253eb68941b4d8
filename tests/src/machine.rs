//! What can only be done from the machine that the cluster's nodes run on: signals to a container's process, the
//! choice of the next pod's IP address, a node's network. `None` where the nodes are elsewhere.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use tokio::time::{Instant, sleep};

use crate::kubernetes::{Kubernetes, cluster_dir, repository};

/// Finer than other waiting: what is measured begins at the end of a process.
const POLL: Duration = Duration::from_millis(5);

/// The processes on this machine that run `program` in that pod.
pub fn processes(pod_uid: &str, program: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let folder = entry?.path();
        let Some(pid) = folder.file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        // Processes end while this looks at them.
        let (Ok(cgroup), Ok(name)) = (
            std::fs::read_to_string(folder.join("cgroup")),
            std::fs::read_to_string(folder.join("comm")),
        ) else {
            continue;
        };
        let in_pod = cgroup.contains(pod_uid) || cgroup.contains(&pod_uid.replace('-', "_"));
        if in_pod && program.starts_with(name.trim_end()) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The processes of a cache's node on this machine; none where the nodes are elsewhere.
pub fn node_processes(pod: &Pod) -> Result<Vec<u32>> {
    processes(&pod.uid().context("no UID")?, "annulus-node")
}

/// Waits until the processes have ended, and says when.
pub async fn ended(processes: &[u32], deadline: Duration) -> Result<Instant> {
    let end = Instant::now() + deadline;
    // A process that nobody has reaped yet is still there, without a program.
    let runs = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    while processes.iter().any(runs) {
        ensure!(Instant::now() < end, "{processes:?} still run after {deadline:?}");
        sleep(POLL).await;
    }
    Ok(Instant::now())
}

/// What can be done to a node's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plug {
    /// Unplug it.
    Cut,
    /// Plug it in again.
    Heal,
}

/// Unplugs a node of the development cluster from the network, or plugs it in again.
pub async fn plug(kubernetes: &Kubernetes, what: Plug, node: &str) -> Result<()> {
    ensure!(
        kubernetes.is_development,
        "only nodes of the development cluster can be cut from the network"
    );
    let verb = match what {
        Plug::Cut => "cut",
        Plug::Heal => "heal",
    };
    let mut command = tokio::process::Command::new(repository().join("tests/cluster/cluster"));
    command.args([verb, node]).env("CLUSTER_DIR", cluster_dir());
    kubernetes.run(&mut command, "").await?.success()?;
    Ok(())
}

/// The process of a component of the development cluster's control plane.
pub fn component(kubernetes: &Kubernetes, name: &str) -> Result<u32> {
    ensure!(
        kubernetes.is_development,
        "only the development cluster's {name} is in reach"
    );
    let path = Path::new("/run/annulus-dev-cluster/pids").join(name);
    let pid = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(pid.trim().parse()?)
}

/// Kills the processes with SIGKILL.
pub fn kill(processes: &[u32]) -> Result<()> {
    signal(processes, "KILL")
}

/// Sends the processes a signal, named as `kill` names it.
pub fn signal(processes: &[u32], name: &str) -> Result<()> {
    for pid in processes {
        let status = Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status()?;
        ensure!(status.success(), "kill -s {name} {pid} failed");
    }
    Ok(())
}

/// Makes the node give that address to the next pod, if it is free. Returns whether this could be arranged.
pub fn next_pod_ip(kubernetes: &Kubernetes, node: &str, ip: Ipv4Addr) -> Result<bool> {
    // The address manager starts to look behind the one that it gave last.
    let state = format!("annulus-dev-cluster/nodes/{node}/var/lib/cni/networks/pods");
    let folder = cluster_dir().join(state);
    let last = folder.join("last_reserved_ip.0");
    if !kubernetes.is_development || !last.exists() {
        return Ok(false);
    }
    let before = Ipv4Addr::from(u32::from(ip) - 1);
    write(&last, &before.to_string())?;
    Ok(true)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

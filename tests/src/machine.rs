//! What can only be done from the machine that the cluster's nodes run on: signals to a container's process, and the
//! choice of the next pod's IP address. `None` where the nodes are elsewhere.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::kubernetes::{Kubernetes, cluster_dir};

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

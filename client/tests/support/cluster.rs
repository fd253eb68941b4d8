//! Three node processes with two copies of everything, run by `annulus-operator local`.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

pub const NODES: u16 = 3;
const PEER_PORT_OFFSET: u16 = 10_000;
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Cluster {
    operator: Child,
    first_port: u16,
    _folder: TempDir,
}

/// The programs of this workspace, built as this one is, unless `ANNULUS_PROGRAMS` names the folder that they are in.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("ANNULUS_PROGRAMS") {
        return folder.into();
    }
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.pop();
    }
    let mut build = Command::new(env!("CARGO"));
    // What cargo tells tests would make it build everything anew.
    let told = std::env::vars_os().map(|(name, _)| name);
    let kept = ["CARGO_HOME", "CARGO_TARGET_DIR"];
    for name in told
        .filter(|name| name.to_string_lossy().starts_with("CARGO") && !kept.iter().any(|kept| name == kept))
    {
        build.env_remove(name);
    }
    build.args([
        "build",
        "--quiet",
        "--locked",
        "-p",
        "annulus-node",
        "-p",
        "annulus-operator",
    ]);
    if folder.ends_with("release") {
        build.arg("--release");
    }
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
    assert!(status.success(), "annulus-node and annulus-operator don't build");
    folder
}

/// Ports in a row, for clients, and for nodes 10000 above, that nobody listens on.
fn free_ports() -> u16 {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let begin = 20_000 + u16::try_from(std::process::id() % 1000).unwrap() * 20;
    let candidates = (begin..54_000).step_by(20).chain((20_000..begin).step_by(20));
    let mut free = candidates.filter(|&first| {
        (first..first + 2 * NODES).all(|port| is_free(port) && is_free(port + PEER_PORT_OFFSET))
    });
    free.next().expect("free ports")
}

impl Cluster {
    /// Starts it and waits until every slot has its copy.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.yaml");
        std::fs::write(
            &file,
            "apiVersion: annulus.dev/v1alpha1\nkind: CacheCluster\nmetadata: {name: near}\nspec:\n  nodes: 3\n  \
             memory: {max: 64Mi}\n  auth: {disabled: true}\n  replication: {factor: 2, acks: 1}\n",
        )
        .unwrap();
        let programs = programs();
        let first_port = free_ports();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let operator = Command::new(programs.join("annulus-operator"))
            .args(["local", "--file"])
            .arg(&file)
            .args(["--port", &first_port.to_string(), "--node"])
            .arg(programs.join("annulus-node"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let cluster = Self {
            operator,
            first_port,
            _folder: folder,
        };
        cluster.whole().await;
        cluster
    }

    /// What the nodes show as their addresses.
    pub fn addresses(&self) -> Vec<String> {
        (0..NODES)
            .map(|number| format!("127.0.0.1:{}", self.first_port + number))
            .collect()
    }

    /// Waits until three nodes own slots and every slot has its copy.
    pub async fn whole(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_whole().await {
            assert!(
                Instant::now() < deadline,
                "the cluster is not whole within {PATIENCE:?}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn is_whole(&self) -> bool {
        for address in self.addresses() {
            let Some(owners) = owners(&address).await else {
                return false;
            };
            if owners != usize::from(NODES) {
                return false;
            }
        }
        true
    }

    /// The processes of the nodes.
    pub fn nodes(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.operator.id())).unwrap();
        let children =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
        children
            .flat_map(|list| {
                list.split_whitespace()
                    .map(|id| id.parse().unwrap())
                    .collect::<Vec<u32>>()
            })
            .collect()
    }

    /// Has all nodes stand still: they are connected to, and answer nothing.
    pub fn stand_still(&self) {
        for node in self.nodes() {
            signal("STOP", node);
        }
    }

    /// Ends that.
    pub fn go_on(&self) {
        for node in self.nodes() {
            signal("CONT", node);
        }
    }

    /// Kills one of the nodes; the local mode starts it again.
    pub fn kill_one(&self, number: usize) {
        let mut nodes = self.nodes();
        nodes.sort_unstable();
        signal("KILL", nodes[number % nodes.len()]);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // It ends its nodes.
        signal("TERM", self.operator.id());
        self.operator.wait().unwrap();
    }
}

fn signal(name: &str, process: u32) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &process.to_string()])
        .status();
    assert!(sent.unwrap().success());
}

/// How many nodes own slots, if every slot is owned and has a copy, as that node sees it.
async fn owners(address: &str) -> Option<usize> {
    let client = redis::Client::open(format!("redis://{address}")).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    redis::cmd("READONLY").exec_async(&mut connection).await.ok()?;
    let ranges: Vec<Vec<Value>> = redis::cmd("CLUSTER")
        .arg("SLOTS")
        .query_async(&mut connection)
        .await
        .ok()?;
    let mut owners = std::collections::BTreeSet::new();
    let mut slots = 0;
    for range in ranges {
        let [Value::Int(first), Value::Int(last), owner, copies @ ..] = range.as_slice() else {
            return None;
        };
        // A node shows each owner by a single slot first.
        if copies.is_empty() && first != last {
            return None;
        }
        slots += last - first + 1;
        owners.insert(format!("{owner:?}"));
    }
    (slots == 16_384).then_some(owners.len())
}

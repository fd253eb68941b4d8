//! `annulus-operator local`: a `CacheCluster`, its tenants and its groups from a file as node processes on loopback, without Kubernetes.
//!
//! The same validation, the same planning and the same peer protocol as on Kubernetes; only who starts the
//! processes, and where the ring document is kept (in memory), differ. The file is read again when it
//! changes, so a ring can be watched while it grows and shrinks. Without a folder for what is to be kept there are neither
//! tenants nor passwords: it listens on loopback alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use annulus_crds::v1alpha1::EvictionPolicy;
use annulus_ring::{Address, Advance, Desired, DrawOptions, NodeId, Observed, RingDocument, advance, draw};
use clap::Args;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{self, UnboundedReceiver};

use crate::key::ClusterKey;
use crate::metrics::Metrics;
use crate::node_client::{Hub, Snapshot};
use crate::plan;
use crate::validate::{ValidCluster, ValidTls};

mod bindings;
mod certificates;
mod file;
mod groups;
mod replace;
mod tenants;

use certificates::Certificates;
use file::{File, parse};
use tenants::{Tenants, WITHOUT_FOLDER};

/// How often the file is looked at and dead processes are started again.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// A node that is silent for this long is taken for dead.
const SILENCE: Duration = Duration::from_secs(1);
/// Distance of a node's peer port from its client port, as in Redis Cluster.
const PEER_PORT_OFFSET: u16 = 10_000;
/// Distance of its port for clients with TLS.
const TLS_PORT_OFFSET: u16 = 5_000;
const NODES_MAX: usize = 64;

/// Run a `CacheCluster` of a file as processes on loopback.
#[derive(Debug, Args)]
pub struct LocalArgs {
    /// YAML with one `CacheCluster`, and the `CacheTenant`s, `CacheGroup`s, `Namespace`s and `Secret`s that go with it; read again
    /// when it changes.
    #[arg(long, short, value_name = "FILE")]
    file: PathBuf,

    /// The first node's client port; the others follow. Peer ports are 10000 higher.
    #[arg(long, default_value_t = 7001, value_parser = clap::value_parser!(u16).range(1024..=55_000))]
    port: u16,

    /// Folder for what must outlast the processes: authority and certificates, tenants' documents and bindings. Only you may
    /// read it. There are tenants only with it.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// The node program [default: annulus-node beside this one, otherwise from PATH].
    #[arg(long, value_name = "PATH")]
    node: Option<PathBuf>,
}

/// Runs until interrupted; the error says what to put right.
pub async fn run(args: LocalArgs) -> Result<(), String> {
    let (wake, woken) = mpsc::unbounded_channel();
    let text = read(&args.file)?;
    let content = parse(&text).map_err(|problem| format!("{}: {problem}", args.file.display()))?;
    let uid = &content.cluster.uid;
    let tenants = match &args.state_dir {
        Some(folder) => Tenants::open(folder, args.port, uid)?,
        None if content.tenants.is_empty() => Tenants::in_memory(uid),
        None => return Err(WITHOUT_FOLDER.to_owned()),
    };
    let certificates = Certificates::new(args.state_dir);
    let local = Local {
        certificates,
        key: content.cluster.key.clone(),
        hub: Hub::new(REPORT_INTERVAL, SILENCE, wake, Metrics::default()),
        program: args.node.unwrap_or_else(node_program),
        first_port: args.port,
        file: args.file,
        text,
        content,
        tenants,
        tenants_said: Vec::new(),
        nodes: BTreeMap::new(),
        ended: BTreeSet::new(),
        document: None,
        announced: None,
    };
    tokio::select! {
        ended = local.serve(woken) => ended,
        // Also when somebody ends it otherwise than by Ctrl-C, its processes end with it.
        stopped = super::run::stopped() => stopped,
    }
}

struct Local {
    certificates: Certificates,
    key: ClusterKey,
    hub: Hub,
    program: PathBuf,
    first_port: u16,
    file: PathBuf,
    text: String,
    content: File,
    tenants: Tenants,
    tenants_said: Vec<String>,
    nodes: BTreeMap<NodeId, Process>,
    /// Nodes whose process ended, until the next one answers.
    ended: BTreeSet<NodeId>,
    document: Option<RingDocument>,
    /// What was last said about the ring, so that nothing is said twice.
    announced: Option<String>,
}

/// A node's process; it ends when this is dropped.
struct Process {
    child: Child,
    /// What the other ports are counted from.
    client_port: u16,
    /// What it was started with.
    tls: ValidTls,
}

impl Process {
    fn address(&self) -> Address {
        Address {
            host: Ipv4Addr::LOCALHOST.to_string(),
            client_host: None,
            client_port: if self.tls.has_plain_port() {
                self.client_port
            } else {
                0
            },
            client_tls_port: self
                .tls
                .clients
                .as_ref()
                .map(|_| self.client_port + TLS_PORT_OFFSET),
            peer_port: self.client_port + PEER_PORT_OFFSET,
        }
    }
}

impl Local {
    async fn serve(mut self, mut woken: UnboundedReceiver<ClusterKey>) -> Result<(), String> {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        loop {
            tokio::select! {
                _ = look.tick() => {
                    self.reread();
                    self.keep_processes()?;
                }
                Some(_) = woken.recv() => while woken.try_recv().is_ok() {},
            }
            self.step().await?;
        }
    }

    /// Takes over the file's newest content, when it is valid.
    fn reread(&mut self) {
        match read(&self.file) {
            Ok(text) if text == self.text => {}
            Ok(text) => {
                match parse(&text) {
                    Ok(content) if content.cluster.tls.peers != self.content.cluster.tls.peers => {
                        say("not taken over: tls.peers can't change while the cluster lives");
                    }
                    Ok(content) if content.cluster.key == self.key => {
                        self.content = content;
                        self.tenants.look_soon();
                    }
                    Ok(content) => say(&format!(
                        "not taken over: the name changed from {} to {}",
                        self.key, content.cluster.key
                    )),
                    Err(problem) => say(&format!("not taken over: {problem}")),
                }
                self.text = text;
            }
            Err(problem) => self.announce(&problem),
        }
    }

    /// One process for each node that is wanted or still on the ring.
    fn keep_processes(&mut self) -> Result<(), String> {
        let mut wanted: Vec<NodeId> = desired(&self.content.cluster)
            .members
            .into_iter()
            .map(|member| member.id)
            .collect();
        if wanted.len() > NODES_MAX {
            return Err(format!(
                "the local mode runs at most {NODES_MAX} nodes, not {}",
                wanted.len()
            ));
        }
        wanted.extend(
            self.document
                .iter()
                .flat_map(|document| &document.members)
                .map(|member| member.id.clone()),
        );
        self.certificates
            .keep(&self.content.cluster, wanted.iter().cloned().collect())?;
        let (nodes, ended) = (&mut self.nodes, &mut self.ended);
        nodes.retain(|id, process| {
            let runs = matches!(process.child.try_wait(), Ok(None));
            if !runs {
                ended.insert(id.clone());
            }
            runs && wanted.contains(id)
        });
        for id in wanted {
            if !self.nodes.contains_key(&id) {
                let process = self.start(&id)?;
                self.nodes.insert(id, process);
            }
        }
        let addresses = self.nodes.iter().map(|(id, process)| {
            (
                id.clone(),
                SocketAddr::from((Ipv4Addr::LOCALHOST, process.address().peer_port)),
            )
        });
        self.hub.sync(
            &self.key,
            &self.content.cluster.uid,
            &addresses.collect(),
            self.certificates.own(),
        );
        Ok(())
    }

    fn start(&self, id: &NodeId) -> Result<Process, String> {
        let taken: Vec<u16> = self.nodes.values().map(|process| process.client_port).collect();
        let client_port = (self.first_port..=u16::MAX - PEER_PORT_OFFSET)
            .find(|port| !taken.contains(port))
            .unwrap_or(self.first_port);
        let on_loopback = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
        let mut command = Command::new(&self.program);
        let tls = self.content.cluster.tls.clone();
        let plain = if tls.has_plain_port() {
            on_loopback(client_port)
        } else {
            "off".to_owned()
        };
        command
            .arg("serve")
            .args(["--bind", &plain])
            .args(
                self.certificates
                    .arguments(&tls, id, &on_loopback(client_port + TLS_PORT_OFFSET)),
            )
            .args(["--peer-bind", &on_loopback(client_port + PEER_PORT_OFFSET)])
            .args(["--http-bind", &on_loopback(0)])
            .args([
                "--cluster-uid",
                self.content.cluster.uid.as_str(),
                "--node-id",
                id.as_str(),
            ])
            .args([
                "--threads",
                &self.content.cluster.threads.unwrap_or(1).to_string(),
            ])
            .args(["--log-level", "warn"])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let policy = match self.content.cluster.eviction_policy {
            EvictionPolicy::TinyLfu => "tinylfu",
            EvictionPolicy::S3Fifo => "s3fifo",
            EvictionPolicy::Lru => "lru",
            EvictionPolicy::Ttl => "ttl",
            EvictionPolicy::NoEviction => "noeviction",
        };
        command.args(["--eviction-policy", policy]);
        let pool = self
            .content
            .cluster
            .pools
            .iter()
            .find(|pool| (0..pool.nodes).any(|n| pool.pod_name(n) == id.as_str()));
        if let Some(bytes) = pool.and_then(|pool| pool.memory_max_bytes) {
            command.args(["--max-memory", &bytes.to_string()]);
        }
        if let Some(document) = self.tenants.document_file() {
            command.env("ANNULUS_TENANTS_FILE", document);
        }
        if let Some(password) = self.tenants.password_file(&self.content.cluster.auth)? {
            command.env("ANNULUS_PASSWORD_FILE", password);
        }
        let child = command.spawn().map_err(|error| {
            format!("can't start {}: {error}; build it with cargo build --release -p annulus-node, or name it with --node", self.program.display())
        })?;
        Ok(Process {
            child,
            client_port,
            tls,
        })
    }

    /// The one next step of the ring, and what a person wants to know of it.
    async fn step(&mut self) -> Result<(), String> {
        let snapshot = self.hub.snapshot(&self.key);
        let observed = observed(&snapshot, &self.nodes);
        let desired = desired(&self.content.cluster);
        self.ended.retain(|id| !snapshot.reports.contains_key(id));
        let failed = self.failed(&snapshot);
        match advance(self.document.as_ref(), &desired, &observed, &failed) {
            Advance::Next { document, reasons } => {
                for reason in reasons {
                    say(&format!("epoch {}: {reason}", document.epoch));
                }
                self.document = Some(document);
                self.announced = None;
            }
            Advance::Waiting(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                self.announce(&format!("waiting: {}", reasons.join("; ")));
            }
            Advance::Steady => self.show(),
        }
        self.push(&snapshot).await;
        self.step_tenants(&snapshot).await
    }

    /// The tenants and groups as the file says, in their files first and then in the nodes.
    async fn step_tenants(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        let tenants = &mut self.tenants;
        let versions = snapshot.reports.values().map(|report| report.tenants_version);
        let said = tenants.step(&self.content, &versions.collect::<Vec<_>>())?;
        for line in said.iter().filter(|line| !self.tenants_said.contains(line)) {
            say(line);
        }
        if !said.is_empty() {
            self.tenants_said = said;
        }
        let document = tenants.document();
        let behind = snapshot.reports.iter();
        let behind = behind.filter(|(_, report)| report.tenants_version < document.version);
        let behind: Vec<NodeId> = behind.map(|(id, _)| id.clone()).collect();
        if !behind.is_empty() {
            self.hub.push_tenants(&self.key, behind, document).await;
        }
        Ok(())
    }

    /// The members that are taken for dead: their process ended, or hangs.
    fn failed(&self, snapshot: &Snapshot) -> BTreeSet<NodeId> {
        if snapshot.reports.is_empty() {
            return BTreeSet::new();
        }
        let lost = self.ended.iter().chain(snapshot.dead.keys());
        lost.filter(|id| !snapshot.reports.contains_key(*id))
            .cloned()
            .collect()
    }

    /// Tells the ring to every node that doesn't have it yet. One that can't be told now reports its old epoch again,
    /// and is told again.
    async fn push(&self, snapshot: &Snapshot) {
        let Some(document) = &self.document else { return };
        let behind = snapshot.reports.iter();
        let behind = behind.filter(|(_, report)| report.epoch < document.epoch);
        let behind = behind.map(|(id, _)| id.clone()).collect();
        self.hub.push(&self.key, behind, document).await;
    }

    fn show(&mut self) {
        let Some(document) = &self.document else { return };
        let options = DrawOptions {
            title: self.key.name.clone(),
            colour: std::io::IsTerminal::is_terminal(&std::io::stdout()),
            ..DrawOptions::default()
        };
        let first = self.nodes.values().next();
        let connect = first.map_or_else(String::new, |process| {
            let secure = self.certificates.client_flags(&process.tls);
            let port = process.address().port_for(!secure.is_empty());
            format!("connect: redis-cli -c -p {port}{secure}")
        });
        let text = format!(
            "\n{}\n{connect}\nchange {} and save it: the ring follows. Ctrl-C ends it.",
            draw(document, &options),
            self.file.display()
        );
        self.announce(&text);
    }

    fn announce(&mut self, text: &str) {
        if self.announced.as_deref() != Some(text) {
            say(text);
            self.announced = Some(text.to_owned());
        }
    }
}

fn observed(snapshot: &Snapshot, nodes: &BTreeMap<NodeId, Process>) -> Vec<Observed> {
    let reports = snapshot.reports.iter();
    reports
        .filter_map(|(id, report)| {
            Some(Observed {
                id: id.clone(),
                incarnation: report.incarnation,
                address: nodes.get(id)?.address(),
                epoch: report.epoch,
                activated: report.activated.clone(),
                settled: report.settled,
                declared: report.declared.clone(),
                leaving: report.leaving,
            })
        })
        .collect()
}

/// Processes are in no zone but their pool's.
fn desired(cluster: &ValidCluster) -> Desired {
    plan::desired(cluster, |_| None)
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("can't read {}: {error}", file.display()))
}

fn node_program() -> PathBuf {
    let beside = std::env::current_exe()
        .ok()
        .map(|own| own.with_file_name("annulus-node"));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("annulus-node"))
}

#[expect(
    clippy::print_stdout,
    reason = "the local mode speaks to the person who started it"
)]
fn say(text: &str) {
    println!("{text}");
}

//! A machine of the development cluster whose pods are no processes: they have an address, are ready, and speak as much of
//! the peer protocol as an operator needs. So an operator can be watched with more nodes than a developer's machine holds.
//!
//! The machine is a `Node` object with a taint. What is scheduled there gets an address of [`NETWORK`], which the kernel
//! takes for the machine's own, so that one listener is all nodes.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus_crds::v1alpha1::defaults::PEER_PORT;
use annulus_proto::v1::peer_server::{Peer, PeerServer};
use annulus_proto::{Sender, v1};
use annulus_ring::{ClusterUid, Epoch, Incarnation, NodeId, RingDocument};
use anyhow::{Context as _, Result, ensure};
use futures::stream::unfold;
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tonic::transport::server::TcpConnectInfo;
use tonic::{Request, Response, Status};

use crate::kubernetes::Kubernetes;
use crate::wait::{seconds, until};

/// Of no other use on a machine with the development cluster, whose pods reach it through that machine.
const NETWORK: &str = "10.246.0.0/16";
const NAME: &str = "stand-ins";
/// What a spec says to get there. Without Services of their own: thousands of those would keep the development cluster's
/// three kube-proxies busy, which share this machine's processors with what is measured.
pub const STAND_INS_SPEC: &str = "scheduling: {nodeSelector: {annulus.dev/stand-ins: 'true'}, tolerations: \
    [{key: annulus.dev/stand-ins, operator: Exists}]}, service: {nodeAddresses: Pod}";
const HEARTBEAT: Duration = Duration::from_secs(10);
const CHANGES_AT_ONCE: usize = 16;

/// The machine. What is on it ends with it; stop it with [`StandIns::stop`].
pub struct StandIns {
    kubernetes: Kubernetes,
    nodes: Nodes,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Default)]
struct Nodes(Arc<Mutex<HashMap<Ipv4Addr, watch::Sender<State>>>>);

/// One node.
#[derive(Debug, Clone)]
struct State {
    cluster: ClusterUid,
    namespace: String,
    id: NodeId,
    incarnation: Incarnation,
    document: Option<RingDocument>,
    /// When it got that.
    since: Instant,
    /// What it says of itself, which only a document changes.
    report: v1::NodeReport,
    silent: bool,
}

impl Nodes {
    fn locked(&self) -> MutexGuard<'_, HashMap<Ipv4Addr, watch::Sender<State>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of<T>(&self, request: &Request<T>) -> Result<watch::Sender<State>, Status> {
        let connection = request.extensions().get::<TcpConnectInfo>();
        let address = match connection.and_then(TcpConnectInfo::local_addr) {
            Some(SocketAddr::V4(address)) => *address.ip(),
            other => return Err(Status::internal(format!("{other:?} is no node's address"))),
        };
        let node = self.locked().get(&address).cloned();
        node.ok_or_else(|| Status::unavailable(format!("no node is at {address}")))
    }
}

impl StandIns {
    /// Makes the machine; only beside the development cluster.
    pub async fn start(kubernetes: &Kubernetes) -> Result<Self> {
        ensure!(
            kubernetes.is_development,
            "stand-ins need the development cluster: its pods reach this machine's addresses"
        );
        route("replace").await?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PEER_PORT))
            .await
            .with_context(|| format!("listening on port {PEER_PORT} of every address"))?;
        let (client, nodes) = (kubernetes.client.clone(), Nodes::default());
        register(&client).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, nodes.clone()));
        tasks.spawn(keep_alive(client.clone()));
        tasks.spawn(run_pods(client, nodes.clone()));
        Ok(Self {
            kubernetes: kubernetes.clone(),
            nodes,
            _tasks: tasks,
        })
    }

    /// The node says nothing any more, as if its process were stopped.
    pub fn silence(&self, namespace: &str, pod: &str) -> Result<()> {
        self.node(namespace, pod)?
            .send_modify(|state| state.silent = true);
        Ok(())
    }

    /// When the node got a ring in which the other one owns nothing.
    pub async fn told_of_loss(
        &self,
        namespace: &str,
        pod: &str,
        dead: &str,
        deadline: Duration,
    ) -> Result<Instant> {
        let dead: NodeId = dead.parse()?;
        let mut states = self.node(namespace, pod)?.subscribe();
        let is_told = |state: &State| {
            let document = state.document.as_ref();
            document.is_some_and(|document| document.ring().slots_of(&dead).is_empty())
        };
        let told = tokio::time::timeout(deadline, states.wait_for(is_told)).await;
        let told =
            told.with_context(|| format!("{pod} was not told within {deadline:?} that {dead} is lost"))??;
        Ok(told.since)
    }

    fn node(&self, namespace: &str, pod: &str) -> Result<watch::Sender<State>> {
        let nodes = self.nodes.locked();
        let found = nodes.values().find(|node| {
            let state = node.borrow();
            state.namespace == namespace && state.id.as_str() == pod
        });
        found
            .cloned()
            .with_context(|| format!("no stand-in for {namespace}/{pod}"))
    }

    /// Takes the machine away, once nothing is on it.
    pub async fn stop(self) -> Result<()> {
        let client = &self.kubernetes.client;
        let pods: Api<Pod> = Api::all(client.clone());
        until("no pods of stand-ins", seconds(300), async || {
            let left = pods.list_metadata(&of_machine()).await?.items.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
        .await?;
        let machines: Api<Node> = Api::all(client.clone());
        machines.delete(NAME, &DeleteParams::default()).await?;
        route("delete").await
    }
}

fn of_machine() -> kube::api::ListParams {
    kube::api::ListParams::default().fields(&format!("spec.nodeName={NAME}"))
}

async fn route(verb: &str) -> Result<()> {
    let command = ["route", verb, "local", NETWORK, "dev", "lo"];
    let status = Command::new("ip").args(command).status().await?;
    ensure!(status.success(), "ip {} failed: it takes root", command.join(" "));
    Ok(())
}

async fn register(client: &Client) -> Result<()> {
    let machine = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NAME, "labels": {"annulus.dev/stand-ins": "true"}},
        "spec": {"taints": [{"key": "annulus.dev/stand-ins", "effect": "NoSchedule"}]},
    });
    let api: Api<Node> = Api::all(client.clone());
    let params = PatchParams::apply("annulus-tests").force();
    api.patch(NAME, &params, &Patch::Apply(&machine)).await?;
    let room = json!({"cpu": "10000", "memory": "100Ti", "pods": "60000"});
    let status = json!({"status": {
        "capacity": room, "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True", "reason": "StandIns", "message": ""}],
    }});
    api.patch_status(NAME, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// Renews the Lease that says that the machine is there; for ever.
async fn keep_alive(client: Client) {
    let api: Api<Lease> = Api::namespaced(client, "kube-node-lease");
    let params = PatchParams::apply("annulus-tests").force();
    let mut beats = interval(HEARTBEAT);
    loop {
        beats.tick().await;
        let now =
            k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(k8s_openapi::jiff::Timestamp::now());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME},
            "spec": {"holderIdentity": NAME, "leaseDurationSeconds": 40, "renewTime": now},
        });
        if let Err(error) = api.patch(NAME, &params, &Patch::Apply(&lease)).await {
            eprintln!("the stand-ins' Lease was not renewed: {error}");
        }
    }
}

/// What a kubelet does: pods get an address and become ready, and end at once; for ever.
async fn run_pods(client: Client, nodes: Nodes) {
    let config = watcher::Config::default().fields(&format!("spec.nodeName={NAME}"));
    let changes = watcher(Api::<Pod>::all(client.clone()), config)
        .default_backoff()
        .touched_objects();
    changes
        .for_each_concurrent(CHANGES_AT_ONCE, |change| {
            let (client, nodes) = (client.clone(), nodes.clone());
            async move {
                let outcome = match change {
                    Ok(pod) => run_pod(&client, &nodes, &pod).await,
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = outcome {
                    eprintln!("a stand-in: {error:#}");
                }
            }
        })
        .await;
}

async fn run_pod(client: &Client, nodes: &Nodes, pod: &Pod) -> Result<()> {
    let namespace = pod.namespace().context("a pod without a namespace")?;
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let name = pod.name_any();
    if pod.metadata.deletion_timestamp.is_some() {
        nodes.locked().retain(|_, node| {
            let state = node.borrow();
            (&state.namespace, state.id.as_str()) != (&namespace, name.as_str())
        });
        return match api.delete(&name, &DeleteParams::default().grace_period(0)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            outcome => Ok(outcome.map(|_| ())?),
        };
    }
    if pod.status.as_ref().is_some_and(|status| status.pod_ip.is_some()) {
        return Ok(());
    }
    let variables = pod
        .spec
        .iter()
        .flat_map(|spec| &spec.containers)
        .flat_map(|container| &container.env);
    let cluster = variables
        .flatten()
        .find(|variable| variable.name == "ANNULUS_CLUSTER_UID")
        .and_then(|variable| variable.value.clone())
        .context("a pod that is no cache's")?;
    let address = {
        let mut nodes = nodes.locked();
        let number = u16::try_from(nodes.len())?;
        let mut free = (0..u16::MAX).map(|step| {
            let [high, low] = number.wrapping_add(step).to_be_bytes();
            Ipv4Addr::new(10, 246, high, low)
        });
        let address = free.find(|address| address.octets()[3] % 255 != 0 && !nodes.contains_key(address));
        let address = address.context("no address is free")?;
        let mut state = State {
            cluster: cluster.parse()?,
            namespace,
            id: name.parse()?,
            incarnation: Incarnation(u128::from(u32::from(address)) << 64 | u128::from(std::process::id())),
            document: None,
            since: Instant::now(),
            report: v1::NodeReport::default(),
            silent: false,
        };
        state.report = report(&state);
        nodes.insert(address, watch::channel(state).0);
        address
    };
    let holds = |type_: &str| json!({"type": type_, "status": "True"});
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": [holds("PodScheduled"), holds("Initialized"), holds("ContainersReady"), holds("Ready")],
    }});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

async fn serve(listener: TcpListener, nodes: Nodes) {
    let connections = unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    let served = tonic::transport::Server::builder()
        .serve_with_incoming(PeerServer::new(Service { nodes }), connections);
    if let Err(error) = served.await {
        eprintln!("the stand-ins' peer protocol ended: {error}");
    }
}

struct Service {
    nodes: Nodes,
}

type Answer<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// It has no data: handoffs towards it are settled at once, and copies of what it serves are whole at once.
fn report(state: &State) -> v1::NodeReport {
    let document = state.document.as_ref();
    let sender = Sender {
        cluster_uid: state.cluster.clone(),
        epoch: document.map_or(Epoch::NONE, |document| document.epoch),
        node: Some((state.id.clone(), state.incarnation)),
    };
    let handoffs = document.into_iter().flat_map(|document| &document.handoffs);
    let towards_it = handoffs.filter(|handoff| handoff.to == state.id);
    v1::NodeReport {
        sender: Some((&sender).into()),
        ready: document.is_some(),
        activated: towards_it.map(|handoff| handoff.slots.into()).collect(),
        settled: true,
        declared: document
            .map(|document| declared(document, &state.id))
            .unwrap_or_default(),
        ..v1::NodeReport::default()
    }
}

fn declared(document: &RingDocument, id: &NodeId) -> Vec<v1::Copies> {
    let owned = document.ring().slots_of(id);
    let wanted = document.wanted_replicas().into_iter();
    let copies = wanted.map(|(node, slots)| v1::Copies {
        node_id: node.to_string(),
        slots: slots.intersection(&owned).ranges().map(Into::into).collect(),
    });
    copies.filter(|copies| !copies.slots.is_empty()).collect()
}

fn not_asked() -> Status {
    Status::unimplemented("only nodes ask for this")
}

#[tonic::async_trait]
impl Peer for Service {
    type WatchStream = Streamed<v1::NodeReport>;
    type PrepareSlotStream = Streamed<v1::SlotChunk>;
    type ReplicateStream = Streamed<v1::ReplicateReply>;
    type ExecuteStream = Streamed<v1::ExecuteReply>;

    async fn push_ring(&self, request: Request<v1::PushRingRequest>) -> Answer<v1::NodeReport> {
        let node = self.nodes.of(&request)?;
        if node.borrow().silent {
            std::future::pending::<()>().await;
        }
        let document = RingDocument::from_json(&request.into_inner().document)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        node.send_modify(|state| {
            let known = state.document.as_ref().map_or(Epoch::NONE, |known| known.epoch);
            if known < document.epoch {
                (state.document, state.since) = (Some(document), Instant::now());
                state.report = report(state);
            }
        });
        let report = node.borrow().report.clone();
        Ok(Response::new(report))
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let mut states = self.nodes.of(&request)?.subscribe();
        let ticks = interval(Duration::from_millis(request.into_inner().interval_ms.into()));
        states.mark_changed();
        let reports = unfold((states, ticks), |(mut states, mut ticks)| async move {
            loop {
                tokio::select! {
                    changed = states.changed() => changed.ok()?,
                    _ = ticks.tick() => {}
                }
                let said = {
                    let state = states.borrow_and_update();
                    (!state.silent).then(|| state.report.clone())
                };
                if let Some(report) = said {
                    return Some((Ok(report), (states, ticks)));
                }
            }
        });
        Ok(Response::new(Box::pin(reports)))
    }

    async fn fetch_ring(&self, request: Request<v1::FetchRingRequest>) -> Answer<v1::FetchRingReply> {
        let state = self.nodes.of(&request)?.borrow().clone();
        let document = state
            .document
            .as_ref()
            .ok_or_else(|| Status::not_found("no ring"))?;
        Ok(Response::new(v1::FetchRingReply {
            sender: state.report.sender.clone(),
            document: document.to_json().into(),
        }))
    }

    async fn push_tenants(&self, _: Request<v1::PushTenantsRequest>) -> Answer<v1::NodeReport> {
        Err(Status::unimplemented("stand-ins have no tenants"))
    }

    async fn exchange(&self, _: Request<v1::ExchangeRequest>) -> Answer<v1::ExchangeReply> {
        Err(not_asked())
    }

    async fn prepare_slot(&self, _: Request<v1::PrepareSlotRequest>) -> Answer<Self::PrepareSlotStream> {
        Err(not_asked())
    }

    async fn take_over(&self, _: Request<v1::TakeOverRequest>) -> Answer<v1::TakeOverReply> {
        Err(not_asked())
    }

    async fn commit_slot(&self, _: Request<v1::CommitSlotRequest>) -> Answer<v1::CommitSlotReply> {
        Err(not_asked())
    }

    async fn replicate(
        &self,
        _: Request<tonic::Streaming<v1::ReplicateRequest>>,
    ) -> Answer<Self::ReplicateStream> {
        Err(not_asked())
    }

    async fn execute(
        &self,
        _: Request<tonic::Streaming<v1::ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn publish(&self, _: Request<v1::PublishRequest>) -> Answer<v1::PublishReply> {
        Err(not_asked())
    }
}

//! A cache node as the operator sees it: it reports, adopts rings and hands its ring out. It holds no data, so
//! handoffs towards it are settled at once, and copies of what it serves are whole at once.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use annulus_proto::credentials::{LiveCredentials, PeerCredentials, PeerStream};
use annulus_proto::tenants::TenantsDocument;
use annulus_proto::v1::peer_server::{Peer, PeerServer};
use annulus_proto::{Sender, v1};
use annulus_ring::{Epoch, Incarnation, NodeId, RingDocument};
use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tonic::{Request, Response, Status};

/// What a node has.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub struct State {
    /// The cluster that it says it is of.
    pub uid: String,
    /// The name that it says it has.
    pub id: String,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its ring.
    pub document: Option<RingDocument>,
    /// Its tenants.
    pub tenants: Option<TenantsDocument>,
    /// What they use, in bytes each.
    pub tenant_bytes: u64,
    /// It is of a version that knows no tenants.
    pub deaf_to_tenants: bool,
    /// Keys, which are no reason to reconcile.
    pub keys: u64,
    /// It was told to end.
    pub leaving: bool,
    /// It is stopped: connections stay, and nothing comes.
    pub hangs: bool,
    alive: bool,
}

/// A node on a loopback address of its own, at the port that the operator expects.
pub struct FakeNode {
    /// Its address.
    pub ip: IpAddr,
    state: watch::Sender<State>,
    task: AbortHandle,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.state.send_modify(|state| state.alive = false);
        self.task.abort();
    }
}

/// Addresses are drawn from 127/8 by process and counter, so that tests that run side by side never meet.
fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = u8::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap();
    Ipv4Addr::new(127, high | 1, low, number)
}

impl FakeNode {
    /// Starts a node without a ring.
    pub fn start(uid: &str, id: &str, incarnation: u128) -> Self {
        Self::start_at(loopback().into(), uid, id, incarnation)
    }

    /// Starts a node at the address that another one had.
    pub fn start_at(ip: IpAddr, uid: &str, id: &str, incarnation: u128) -> Self {
        Self::start_with(ip, uid, id, incarnation, None)
    }

    /// Starts a node that proves who it is, and asks for the same.
    pub fn start_secure(uid: &str, id: &str, incarnation: u128, credentials: PeerCredentials) -> Self {
        let live = Arc::new(LiveCredentials::new(credentials));
        Self::start_with(loopback().into(), uid, id, incarnation, Some(live))
    }

    fn start_with(
        ip: IpAddr,
        uid: &str,
        id: &str,
        incarnation: u128,
        credentials: Option<Arc<LiveCredentials>>,
    ) -> Self {
        let address = SocketAddr::new(ip, annulus_crds::v1alpha1::defaults::PEER_PORT);
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        let state = State {
            uid: uid.to_owned(),
            id: id.to_owned(),
            incarnation: Incarnation(incarnation),
            document: None,
            tenants: None,
            tenant_bytes: 0,
            deaf_to_tenants: false,
            keys: 0,
            leaving: false,
            hangs: false,
            alive: true,
        };
        let (state, _) = watch::channel(state);
        let service = PeerServer::new(Service { state: state.clone() });
        let incoming = TcpListenerStream::new(listener).then(move |stream| {
            let credentials = credentials.clone();
            async move {
                Ok::<_, std::io::Error>(match credentials {
                    None => Some(PeerStream::Plain(stream?)),
                    Some(credentials) => credentials.accept(stream?).await.ok(),
                })
            }
        });
        let incoming = incoming.filter_map(Result::transpose);
        let server = tonic::transport::Server::builder().serve_with_incoming(service, incoming);
        let task = tokio::spawn(async move { server.await.unwrap() }).abort_handle();
        Self { ip, state, task }
    }

    /// Changes what it has, which it reports at once.
    pub fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(change);
    }

    /// The epoch that it has.
    pub fn epoch(&self) -> Epoch {
        self.state
            .borrow()
            .document
            .as_ref()
            .map_or(Epoch::NONE, |document| document.epoch)
    }

    /// The tenants that it has.
    pub fn tenants(&self) -> Option<TenantsDocument> {
        self.state.borrow().tenants.clone()
    }

    /// How many report streams are open.
    pub fn watchers(&self) -> usize {
        self.state.receiver_count()
    }
}

#[derive(Clone)]
struct Service {
    state: watch::Sender<State>,
}

fn report(state: &State) -> v1::NodeReport {
    let epoch = state
        .document
        .as_ref()
        .map_or(Epoch::NONE, |document| document.epoch);
    let id: NodeId = state.id.parse().unwrap();
    let towards_me = state
        .document
        .iter()
        .flat_map(|document| &document.handoffs)
        .filter(|handoff| handoff.to == id);
    v1::NodeReport {
        sender: Some((&sender(state, epoch)).into()),
        ready: state.document.is_some(),
        keys: state.keys,
        activated: towards_me.map(|handoff| handoff.slots.into()).collect(),
        settled: true,
        declared: state
            .document
            .as_ref()
            .map(|document| declared(document, &id))
            .unwrap_or_default(),
        leaving: state.leaving,
        tenants_version: state.tenants.as_ref().map_or(0, |tenants| tenants.version),
        tenants: tenants(state),
        ..v1::NodeReport::default()
    }
}

fn tenants(state: &State) -> Vec<v1::TenantUsage> {
    let tenants = state.tenants.iter().flat_map(|document| &document.tenants);
    tenants
        .map(|tenant| v1::TenantUsage {
            tenant: tenant.id.0,
            used_bytes: state.tenant_bytes,
            ..v1::TenantUsage::default()
        })
        .collect()
}

/// Whoever is to have copies of what the node serves has them.
fn declared(document: &RingDocument, id: &NodeId) -> Vec<v1::Copies> {
    let owned = document.ring().slots_of(id);
    let wanted = document.wanted_replicas().into_iter();
    wanted
        .map(|(node, slots)| v1::Copies {
            node_id: node.to_string(),
            slots: slots.intersection(&owned).ranges().map(Into::into).collect(),
        })
        .filter(|copies| !copies.slots.is_empty())
        .collect()
}

fn sender(state: &State, epoch: Epoch) -> Sender {
    Sender {
        cluster_uid: state.uid.parse().unwrap(),
        epoch,
        node: Some((state.id.parse().unwrap(), state.incarnation)),
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Peer for Service {
    async fn push_tenants(
        &self,
        request: Request<v1::PushTenantsRequest>,
    ) -> Result<Response<v1::NodeReport>, Status> {
        let document = TenantsDocument::from_json(&request.into_inner().document)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        if self.state.borrow().deaf_to_tenants {
            return Err(Status::unimplemented("an older node"));
        }
        self.state.send_modify(|state| {
            let known = state.tenants.as_ref().map_or(0, |known| known.version);
            if document.cluster_uid.as_str() == state.uid && known < document.version {
                state.tenants = Some(document);
            }
        });
        Ok(Response::new(report(&self.state.borrow())))
    }

    async fn push_ring(&self, request: Request<v1::PushRingRequest>) -> Answer<v1::NodeReport> {
        if self.state.borrow().hangs {
            std::future::pending::<()>().await;
        }
        let document = RingDocument::from_json(&request.into_inner().document)
            .map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.state.send_modify(|state| {
            if state
                .document
                .as_ref()
                .is_none_or(|known| known.epoch < document.epoch)
            {
                state.document = Some(document);
            }
        });
        Ok(Response::new(report(&self.state.borrow())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::NodeReport, Status>> + Send>>;

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let changes = WatchStream::new(self.state.subscribe());
        let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(
            std::time::Duration::from_millis(50),
        ));
        let (state, alive, hangs) = (self.state.clone(), self.state.clone(), self.state.clone());
        let reports = changes
            .map(|_| ())
            .merge(ticks.map(|_| ()))
            .take_while(move |()| alive.borrow().alive)
            .filter(move |()| !hangs.borrow().hangs)
            .map(move |()| Ok(report(&state.borrow())));
        Ok(Response::new(Box::pin(reports)))
    }

    async fn fetch_ring(&self, _: Request<v1::FetchRingRequest>) -> Answer<v1::FetchRingReply> {
        let state = self.state.borrow();
        let document = state
            .document
            .as_ref()
            .ok_or_else(|| Status::not_found("no ring"))?;
        let sender = (&sender(&state, document.epoch)).into();
        Ok(Response::new(v1::FetchRingReply {
            sender: Some(sender),
            document: document.to_json().into(),
        }))
    }

    async fn exchange(&self, _: Request<v1::ExchangeRequest>) -> Answer<v1::ExchangeReply> {
        Err(Status::unimplemented("not a peer"))
    }

    type PrepareSlotStream = Pin<Box<dyn Stream<Item = Result<v1::SlotChunk, Status>> + Send>>;

    async fn prepare_slot(&self, _: Request<v1::PrepareSlotRequest>) -> Answer<Self::PrepareSlotStream> {
        Err(Status::unimplemented("not a peer"))
    }

    type ReplicateStream = Pin<Box<dyn Stream<Item = Result<v1::ReplicateReply, Status>> + Send>>;
    type ExecuteStream = Pin<Box<dyn Stream<Item = Result<v1::ExecuteReply, Status>> + Send>>;

    async fn take_over(
        &self,
        _: Request<v1::TakeOverRequest>,
    ) -> Result<Response<v1::TakeOverReply>, Status> {
        Err(Status::unimplemented("only nodes ask this"))
    }

    async fn replicate(
        &self,
        _: Request<tonic::Streaming<v1::ReplicateRequest>>,
    ) -> Answer<Self::ReplicateStream> {
        Err(Status::unimplemented("not a peer"))
    }

    async fn execute(
        &self,
        _: Request<tonic::Streaming<v1::ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn publish(&self, _: Request<v1::PublishRequest>) -> Answer<v1::PublishReply> {
        Err(Status::unimplemented("not a peer"))
    }

    async fn commit_slot(&self, _: Request<v1::CommitSlotRequest>) -> Answer<v1::CommitSlotReply> {
        Err(Status::unimplemented("not a peer"))
    }
}

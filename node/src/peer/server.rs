//! The peer protocol's server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::credentials::{Caller, LiveCredentials};
use annulus_proto::tenants::{TenantId, TenantsDocument};
use annulus_proto::v1::peer_server::{Peer, PeerServer};
use annulus_proto::{MessageError, Sender, v1};
use annulus_ring::{
    CommitRefusal, Committed, DocumentError, Incarnation, NodeId, Refusal, RingDocument, Slot, SlotError,
    SlotSet,
};
use futures::stream::unfold;
use futures::{Stream, StreamExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::debug;

use super::chunk::{pack, payload_bytes};
use super::copies::CopyStream;
use super::execute::{execute, first_message};
use super::incoming::{accept_all, check, opened};
use super::report::{report, reports};
use super::take_over::give_up;
use super::{CHUNK_BYTES_MAX, FREEZE_MAX, MESSAGE_BYTES_MAX, PeerContext};
use crate::clock;
use crate::cluster::ring_source::adopt_and_log;
use crate::store::{Keyspace, TenantKey};

/// Half-open connections are closed after these.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Calls at the same time on one connection.
const STREAMS_MAX: u32 = 256;

/// Large enough that a slot streams at the network's speed.
const WINDOW_BYTES: u32 = 4 << 20;

/// Serves the peer protocol until `stop`; then streams end and connections close. With credentials, only those are served
/// who prove that they belong to the cluster.
pub async fn serve(
    listener: TcpListener,
    credentials: Option<Arc<LiveCredentials>>,
    context: Arc<PeerContext>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let service = PeerServer::new(Service {
        context,
        stop: stop.clone(),
    })
    .max_decoding_message_size(MESSAGE_BYTES_MAX)
    .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (sender, receiver) = mpsc::channel(1);
    let accepting = tokio::spawn(accept_all(listener, credentials, sender));
    let connections = unfold(receiver, |mut receiver| async {
        Some((Ok::<_, io::Error>(receiver.recv().await?), receiver))
    });
    let stop_accepting = accepting.abort_handle();
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .serve_with_incoming_shutdown(service, connections, stop.cancelled_owned())
        .await;
    stop_accepting.abort();
    served
}

/// Ends freezes when they run out; for ever.
pub async fn expire_freezes(context: Arc<PeerContext>) {
    loop {
        match context.state.next_expiry_ms() {
            None => context.froze.notified().await,
            Some(until_ms) => {
                tokio::select! {
                    () = tokio::time::sleep_until(context.clock().moment(until_ms + 1)) => {}
                    () = context.froze.notified() => {}
                }
                context.state.expire_freezes(context.clock().now_ms());
            }
        }
    }
}

struct Service {
    context: Arc<PeerContext>,
    stop: CancellationToken,
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Service {
    fn check(&self, caller: &Caller, sender: Option<v1::Sender>) -> Result<Sender, Status> {
        check(&self.context, caller, sender)
    }

    /// The same for a message that only a node may send.
    fn check_node(
        &self,
        caller: &Caller,
        sender: Option<v1::Sender>,
    ) -> Result<(NodeId, Incarnation), Status> {
        self.check(caller, sender)?.node.ok_or_else(|| {
            Status::invalid_argument("only a node may say this; name the node and its incarnation")
        })
    }
}

pub(super) fn slot(number: u32) -> Result<Slot, Status> {
    Slot::try_from(number).map_err(|error: SlotError| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl Peer for Service {
    async fn push_tenants(
        &self,
        request: Request<v1::PushTenantsRequest>,
    ) -> Result<Response<v1::NodeReport>, Status> {
        let (caller, request) = opened(request);
        if self.check(&caller, request.sender)?.node.is_some() {
            return Err(Status::permission_denied(
                "only an operator may say who the tenants are",
            ));
        }
        let document = TenantsDocument::from_json(&request.document)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        // A higher version than the pushed one is no failure: the report tells it.
        match self.context.node.adopt_tenants(document) {
            Ok(_) => Ok(Response::new(report(&self.context))),
            Err(refusal) => Err(Status::failed_precondition(refusal.to_string())),
        }
    }

    type WatchStream = Streamed<v1::NodeReport>;
    type PrepareSlotStream = Streamed<v1::SlotChunk>;
    type ReplicateStream = Streamed<v1::ReplicateReply>;
    type ExecuteStream = Streamed<v1::ExecuteReply>;

    async fn push_ring(
        &self,
        request: Request<v1::PushRingRequest>,
    ) -> Result<Response<v1::NodeReport>, Status> {
        let (caller, request) = opened(request);
        // Of nodes, too: a newcomer knows nobody whom it could ask.
        self.check(&caller, request.sender)?;
        let document = RingDocument::from_json(&request.document)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        match adopt_and_log(&self.context.state, document, "push") {
            // A higher epoch than the pushed one is no failure: the report tells it.
            Ok(_) | Err(Refusal::OlderEpoch { .. }) => Ok(Response::new(report(&self.context))),
            Err(Refusal::Document(error @ DocumentError::OtherCluster { .. })) => {
                Err(Status::failed_precondition(error.to_string()))
            }
            Err(refusal) => Err(Status::invalid_argument(refusal.to_string())),
        }
    }

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (caller, request) = opened(request);
        self.check(&caller, request.sender)?;
        let reports = reports(Arc::clone(&self.context), request.interval_ms).map(Ok);
        Ok(Response::new(Box::pin(
            reports.take_until(self.stop.clone().cancelled_owned()),
        )))
    }

    async fn exchange(
        &self,
        request: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeReply>, Status> {
        let (caller, request) = opened(request);
        self.check(&caller, request.sender)?;
        Ok(Response::new(v1::ExchangeReply {
            sender: Some(self.context.sender()),
        }))
    }

    async fn fetch_ring(
        &self,
        request: Request<v1::FetchRingRequest>,
    ) -> Result<Response<v1::FetchRingReply>, Status> {
        let (caller, request) = opened(request);
        self.check(&caller, request.sender)?;
        let document = self
            .context
            .state
            .document()
            .ok_or_else(|| Status::not_found("this node has no ring yet"))?;
        let mut sender = self.context.sender();
        sender.epoch = document.epoch.0;
        Ok(Response::new(v1::FetchRingReply {
            sender: Some(sender),
            document: document.to_json().into(),
        }))
    }

    async fn prepare_slot(
        &self,
        request: Request<v1::PrepareSlotRequest>,
    ) -> Result<Response<Self::PrepareSlotStream>, Status> {
        let (caller, request) = opened(request);
        let (requester, incarnation) = self.check_node(&caller, request.sender)?;
        let slot = slot(request.slot)?;
        // Before the freeze: what waits is not kept from clients meanwhile.
        self.context.pace_allows().await;
        let freeze = Duration::from_millis(request.freeze_ms.into()).min(FREEZE_MAX);
        let until_ms = self.context.clock().now_ms() + u64::try_from(freeze.as_millis()).unwrap_or(u64::MAX);
        let frozen = self
            .context
            .state
            .freeze(slot, (&requester, incarnation), until_ms, clock::now_ms());
        let frozen = frozen.map_err(|refusal| Status::failed_precondition(refusal.to_string()))?;
        self.context.froze.notify_one();
        debug!(%slot, keys = frozen.keys.len(), target = %requester, "froze a slot");
        let keeps_copy = request.has_copy && self.context.state.is_required(slot, &requester);
        let outgoing = Outgoing {
            context: Arc::clone(&self.context),
            slot,
            freeze_id: frozen.freeze_id,
            keys: if keeps_copy { Vec::new() } else { frozen.keys },
            keeps_copy,
            sent: 0,
            ready: Vec::new().into_iter(),
            complete: false,
        };
        Ok(Response::new(Box::pin(unfold(outgoing, |mut outgoing| async {
            Some((outgoing.next().await?, outgoing))
        }))))
    }

    async fn take_over(
        &self,
        request: Request<v1::TakeOverRequest>,
    ) -> Result<Response<v1::TakeOverReply>, Status> {
        let (caller, request) = opened(request);
        let requester = self.check_node(&caller, request.sender)?;
        let slots = request.slots.into_iter().map(annulus_ring::SlotRange::try_from);
        let slots: Result<SlotSet, MessageError> = slots.collect();
        let slots = slots.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let given = give_up(&self.context, (&requester.0, requester.1), &slots).await;
        debug!(slots = given.len(), target = %requester.0, "gave slots to a copy");
        Ok(Response::new(v1::TakeOverReply {
            sender: Some(self.context.sender()),
            given: given.ranges().map(Into::into).collect(),
        }))
    }

    async fn replicate(
        &self,
        request: Request<tonic::Streaming<v1::ReplicateRequest>>,
    ) -> Result<Response<Self::ReplicateStream>, Status> {
        let (caller, changes) = opened(request);
        let replies = CopyStream::new(Arc::clone(&self.context), caller, changes);
        let replies = unfold(replies, |mut replies| async {
            Some((replies.next().await?, replies))
        });
        Ok(Response::new(Box::pin(
            replies.take_until(self.stop.clone().cancelled_owned()),
        )))
    }

    async fn execute(
        &self,
        request: Request<tonic::Streaming<v1::ExecuteRequest>>,
    ) -> Result<Response<Self::ExecuteStream>, Status> {
        let (caller, mut commands) = opened(request);
        let first = first_message(&mut commands).await?;
        self.check_node(&caller, first.sender.clone())?;
        let replies = execute(&self.context, first, commands).await?;
        Ok(Response::new(Box::pin(replies)))
    }

    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishReply>, Status> {
        let (caller, request) = opened(request);
        self.check_node(&caller, request.sender)?;
        let Self { context, .. } = self;
        let (store, relay) = (&context.node.store, &context.node.relay);
        let count = request.publications.len();
        relay.counters.received.add(count as u64);
        for publication in request.publications {
            // A tenant that nothing is known of has no clients here.
            let keyspace = match TenantId(publication.tenant) {
                TenantId::CLUSTER => Some(Keyspace::default()),
                tenant => store.find_space(tenant).map(Keyspace::from),
            };
            if let Some(keyspace) = keyspace {
                let pubsub = &keyspace.space(store).pubsub;
                pubsub.publish(&publication.channel, &publication.payload);
            }
        }
        Ok(Response::new(v1::PublishReply {
            sender: Some(context.sender()),
        }))
    }

    async fn commit_slot(
        &self,
        request: Request<v1::CommitSlotRequest>,
    ) -> Result<Response<v1::CommitSlotReply>, Status> {
        let (caller, request) = opened(request);
        let (requester, _) = self.check_node(&caller, request.sender)?;
        let slot = slot(request.slot)?;
        match self
            .context
            .state
            .commit(slot, request.freeze_id, self.context.clock().now_ms())
        {
            Ok(committed) => {
                if committed == Committed::Now {
                    self.context.counters.slots_out.add(1);
                    debug!(%slot, target = %requester, "handed a slot over");
                }
                Ok(Response::new(v1::CommitSlotReply {
                    sender: Some(self.context.sender()),
                }))
            }
            Err(refusal @ CommitRefusal::NotInForce { .. }) => Err(Status::aborted(refusal.to_string())),
        }
    }
}

/// A frozen slot on its way out. Dropped before its last chunk, it ends the freeze: whoever asked for it is gone
/// and can't commit what it never had.
struct Outgoing {
    context: Arc<PeerContext>,
    slot: Slot,
    freeze_id: u64,
    keys: Vec<TenantKey>,
    /// The target has a copy that is all it needs.
    keeps_copy: bool,
    /// How many of the keys have been read.
    sent: usize,
    /// Chunks that have been read and not been sent.
    ready: std::vec::IntoIter<Vec<v1::Entry>>,
    complete: bool,
}

impl Outgoing {
    /// The next chunk; the last one names the freeze, and waits until the slot's copies have everything.
    async fn next(&mut self) -> Option<Result<v1::SlotChunk, Status>> {
        if self.complete {
            return None;
        }
        let mut entries = self.ready.next();
        while entries.is_none() && self.sent < self.keys.len() {
            let rest = &self.keys[self.sent..];
            let Some((read, taken)) =
                self.context
                    .state
                    .read_frozen(self.slot, rest, CHUNK_BYTES_MAX, clock::now_ms())
            else {
                return Some(Err(Status::aborted(format!(
                    "the freeze of slot {} ended before all was sent",
                    self.slot
                ))));
            };
            self.sent += taken;
            self.ready = pack(read).into_iter();
            entries = self.ready.next();
        }
        self.complete = self.sent == self.keys.len() && self.ready.len() == 0;
        let entries = entries.unwrap_or_default();
        if self.complete {
            let journal = &self.context.node.store.journal;
            journal.unfenced(&[self.slot]).await;
            journal.copied(&[self.slot]).await;
        }
        let bytes = payload_bytes(&entries);
        self.context.counters.bytes_out.add(bytes);
        self.context.transferred(bytes);
        Some(Ok(v1::SlotChunk {
            entries,
            freeze_id: if self.complete { self.freeze_id } else { 0 },
            keep_copy: self.keeps_copy,
        }))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.complete {
            self.context.state.end_freeze(self.slot, self.freeze_id);
        }
    }
}

//! Commands of this node's clients, taken to whoever serves their slot.
//!
//! Each client thread has connections of its own. What is not known to have failed before it was executed is not repeated
//! here: a write that was done twice could undo somebody else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use annulus_proto::credentials::LiveCredentials;
use annulus_proto::tenants::TenantId;
use annulus_proto::v1::{ExecuteReply, ExecuteRequest};
use annulus_ring::{Address, Incarnation, NodeId, Slot};
use bytes::{Bytes, BytesMut};
use futures::stream;
use tonic::{Code, Status};

use super::links::{Links, Purpose};
use super::{CHUNK_BYTES_MAX, sender};
use crate::cluster::ClusterState;

/// An answer is waited for so long, piece by piece. That a peer is gone is noticed much sooner, by its silence.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// So many nodes are asked one after the other who serves a slot.
const HOPS_MAX: usize = 4;

/// Larger replies than these are no node's.
const REPLIES_BYTES_MAX: u64 = 1 << 31;

/// Why commands were not answered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ForwardError {
    /// They were not executed, and may be tried again.
    #[error("{0}")]
    NotExecuted(String),
    /// They may have been executed.
    #[error("{0}")]
    Unknown(String),
}

/// Where the first reply sends whoever asked.
fn moved_to(replies: &[u8]) -> Option<&str> {
    let rest = replies.strip_prefix(b"-MOVED ")?;
    let line = rest.split(|&byte| byte == b'\r').next()?;
    Some(std::str::from_utf8(line).ok()?.split_once(' ')?.1)
}

/// Takes commands to their slots' owners, for one thread.
pub struct Forwarder {
    state: Arc<ClusterState>,
    credentials: Option<Arc<LiveCredentials>>,
    links: Links,
    /// The ring by which the connections were looked through last.
    epoch: AtomicU64,
}

impl Forwarder {
    /// One for this node, without connections yet.
    pub fn new(state: Arc<ClusterState>, credentials: Option<Arc<LiveCredentials>>) -> Self {
        Self {
            links: Links::secured(credentials.clone()),
            state,
            credentials,
            epoch: AtomicU64::new(0),
        }
    }

    /// Another one, for another thread.
    #[must_use]
    pub fn another(&self) -> Self {
        Self::new(Arc::clone(&self.state), self.credentials.clone())
    }

    /// Has commands, all about that slot, answered by whoever serves it. Their replies are in RESP2.
    ///
    /// While slots move, only the two nodes between which one moves know who serves it; so whoever doesn't is asked who does.
    pub async fn execute(
        &self,
        slot: Slot,
        tenant: TenantId,
        commands: Bytes,
    ) -> Result<Bytes, ForwardError> {
        let own = &self.state.identity().node_id;
        let not_executed = |why: &str| ForwardError::NotExecuted(why.to_owned());
        let mut server = self.state.server_of(slot);
        self.forget_the_gone();
        for _ in 0..HOPS_MAX {
            let next = server.ok_or_else(|| not_executed("nobody serves the slot"))?;
            if next.0 == *own {
                break;
            }
            let replies = self.execute_at(next, tenant, commands.clone()).await?;
            let Some(address) = moved_to(&replies) else {
                return Ok(replies);
            };
            server = self.state.server_at(address);
        }
        Err(not_executed("the slot is on its way from one node to another"))
    }

    /// Has commands answered by that life of that member.
    async fn execute_at(
        &self,
        server: (NodeId, Incarnation, Address),
        tenant: TenantId,
        commands: Bytes,
    ) -> Result<Bytes, ForwardError> {
        let link = self.links.client_of(server, Purpose::Commands);
        let mut client = link.map_err(|error| ForwardError::NotExecuted(error.to_string()))?;
        let is_sent = Arc::new(AtomicBool::new(false));
        let messages = self.messages(tenant, commands, Arc::clone(&is_sent));
        let failed = |status: Status| {
            let refused = matches!(
                status.code(),
                Code::FailedPrecondition
                    | Code::ResourceExhausted
                    | Code::InvalidArgument
                    | Code::Unimplemented
            );
            if refused || !is_sent.load(Ordering::Acquire) {
                ForwardError::NotExecuted(status.message().to_owned())
            } else {
                ForwardError::Unknown(status.message().to_owned())
            }
        };
        let too_late = |_| failed(Status::deadline_exceeded("the slot's owner doesn't answer"));
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.execute(messages));
        let mut pieces = answer.await.map_err(too_late)?.map_err(failed)?.into_inner();
        let mut replies = BytesMut::new();
        let mut missing = None;
        loop {
            let piece = tokio::time::timeout(ANSWER_TIMEOUT, pieces.message());
            let Some(piece) = piece.await.map_err(too_late)?.map_err(failed)? else {
                break;
            };
            let ExecuteReply {
                replies: piece,
                bytes,
            } = piece;
            let left = *missing.get_or_insert(bytes);
            if left > REPLIES_BYTES_MAX || piece.len() as u64 > left {
                return Err(failed(Status::data_loss(
                    "the slot's owner answers more than it says",
                )));
            }
            if replies.is_empty() && piece.len() as u64 == left {
                return Ok(piece);
            }
            replies.reserve(usize::try_from(left).unwrap_or_default());
            replies.extend_from_slice(&piece);
            missing = Some(left - piece.len() as u64);
        }
        match missing {
            Some(0) => Ok(replies.freeze()),
            _ => Err(failed(Status::data_loss("the slot's owner broke off"))),
        }
    }

    fn messages(
        &self,
        tenant: TenantId,
        mut commands: Bytes,
        is_sent: Arc<AtomicBool>,
    ) -> impl futures::Stream<Item = ExecuteRequest> + Send + use<> {
        let sender = sender(&self.state);
        let mut first = Some((sender, tenant.0));
        let mut is_done = false;
        stream::iter(std::iter::from_fn(move || {
            if is_done {
                return None;
            }
            let piece = commands.split_to(commands.len().min(CHUNK_BYTES_MAX));
            is_done = commands.is_empty();
            if is_done {
                is_sent.store(true, Ordering::Release);
            }
            let (sender, tenant) = first
                .take()
                .map_or((None, 0), |(sender, tenant)| (Some(sender), tenant));
            Some(ExecuteRequest {
                sender,
                tenant,
                commands: piece,
                last: is_done,
            })
        }))
    }

    /// Closes the connections to whoever the ring doesn't list any more.
    fn forget_the_gone(&self) {
        let epoch = self.state.epoch().0;
        if self.epoch.swap(epoch, Ordering::Relaxed) != epoch
            && let Some(document) = self.state.document()
        {
            self.links.retain(&document);
        }
    }
}

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
use crate::charge::Charge;
use crate::cluster::ClusterState;
use crate::stats::ThreadStats;

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
    /// They were executed, and this node has no memory for the replies.
    #[error("there is no memory for the replies")]
    NoRoom,
}

/// Replies up to so many bytes are not charged.
const FREE_BYTES_MAX: usize = 16 << 10;

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

    /// Has commands, all about that slot, answered by whoever serves it. Their replies are in RESP2, and charged from the moment
    /// that it is known how long they are.
    ///
    /// While slots move, only the two nodes between which one moves know who serves it; so whoever doesn't is asked who does.
    pub async fn execute(
        &self,
        slot: Slot,
        tenant: TenantId,
        commands: Bytes,
        (mut charge, stats): (Charge, &ThreadStats),
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
            let mut has_room = |bytes| charge.set(bytes, stats);
            let replies = self.execute_at(next, tenant, commands.clone(), &mut has_room);
            let replies = replies.await?;
            let Some(address) = moved_to(&replies) else {
                return Ok(if replies.len() > FREE_BYTES_MAX {
                    charge.around(replies)
                } else {
                    replies
                });
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
        has_room: &mut (dyn FnMut(usize) -> bool + Send),
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
        let mut gathered = Gathered::default();
        loop {
            let piece = tokio::time::timeout(ANSWER_TIMEOUT, pieces.message());
            let Some(piece) = piece.await.map_err(too_late)?.map_err(failed)? else {
                return gathered
                    .whole()
                    .ok_or_else(|| failed(Status::data_loss("the slot's owner broke off")));
            };
            gathered.push(piece, has_room).map_err(|error| match error {
                Refused::TooMuch => failed(Status::data_loss("the slot's owner answers more than it says")),
                Refused::NoRoom => ForwardError::NoRoom,
            })?;
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

/// Why a piece of replies isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// It is more than was said.
    TooMuch,
    /// There is no memory for all of them.
    NoRoom,
}

/// Replies that come in pieces, the first of which says how long they are.
#[derive(Debug, Default)]
struct Gathered {
    /// The first piece as it came, if there was only one.
    first: Bytes,
    replies: BytesMut,
    missing: Option<u64>,
}

impl Gathered {
    /// One more piece. Memory for all is asked for before any of it is taken.
    fn push(&mut self, piece: ExecuteReply, has_room: &mut dyn FnMut(usize) -> bool) -> Result<(), Refused> {
        let ExecuteReply {
            replies: piece,
            bytes,
        } = piece;
        let is_first = self.missing.is_none();
        let missing = *self.missing.get_or_insert(bytes);
        if missing > REPLIES_BYTES_MAX || piece.len() as u64 > missing {
            return Err(Refused::TooMuch);
        }
        self.missing = Some(missing - piece.len() as u64);
        if is_first {
            let whole = usize::try_from(bytes).map_err(|_| Refused::TooMuch)?;
            if whole > FREE_BYTES_MAX && !has_room(whole) {
                return Err(Refused::NoRoom);
            }
            if piece.len() == whole {
                self.first = piece;
                return Ok(());
            }
            self.replies.reserve(whole);
        }
        self.replies.extend_from_slice(&piece);
        Ok(())
    }

    /// All of them, once they are there.
    fn whole(self) -> Option<Bytes> {
        (self.missing? == 0).then(|| {
            if self.replies.is_empty() {
                self.first
            } else {
                self.replies.freeze()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(bytes: u64, len: usize) -> ExecuteReply {
        ExecuteReply {
            replies: vec![b'x'; len].into(),
            bytes,
        }
    }

    #[test]
    fn memory_for_all_replies_is_asked_for_with_the_first_piece() {
        let long = FREE_BYTES_MAX as u64 + 1;
        // What the first piece says, how long the pieces are, what is asked for, and whether it is had.
        for (case, bytes, lens, asked, is_had, expected) in [
            ("few at once", 3, &[3][..], None, false, Ok(true)),
            ("few by and by", 5, &[3, 2], None, false, Ok(true)),
            ("many", long, &[1, 16 << 10], Some(long), true, Ok(true)),
            (
                "many at once",
                long,
                &[(16 << 10) + 1],
                Some(long),
                true,
                Ok(true),
            ),
            (
                "no room",
                1 << 30,
                &[1],
                Some(1 << 30),
                false,
                Err(Refused::NoRoom),
            ),
            ("broken off", 5, &[3], None, true, Ok(false)),
            (
                "more than was said",
                5,
                &[3, 3],
                None,
                true,
                Err(Refused::TooMuch),
            ),
            ("no node's", 1 << 40, &[3], None, true, Err(Refused::TooMuch)),
            ("nothing", 0, &[0], None, true, Ok(true)),
        ] {
            let (mut gathered, mut asked_for) = (Gathered::default(), None);
            let mut has_room = |bytes: usize| {
                asked_for = Some(bytes as u64);
                is_had
            };
            let pushed = lens.iter().enumerate().try_for_each(|(place, len)| {
                gathered.push(piece(if place == 0 { bytes } else { 0 }, *len), &mut has_room)
            });
            let whole = pushed.map(|()| gathered.whole().is_some_and(|whole| whole.len() as u64 == bytes));
            assert_eq!((whole, asked_for), (expected, asked), "{case}");
        }
    }
}

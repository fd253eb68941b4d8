//! Takes changes of slots of which this node has, or is given, copies.
//!
//! Messages are taken in order, each answered when it is stored. The first that is refused ends the stream.

use std::sync::Arc;

use annulus_proto::credentials::Caller;
use annulus_proto::tenants::TenantId;
use annulus_proto::v1;
use annulus_proto::v1::replicate_reply::Refusal;
use annulus_proto::v1::slot_change::Step;
use annulus_ring::{Incarnation, NodeId, SlotSet};
use tonic::{Status, Streaming};
use tracing::debug;

use super::PeerContext;
use super::chunk::{Joiner, payload_bytes};
use super::incoming::check;
use super::server::slot;
use crate::clock;
use crate::cluster::{CopyChange, CopyRefusal};

/// One stream of changes.
pub(super) struct CopyStream {
    context: Arc<PeerContext>,
    caller: Caller,
    messages: Streaming<v1::ReplicateRequest>,
    /// Parts of an entry may come in several messages.
    joiner: Joiner,
    /// Slots whose fill has begun in this stream.
    begun: SlotSet,
    is_over: bool,
}

impl CopyStream {
    pub(super) fn new(
        context: Arc<PeerContext>,
        caller: Caller,
        messages: Streaming<v1::ReplicateRequest>,
    ) -> Self {
        let joiner = Joiner::new(context.node.store.budget_bytes());
        Self {
            context,
            caller,
            messages,
            joiner,
            begun: SlotSet::new(),
            is_over: false,
        }
    }

    /// The answer to the next message.
    pub(super) async fn next(&mut self) -> Option<Result<v1::ReplicateReply, Status>> {
        if self.is_over {
            return None;
        }
        let reply = match self.messages.message().await {
            Ok(message) => self.take(message?),
            Err(status) => Err(status),
        };
        self.is_over = !matches!(&reply, Ok(reply) if reply.refusal() == Refusal::None);
        Some(reply)
    }

    fn take(&mut self, message: v1::ReplicateRequest) -> Result<v1::ReplicateReply, Status> {
        let sender = check(&self.context, &self.caller, message.sender)?;
        let Some((id, incarnation)) = sender.node else {
            return Err(Status::invalid_argument("only a node has changes to tell of"));
        };
        let mut reply = v1::ReplicateReply {
            sender: None,
            lsn: message.lsn,
            sent_ms: message.sent_ms,
            refusal: Refusal::None.into(),
            slot: 0,
            clock_ms: 0,
        };
        // Nothing of it is looked at before it is known that both mean the same ring.
        let refused = if sender.epoch == self.context.state.epoch() {
            let changes = self.read(message.changes)?;
            self.apply((&id, incarnation), (sender.epoch, message.stream), changes)
        } else {
            Err(CopyRefusal::OtherEpoch(sender.epoch))
        };
        if let Err(refusal) = refused {
            debug!(from = %id, %refusal, "refused changes");
            let (code, slot) = match refusal {
                CopyRefusal::OtherEpoch(_) => (Refusal::Epoch, 0),
                CopyRefusal::OldStream => (Refusal::Stream, 0),
                CopyRefusal::NotACopy(slot) => (Refusal::Slot, slot.number()),
                CopyRefusal::NoRoom(slot) => (Refusal::Room, slot.number()),
            };
            reply.refusal = code.into();
            reply.slot = slot.into();
        }
        let mut own = self.context.sender();
        if reply.refusal() == Refusal::None {
            // A lease is of the epoch at which it was given.
            own.epoch = sender.epoch.0;
            let state = &self.context.state;
            state.note_covered((&id, incarnation), sender.epoch, message.covers_ms);
            reply.clock_ms = self.context.node.store.journal.clock().now_ms();
        }
        reply.sender = Some(own);
        Ok(reply)
    }

    fn read(&mut self, changes: Vec<v1::SlotChange>) -> Result<Vec<CopyChange>, Status> {
        let mut read = Vec::with_capacity(changes.len());
        for change in changes {
            self.context.counters.bytes_in.add(payload_bytes(&change.entries));
            let step = change.step();
            let entries = self.joiner.join(change.entries);
            let slot = slot(change.slot)?;
            match step {
                Step::Apply => {}
                Step::Begin => {
                    self.begun.insert(slot);
                }
                // What came before may have been dropped with an earlier stream.
                Step::Complete if self.begun.remove(slot) => {}
                Step::Complete => {
                    return Err(Status::failed_precondition(
                        "COMPLETE without BEGIN in this stream",
                    ));
                }
            }
            let of_cluster = change.removed.into_iter().map(|key| (0, key));
            let of_tenants = change.removed_of_tenants.into_iter();
            let removed = of_cluster
                .chain(of_tenants.map(|removed| (removed.tenant, removed.key)))
                .map(|(tenant, key)| (TenantId(tenant), Box::from(&*key)));
            read.push(CopyChange {
                slot,
                begins: step == Step::Begin,
                completes: step == Step::Complete,
                entries: entries.map_err(|error| Status::invalid_argument(error.to_string()))?,
                removed: removed.collect(),
            });
        }
        Ok(read)
    }

    fn apply(
        &self,
        sender: (&NodeId, Incarnation),
        (epoch, stream): (annulus_ring::Epoch, u64),
        changes: Vec<CopyChange>,
    ) -> Result<(), CopyRefusal> {
        self.context
            .state
            .apply_copies(sender, (epoch, stream), changes, clock::now_ms())
    }
}

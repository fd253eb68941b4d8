//! Slots that go to a node which has whole copies of them: many at once, since no entries travel.
//!
//! The source freezes them, waits until their copies have everything, and gives them up. The target repeats its request
//! until it knows the outcome; what it was given before it is told again.

use std::sync::Arc;
use std::time::Duration;

use annulus_proto::v1;
use annulus_ring::{FreezeRefusal, Frozen, Incarnation, NodeId, Slot, SlotRange, SlotSet};
use tokio::time::{sleep, timeout};
use tonic::{Request, Status};
use tracing::debug;

use super::PeerContext;
use super::backoff::Backoff;
use super::gossip::bounded;
use super::links::{Links, Purpose};
use crate::cluster::PullTicket;

/// Slots that are frozen at the same time: the round trip is shared by many, and few clients notice.
pub(super) const SLOTS_MAX: usize = 512;

/// How long the slots' copies may take to get what they lack.
const FREEZE: Duration = Duration::from_secs(1);

/// How long an answer may take: a freeze, and some.
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// Freezes that end when this is dropped, but for those that were committed.
struct Freezes<'a> {
    context: &'a PeerContext,
    slots: Vec<(Slot, u64)>,
}

impl Drop for Freezes<'_> {
    fn drop(&mut self) {
        for &(slot, freeze_id) in &self.slots {
            self.context.state.end_freeze(slot, freeze_id);
        }
    }
}

/// Source: gives up those of the slots that the requester may have.
pub(super) async fn give_up(
    context: &PeerContext,
    requester: (&NodeId, Incarnation),
    slots: &SlotSet,
) -> SlotSet {
    let freeze_ms = u64::try_from(ANSWER_MAX.as_millis()).unwrap_or(u64::MAX);
    let until_ms = context.clock().now_ms() + freeze_ms;
    let mut given = SlotSet::new();
    let mut freezes = Freezes {
        context,
        slots: Vec::new(),
    };
    for slot in slots.iter().take(SLOTS_MAX) {
        match context.state.freeze_only(slot, requester, until_ms) {
            Ok((freeze_id, frozen)) => {
                freezes.slots.push((slot, freeze_id));
                if frozen == Frozen::NothingHere || !context.state.is_required(slot, requester.0) {
                    freezes.slots.pop();
                    context.state.end_freeze(slot, freeze_id);
                }
            }
            Err(FreezeRefusal::HandedOver(_)) => {
                given.insert(slot);
            }
            Err(FreezeRefusal::NoHandoff { .. } | FreezeRefusal::Cancelled(_)) => {}
        }
    }
    context.froze.notify_one();
    let frozen: Vec<Slot> = freezes.slots.iter().map(|&(slot, _)| slot).collect();
    let journal = &context.node.store.journal;
    journal.unfenced(&frozen).await;
    if timeout(FREEZE, journal.copied(&frozen)).await.is_err() {
        return given;
    }
    let now_ms = context.clock().now_ms();
    freezes.slots.retain(|&(slot, freeze_id)| {
        let committed = context.state.commit(slot, freeze_id, now_ms).is_ok();
        if committed {
            given.insert(slot);
            context.counters.slots_out.add(1);
        }
        !committed
    });
    given
}

/// What became of slots that were to be taken over.
pub(super) struct TakenOver {
    /// They are served here.
    pub(super) activated: usize,
    /// They were not given, and are to be pulled.
    pub(super) left: Vec<Slot>,
}

/// Target: takes over slots of which this node has whole copies.
pub(super) async fn take_over(
    context: Arc<PeerContext>,
    links: Arc<Links>,
    source: NodeId,
    tickets: Vec<PullTicket>,
) -> TakenOver {
    let mut backoff = Backoff::new(context.state.identity().incarnation.0);
    // Until it is known whose they are, commands for them wait here.
    let moving = &context.node.store.moving;
    let mut arriving: Vec<_> = tickets.iter().map(|ticket| moving.arrive(ticket.slot)).collect();
    let given = loop {
        match ask(&context, &links, &source, &tickets).await {
            Ok(given) => break given,
            Err(error) => {
                debug!(%source, %error, "the outcome of taking slots over is unknown, asking again");
                if !tickets.iter().any(|&ticket| context.state.is_current(ticket)) {
                    break SlotSet::new();
                }
                sleep(backoff.next()).await;
            }
        }
    };
    let mut taken = TakenOver {
        activated: 0,
        left: Vec::new(),
    };
    for ticket in tickets {
        if !context.state.is_current(ticket) {
            continue;
        }
        if given.contains(ticket.slot) {
            taken.activated += usize::from(context.state.activate(ticket).is_ok());
        } else {
            context.state.abandon(ticket);
            taken.left.push(ticket.slot);
        }
    }
    arriving.clear();
    taken
}

async fn ask(
    context: &PeerContext,
    links: &Links,
    source: &NodeId,
    tickets: &[PullTicket],
) -> Result<SlotSet, Status> {
    let unavailable = |error: &dyn std::fmt::Display| Status::unavailable(error.to_string());
    let member = context
        .state
        .member(source)
        .ok_or_else(|| unavailable(&"the ring has no such member"))?;
    let mut client = links
        .client(&member, Purpose::Handoff)
        .map_err(|error| unavailable(&error))?;
    let slots: SlotSet = tickets.iter().map(|ticket| ticket.slot).collect();
    let request = Request::new(v1::TakeOverRequest {
        sender: Some(context.sender()),
        slots: slots.ranges().map(Into::into).collect(),
    });
    let reply = bounded(ANSWER_MAX, client.take_over(request)).await?;
    let given = reply.given.into_iter().map(SlotRange::try_from);
    given
        .collect::<Result<SlotSet, _>>()
        .map_err(|error| unavailable(&error))
}

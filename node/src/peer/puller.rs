//! Carries out the handoffs towards this node: slot by slot, a few at a time from each source.
//!
//! The order within a slot is the whole point: everything of the snapshot is in the store before the commit is
//! sent, the slot is served only after the source's yes, and while the outcome of a commit is unknown it is
//! repeated, never guessed. A slot whose freeze ran out is dropped and begun again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::v1::{CommitSlotRequest, PrepareSlotRequest, SlotChunk};
use annulus_ring::{Epoch, NodeId, Slot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Code, Request, Status, Streaming};
use tracing::{debug, info, warn};

use super::chunk::{JoinError, Joiner, payload_bytes};
use super::gossip::bounded;
use super::links::{Links, Purpose};
use super::take_over::{self, TakenOver};
use super::{PeerContext, backoff::Backoff};
use crate::clock;
use crate::cluster::{PullTicket, ReceiveError};

/// Slots that are pulled from one source at the same time: enough to fill the time that messages travel, few
/// enough that hardly any of the source's slots refuse writes at a moment.
const SLOTS_IN_FLIGHT_MAX: usize = 16;

/// How long the source may refuse writes to a slot on our behalf, at first. Nearly all slots take milliseconds;
/// one that is too large for this gets more time by each attempt, up to the source's limit of a minute.
const FREEZE_FIRST: Duration = Duration::from_secs(4);
const FREEZE_LAST: Duration = Duration::from_mins(1);

/// A source that sends nothing for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const COMMIT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a slot was not pulled this time.
#[derive(Debug, thiserror::Error)]
enum PullError {
    #[error("{} {:?}", .0.message(), .0.code())]
    Call(#[from] Status),
    #[error(transparent)]
    Link(#[from] tonic::transport::Error),
    #[error("the source sent nothing for {} s", SILENCE_MAX.as_secs())]
    Silence,
    #[error("the source ended its answer before the last chunk")]
    CutShort,
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error("the ring has no member {0}")]
    NoSource(NodeId),
}

/// A task that ended.
enum Ended {
    Pull(Pulled),
    TakeOver(NodeId, TakenOver),
}

/// What became of one slot.
struct Pulled {
    source: NodeId,
    slot: Slot,
    /// The epoch that asked for it.
    epoch: Epoch,
    attempt: Attempt,
}

enum Attempt {
    /// It is served here.
    Activated,
    /// The document changed; what is to be done is read from it anew.
    Void,
    /// To be begun again.
    Failed { error: PullError, freeze_ran_out: bool },
}

/// What is to be pulled from one source.
struct Source {
    queue: VecDeque<Slot>,
    /// Slots of which this node has whole copies.
    copies: Vec<Slot>,
    in_flight: usize,
    backoff: Backoff,
    not_before: Instant,
    freeze: Duration,
}

/// Pulls whatever the adopted document says; for ever.
pub async fn pull_handoffs(context: Arc<PeerContext>, links: Arc<Links>) {
    let mut puller = Puller {
        context,
        links,
        epoch: Epoch::NONE,
        sources: BTreeMap::new(),
        pulls: JoinSet::new(),
        begun: None,
    };
    let mut ring = puller.context.state.changes();
    loop {
        ring.mark_unchanged();
        puller.follow_document();
        let wake = puller.begin_slots();
        tokio::select! {
            changed = ring.changed() => if changed.is_err() { return },
            Some(ended) = puller.pulls.join_next() => match ended {
                Ok(Ended::Pull(slot)) => puller.finish(slot),
                Ok(Ended::TakeOver(source, taken)) => puller.finish_take_over(&source, taken),
                Err(error) => warn!(%error, "a pull ended without an outcome"),
            },
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
        }
    }
}

impl Source {
    fn is_done(&self) -> bool {
        self.in_flight == 0 && self.queue.is_empty() && self.copies.is_empty()
    }
}

struct Puller {
    context: Arc<PeerContext>,
    links: Arc<Links>,
    /// The document that the queues were made from.
    epoch: Epoch,
    sources: BTreeMap<NodeId, Source>,
    pulls: JoinSet<Ended>,
    /// When this epoch's pulling began, and how many slots it has brought, for the log.
    begun: Option<(Instant, u32)>,
}

impl Puller {
    /// Makes the queues anew when the document is another one. Pulls in flight go on under it, if it has them.
    fn follow_document(&mut self) {
        if self.context.state.epoch() == self.epoch {
            return;
        }
        let (epoch, wanted) = self.context.state.wanted();
        self.epoch = epoch;
        self.context.waits.lock().clear();
        self.begun = if wanted.is_empty() {
            None
        } else {
            Some((Instant::now(), 0))
        };
        for source in self.sources.values_mut() {
            source.queue.clear();
            source.copies.clear();
            source.not_before = Instant::now();
        }
        let seed = self.context.state.identity().incarnation.0;
        for wanted in wanted {
            let source = self.sources.entry(wanted.source).or_insert_with(|| Source {
                queue: VecDeque::new(),
                copies: Vec::new(),
                in_flight: 0,
                backoff: Backoff::new(seed),
                not_before: Instant::now(),
                freeze: FREEZE_FIRST,
            });
            if self.context.state.has_whole_copy(wanted.slot) {
                source.copies.push(wanted.slot);
            } else {
                source.queue.push_back(wanted.slot);
            }
        }
        self.sources.retain(|_, source| !source.is_done());
    }

    /// Begins as many slots as may be in flight; returns when to look again because of a source that is left in peace.
    fn begin_slots(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut wake: Option<Instant> = None;
        for (id, source) in &mut self.sources {
            if source.queue.is_empty() && source.copies.is_empty() {
                continue;
            }
            if source.not_before > now {
                wake = Some(wake.map_or(source.not_before, |wake| wake.min(source.not_before)));
                continue;
            }
            if source.in_flight == 0 && !source.copies.is_empty() {
                let count = source.copies.len().min(take_over::SLOTS_MAX);
                let slots = source.copies.drain(..count);
                let tickets: Vec<PullTicket> = slots
                    .filter_map(|slot| self.context.state.begin(slot).ok())
                    .collect();
                source.in_flight += 1;
                let (context, links) = (Arc::clone(&self.context), Arc::clone(&self.links));
                let source = id.clone();
                self.pulls.spawn(async move {
                    let taken = take_over::take_over(context, links, source.clone(), tickets).await;
                    Ended::TakeOver(source, taken)
                });
                continue;
            }
            while source.in_flight < SLOTS_IN_FLIGHT_MAX
                && let Some(slot) = source.queue.pop_front()
            {
                // Refused when the document has just changed: the queues are made anew then.
                let Ok(ticket) = self.context.state.begin(slot) else {
                    continue;
                };
                source.in_flight += 1;
                let (context, links) = (Arc::clone(&self.context), Arc::clone(&self.links));
                let (source, epoch, freeze) = (id.clone(), self.epoch, source.freeze);
                self.pulls.spawn(async move {
                    let attempt = pull(&context, &links, &source, ticket, freeze).await;
                    Ended::Pull(Pulled {
                        source,
                        slot,
                        epoch,
                        attempt,
                    })
                });
            }
        }
        wake
    }

    fn finish(&mut self, pulled: Pulled) {
        let Pulled {
            source: id,
            slot,
            epoch,
            attempt,
        } = pulled;
        let Some(source) = self.sources.get_mut(&id) else {
            return;
        };
        source.in_flight -= 1;
        match attempt {
            Attempt::Activated => {
                self.context.counters.slots_in.add(1);
                source.backoff.reset();
                self.context.waits.lock().remove(&id);
                if let Some((_, slots)) = &mut self.begun {
                    *slots += 1;
                }
            }
            Attempt::Void => debug!(%slot, source = %id, "a pull is not wanted any more"),
            Attempt::Failed {
                error,
                freeze_ran_out,
            } => {
                self.context.counters.pulls_failed.add(1);
                if freeze_ran_out {
                    source.freeze = (source.freeze * 2).min(FREEZE_LAST);
                }
                // Failures of slots that were in flight together count once.
                if source.not_before <= Instant::now() {
                    let delay = source.backoff.next();
                    source.not_before = Instant::now() + delay;
                    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                    info!(%slot, source = %id, %error, delay_ms, "a pull failed and will be begun again");
                }
                self.context
                    .waits
                    .lock()
                    .insert(id.clone(), format!("slot {slot}: {error}"));
                source.queue.push_back(slot);
                if epoch != self.epoch {
                    // The queues were made while the slot was in flight, and it may have another source now.
                    self.epoch = Epoch::NONE;
                }
            }
        }
        if source.is_done() {
            self.sources.remove(&id);
        }
        self.note_end();
    }

    fn finish_take_over(&mut self, id: &NodeId, taken: TakenOver) {
        let Some(source) = self.sources.get_mut(id) else {
            return;
        };
        source.in_flight -= 1;
        self.context.counters.slots_in.add(taken.activated as u64);
        if let Some((_, slots)) = &mut self.begun {
            *slots += u32::try_from(taken.activated).unwrap_or(u32::MAX);
        }
        source.queue.extend(taken.left);
        if source.is_done() {
            self.sources.remove(id);
        }
        self.note_end();
    }

    fn note_end(&mut self) {
        if self.sources.is_empty()
            && let Some((since, slots)) = self.begun.take()
        {
            let elapsed_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            info!(epoch = %self.epoch, slots, elapsed_ms, "no slot is left to pull");
        }
    }
}

/// Pulls one slot. Whatever the outcome, the ticket is spent afterwards.
async fn pull(
    context: &PeerContext,
    links: &Links,
    source: &NodeId,
    ticket: PullTicket,
    freeze: Duration,
) -> Attempt {
    let failed = |error: PullError| {
        if !context.state.is_current(ticket) {
            return Attempt::Void;
        }
        context.state.abandon(ticket);
        let freeze_ran_out = matches!(&error, PullError::Call(status) if status.code() == Code::Aborted);
        Attempt::Failed {
            error,
            freeze_ran_out,
        }
    };
    let freeze_id = match receive_slot(context, links, source, ticket, freeze).await {
        Ok(freeze_id) => freeze_id,
        Err(error) => return failed(error),
    };
    // Until it is known whose it is, commands for it wait here.
    let _arriving = context.node.store.moving.arrive(ticket.slot);
    match commit(context, links, source, ticket, freeze_id).await {
        Ok(()) => context
            .state
            .activate(ticket)
            .map_or(Attempt::Void, |()| Attempt::Activated),
        Err(error) => failed(error),
    }
}

/// Freezes the slot at its source and stores what it sends; returns the freeze to commit.
async fn receive_slot(
    context: &PeerContext,
    links: &Links,
    source: &NodeId,
    ticket: PullTicket,
    freeze: Duration,
) -> Result<u64, PullError> {
    let member = context
        .state
        .member(source)
        .ok_or_else(|| PullError::NoSource(source.clone()))?;
    let mut client = links.client(&member, Purpose::Handoff)?;
    let request = Request::new(PrepareSlotRequest {
        sender: Some(context.sender()),
        slot: ticket.slot.number().into(),
        freeze_ms: u32::try_from(freeze.as_millis()).unwrap_or(u32::MAX),
        has_copy: context.state.has_whole_copy(ticket.slot),
    });
    let mut chunks: Streaming<SlotChunk> = bounded(SILENCE_MAX, client.prepare_slot(request)).await?;
    let mut joiner = Joiner::new(context.node.store.budget_bytes());
    let mut is_first = true;
    loop {
        let chunk = timeout(SILENCE_MAX, chunks.message())
            .await
            .map_err(|_| PullError::Silence)??;
        let chunk = chunk.ok_or(PullError::CutShort)?;
        if std::mem::take(&mut is_first) && !chunk.keep_copy {
            context.state.forget_copy(ticket);
        }
        context.counters.bytes_in.add(payload_bytes(&chunk.entries));
        let entries = joiner.join(chunk.entries)?;
        if !entries.is_empty() {
            let evicted = context.state.receive(ticket, entries, clock::now_ms())?;
            context.thread_stats.evicted_keys.add(evicted);
        }
        if chunk.freeze_id > 0 {
            joiner.finish()?;
            return Ok(chunk.freeze_id);
        }
    }
}

/// Commits until the outcome is known, or the document made it irrelevant. An error means that the source has
/// not given the slot up by this freeze, and never will.
async fn commit(
    context: &PeerContext,
    links: &Links,
    source: &NodeId,
    ticket: PullTicket,
    freeze_id: u64,
) -> Result<(), PullError> {
    let mut backoff = Backoff::new(context.state.identity().incarnation.0);
    loop {
        match send_commit(context, links, source, ticket, freeze_id).await {
            Ok(()) => return Ok(()),
            Err(PullError::Call(status)) if status.code() == Code::Aborted => return Err(status.into()),
            Err(error) if !context.state.is_current(ticket) => return Err(error),
            Err(error) => {
                let slot = ticket.slot;
                context
                    .waits
                    .lock()
                    .insert(source.clone(), format!("slot {slot}: commit unanswered: {error}"));
                debug!(%slot, %source, %error, "the outcome of a commit is unknown, repeating it");
                sleep(backoff.next()).await;
            }
        }
    }
}

async fn send_commit(
    context: &PeerContext,
    links: &Links,
    source: &NodeId,
    ticket: PullTicket,
    freeze_id: u64,
) -> Result<(), PullError> {
    let member = context
        .state
        .member(source)
        .ok_or_else(|| PullError::NoSource(source.clone()))?;
    let mut client = links.client(&member, Purpose::Handoff)?;
    let slot = ticket.slot.number().into();
    let request = Request::new(CommitSlotRequest {
        sender: Some(context.sender()),
        slot,
        freeze_id,
    });
    bounded(COMMIT_TIMEOUT, client.commit_slot(request)).await?;
    Ok(())
}

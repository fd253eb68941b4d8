//! Sends changes to the nodes that have, or are given, copies of what is served here: a stream for each.
//!
//! A stream carries changed keys with the values that they have when they are sent, and between them, as far as there is
//! room, whole slots that the neighbour is to be given. A message without changes is a heartbeat. What a stream had not
//! acknowledged when it ended is sent again by the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::tenants::TenantId;
use annulus_proto::v1;
use annulus_proto::v1::replicate_reply::Refusal;
use annulus_proto::v1::slot_change::Step;
use annulus_proto::v1::{ReplicateReply, ReplicateRequest, SlotChange};
use annulus_ring::{Epoch, NodeId, Slot};
use futures::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tonic::{Status, Streaming};
use tracing::debug;

use super::chunk::{pack, payload_bytes};
use super::links::{Links, Purpose};
use super::{CHUNK_BYTES_MAX, PeerContext};
use crate::clock;
use crate::journal::{Changed, Link};
use crate::store::{Entry, TenantKey};

/// How often a neighbour hears of this node at least: a lease lasts some of these.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// A neighbour that answers nothing for this long is connected to anew.
const SILENCE_MAX: Duration = Duration::from_millis(1500);

/// How long to wait before a stream that ended is opened again.
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(300);

/// What may be on its way unanswered: messages, and bytes of slots that are filled. Changes go ahead of these.
const MESSAGES_IN_FLIGHT_MAX: usize = 64;
const FILL_BYTES_IN_FLIGHT_MAX: u64 = 4 << 20;

/// What a slot's frame in a message takes, roughly.
const SLOT_BYTES: usize = 16;

/// Small slots share a message of about this size.
const FILL_MESSAGE_BYTES: usize = 128 << 10;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("{} {:?}", .0.message(), .0.code())]
    Call(#[from] Status),
    #[error(transparent)]
    Link(#[from] tonic::transport::Error),
    #[error("the ring has no such member any more")]
    NoMember,
    #[error("nothing was answered for {} ms", SILENCE_MAX.as_millis())]
    Silence,
    #[error("the ring has another epoch")]
    OtherEpoch,
    #[error("it was closed")]
    Closed,
    #[error("{refusal:?} was refused, slot {slot}")]
    Refused { refusal: Refusal, slot: u32 },
}

/// Keeps a stream to each neighbour; for ever.
pub async fn replicate(context: Arc<PeerContext>, links: Arc<Links>) {
    let mut streams: BTreeMap<NodeId, (Arc<Link>, AbortHandle)> = BTreeMap::new();
    let mut ring = context.state.changes();
    loop {
        ring.mark_unchanged();
        let neighbours = context.state.neighbours();
        streams.retain(|id, (link, task)| {
            let stays = neighbours
                .iter()
                .any(|(member, other)| member.id == *id && Arc::ptr_eq(link, other));
            if !stays {
                task.abort();
            }
            stays
        });
        for (member, link) in neighbours {
            streams.entry(member.id).or_insert_with(|| {
                let task = keep_stream(Arc::clone(&context), Arc::clone(&links), Arc::clone(&link));
                (link, tokio::spawn(task).abort_handle())
            });
        }
        if ring.changed().await.is_err() {
            return;
        }
    }
}

async fn keep_stream(context: Arc<PeerContext>, links: Arc<Links>, link: Arc<Link>) {
    let mut retry = RETRY_MIN;
    loop {
        let mut stream = Stream::new(&context, &link);
        let Err(end) = stream.run(&links).await;
        if stream.answered {
            retry = RETRY_MIN;
        }
        debug!(peer = %link.id, %end, "a stream of changes ended");
        link.requeue();
        context.state.fills_interrupted(&link);
        sleep(retry).await;
        retry = (retry * 2).min(RETRY_MAX);
    }
}

/// A message that was sent and not answered.
struct InFlight {
    fill_bytes: u64,
    /// Slots that are whole with it.
    whole: Vec<Slot>,
}

/// A slot of which only part has been sent.
struct PartialFill {
    slot: Slot,
    keys: Vec<TenantKey>,
    sent: usize,
}

/// What is put into one message.
#[derive(Default)]
struct Content {
    changes: Vec<SlotChange>,
    bytes: usize,
    /// It is part of what the neighbour is given, not of what changed.
    fills: bool,
    /// Slots that are whole with it.
    whole: Vec<Slot>,
}

struct Stream<'a> {
    context: &'a PeerContext,
    link: &'a Link,
    in_flight: VecDeque<InFlight>,
    fill_bytes_in_flight: u64,
    fill: Option<PartialFill>,
    /// Everything up to this lsn has been sent by this stream.
    lsn: u64,
    /// The neighbour's clock in its last answer.
    heard_ms: u64,
    /// What that was when everything up to `lsn` was taken to be sent: it is no older than that.
    covers_ms: u64,
    answered: bool,
    /// The ring that it is about; it ends with it.
    epoch: Epoch,
    number: u64,
}

impl<'a> Stream<'a> {
    fn new(context: &'a PeerContext, link: &'a Link) -> Self {
        Self {
            context,
            link,
            in_flight: VecDeque::new(),
            fill_bytes_in_flight: 0,
            fill: None,
            lsn: 0,
            heard_ms: 0,
            covers_ms: 0,
            answered: false,
            epoch: context.state.epoch(),
            number: context.node.store.journal.open_stream(),
        }
    }

    async fn run(&mut self, links: &Links) -> Result<std::convert::Infallible, StreamEnd> {
        let member = self
            .context
            .state
            .member(&self.link.id)
            .ok_or(StreamEnd::NoMember)?;
        let mut client = links.client(&member, Purpose::Replication)?;
        let (sender, mut receiver) = mpsc::channel(4);
        let messages = poll_fn(move |context| receiver.poll_recv(context));
        let opened = timeout(SILENCE_MAX, client.replicate(messages)).await;
        let mut replies: Streaming<ReplicateReply> = opened.map_err(|_| StreamEnd::Silence)??.into_inner();
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let may_send = self.in_flight.len() < MESSAGES_IN_FLIGHT_MAX;
            tokio::select! {
                reply = replies.message() => {
                    heard = Instant::now();
                    self.take_reply(&reply?.ok_or(StreamEnd::Closed)?)?;
                }
                () = self.link.wait(), if may_send => {}
                _ = heartbeat.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(StreamEnd::Silence);
                    }
                    self.send(&sender, Content::default()).await?;
                }
            }
            if self.context.state.epoch() != self.epoch {
                return Err(StreamEnd::OtherEpoch);
            }
            if self.in_flight.len() < MESSAGES_IN_FLIGHT_MAX {
                self.send_changes(&sender).await?;
            }
            while self.in_flight.len() < MESSAGES_IN_FLIGHT_MAX
                && self.fill_bytes_in_flight < FILL_BYTES_IN_FLIGHT_MAX
                && self.context.may_transfer()
            {
                let contents = self.read_fills();
                if contents.is_empty() {
                    break;
                }
                // All at once: a change that went in between would be followed by what was before it.
                for content in contents {
                    self.send(&sender, content).await?;
                }
            }
        }
    }

    fn take_reply(&mut self, reply: &ReplicateReply) -> Result<(), StreamEnd> {
        let context = self.context;
        if reply.refusal() != Refusal::None {
            if reply.refusal() == Refusal::Epoch {
                // Whoever has the lower epoch fetches; this is for the case that it is this node.
                context.newer_epoch.notify_one();
            }
            return Err(StreamEnd::Refused {
                refusal: reply.refusal(),
                slot: reply.slot,
            });
        }
        if context.state.epoch() != self.epoch {
            return Err(StreamEnd::OtherEpoch);
        }
        let Some(sent) = self.in_flight.pop_front() else {
            return Err(StreamEnd::Closed);
        };
        self.answered = true;
        self.heard_ms = reply.clock_ms;
        self.fill_bytes_in_flight -= sent.fill_bytes;
        let epoch = Epoch(reply.sender.as_ref().map_or(0, |sender| sender.epoch));
        self.link.acknowledge(reply.lsn, reply.sent_ms, epoch);
        context.state.note_copied(self.link, &sent.whole);
        Ok(())
    }

    async fn send_changes(&mut self, sender: &mpsc::Sender<ReplicateRequest>) -> Result<(), StreamEnd> {
        let Some(batch) = self.link.take(&self.context.node.store.journal) else {
            return Ok(());
        };
        let covers_ms = self.covered_now_ms();
        let mut contents = self.read_changes(&batch.changes);
        let last = contents.pop().unwrap_or_default();
        for content in contents {
            self.send(sender, content).await?;
        }
        (self.lsn, self.covers_ms) = (batch.lsn, covers_ms);
        self.send(sender, last).await
    }

    async fn send(
        &mut self,
        sender: &mpsc::Sender<ReplicateRequest>,
        content: Content,
    ) -> Result<(), StreamEnd> {
        let journal = &self.context.node.store.journal;
        if content.changes.is_empty()
            && let Some(lsn) = self.link.idle_lsn(journal)
        {
            (self.lsn, self.covers_ms) = (lsn, self.covered_now_ms());
        }
        let fill_bytes = if content.fills { content.bytes as u64 } else { 0 };
        let own = self.context.sender();
        if own.epoch != self.epoch.0 {
            return Err(StreamEnd::OtherEpoch);
        }
        let request = ReplicateRequest {
            sender: Some(own),
            lsn: self.lsn,
            sent_ms: journal.clock().now_ms(),
            changes: content.changes,
            stream: self.number,
            covers_ms: self.covers_ms,
        };
        self.in_flight.push_back(InFlight {
            fill_bytes,
            whole: content.whole,
        });
        self.fill_bytes_in_flight += fill_bytes;
        if content.fills {
            self.context.transferred(fill_bytes);
        }
        self.context.counters.bytes_out.add(content.bytes as u64);
        sender.send(request).await.map_err(|_| StreamEnd::Closed)
    }

    /// Up to when the neighbour has every change, on its clock, once it has all that was just taken: an owner that others
    /// may have replaced says nothing new.
    fn covered_now_ms(&self) -> u64 {
        let journal = &self.context.node.store.journal;
        if journal.is_alone_before(self.link, self.epoch) {
            self.heard_ms
        } else {
            self.covers_ms
        }
    }

    /// The slot is served here, and the neighbour is to have its changes.
    fn is_to_be_sent(&self, slot: Slot) -> bool {
        let set = self.context.node.store.journal.set_of(slot);
        set.is_some_and(|set| set.contains(self.link))
    }

    /// What changed, as it is now: all keys of a slot that changed together are read together.
    fn read_changes(&self, changes: &[Changed]) -> Vec<Content> {
        let mut slots: BTreeMap<Slot, Option<BTreeSet<&TenantKey>>> = BTreeMap::new();
        for Changed { slot, key } in changes {
            let keys = slots.entry(*slot).or_insert_with(|| Some(BTreeSet::new()));
            match (key, keys) {
                (Some(key), Some(keys)) => {
                    keys.insert(key);
                }
                (None, keys) => *keys = None,
                (Some(_), None) => {}
            }
        }
        let now_ms = clock::now_ms();
        let mut messages = Messages::default();
        for (slot, keys) in slots {
            let mut guard = self.context.node.store.lock_slot(slot);
            if !self.is_to_be_sent(slot) {
                continue;
            }
            let mut entries = Vec::new();
            let mut removed = Vec::new();
            if let Some(keys) = &keys {
                for key in keys {
                    match guard.entry(key.0, &key.1, now_ms) {
                        Some(entry) => entries.push(entry),
                        None => removed.push((*key).clone()),
                    }
                }
            } else {
                for (tenant, key) in guard.all_keys(now_ms) {
                    entries.extend(guard.entry(tenant, &key, now_ms));
                }
            }
            drop(guard);
            if keys.is_none() {
                messages.push(slot, Step::Begin, Vec::new(), Vec::new());
            }
            messages.push(slot, Step::Apply, entries, removed);
            if keys.is_none() {
                messages.push(slot, Step::Complete, Vec::new(), Vec::new());
            }
        }
        messages.end()
    }

    /// The next slots that the neighbour is to be given, or a part of one: about a message's worth. Empty when there is
    /// nothing to fill.
    fn read_fills(&mut self) -> Vec<Content> {
        let store = &self.context.node.store;
        let (mut messages, mut bytes) = (Messages::default(), 0);
        while bytes < FILL_MESSAGE_BYTES {
            let partial = self.fill.take();
            let begins = partial.is_none();
            let slot = match &partial {
                Some(fill) => Some(fill.slot),
                None => self.context.state.next_fill(self.link),
            };
            let Some(slot) = slot else { break };
            let mut guard = store.lock_slot(slot);
            if !self.is_to_be_sent(slot) {
                continue;
            }
            let now_ms = clock::now_ms();
            let mut fill = partial.unwrap_or_else(|| PartialFill {
                slot,
                keys: guard.all_keys(now_ms),
                sent: 0,
            });
            let (mut entries, mut read_bytes) = (Vec::new(), 0);
            while let Some((tenant, key)) = fill.keys.get(fill.sent)
                && read_bytes < CHUNK_BYTES_MAX
            {
                guard.enter(*tenant);
                if let Some(stored) = guard.peek(key, now_ms) {
                    read_bytes += key.len() + stored.value().len();
                    entries.push(Entry::of(*tenant, stored, now_ms));
                }
                fill.sent += 1;
            }
            drop(guard);
            // A slot without entries costs something, too.
            bytes += read_bytes + SLOT_BYTES;
            if begins {
                messages.push(slot, Step::Begin, Vec::new(), Vec::new());
            }
            messages.push(slot, Step::Apply, entries, Vec::new());
            if fill.sent == fill.keys.len() {
                messages.push(slot, Step::Complete, Vec::new(), Vec::new());
                messages.current.whole.push(slot);
            } else {
                self.fill = Some(fill);
            }
        }
        let mut contents = messages.end();
        for content in &mut contents {
            content.fills = true;
        }
        contents
    }
}

/// Changes on their way into messages, in order.
#[derive(Default)]
struct Messages {
    full: Vec<Content>,
    current: Content,
}

impl Messages {
    fn push(&mut self, slot: Slot, step: Step, entries: Vec<Entry>, removed: Vec<TenantKey>) {
        if step == Step::Apply && entries.is_empty() && removed.is_empty() {
            return;
        }
        let mut removed = Some(removed);
        let mut chunks = pack(entries);
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        for entries in chunks {
            let removed = removed.take().unwrap_or_default();
            let removed_bytes: usize = removed.iter().map(|(_, key)| key.len()).sum();
            let bytes = usize::try_from(payload_bytes(&entries)).unwrap_or(usize::MAX) + removed_bytes;
            if self.current.bytes + bytes > CHUNK_BYTES_MAX && !self.current.changes.is_empty() {
                self.full.push(std::mem::take(&mut self.current));
            }
            self.current.bytes += bytes + SLOT_BYTES;
            let (of_cluster, of_tenants) = removed_keys(removed);
            self.current.changes.push(SlotChange {
                slot: slot.number().into(),
                step: step.into(),
                entries,
                removed: of_cluster,
                removed_of_tenants: of_tenants,
            });
        }
    }

    fn end(mut self) -> Vec<Content> {
        if !self.current.changes.is_empty() {
            self.full.push(self.current);
        }
        self.full
    }
}

/// Keys that are gone, those of the cluster's own keyspace apart.
fn removed_keys(removed: Vec<TenantKey>) -> (Vec<bytes::Bytes>, Vec<v1::TenantKey>) {
    let (mut of_cluster, mut of_tenants) = (Vec::new(), Vec::new());
    for (tenant, key) in removed {
        let key = bytes::Bytes::from(key);
        if tenant == TenantId::CLUSTER {
            of_cluster.push(key);
        } else {
            let tenant = tenant.0;
            of_tenants.push(v1::TenantKey { tenant, key });
        }
    }
    (of_cluster, of_tenants)
}

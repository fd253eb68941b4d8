//! Which changes other nodes must have before a reply may go out, and who has them.
//!
//! Every slot that is served here and has copies elsewhere belongs to a [`LinkSet`]: the nodes that have whole copies of
//! it, and those that are being given one. A change puts its key into the queue of each of these nodes and gets the
//! next number, its *lsn*, both under the slot's lock; so what a queue holds up to an lsn is all that there is up to it.
//! Replies are withheld until the copies have what the slot had when it was read or written, and until the leases
//! that the copies have given are known to hold ([`Unsettled`]).
//!
//! Nothing here sends anything: a task for each [`Link`] does. The only clock is monotonic.

mod link;
mod unsettled;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use annulus_proto::tenants::TenantId;
use annulus_ring::{Epoch, RingSettings, SLOT_COUNT, Slot};
use parking_lot::RwLock;

pub use link::{Batch, Changed, Link};
pub use unsettled::{Unsettled, Wait, WaitingReply};

use crate::clock::MonotonicClock;

/// A copy answers for none of the owner's slots for so long after it has answered the owner. It is what a failover waits for
/// at most, and what an owner that hears nothing may go on for.
pub const LEASE_MS: u64 = 600;

/// A reply waits so long for copies; then the outcome of the write is unknown.
pub const ACKS_TIMEOUT: Duration = Duration::from_millis(2500);

/// The slot has no copies, and never had while it was served here.
const NO_COPIES: u16 = 0;
/// The slot was handed over; everything was with its copies before.
const HANDED_OVER: u16 = u16::MAX - 1;
/// The slot was taken away by a newer ring.
const TAKEN_AWAY: u16 = u16::MAX;

/// Who has copies of a slot.
#[derive(Debug, Default)]
pub struct LinkSet {
    /// Whole copies: nothing is acknowledged without them.
    pub required: Vec<Arc<Link>>,
    /// Being filled.
    pub filling: Vec<Arc<Link>>,
}

impl LinkSet {
    fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.required.iter().chain(&self.filling)
    }

    /// Whether both have the same links in the same parts.
    pub fn is_same(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Link>], b: &[Arc<Link>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        same(&self.required, &other.required) && same(&self.filling, &other.filling)
    }

    /// Whether that node is in it.
    pub fn contains(&self, link: &Link) -> bool {
        self.links().any(|other| std::ptr::eq(&raw const **other, link))
    }
}

/// What is known of one slot. Written under the slot's lock.
#[derive(Default)]
struct Mark {
    /// Its set's number, or one of the constants.
    set: AtomicU16,
    /// The lsn of its last change.
    written: AtomicU64,
    /// The epoch at which this node began to serve it.
    served_since: AtomicU64,
    /// Nobody is answered before this moment.
    fenced_until_ms: AtomicU64,
    /// Changes that only a node had to which the slot's changes don't go any more are being given to the others.
    adopting: AtomicBool,
}

/// The changes of one store.
pub struct Journal {
    /// Some slot has, or had, copies: until then nothing here costs anything.
    is_on: AtomicBool,
    marks: OnceLock<Box<[Mark]>>,
    sets: RwLock<Vec<Option<Arc<LinkSet>>>>,
    lsn: AtomicU64,
    /// How many streams were opened.
    streams: AtomicU64,
    /// Counts changes of sets: a waiting reply looks at its slots again.
    generation: AtomicU64,
    acks: AtomicU8,
    /// 0 for no bound.
    copy_staleness_max_ms: AtomicU64,
    clock: MonotonicClock,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            is_on: AtomicBool::new(false),
            marks: OnceLock::new(),
            // Number 0 stands for no copies.
            sets: RwLock::new(vec![None]),
            lsn: AtomicU64::new(0),
            streams: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            acks: AtomicU8::new(0),
            copy_staleness_max_ms: AtomicU64::new(0),
            clock: MonotonicClock::start(),
        }
    }
}

impl Journal {
    /// Whether any slot has, or had, copies.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// How many copies must have a write before it is acknowledged; with 0, nothing waits for copies.
    pub fn acks(&self) -> u8 {
        self.acks.load(Ordering::Relaxed)
    }

    /// A copy is read only while it is known to have everything up to so long ago; `None` for however long.
    pub fn copy_staleness_max_ms(&self) -> Option<u64> {
        Some(self.copy_staleness_max_ms.load(Ordering::Relaxed)).filter(|&max_ms| max_ms > 0)
    }

    /// Takes what the ring's settings say of copies, for the commands to come.
    pub fn follow(&self, settings: RingSettings) {
        self.acks.store(settings.acks, Ordering::Relaxed);
        self.copy_staleness_max_ms
            .store(settings.copy_staleness_max_ms, Ordering::Relaxed);
    }

    /// The clock of leases and fences.
    pub fn clock(&self) -> &MonotonicClock {
        &self.clock
    }

    fn mark(&self, slot: Slot) -> Option<&Mark> {
        Some(&self.marks.get()?[slot.index()])
    }

    /// The lsn of the slot's last change.
    pub fn written(&self, slot: Slot) -> u64 {
        self.mark(slot)
            .map_or(0, |mark| mark.written.load(Ordering::Relaxed))
    }

    /// Who has copies of the slot; `None` when it isn't served here, or nobody is to have one.
    pub fn set_of(&self, slot: Slot) -> Option<Arc<LinkSet>> {
        let number = self.mark(slot)?.set.load(Ordering::Relaxed);
        self.sets.read().get(usize::from(number))?.clone()
    }

    /// Whether a write of the slot could be acknowledged at all.
    #[inline]
    pub fn may_write(&self, slot: Slot) -> bool {
        if !self.is_on() || self.acks() == 0 {
            return true;
        }
        self.set_of(slot)
            .is_none_or(|set| set.links().count() >= usize::from(self.acks()))
    }

    /// A tenant's key of the slot changed. The caller holds the slot.
    #[inline]
    pub fn changed(&self, slot: Slot, tenant: TenantId, key: &[u8]) {
        if self.is_on() {
            self.note(slot, Some((tenant, key)));
        }
    }

    /// Every key of the slot is gone. The caller holds the slot.
    pub fn cleared(&self, slot: Slot) {
        if self.is_on() {
            self.note(slot, None);
        }
    }

    fn note(&self, slot: Slot, key: Option<(TenantId, &[u8])>) {
        let Some(set) = self.set_of(slot) else { return };
        let mut links: Vec<&Arc<Link>> = set.links().collect();
        // In one order everywhere: threads that hold other slots take the same queues.
        links.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let mut queues: Vec<_> = links.into_iter().map(|link| link.lock()).collect();
        // A queue that is locked now will not be asked for this lsn before the key is in it.
        let lsn = self.lsn.fetch_add(1, Ordering::SeqCst) + 1;
        for queue in &mut queues {
            queue.push(slot, key);
        }
        drop(queues);
        if let Some(mark) = self.mark(slot) {
            mark.written.store(lsn, Ordering::Release);
        }
    }

    /// The lsn of the last change of all. Asked while a link's queue is locked, it covers everything in that queue, and nothing
    /// that will come into it.
    pub fn last_lsn(&self) -> u64 {
        self.lsn.load(Ordering::SeqCst)
    }

    /// The number of that set, a new one if there is none like it.
    fn number_of(&self, set: LinkSet) -> u16 {
        let mut sets = self.sets.write();
        let known = sets
            .iter()
            .position(|other| other.as_ref().is_some_and(|other| other.is_same(&set)));
        let index = known.unwrap_or_else(|| {
            let set = Some(Arc::new(set));
            let free = (1..sets.len()).find(|&index| sets[index].is_none());
            let index = free.unwrap_or(sets.len());
            if index == sets.len() {
                sets.push(set);
            } else {
                sets[index] = set;
            }
            index
        });
        u16::try_from(index).unwrap_or(NO_COPIES)
    }

    /// From now on the slot is served here and has these copies. The caller holds the slot. Replies wait until
    /// [`sets_changed`](Self::sets_changed) if somebody has none any more who had, or was to have, one.
    pub fn serve(&self, slot: Slot, set: LinkSet, epoch: Epoch, fenced_until_ms: u64) {
        self.is_on.store(true, Ordering::Relaxed);
        let marks = self
            .marks
            .get_or_init(|| (0..SLOT_COUNT).map(|_| Mark::default()).collect());
        let mark = &marks[slot.index()];
        mark.fenced_until_ms.fetch_max(fenced_until_ms, Ordering::Relaxed);
        let before = self.set_of(slot);
        if before.is_none() {
            mark.served_since.store(epoch.0, Ordering::Relaxed);
        }
        let keeps_all = before.is_none_or(|before| before.links().all(|link| set.contains(link)));
        if !keeps_all {
            mark.adopting.store(true, Ordering::Relaxed);
        }
        mark.set.store(self.number_of(set), Ordering::Release);
    }

    /// From now on the slot is not served here. The caller holds it.
    pub fn leave(&self, slot: Slot, handed_over: bool) {
        if let Some(mark) = self.mark(slot)
            && mark.set.load(Ordering::Relaxed) < HANDED_OVER
        {
            let state = if handed_over { HANDED_OVER } else { TAKEN_AWAY };
            mark.set.store(state, Ordering::Release);
        }
    }

    /// The slot's copies are not asked for any more. The caller holds it.
    pub fn forget(&self, slot: Slot) {
        if let Some(mark) = self.mark(slot) {
            mark.set.store(NO_COPIES, Ordering::Release);
        }
    }

    /// After changes of sets: what only `links` were to have whose slots don't go to them any more goes to those who
    /// have them now (`hold` takes a slot), and waiting replies look again.
    pub fn sets_changed<G>(&self, links: &[Arc<Link>], hold: impl Fn(Slot) -> G) {
        let Some(marks) = self.marks.get() else { return };
        let adopting: Vec<Slot> = Slot::all()
            .filter(|slot| marks[slot.index()].adopting.load(Ordering::Relaxed))
            .collect();
        for link in links {
            let is_adopting = |slot: Slot| marks[slot.index()].adopting.load(Ordering::Relaxed);
            for Changed { slot, key } in link.unacknowledged(is_adopting) {
                let guard = hold(slot);
                self.note(slot, key.as_ref().map(|(tenant, key)| (*tenant, &**key)));
                drop(guard);
            }
        }
        for slot in adopting {
            marks[slot.index()].adopting.store(false, Ordering::Release);
        }
        for link in links {
            link.keep(|slot| self.set_of(slot).is_some_and(|set| set.contains(link)));
        }
        self.forget_unused_sets(marks);
        self.generation.fetch_add(1, Ordering::SeqCst);
        for link in links {
            link.wake_all();
        }
    }

    fn forget_unused_sets(&self, marks: &[Mark]) {
        let mut sets = self.sets.write();
        let mut used = vec![false; sets.len()];
        for mark in marks {
            if let Some(used) = used.get_mut(usize::from(mark.set.load(Ordering::Relaxed))) {
                *used = true;
            }
        }
        for (set, used) in sets.iter_mut().zip(used) {
            if !used {
                *set = None;
            }
        }
    }

    /// Who has, or is given, copies of anything that is served here, by name.
    pub fn links(&self) -> Vec<Arc<Link>> {
        let mut links: Vec<Arc<Link>> = Vec::new();
        for set in self.sets.read().iter().flatten() {
            links.extend(set.links().cloned());
        }
        links.sort_by(|a, b| a.id.cmp(&b.id));
        links.dedup_by(|a, b| Arc::ptr_eq(a, b));
        links
    }

    /// How many nodes have everything of the slot.
    pub fn copies_up_to_date(&self, slot: Slot) -> usize {
        let written = self.written(slot);
        self.set_of(slot).map_or(0, |set| {
            set.links().filter(|link| link.acked() >= written).count()
        })
    }

    /// Whether until now nobody else can have changed a slot of which that node has, or is given, a copy: everybody who
    /// might take this node's place has promised not to, at that epoch.
    pub fn is_alone_before(&self, link: &Link, epoch: Epoch) -> bool {
        let now_ms = self.clock.now_ms();
        let sets = self.sets.read();
        let mut others = sets
            .iter()
            .flatten()
            .filter(|set| set.contains(link))
            .flat_map(|set| &set.required);
        others.all(|other| other.is_leased(epoch, now_ms))
    }

    /// Whether until now nobody else can have changed any slot that is served here: everybody who might take this node's place
    /// has promised not to, at that epoch.
    pub fn is_alone(&self, epoch: Epoch) -> bool {
        let now_ms = self.clock.now_ms();
        let sets = self.sets.read();
        let mut others = sets.iter().flatten().flat_map(|set| &set.required);
        others.all(|other| other.is_leased(epoch, now_ms))
    }

    /// The number of a new stream of changes; it grows as long as the process lives.
    pub fn open_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Until when nobody is answered for the slot.
    fn fenced_until_ms(&self, slot: Slot) -> u64 {
        self.mark(slot)
            .map_or(0, |mark| mark.fenced_until_ms.load(Ordering::Relaxed))
    }

    /// Waits until these slots may be answered for: who was just promoted may not yet, and so may nobody in its name.
    pub async fn unfenced(&self, slots: &[Slot]) {
        let fences = slots.iter().map(|&slot| self.fenced_until_ms(slot));
        let fenced_until_ms = fences.max().unwrap_or_default();
        tokio::time::sleep_until(self.clock.moment(fenced_until_ms)).await;
    }

    /// Waits until all whole copies have everything of these slots.
    pub async fn copied(&self, slots: &[Slot]) {
        poll_fn(|context| {
            if slots.iter().all(|&slot| self.poll_copied(slot, context.waker())) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Whether all whole copies have everything of the slot; if not, the waker is called when there is news.
    fn poll_copied(&self, slot: Slot, waker: &Waker) -> bool {
        let written = self.written(slot);
        let Some(set) = self.set_of(slot) else {
            return true;
        };
        set.required.iter().all(|link| link.poll_acked(written, waker))
    }
}

#[cfg(test)]
mod tests;

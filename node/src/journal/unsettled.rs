//! Replies that may not go out yet.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;

use annulus_ring::{Epoch, Slot};

use super::{HANDED_OVER, Journal, Link, LinkSet, NO_COPIES, TAKEN_AWAY};

/// One command on a slot with copies.
#[derive(Debug, Clone)]
struct Item {
    slot: Slot,
    /// Who had copies.
    set: u16,
    /// What the copies must have.
    lsn: u64,
    reply: WaitingReply,
}

/// The reply of a command that waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WaitingReply {
    /// Where it stands in the output.
    pub place: Range<usize>,
    /// Whether the command was a write.
    pub writes: bool,
}

/// The commands of a connection whose replies wait: for copies to have what was written or read, and for leases.
#[derive(Debug, Default)]
pub struct Unsettled {
    items: Vec<Item>,
    /// Replies of commands whose slot was taken away meanwhile.
    lost: Vec<WaitingReply>,
    /// The sets that `items` are about.
    generation: u64,
    /// Since when they wait.
    since_ms: u64,
}

/// What there is to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Nothing any more.
    Over,
    /// The waker is called when there is news, and this moment, if any, is to be looked at again anyway.
    For(Option<u64>),
}

/// What one command still waits for.
enum Verdict {
    Settled,
    TakenAway,
    /// For a node.
    Waits,
    /// For a moment.
    Until(u64),
}

impl Unsettled {
    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A command has read or written the slot; the caller still holds it.
    #[inline]
    pub fn note(&mut self, journal: &Journal, slot: Slot, writes: bool) {
        let Some(mark) = journal.mark(slot) else { return };
        let set = mark.set.load(Ordering::Relaxed);
        if set == NO_COPIES {
            return;
        }
        if self.items.is_empty() {
            self.generation = journal.generation.load(Ordering::SeqCst);
            self.since_ms = journal.clock.now_ms();
        }
        self.items.push(Item {
            slot,
            set,
            lsn: mark.written.load(Ordering::Relaxed),
            reply: WaitingReply { place: 0..0, writes },
        });
    }

    /// How many commands wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Where the reply stands of the command that was noted since there were `from`.
    #[inline]
    pub fn place_reply(&mut self, from: usize, place: &Range<usize>) {
        for item in &mut self.items[from..] {
            item.reply.place = place.clone();
        }
    }

    /// Since when they wait.
    pub fn since_ms(&self) -> u64 {
        self.since_ms
    }

    /// Looks whether what is waited for is there, and forgets what is settled.
    pub fn poll(&mut self, journal: &Journal, waker: &Waker) -> Wait {
        if self.items.is_empty() {
            return Wait::Over;
        }
        let generation = journal.generation.load(Ordering::SeqCst);
        let is_newer = generation != self.generation;
        self.generation = generation;
        let now_ms = journal.clock.now_ms();
        let sets = journal.sets.read();
        let (mut wake_ms, mut waits) = (None::<u64>, false);
        let lost = &mut self.lost;
        self.items.retain_mut(|item| {
            // What was written by others meanwhile counts as well once the sets are others.
            if is_newer {
                item.set = TAKEN_AWAY;
            }
            // The first that waits will wake the connection; then the others are looked at.
            if waits {
                return true;
            }
            match judge(journal, &sets, item, now_ms, waker) {
                Verdict::Settled => false,
                Verdict::TakenAway => {
                    lost.push(item.reply.clone());
                    false
                }
                Verdict::Waits => {
                    waits = true;
                    true
                }
                Verdict::Until(ms) => {
                    wake_ms = Some(wake_ms.map_or(ms, |wake| wake.min(ms)));
                    true
                }
            }
        });
        if self.items.is_empty() {
            return Wait::Over;
        }
        // Whoever changed the sets meanwhile may have woken everybody before the waker was there.
        if journal.generation.load(Ordering::SeqCst) != generation {
            wake_ms = Some(now_ms);
        }
        Wait::For(wake_ms)
    }

    /// The replies that must not go out as they are: those of commands whose slot was taken away, and all that still
    /// wait. Last first; each place once.
    pub fn take_failed(&mut self) -> Vec<WaitingReply> {
        let mut failed = std::mem::take(&mut self.lost);
        failed.extend(self.items.drain(..).map(|item| item.reply));
        failed.retain(|reply| !reply.place.is_empty());
        failed.sort_unstable_by_key(|reply| std::cmp::Reverse(reply.place.start));
        failed.dedup_by_key(|reply| reply.place.start);
        failed
    }
}

fn judge(
    journal: &Journal,
    sets: &[Option<Arc<LinkSet>>],
    item: &mut Item,
    now_ms: u64,
    waker: &Waker,
) -> Verdict {
    let Some(mark) = journal.mark(item.slot) else {
        return Verdict::Settled;
    };
    let number = mark.set.load(Ordering::Acquire);
    let set = match number {
        NO_COPIES => return Verdict::Settled,
        // The copies had every write before. Whether a read was still this node's to answer isn't known any more.
        HANDED_OVER if item.reply.writes => return Verdict::Settled,
        HANDED_OVER | TAKEN_AWAY => return Verdict::TakenAway,
        number => sets.get(usize::from(number)).and_then(Option::as_ref),
    };
    // While sets are being replaced; soon everybody is woken.
    let Some(set) = set.filter(|_| !mark.adopting.load(Ordering::Acquire)) else {
        return Verdict::Until(now_ms + 1);
    };
    let fenced_until_ms = mark.fenced_until_ms.load(Ordering::Relaxed);
    if fenced_until_ms > now_ms {
        return Verdict::Until(fenced_until_ms);
    }
    let since = Epoch(mark.served_since.load(Ordering::Relaxed));
    let is_leased = |link: &Arc<Link>| link.poll_leased(since, now_ms, waker);
    if !set.required.iter().all(is_leased) {
        return Verdict::Waits;
    }
    let acks = usize::from(journal.acks());
    if acks == 0 {
        return Verdict::Settled;
    }
    // With other copies than before, everything counts that they were given until now.
    if number != item.set {
        item.set = number;
        item.lsn = mark.written.load(Ordering::Acquire).max(item.lsn);
    }
    let lsn = item.lsn;
    if !set.required.iter().all(|link| link.poll_acked(lsn, waker)) {
        return Verdict::Waits;
    }
    // A read needs nobody where there is nobody to be had.
    let wanted = if item.reply.writes {
        acks
    } else {
        acks.min(set.links().count())
    };
    let mut missing = wanted.saturating_sub(set.required.len());
    for link in &set.filling {
        if missing > 0 && link.poll_acked(lsn, waker) {
            missing -= 1;
        }
    }
    if missing == 0 {
        Verdict::Settled
    } else {
        Verdict::Waits
    }
}

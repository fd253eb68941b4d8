//! What other threads send to a connection: pushes that are encoded already, until its own thread puts them between
//! its replies.
//!
//! Posting never waits for the client. Letters share their bytes with every other mailbox that has them. A client that
//! doesn't read is bounded: beyond [`BYTES_MAX`], or beyond [`SOFT_BYTES_MAX`] for [`SOFT_TIME_MAX_MS`], its mailbox
//! closes for good, and the connection must end. Nothing here knows of sockets and clocks.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::resp::Reply;

/// More than this in a mailbox closes it at once: Redis's hard limit of the class `pubsub`.
pub const BYTES_MAX: usize = 32 << 20;

/// More than this closes it when it stays so for [`SOFT_TIME_MAX_MS`].
pub const SOFT_BYTES_MAX: usize = 8 << 20;

/// How long a mailbox may be beyond [`SOFT_BYTES_MAX`].
pub const SOFT_TIME_MAX_MS: u64 = 60_000;

/// Larger letters are sent as they are; smaller ones are copied together, so that many go out with one write.
const COPIED_BYTES_MAX: usize = 16 << 10;

/// A letter costs this much beside its bytes.
const LETTER_BYTES: usize = 2 * size_of::<Bytes>();

/// What became of a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// It is the only one: the connection must be woken.
    First,
    /// Others are before it.
    Behind,
    /// It was too much, and the mailbox is closed: the connection must be ended.
    Overflowed,
    /// The mailbox was closed before.
    Refused,
}

/// The letters to one connection.
#[derive(Default)]
pub struct Mailbox {
    has_letters: AtomicBool,
    letters: Mutex<Letters>,
}

#[derive(Default)]
struct Letters {
    queue: VecDeque<Bytes>,
    bytes: usize,
    /// When a look first found it beyond the soft limit.
    heavy_since_ms: Option<u64>,
    closed: bool,
}

impl Letters {
    fn close(&mut self) {
        *self = Self {
            closed: true,
            ..Self::default()
        };
    }

    fn pop(&mut self) -> Option<Bytes> {
        let letter = self.queue.pop_front()?;
        self.bytes -= letter.len() + LETTER_BYTES;
        Some(letter)
    }
}

impl Mailbox {
    /// Whether there are letters. One load.
    #[inline]
    pub fn has_letters(&self) -> bool {
        self.has_letters.load(Ordering::Relaxed)
    }

    /// Adds a letter behind the others.
    pub fn post(&self, letter: Bytes) -> Posted {
        let mut letters = self.letters.lock();
        if letters.closed {
            return Posted::Refused;
        }
        letters.bytes += letter.len() + LETTER_BYTES;
        if letters.bytes > BYTES_MAX {
            letters.close();
            self.note(&letters);
            return Posted::Overflowed;
        }
        letters.queue.push_back(letter);
        if letters.queue.len() > 1 {
            return Posted::Behind;
        }
        self.note(&letters);
        Posted::First
    }

    /// Whether the last letter is this one: to say it again would tell nothing new.
    pub fn ends_with(&self, letter: &[u8]) -> bool {
        self.has_letters()
            && self
                .letters
                .lock()
                .queue
                .back()
                .is_some_and(|last| last == letter)
    }

    /// Puts small letters behind what `reply` holds until that is `bytes_max` or a large one comes.
    pub fn collect(&self, reply: &mut Reply, bytes_max: usize) {
        let mut letters = self.letters.lock();
        while reply.len() < bytes_max
            && letters
                .queue
                .front()
                .is_some_and(|letter| letter.len() <= COPIED_BYTES_MAX)
            && let Some(letter) = letters.pop()
        {
            reply.encoded(&letter);
        }
        self.note(&letters);
    }

    /// Takes the first letter if it is too large to be copied.
    pub fn take_large(&self) -> Option<Bytes> {
        let mut letters = self.letters.lock();
        let is_large = letters.queue.front()?.len() > COPIED_BYTES_MAX;
        let letter = is_large.then(|| letters.pop()).flatten();
        self.note(&letters);
        letter
    }

    /// Puts all letters behind what `reply` holds.
    pub fn collect_all(&self, reply: &mut Reply) {
        if self.has_letters() {
            let mut letters = self.letters.lock();
            while let Some(letter) = letters.pop() {
                reply.encoded(&letter);
            }
            self.note(&letters);
        }
    }

    /// Throws all letters away.
    pub fn discard(&self) {
        let mut letters = self.letters.lock();
        while letters.pop().is_some() {}
        self.note(&letters);
    }

    /// Looks at the soft limit, and says whether the mailbox was closed by that. To be called about once a second.
    pub fn check_soft_limit(&self, now_ms: u64) -> bool {
        if !self.has_letters() {
            return false;
        }
        let mut letters = self.letters.lock();
        if letters.bytes <= SOFT_BYTES_MAX {
            letters.heavy_since_ms = None;
            return false;
        }
        let since_ms = *letters.heavy_since_ms.get_or_insert(now_ms);
        let is_over = now_ms.saturating_sub(since_ms) >= SOFT_TIME_MAX_MS;
        if is_over {
            letters.close();
            self.note(&letters);
        }
        is_over
    }

    /// How many letters there are.
    pub fn len(&self) -> usize {
        self.letters.lock().queue.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the letters take.
    pub fn bytes(&self) -> usize {
        self.letters.lock().bytes
    }

    /// Whether it was closed because the client didn't read.
    pub fn is_closed(&self) -> bool {
        self.letters.lock().closed
    }

    fn note(&self, letters: &Letters) {
        self.has_letters
            .store(!letters.queue.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(len: usize) -> Bytes {
        vec![b'x'; len].into()
    }

    fn collected(mailbox: &Mailbox, bytes_max: usize) -> usize {
        let mut reply = Reply::new(usize::MAX);
        mailbox.collect(&mut reply, bytes_max);
        reply.len()
    }

    #[test]
    fn letters_come_out_in_order_and_large_ones_alone() {
        let mailbox = Mailbox::default();
        assert!(!mailbox.has_letters());
        assert_eq!(mailbox.post(Bytes::from_static(b"a")), Posted::First);
        assert_eq!(mailbox.post(Bytes::from_static(b"b")), Posted::Behind);
        let large = letter(COPIED_BYTES_MAX + 1);
        assert_eq!(mailbox.post(large.clone()), Posted::Behind);
        assert_eq!(mailbox.post(Bytes::from_static(b"c")), Posted::Behind);

        assert!(mailbox.take_large().is_none(), "small ones are before it");
        let mut reply = Reply::new(usize::MAX);
        mailbox.collect(&mut reply, 1 << 20);
        assert_eq!(reply.as_bytes(), b"ab");
        assert_eq!(mailbox.take_large(), Some(large));
        assert!(mailbox.has_letters());
        assert!(mailbox.ends_with(b"c") && !mailbox.ends_with(b"b"));
        mailbox.collect_all(&mut reply);
        assert_eq!(reply.as_bytes(), b"abc");
        assert!(!mailbox.has_letters());
        assert_eq!(mailbox.bytes(), 0);
        assert_eq!(mailbox.post(Bytes::from_static(b"d")), Posted::First);
        mailbox.discard();
        assert!(!mailbox.has_letters());
    }

    #[test]
    fn no_more_is_copied_than_asked_for() {
        let mailbox = Mailbox::default();
        for _ in 0..10 {
            mailbox.post(letter(1000));
        }
        assert_eq!(collected(&mailbox, 2500), 3000);
        assert_eq!(collected(&mailbox, 0), 0);
        assert_eq!(collected(&mailbox, usize::MAX), 7000);
    }

    #[test]
    fn it_closes_at_the_hard_limit() {
        let mailbox = Mailbox::default();
        let large = letter(BYTES_MAX / 4);
        for _ in 0..3 {
            mailbox.post(large.clone());
        }
        assert_eq!(mailbox.post(large.clone()), Posted::Overflowed);
        assert!(mailbox.is_closed() && !mailbox.has_letters());
        assert_eq!(mailbox.bytes(), 0);
        assert_eq!(mailbox.post(Bytes::new()), Posted::Refused);
    }

    /// What is in the mailbox at a look, and when that is; the last look closes it or doesn't.
    #[test]
    fn it_closes_when_it_stays_beyond_the_soft_limit() {
        const HEAVY: usize = SOFT_BYTES_MAX + 1;
        let table: [(&[(usize, u64)], bool); 5] = [
            (&[(0, 0), (0, SOFT_TIME_MAX_MS)], false),
            (&[(HEAVY, 5), (HEAVY, 4 + SOFT_TIME_MAX_MS)], false),
            (&[(HEAVY, 5), (HEAVY, 5 + SOFT_TIME_MAX_MS)], true),
            (&[(HEAVY, 5), (1, 6), (HEAVY, 5 + SOFT_TIME_MAX_MS)], false),
            (&[(1, 5), (1, 5 + SOFT_TIME_MAX_MS)], false),
        ];
        for (looks, closes) in table {
            let mailbox = Mailbox::default();
            let mut closed = false;
            for (bytes, now_ms) in looks {
                mailbox.discard();
                mailbox.post(letter(*bytes));
                closed = mailbox.check_soft_limit(*now_ms);
            }
            assert_eq!(closed, closes, "{looks:?}");
            assert_eq!(mailbox.is_closed(), closes);
        }
    }
}

//! `CLIENT PAUSE`: for a while commands wait, or those of them that write.
//!
//! Who executes commands looks at one number where nothing is paused. A command that waits stays in its connection's
//! input, so that nothing is half done; connections are woken when the pause is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::command::Command;

/// Which commands wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// Those that change something, or publish.
    Writes,
    /// All.
    All,
}

/// Whether commands wait, and until when.
#[derive(Debug, Default)]
pub struct Pause {
    /// In milliseconds since the Unix epoch; 0 when there is none.
    until_ms: AtomicU64,
    holds_all: AtomicBool,
    waiting: Arc<AtomicUsize>,
}

/// A connection that waits for the end of a pause: counted while this is kept.
#[derive(Debug)]
pub struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pause {
    /// Whether there is one. One load.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.until_ms.load(Ordering::Relaxed) > 0
    }

    /// Begins one. Where there is one already, the later end and the more that waits hold.
    pub fn begin(&self, paused: Paused, until_ms: u64) {
        self.holds_all.fetch_or(paused == Paused::All, Ordering::Relaxed);
        self.until_ms.fetch_max(until_ms, Ordering::Relaxed);
    }

    /// How many connections wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// One more waits.
    pub fn wait(&self) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(&self.waiting))
    }

    /// Ends it.
    pub fn end(&self) {
        self.until_ms.store(0, Ordering::Relaxed);
        self.holds_all.store(false, Ordering::Relaxed);
    }

    /// Ends it if its time is over, and says whether that was so.
    pub fn end_when_over(&self, now_ms: u64) -> bool {
        let is_over = self.is_on() && now_ms >= self.until_ms.load(Ordering::Relaxed);
        if is_over {
            self.end();
        }
        is_over
    }

    /// Whether a command has to wait; `writes` says whether it may write, or `EXEC` what it would run.
    #[cold]
    pub fn holds(&self, command: &Command, writes: bool, now_ms: u64) -> bool {
        let is_held = writes || command.publishes() || self.holds_all.load(Ordering::Relaxed);
        is_held && now_ms < self.until_ms.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    /// A command, whether it writes or runs what does, and whether it waits in a pause of writes.
    #[test]
    fn writes_wait_and_what_would_leave_the_node() {
        let table_of_waits = [
            ("get", false, false),
            ("set", true, true),
            ("eval", true, true),
            ("eval", false, false),
            ("publish", false, true),
            ("spublish", false, true),
            ("subscribe", false, false),
            ("exec", false, false),
            ("exec", true, true),
            ("client", false, false),
        ];
        let pause = Pause::default();
        for (name, writes, waits) in table_of_waits {
            let command = table().find(name.as_bytes()).unwrap().command;
            pause.begin(Paused::Writes, 100);
            assert_eq!(pause.holds(command, writes, 99), waits, "{name}");
            assert!(!pause.holds(command, writes, 100), "{name}, when it is over");
            pause.begin(Paused::All, 50);
            assert!(
                pause.holds(command, writes, 99),
                "{name}, in a pause of everything"
            );
            pause.end();
            assert!(!pause.is_on() && !pause.holds(command, writes, 0), "{name}");
        }
    }

    #[test]
    fn it_ends_at_its_time() {
        let pause = Pause::default();
        assert!(!pause.end_when_over(1000));
        pause.begin(Paused::Writes, 100);
        pause.begin(Paused::Writes, 50);
        assert!(!pause.end_when_over(99));
        assert!(pause.is_on());
        assert!(pause.end_when_over(100));
        assert!(!pause.is_on());
    }
}

//! Counters of the data path: written by the server thread that they belong to, summed up when somebody reads.
//!
//! Every counter has one writer, so that adding to it is a plain load and store with no locked instruction. A
//! reader may see two counters at slightly different moments, which is what metrics bear.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A counter with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the counter. Only the thread that owns it may call this; a second writer would lose counts.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(amount),
            Ordering::Relaxed,
        );
    }

    /// Takes from the counter, under the same rule.
    #[inline]
    pub fn subtract(&self, amount: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_sub(amount),
            Ordering::Relaxed,
        );
    }

    /// The count at this moment.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A counter with any number of writers, for what happens seldom.
#[derive(Debug, Default)]
pub struct Total(AtomicU64);

impl Total {
    /// Adds to it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// The counters of one server thread.
        #[derive(Debug)]
        pub struct ThreadStats {
            $($(#[$doc])* pub $name: Counter,)+
            commands: Box<[CommandCounters]>,
            errors: Mutex<ErrorCounts>,
        }

        /// All threads' counters together.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)+
        }

        impl ThreadStats {
            fn new(commands: usize) -> Self {
                Self {
                    $($name: Counter::default(),)+
                    commands: (0..commands).map(|_| CommandCounters::default()).collect(),
                    errors: Mutex::default(),
                }
            }
        }

        impl Totals {
            fn add(&mut self, thread: &ThreadStats) {
                $(self.$name = self.$name.wrapping_add(thread.$name.get());)+
            }

            fn since(&self, base: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(base.$name),)+ }
            }
        }
    };
}

counters! {
    /// Commands that were executed or refused, unknown ones too.
    commands_processed,
    /// Key look-ups of reading commands that found the key.
    keyspace_hits,
    /// Key look-ups of reading commands that did not.
    keyspace_misses,
    /// Entries removed to stay within the memory budget.
    evicted_keys,
    /// Entries removed because their time was over.
    expired_keys,
    /// Connections accepted since the start.
    connections_accepted,
    /// Connections refused because there were too many.
    connections_rejected,
    /// Connections closed; accepted less closed are open.
    connections_closed,
    /// Connections closed because their TLS handshake failed, or took too long.
    tls_handshakes_failed,
    /// Connections closed because their buffers had no room in the memory budget.
    clients_evicted,
    /// Connections closed because what they sent is not the protocol.
    protocol_errors,
    /// Error replies of any kind.
    error_replies,
    /// Replies that sent a client to another member.
    moved_replies,
    /// Reads answered from copies of what other members serve.
    copy_reads,
    /// Connections closed because they didn't read what they had asked to be sent.
    slow_clients_closed,
    /// Bytes received from clients.
    net_input_bytes,
    /// Bytes sent to clients.
    net_output_bytes,
}

/// What happened to one command of the table on one thread.
#[derive(Debug, Default)]
struct CommandCounters {
    calls: Counter,
    failed: Counter,
    rejected: Counter,
}

/// How often one command was called.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommandTotals {
    /// Times that it was executed.
    pub calls: u64,
    /// Times that it was executed and answered an error.
    pub failed: u64,
    /// Times that it was refused before execution: arity, routing, permission, memory.
    pub rejected: u64,
}

/// How a command ended, for its counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It was executed.
    Done,
    /// It was executed and answered an error.
    Failed,
    /// It was not executed.
    Rejected,
}

/// How often errors with each code were answered.
pub type ErrorCounts = BTreeMap<Box<str>, u64>;

impl ThreadStats {
    /// Counts an error reply by its code: what stands between the `-` and the first blank or line end. A script can
    /// make any code; beyond some number of them they are not counted one by one.
    #[cold]
    pub fn count_error(&self, reply: &[u8]) {
        const CODES_MAX: usize = 128;
        const CODE_BYTES_MAX: usize = 64;
        let Some(text) = reply.strip_prefix(b"-") else {
            return;
        };
        let end = text.iter().position(|byte| b" \r\n".contains(byte));
        let code = &text[..end.unwrap_or(text.len()).min(CODE_BYTES_MAX)];
        let Ok(code) = std::str::from_utf8(code) else {
            return;
        };
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < CODES_MAX {
            errors.insert(code.into(), 1);
        }
    }

    /// Counts one command by its index in the table.
    #[inline]
    pub fn count_command(&self, index: usize, ending: Ending) {
        let Some(counters) = self.commands.get(index) else {
            return;
        };
        match ending {
            Ending::Done => counters.calls.add(1),
            Ending::Failed => {
                counters.calls.add(1);
                counters.failed.add(1);
            }
            Ending::Rejected => counters.rejected.add(1),
        }
    }
}

/// All counters of the node. Threads come and stay; what was counted is never lost.
#[derive(Debug)]
pub struct Stats {
    commands: usize,
    threads: RwLock<Vec<Arc<ThreadStats>>>,
    /// What `CONFIG RESETSTAT` subtracts: counters themselves belong to their threads.
    base: RwLock<Base>,
}

#[derive(Debug, Default)]
struct Base {
    totals: Totals,
    commands: Vec<CommandTotals>,
}

impl Stats {
    /// Counters for a table of that many commands.
    pub fn new(commands: usize) -> Self {
        Self {
            commands,
            threads: RwLock::default(),
            base: RwLock::default(),
        }
    }

    /// A new thread's own counters.
    pub fn register_thread(&self) -> Arc<ThreadStats> {
        let stats = Arc::new(ThreadStats::new(self.commands));
        self.threads
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&stats));
        stats
    }

    /// The counters since the start of the process; they only grow.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for thread in self.threads.read().unwrap_or_else(PoisonError::into_inner).iter() {
            totals.add(thread);
        }
        totals
    }

    /// Per command of the table, in its order, since the start of the process.
    pub fn command_totals(&self) -> Vec<CommandTotals> {
        let mut totals = vec![CommandTotals::default(); self.commands];
        for thread in self.threads.read().unwrap_or_else(PoisonError::into_inner).iter() {
            for (total, counters) in totals.iter_mut().zip(&thread.commands) {
                total.calls += counters.calls.get();
                total.failed += counters.failed.get();
                total.rejected += counters.rejected.get();
            }
        }
        totals
    }

    /// Connections that are open now.
    pub fn connections_open(&self) -> u64 {
        let totals = self.totals();
        totals
            .connections_accepted
            .saturating_sub(totals.connections_closed)
    }

    /// The counters since the last `CONFIG RESETSTAT`, for `INFO`.
    pub fn totals_since_reset(&self) -> Totals {
        self.totals()
            .since(&self.base.read().unwrap_or_else(PoisonError::into_inner).totals)
    }

    /// Per command since the last `CONFIG RESETSTAT`, for `INFO commandstats`.
    pub fn command_totals_since_reset(&self) -> Vec<CommandTotals> {
        let mut totals = self.command_totals();
        let base = self.base.read().unwrap_or_else(PoisonError::into_inner);
        for (total, base) in totals.iter_mut().zip(&base.commands) {
            total.calls -= base.calls;
            total.failed -= base.failed;
            total.rejected -= base.rejected;
        }
        totals
    }

    /// Error replies by their codes since the last `CONFIG RESETSTAT`, for `INFO errorstats`.
    pub fn errors_since_reset(&self) -> ErrorCounts {
        let mut counts = ErrorCounts::new();
        for thread in self.threads.read().unwrap_or_else(PoisonError::into_inner).iter() {
            for (code, count) in &*thread.errors.lock().unwrap_or_else(PoisonError::into_inner) {
                *counts.entry(code.clone()).or_default() += count;
            }
        }
        counts
    }

    /// `CONFIG RESETSTAT`: `INFO` counts from here on. Metrics for Prometheus stay monotonic.
    pub fn reset(&self) {
        let base = Base {
            totals: self.totals(),
            commands: self.command_totals(),
        };
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = base;
        for thread in self.threads.read().unwrap_or_else(PoisonError::into_inner).iter() {
            thread
                .errors
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
        }
    }
}

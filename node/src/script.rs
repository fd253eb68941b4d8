//! Lua scripts: `EVAL` and its like.
//!
//! A script runs in one slot, which is locked from its first command on keys to its end, and on the thread of its
//! client. It can hold both for so long as `busy-reply-threshold` says, and then it is ended. Each client thread
//! has a Lua state of its own ([`engine`]), made when its first script comes; the sources of a
//! tenant's scripts are known to all of them ([`cache`]), and to no other tenant.
//!
//! A script sees commands and a sandbox ([`sandbox`]): no file, no socket, no other script. What it leaves in the
//! heap is taken away, and a state in which a script was ended by force is thrown away.

mod bits;
mod cache;
mod call;
mod engine;
mod json;
mod json_reader;
mod pattern;
mod raised;
mod redis_api;
mod sandbox;
mod shebang;
mod strings;
mod to_lua;
mod to_reply;
mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annulus_proto::tenants::TenantId;
use parking_lot::Mutex;

pub use cache::{Cache, Script, ScriptId};
pub use engine::{Request, check, run};

use crate::command::Command;
use crate::error::{CommandError, Outcome};
use crate::resp::Args;
use watchdog::Running;

/// What all threads know of scripts.
pub struct Scripts {
    /// How often `SCRIPT FLUSH` was called: a thread throws its state away when it finds a new number here.
    flushes: AtomicU64,
    /// What runs on the threads that have a state.
    running: Mutex<Vec<Arc<Running>>>,
    /// What each thread's state may take.
    state_bytes_max: usize,
}

impl Scripts {
    /// No scripts. The states of all threads together take an eighth of the budget at most, though enough of it
    /// to be of use.
    pub fn new(budget_bytes: u64, threads: usize) -> Self {
        const STATE_BYTES_MIN: usize = 4 << 20;
        const STATE_BYTES_MAX: usize = 64 << 20;
        let share = usize::try_from(budget_bytes / 8).unwrap_or(usize::MAX) / threads.max(1);
        Self {
            flushes: AtomicU64::new(0),
            running: Mutex::default(),
            state_bytes_max: share.clamp(STATE_BYTES_MIN, STATE_BYTES_MAX),
        }
    }

    /// Throws away what the threads have compiled: the cluster's own scripts were forgotten.
    pub fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
    }

    /// `SCRIPT KILL`: ends the tenant's scripts that are running and have not written.
    pub fn kill(&self, tenant: TenantId) -> Outcome {
        let running = self.running.lock();
        let (mut killed, mut wrote) = (false, false);
        for thread in running.iter() {
            match thread.kill(tenant) {
                watchdog::Kill::Killed => killed = true,
                watchdog::Kill::HasWritten => wrote = true,
                watchdog::Kill::Idle => {}
            }
        }
        match (killed, wrote) {
            (true, _) => Ok(()),
            (false, true) => Err(CommandError::Fixed(
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can wait: \
                 it is ended when busy-reply-threshold is over.",
            )),
            (false, false) => Err(CommandError::Fixed("NOTBUSY No scripts in execution right now.")),
        }
    }

    /// What the threads' states take.
    pub fn state_bytes(&self) -> usize {
        self.running.lock().iter().map(|running| running.bytes()).sum()
    }
}

/// Whether a client's command may write: a script doesn't whose first line says so. `known` are the client's scripts.
pub fn may_write(known: &Mutex<Cache>, command: &Command, args: Args<'_>) -> bool {
    let says_no = || match args.get(1) {
        Some(source) if command.name == "eval" => {
            shebang::parse(source).is_ok_and(|(flags, _)| flags.no_writes)
        }
        Some(id) if command.name == "evalsha" => ScriptId::parse(id)
            .and_then(|id| known.lock().find(id))
            .is_some_and(|script| script.flags.no_writes),
        _ => false,
    };
    command.may_write() && !says_no()
}

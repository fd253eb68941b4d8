//! Ends a script: when its time is over, or when somebody asks for it.
//!
//! Lua asks every few hundred instructions, and so does whatever here takes long without Lua. Once a script is to
//! be ended, every further question is answered in the same way, so that it can't go on by catching the error.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use annulus_proto::tenants::TenantId;
use mlua::{Function, Lua, MultiValue, Value};

use super::raised::{self, Raised};
use crate::clock;

const IDLE: u8 = 0;
const READING: u8 = 1;
const WROTE: u8 = 2;
const KILLED: u8 = 3;

/// What other threads know of a thread's script.
#[derive(Default)]
pub struct Running {
    phase: AtomicU8,
    /// Whose script it is.
    tenant: AtomicU32,
    bytes: AtomicUsize,
}

/// What came of asking a script to end.
pub enum Kill {
    /// There is none.
    Idle,
    /// It ends soon.
    Killed,
    /// It doesn't, since it would leave its work half done.
    HasWritten,
}

impl Running {
    /// Asks the script to end, if it is that tenant's and has not written.
    pub fn kill(&self, tenant: TenantId) -> Kill {
        if self.tenant.load(Ordering::Acquire) != tenant.0 {
            return Kill::Idle;
        }
        let killed = self
            .phase
            .compare_exchange(READING, KILLED, Ordering::Relaxed, Ordering::Relaxed);
        match killed {
            Ok(_) | Err(KILLED) => Kill::Killed,
            Err(WROTE) => Kill::HasWritten,
            Err(_) => Kill::Idle,
        }
    }

    /// What the thread's state took when it was last looked at.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes what the thread's state takes.
    pub fn set_bytes(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Why a script is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    /// It ran for too long.
    TooLong(Duration),
    /// `SCRIPT KILL`.
    Killed,
}

impl fmt::Display for Doom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(limit) => write!(
                f,
                "ERR the script ran for more than {} ms and was ended; what it has written stays. Let it do less, or \
                 raise busy-reply-threshold",
                limit.as_millis()
            ),
            Self::Killed => f.write_str("ERR Script killed by user with SCRIPT KILL"),
        }
    }
}

/// Watches one thread's scripts.
pub struct Watchdog {
    limit: Cell<Duration>,
    began: Cell<Instant>,
    doom: Cell<Option<Doom>>,
    /// Functions here that wait for functions of the script.
    depth: Cell<u32>,
    guard: OnceCell<Function>,
    running: Arc<Running>,
}

impl Watchdog {
    /// A watchdog that is asleep.
    pub fn new(running: Arc<Running>) -> Self {
        Self {
            limit: Cell::new(Duration::ZERO),
            began: Cell::new(clock::monotonic()),
            doom: Cell::new(None),
            depth: Cell::new(0),
            guard: OnceCell::new(),
            running,
        }
    }

    /// A tenant's script begins, and may take so long.
    pub fn begin(&self, tenant: TenantId, limit: Duration) {
        self.limit.set(limit);
        self.began.set(clock::monotonic());
        self.doom.set(None);
        self.depth.set(0);
        self.running.tenant.store(tenant.0, Ordering::Release);
        self.running.phase.store(READING, Ordering::Release);
    }

    /// The script is over.
    pub fn end(&self) {
        self.running.phase.store(IDLE, Ordering::Relaxed);
    }

    /// The script is about to write; an error if it is to end before.
    pub fn note_write(&self) -> mlua::Result<()> {
        let noted = self
            .running
            .phase
            .compare_exchange(READING, WROTE, Ordering::Relaxed, Ordering::Relaxed);
        match noted {
            Err(KILLED) => self.check(),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// What functions of scripts are called by: Lua's own `pcall`.
    pub fn set_guard(&self, pcall: Function) {
        // There is one state for each watchdog.
        self.guard.get_or_init(|| pcall);
    }

    /// Calls a function of the script from one of those here, which take more of the thread's stack than Lua's own.
    pub fn call(&self, lua: &Lua, function: &Function, args: MultiValue) -> mlua::Result<Value> {
        const DEPTH_MAX: u32 = 16;
        let depth = self.depth.get();
        let Some(guard) = self.guard.get().filter(|_| depth < DEPTH_MAX) else {
            return Err(raised::message(lua, "C stack overflow"));
        };
        self.depth.set(depth + 1);
        let results = guard.call::<(bool, Value)>((function, args));
        self.depth.set(depth);
        match results? {
            (true, value) => Ok(value),
            (false, Value::Error(error)) => Err(*error),
            (false, value) => Err(mlua::Error::external(Raised::Thrown(value))),
        }
    }

    /// Why the script is ended, if it is.
    pub fn doom(&self) -> Option<Doom> {
        self.doom.get()
    }

    /// An error if the script is to end.
    pub fn check(&self) -> mlua::Result<()> {
        if self.doom.get().is_none() {
            let limit = self.limit.get();
            if self.running.phase.load(Ordering::Relaxed) == KILLED {
                self.doom.set(Some(Doom::Killed));
            } else if clock::monotonic().duration_since(self.began.get()) > limit {
                self.doom.set(Some(Doom::TooLong(limit)));
            }
        }
        match self.doom.get() {
            Some(doom) => Err(mlua::Error::external(Raised::End(doom))),
            None => Ok(()),
        }
    }
}

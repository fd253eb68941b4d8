//! `MULTI` … `EXEC`: what a connection has queued, and how it runs.
//!
//! All keys of a transaction are in one slot, which is locked once for all of its commands. Commands without keys may
//! stand among them; since those may look at other slots, the lock is given up for them. Source: the Redis
//! documentation, "Transactions", and the Redis Cluster specification.

use annulus_ring::Slot;

use crate::command::{Entry, Flags, Run};
use crate::commands::command_info;
use crate::error::{CommandError, Outcome};
use crate::execute::{Context, admit, evict, run_in_slot};
use crate::resp::{Args, OwnedArgs, Reply};
use crate::stats::Ending;
use crate::store::{SlotGuard, Store, WatchFlag};

/// What one connection may have queued, in bytes of arguments.
const QUEUED_BYTES_MAX: usize = 64 << 20;

/// Commands between `MULTI` and `EXEC`.
#[derive(Default)]
pub struct Transaction {
    commands: Vec<Queued>,
    bytes: usize,
    aborted: bool,
}

struct Queued {
    entry: &'static Entry,
    slot: Option<Slot>,
    args: OwnedArgs,
}

impl Transaction {
    /// Adds a command that was checked.
    pub fn push(&mut self, entry: &'static Entry, slot: Option<Slot>, args: Args<'_>) -> Outcome {
        let args = OwnedArgs::from(args);
        self.bytes += args.bytes();
        if self.bytes > QUEUED_BYTES_MAX {
            self.abort();
            return Err(CommandError::Fixed(
                "ERR the queued commands take more than 64 MiB, use EXEC more often",
            ));
        }
        self.commands.push(Queued { entry, slot, args });
        Ok(())
    }

    /// A command was refused: `EXEC` will run nothing.
    pub fn abort(&mut self) {
        self.aborted = true;
        self.commands = Vec::new();
    }

    /// Whether a command was refused.
    pub fn is_aborted(&self) -> bool {
        self.aborted
    }

    fn slot(&self) -> Result<Option<Slot>, CommandError> {
        let mut slots = self.commands.iter().filter_map(|queued| queued.slot);
        let first = slots.next();
        if slots.all(|slot| Some(slot) == first) {
            Ok(first)
        } else {
            Err(CommandError::CrossSlot)
        }
    }

    fn writes(&self) -> bool {
        self.commands
            .iter()
            .any(|queued| queued.entry.command.flags.has(Flags::WRITE))
    }
}

/// Keys that the next transaction depends on.
#[derive(Default)]
pub struct Watched {
    flag: WatchFlag,
    keys: Vec<WatchedKey>,
}

struct WatchedKey {
    slot: Slot,
    key: Box<[u8]>,
    was_there: bool,
}

impl Watched {
    /// Watches one more key of a slot that is locked.
    pub fn add(&mut self, guard: &SlotGuard<'_>, key: &[u8], now_ms: u64) {
        let slot = guard.slot();
        if self
            .keys
            .iter()
            .any(|watched| watched.slot == slot && *watched.key == *key)
        {
            return;
        }
        guard.watch(key, &self.flag);
        self.keys.push(WatchedKey {
            slot,
            key: key.into(),
            was_there: guard.peek(key, now_ms).is_some(),
        });
    }

    /// Watches nothing any more.
    pub fn end(self, store: &Store) {
        for watched in &self.keys {
            store.lock_slot(watched.slot).unwatch(&watched.key, &self.flag);
        }
    }

    /// Whether a key has changed; `guard` holds the transaction's slot. A key whose time is over has changed too,
    /// whether or not somebody has noticed; in another slot that is seen when the sweep has removed it.
    fn is_changed(&self, guard: Option<&SlotGuard<'_>>, now_ms: u64) -> bool {
        let has_expired = |watched: &WatchedKey| {
            guard.is_some_and(|guard| {
                guard.slot() == watched.slot
                    && watched.was_there
                    && guard.peek(&watched.key, now_ms).is_none()
            })
        };
        self.flag.is_set() || self.keys.iter().any(has_expired)
    }
}

/// Runs a transaction: all of its commands, or none when a watched key has changed.
pub fn run(
    context: &mut Context<'_>,
    transaction: &Transaction,
    watched: Option<&Watched>,
    reply: &mut Reply,
) -> Outcome {
    let writes = transaction.writes();
    let slot = transaction.slot()?;
    let mut guard = match slot {
        Some(slot) => Some(admit(context.node, slot, writes)?),
        None => None,
    };
    if watched.is_some_and(|watched| watched.is_changed(guard.as_ref(), context.now_ms)) {
        reply.null_array();
        return Ok(());
    }
    reply.array(transaction.commands.len());
    for queued in &transaction.commands {
        let (begin, errors) = (reply.len(), reply.errors());
        let args = queued.args.as_args();
        let outcome = match (queued.entry.command.run, queued.slot) {
            (Run::Keyed(run), Some(slot)) => {
                // Given up for a command without keys, the slot may have moved meanwhile.
                let held = guard.take().map_or_else(|| admit(context.node, slot, writes), Ok);
                held.and_then(|held| run_in_slot(context, guard.insert(held), args, reply, run))
            }
            (Run::Plain(run), _) => {
                guard = None;
                run(context, args, reply)
            }
            (Run::Keyed(_) | Run::Container(_), _) => command_info::all(context, args, reply),
        };
        if let Err(error) = &outcome {
            reply.truncate(begin);
            reply.error(error);
        }
        let failed = reply.errors() > errors;
        let ending = if failed { Ending::Failed } else { Ending::Done };
        context.stats.count_command(queued.entry.index.into(), ending);
    }
    drop(guard);
    if writes {
        evict(context);
    }
    Ok(())
}

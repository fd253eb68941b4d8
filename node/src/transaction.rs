//! `MULTI` … `EXEC`: what a connection has queued, and how it runs.
//!
//! All keys of a transaction are in one slot, which is locked once for all of its commands. A command that looks at
//! many slots can't stand among them, since a thread never holds two. Source: the Redis documentation,
//! "Transactions", and the Redis Cluster specification.

use std::collections::HashMap;

use annulus_ring::Slot;

use crate::command::{Entry, Flags, Run};
use crate::commands::command_info;
use crate::error::{CommandError, Outcome};
use crate::execute::{Context, admit, evict, run_in_slot, track_reads};
use crate::resp::{Args, OwnedArgs, Reply};
use crate::stats::Ending;
use crate::store::{EvictionPolicy, SlotGuard, Store, WatchFlag};

/// What one connection may have queued, in bytes.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// What a queued command takes beside its arguments: its place in a list that may have doubled, and two allocations.
const QUEUED_COMMAND_BYTES: usize = 2 * size_of::<Queued>() + 2 * 16;
/// Keys that one connection may watch.
const WATCHED_MAX: usize = 10_000;
/// By how much a transaction may let its slot grow: room is made only after it.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// Commands between `MULTI` and `EXEC`.
#[derive(Default)]
pub struct Transaction {
    commands: Vec<Queued>,
    bytes: usize,
    /// There is a command without keys that takes slots itself.
    roams: bool,
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
        let roams = slot.is_none() && !entry.command.flags.has(Flags::NO_SLOT);
        let has_keys = slot.is_some() || self.commands.iter().any(|other| other.slot.is_some());
        if has_keys && (roams || self.roams) {
            return Err(CommandError::Fixed(
                "ERR a command that looks at many slots can't be in a transaction with commands on keys",
            ));
        }
        let args = OwnedArgs::from(args);
        self.bytes += args.bytes() + QUEUED_COMMAND_BYTES;
        if self.bytes > QUEUED_BYTES_MAX {
            return Err(CommandError::Fixed(
                "ERR the queued commands take more than 64 MiB, use EXEC more often",
            ));
        }
        self.roams |= roams;
        self.commands.push(Queued { entry, slot, args });
        Ok(())
    }

    /// A command was refused: `EXEC` will run nothing.
    pub fn abort(&mut self) {
        self.aborted = true;
        self.commands = Vec::new();
        self.bytes = 0;
    }

    /// Whether a command was refused.
    pub fn is_aborted(&self) -> bool {
        self.aborted
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
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

    /// Whether there is a command that writes.
    pub fn writes(&self) -> bool {
        self.commands
            .iter()
            .any(|queued| queued.entry.command.flags.has(Flags::WRITE))
    }
}

/// Keys that the next transaction depends on.
#[derive(Default)]
pub struct Watched {
    flag: WatchFlag,
    /// The slot of each, and whether it was there.
    keys: HashMap<Box<[u8]>, (Slot, bool), foldhash::fast::RandomState>,
}

impl Watched {
    /// Watches one more key of a slot that is locked.
    pub fn add(&mut self, guard: &mut SlotGuard<'_>, key: &[u8], now_ms: u64) -> Outcome {
        if self.keys.contains_key(key) {
            return Ok(());
        }
        if self.keys.len() >= WATCHED_MAX {
            return Err(CommandError::Fixed(
                "ERR a connection may watch 10000 keys at most",
            ));
        }
        // A key whose time is over isn't there: that it is removed some time later is no change.
        guard.drop_if_expired(key, now_ms);
        guard.watch(key, &self.flag);
        let was_there = guard.peek(key, now_ms).is_some();
        self.keys.insert(key.into(), (guard.slot(), was_there));
        Ok(())
    }

    /// Watches nothing any more. The caller holds no slot.
    pub fn end(self, store: &Store) {
        for (key, (slot, _)) in &self.keys {
            store.lock_slot(*slot).unwatch(key, &self.flag);
        }
    }

    /// Whether a key has changed; `guard` holds the transaction's slot. A key whose time is over has changed too,
    /// whether or not somebody has noticed; in another slot that is seen when the sweep has removed it.
    fn is_changed(&self, guard: Option<&SlotGuard<'_>>, now_ms: u64) -> bool {
        let has_expired = |guard: &SlotGuard<'_>| {
            self.keys.iter().any(|(key, (slot, was_there))| {
                *slot == guard.slot() && *was_there && guard.peek(key, now_ms).is_none()
            })
        };
        self.flag.is_set() || guard.is_some_and(has_expired)
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
    reply.set_part(true);
    for queued in &transaction.commands {
        let (begin, errors) = (reply.len(), reply.errors());
        let args = queued.args.as_args();
        let command = queued.entry.command;
        let outcome = match (command.run, &mut guard) {
            (Run::Keyed(run), Some(guard)) => check_growth(context, guard, command.flags).and_then(|()| {
                let outcome = run_in_slot(context, guard, args, reply, run);
                track_reads(context, guard.slot(), command, args);
                outcome
            }),
            (Run::Plain(run), _) => run(context, args, reply),
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
    reply.set_part(false);
    drop(guard);
    if writes {
        evict(context);
    }
    Ok(())
}

/// Refuses a command that may need memory where a transaction has taken too much of it: nothing is evicted while
/// it runs.
fn check_growth(context: &Context<'_>, guard: &SlotGuard<'_>, flags: Flags) -> Outcome {
    let is_too_much = if context.node.store.eviction() == EvictionPolicy::NoEviction {
        guard.excess_bytes() > 0
    } else {
        guard.grown_bytes() > GROWTH_BYTES_MAX
    };
    if is_too_much && flags.has(Flags::DENY_OOM) {
        return Err(CommandError::OutOfMemory);
    }
    Ok(())
}

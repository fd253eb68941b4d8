//! `MULTI` … `EXEC`: what a connection has queued, and how it runs.
//!
//! All keys of a transaction are in one slot, which is locked once for all of its commands. A command that looks at
//! many slots can't stand among them, since a thread never holds two. Source: the Redis documentation,
//! "Transactions", and the Redis Cluster specification.

use std::collections::HashMap;
use std::time::Duration;

use annulus_ring::Slot;
use parking_lot::Mutex;

use crate::clock;
use crate::command::{Entry, Flags, Run};
use crate::error::{CommandError, Outcome};
use crate::exclusive::Exclusive;
use crate::execute::Context;
use crate::resp::{Args, OwnedArgs, Reply};
use crate::script::{Cache, may_write};
use crate::store::{Keyspace, SlotGuard, Store, WatchFlag};

/// What one connection may have queued, in bytes.
const QUEUED_BYTES_MAX: usize = 64 << 20;
/// What a queued command takes beside its arguments: its place in a list that may have doubled, and two allocations.
const QUEUED_COMMAND_BYTES: usize = 2 * size_of::<Queued>() + 2 * 16;
/// Commands of a tenant's transaction are begun for so long: they hold their slot, for which others may wait.
const TENANTS_MAX: Duration = Duration::from_millis(100);
/// Keys that one connection may watch.
const WATCHED_MAX: usize = 10_000;

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
        // A script without keys takes at most the transaction's own slot.
        let is_script = matches!(entry.command.run, Run::Script(_));
        let roams = slot.is_none() && !is_script && !entry.command.flags.has(Flags::NO_SLOT);
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

    /// How many commands are queued.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The slot that all of its keys are in.
    pub fn slot(&self) -> Result<Option<Slot>, CommandError> {
        let mut slots = self.commands.iter().filter_map(|queued| queued.slot);
        let first = slots.next();
        if slots.all(|slot| Some(slot) == first) {
            Ok(first)
        } else {
            Err(CommandError::CrossSlot)
        }
    }

    /// Whether there is a command that writes.
    pub fn writes(&self, scripts: &Mutex<Cache>) -> bool {
        self.commands
            .iter()
            .any(|queued| may_write(scripts, queued.entry.command, queued.args.as_args()))
    }
}

/// Keys that the next transaction depends on.
#[derive(Default)]
pub struct Watched {
    /// Where the keys are.
    keyspace: Keyspace,
    flag: WatchFlag,
    /// The slot of each, and whether it was there.
    keys: HashMap<Box<[u8]>, (Slot, bool), foldhash::fast::RandomState>,
}

impl Watched {
    /// None yet, of that keyspace.
    pub fn new(keyspace: Keyspace) -> Self {
        Self {
            keyspace,
            ..Self::default()
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

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
            let guard = store.lock_slot_of(*slot, &self.keyspace);
            guard.unwatch(key, &self.flag);
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
    let writes = transaction.writes(&context.space().scripts);
    // Changes of a copy are not watched.
    let only_reads = || !writes && watched.is_none();
    let mut exclusive = Exclusive::new(context, transaction.slot()?, writes, only_reads)?;
    if watched.is_some_and(|watched| watched.is_changed(exclusive.guard(), context.now_ms)) {
        reply.null_array();
        return Ok(());
    }
    reply.array(transaction.commands.len());
    reply.set_part(true);
    let begun = context.session.login.is_some().then(clock::monotonic);
    for queued in &transaction.commands {
        if begun.is_some_and(|begun| begun.elapsed() > TENANTS_MAX) {
            reply.error(&CommandError::Fixed(
                "ERR not executed: the transaction has taken 100 ms, more than a tenant's may; use EXEC more often",
            ));
            continue;
        }
        // Its rules may have changed since it was queued.
        if let Some(login) = &context.session.login
            && !login.user().may(queued.entry)
        {
            reply.error(&CommandError::NoPermission {
                user: login.user().name().to_owned(),
                command: queued.entry.full_name.clone(),
            });
            continue;
        }
        exclusive.run(context, queued.entry, queued.args.as_args(), reply);
    }
    reply.set_part(false);
    exclusive.end(context);
    Ok(())
}

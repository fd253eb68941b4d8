//! Commands on the whole keyspace of the node.
//!
//! They see the slots that this node serves: entries that are on their way in or out with a handoff belong to
//! the other side. Each slot is seen under its lock, all of them at slightly different moments.

use annulus_ring::Slot;

use crate::commands::elements::ElementScan;
use crate::commands::{integer, is_word, matches_pattern};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply, number};
use crate::routing::Access;
use crate::store::{Stored, following};

/// Calls `see` with every entry of a slot that is served here; others are passed over.
fn see_slot(context: &Context<'_>, slot: Slot, mut see: impl FnMut(&Stored)) {
    let guard = context.node.store.lock_slot_of(slot, &context.session.keyspace);
    if matches!(
        context.node.routing.access(slot),
        Access::ReadWrite | Access::ReadOnly
    ) {
        guard.iter(context.now_ms).for_each(&mut see);
    }
}

/// Writes keys as an array of bulk strings.
fn write_keys(keys: &[Vec<u8>], reply: &mut Reply) {
    reply.array(keys.len());
    for key in keys {
        reply.bulk(key);
    }
}

/// What `SCAN` is to return.
struct ScanOptions<'a> {
    scan: ElementScan<'a>,
    type_name: Option<&'a [u8]>,
}

impl<'a> ScanOptions<'a> {
    fn parse(args: Args<'a>) -> Result<Self, CommandError> {
        let mut type_name = None;
        let scan = ElementScan::parse_with(args.from(2), None, |word, value| {
            let is_type = is_word(word, "TYPE");
            if is_type {
                type_name = Some(value);
            }
            is_type
        })?;
        Ok(Self { scan, type_name })
    }

    fn want(&self, stored: &Stored) -> bool {
        self.scan.wants(stored.key())
            && self
                .type_name
                .is_none_or(|name| is_word(name, stored.value().type_name()))
    }
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
///
/// The cursor is the next slot to see, and a slot is always returned as a whole: so every key that is there
/// from the first call to the last is returned exactly once. `COUNT` says after how many keys to stop.
pub fn scan(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let cursor = number::parse_u64(args.at(1)).ok_or(CommandError::Fixed("ERR invalid cursor"))?;
    let options = ScanOptions::parse(args)?;
    let mut next = u16::try_from(cursor)
        .ok()
        .and_then(|number| Slot::new(number).ok());
    let (mut seen, mut keys) = (0, Vec::new());
    while let Some(slot) = next.and_then(|from| context.space().next_occupied(from)) {
        next = following(slot);
        see_slot(context, slot, |stored| {
            seen += 1;
            if options.want(stored) {
                keys.push(stored.key().to_vec());
            }
        });
        if seen >= options.scan.count {
            break;
        }
    }
    // Behind the last slot that has entries the scan is over.
    let next = next.and_then(|from| context.space().next_occupied(from));
    reply.array(2);
    reply.bulk_integer(next.map_or(0, |slot| slot.number().into()));
    write_keys(&keys, reply);
    Ok(())
}

/// `KEYS pattern`
pub fn keys(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let mut keys = Vec::new();
    let mut next = context.space().next_occupied(Slot::ZERO);
    while let Some(slot) = next {
        see_slot(context, slot, |stored| {
            if matches_pattern(args.at(1), stored.key()) {
                keys.push(stored.key().to_vec());
            }
        });
        next = following(slot).and_then(|from| context.space().next_occupied(from));
    }
    write_keys(&keys, reply);
    Ok(())
}

/// `RANDOMKEY`
pub fn randomkey(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let Some(slot) = context.space().random_occupied(&context.node.store) else {
            break;
        };
        let mut keys = Vec::new();
        see_slot(context, slot, |stored| keys.push(stored.key().to_vec()));
        if !keys.is_empty() {
            let index = context.node.store.random() % keys.len() as u64;
            reply.bulk(&keys[usize::try_from(index).unwrap_or(0)]);
            return Ok(());
        }
    }
    reply.null();
    Ok(())
}

/// `DBSIZE`
pub fn dbsize(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.integer(i64::try_from(context.space().keys()).unwrap_or(i64::MAX));
    Ok(())
}

/// `FLUSHALL [ASYNC | SYNC]` and `FLUSHDB [ASYNC | SYNC]`
///
/// Both are done when the reply comes. Slots that are frozen for a handoff refuse writes, so nothing is flushed
/// while there are any.
pub fn flushall(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    match (args.get(1), args.len()) {
        (None, _) => {}
        (Some(word), 2) if is_word(word, "ASYNC") || is_word(word, "SYNC") => {}
        _ => return Err(CommandError::Syntax),
    }
    let store = &context.node.store;
    context.node.groups.note_flush(context.session.keyspace.id());
    if let Some(frozen) = Slot::all().find(|&slot| context.node.routing.access(slot) == Access::ReadOnly) {
        return Err(CommandError::TryAgain(frozen));
    }
    let served = |slot: &Slot| context.node.routing.access(*slot) == Access::ReadWrite;
    if Slot::all()
        .filter(served)
        .any(|slot| !store.journal.may_write(slot))
    {
        return Err(CommandError::NoReplicas);
    }
    for slot in Slot::all() {
        if context.space().next_occupied(slot) == Some(slot) {
            let mut guard = store.lock_slot_of(slot, &context.session.keyspace);
            if context.node.routing.access(slot) == Access::ReadWrite {
                guard.flush();
            }
        }
        // Of an empty slot it has to be known as well that it is still this node's.
        if context.node.routing.access(slot) == Access::ReadWrite {
            context.session.unsettled.note(&store.journal, slot, true);
        }
    }
    context.space().tracking.flush();
    reply.ok();
    Ok(())
}

/// An argument that must be a slot.
fn slot_arg(arg: &[u8]) -> Result<Slot, CommandError> {
    let number = integer(arg)?;
    let slot = u16::try_from(number)
        .ok()
        .and_then(|number| Slot::new(number).ok());
    slot.ok_or(CommandError::Fixed("ERR Invalid slot"))
}

/// `CLUSTER COUNTKEYSINSLOT slot`
pub fn count_keys_in_slot(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let slot = slot_arg(args.at(2))?;
    let mut count = 0;
    see_slot(context, slot, |_| count += 1);
    reply.integer(count);
    Ok(())
}

/// `CLUSTER GETKEYSINSLOT slot count`
pub fn get_keys_in_slot(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let slot = slot_arg(args.at(2))?;
    let Ok(count_max) = usize::try_from(integer(args.at(3))?) else {
        return Err(CommandError::Fixed("ERR Invalid slot or number of keys"));
    };
    let mut keys = Vec::new();
    see_slot(context, slot, |stored| {
        if keys.len() < count_max {
            keys.push(stored.key().to_vec());
        }
    });
    write_keys(&keys, reply);
    Ok(())
}

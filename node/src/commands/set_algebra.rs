//! Commands that intersect, unite and subtract sets of one slot.

use crate::commands::elements::{counted_keys, peek, read};
use crate::commands::{at_least, is_word};
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::resp::Args;
use crate::store::Collection;
use crate::store::collections::Set;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersect,
    Unite,
    Subtract,
}

/// The sets at the keys; `None` where there is none.
fn sets<'a, 'k>(
    call: &'a mut Keyed<'_, '_>,
    keys: impl Iterator<Item = &'k [u8]> + Clone,
) -> Result<Vec<Option<&'a Set>>, CommandError> {
    for key in keys.clone() {
        read::<Set>(call.slot, key, call.now_ms)?;
    }
    let mut sets = Vec::new();
    for key in keys {
        sets.push(peek::<Set>(call.slot, key, call.now_ms)?);
    }
    Ok(sets)
}

/// The members of all sets, as many as `limit` at most.
fn intersection<'a>(sets: &[Option<&'a Set>], limit: usize) -> Vec<&'a [u8]> {
    let Some(sets) = sets.iter().copied().collect::<Option<Vec<_>>>() else {
        return Vec::new();
    };
    let Some((at, smallest)) = sets.iter().enumerate().min_by_key(|(_, set)| set.len()) else {
        return Vec::new();
    };
    let mut others = sets.clone();
    others.swap_remove(at);
    let is_everywhere = |member: &&[u8]| others.iter().all(|set| set.contains(member));
    smallest.iter().filter(is_everywhere).take(limit).collect()
}

fn compute(operation: Operation, sets: &[Option<&Set>]) -> Set {
    match operation {
        Operation::Intersect => intersection(sets, usize::MAX).into_iter().collect(),
        Operation::Unite => sets.iter().flatten().flat_map(|set| set.iter()).collect(),
        Operation::Subtract => {
            let Some((Some(first), rest)) = sets.split_first() else {
                return Set::default();
            };
            let is_left = |member: &&[u8]| !rest.iter().flatten().any(|set| set.contains(member));
            first.iter().filter(is_left).collect()
        }
    }
}

fn write(call: &mut Keyed<'_, '_>, operation: Operation) -> Outcome {
    let keys = call.args.from(1);
    let result = compute(operation, &sets(call, keys)?);
    call.reply.set(result.len());
    for member in result.iter() {
        call.reply.bulk(member);
    }
    Ok(())
}

fn store(call: &mut Keyed<'_, '_>, operation: Operation) -> Outcome {
    let (to, keys) = (call.args.at(1), call.args.from(2));
    let result = compute(operation, &sets(call, keys)?);
    let len = result.len();
    if len == 0 {
        call.slot.remove(to, call.now_ms);
    } else {
        call.slot.set(to, result.into_value(), None, call.now_ms)?;
    }
    call.reply.count(len);
    Ok(())
}

/// `SINTER key [key …]`
pub fn sinter(call: &mut Keyed<'_, '_>) -> Outcome {
    write(call, Operation::Intersect)
}

/// `SUNION key [key …]`
pub fn sunion(call: &mut Keyed<'_, '_>) -> Outcome {
    write(call, Operation::Unite)
}

/// `SDIFF key [key …]`
pub fn sdiff(call: &mut Keyed<'_, '_>) -> Outcome {
    write(call, Operation::Subtract)
}

/// `SINTERSTORE destination key [key …]`
pub fn sinterstore(call: &mut Keyed<'_, '_>) -> Outcome {
    store(call, Operation::Intersect)
}

/// `SUNIONSTORE destination key [key …]`
pub fn sunionstore(call: &mut Keyed<'_, '_>) -> Outcome {
    store(call, Operation::Unite)
}

/// `SDIFFSTORE destination key [key …]`
pub fn sdiffstore(call: &mut Keyed<'_, '_>) -> Outcome {
    store(call, Operation::Subtract)
}

/// Reads `[LIMIT limit]` from that argument on; 0 is without limit.
pub(super) fn limit_option(args: Args<'_>, from: usize) -> Result<usize, CommandError> {
    let mut limit = 0;
    let mut words = args.from(from);
    while let Some(word) = words.next() {
        match words.next() {
            Some(value) if is_word(word, "LIMIT") => {
                limit = at_least(value, 0, "ERR LIMIT can't be negative")?;
            }
            _ => return Err(CommandError::Syntax),
        }
    }
    Ok(if limit == 0 { usize::MAX } else { limit })
}

/// `SINTERCARD numkeys key [key …] [LIMIT limit]`
pub fn sintercard(call: &mut Keyed<'_, '_>) -> Outcome {
    let keys = counted_keys(call.args, 1);
    let limit = limit_option(call.args, 2 + keys.len())?;
    let count = intersection(&sets(call, keys)?, limit).len();
    call.reply.count(count);
    Ok(())
}

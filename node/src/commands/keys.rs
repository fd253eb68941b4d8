//! Commands on keys, whatever they hold.

use crate::commands::{integer, is_word};
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::store::{Entry, Stored};

/// `DEL key [key …]` and `UNLINK key [key …]`
pub fn del(call: &mut Keyed<'_, '_>) -> Outcome {
    let removed = call
        .args
        .from(1)
        .filter(|key| call.slot.remove(key, call.now_ms).is_some())
        .count();
    call.reply.count(removed);
    Ok(())
}

/// `EXISTS key [key …]`
pub fn exists(call: &mut Keyed<'_, '_>) -> Outcome {
    let found = call
        .args
        .from(1)
        .filter(|key| call.slot.peek_counted(key, call.now_ms).is_some())
        .count();
    call.reply.count(found);
    Ok(())
}

/// `TOUCH key [key …]`
pub fn touch(call: &mut Keyed<'_, '_>) -> Outcome {
    call.slot.set_touches(true);
    let found = call
        .args
        .from(1)
        .filter(|key| call.slot.read(key, call.now_ms).is_some())
        .count();
    call.reply.count(found);
    Ok(())
}

/// `TYPE key`
pub fn type_of(call: &mut Keyed<'_, '_>) -> Outcome {
    let name = call
        .slot
        .peek(call.args.at(1), call.now_ms)
        .map_or("none", |stored| stored.value().type_name());
    call.reply.simple(name);
    Ok(())
}

fn rename_generic(call: &mut Keyed<'_, '_>, replaces: bool) -> Result<bool, CommandError> {
    let (from, to, now_ms) = (call.args.at(1), call.args.at(2), call.now_ms);
    let cost = call
        .slot
        .peek(from, now_ms)
        .map(Stored::cost)
        .ok_or(CommandError::NoSuchKey)?;
    if from == to {
        return Ok(replaces);
    }
    if !replaces && call.slot.peek(to, now_ms).is_some() {
        return Ok(false);
    }
    call.slot.check_cost(cost + to.len() as u64)?;
    if let Some(stored) = call.slot.remove(from, now_ms) {
        let expires_at_ms = stored.expires_at_ms();
        call.slot.set(to, stored.into_value(), expires_at_ms, now_ms)?;
    }
    Ok(true)
}

/// `RENAME key newkey`
pub fn rename(call: &mut Keyed<'_, '_>) -> Outcome {
    rename_generic(call, true)?;
    call.reply.ok();
    Ok(())
}

/// `RENAMENX key newkey`
pub fn renamenx(call: &mut Keyed<'_, '_>) -> Outcome {
    let renamed = rename_generic(call, false)?;
    call.reply.integer(renamed.into());
    Ok(())
}

/// `COPY source destination [DB 0] [REPLACE]`
pub fn copy(call: &mut Keyed<'_, '_>) -> Outcome {
    let (from, to, now_ms) = (call.args.at(1), call.args.at(2), call.now_ms);
    let mut replaces = false;
    let mut words = call.args.from(3);
    while let Some(word) = words.next() {
        if is_word(word, "REPLACE") {
            replaces = true;
        } else if is_word(word, "DB") {
            let database = integer(words.next().ok_or(CommandError::Syntax)?)?;
            if database != 0 {
                return Err(CommandError::Fixed(
                    "ERR Copying to another database is not allowed in cluster mode",
                ));
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if from == to {
        return Err(CommandError::Fixed(
            "ERR source and destination objects are the same",
        ));
    }
    let tenant = call.slot.tenant();
    let entry = call
        .slot
        .read(from, now_ms)
        .map(|stored| Entry::of(tenant, stored, now_ms));
    let copied = match entry {
        Some(entry) if replaces || call.slot.peek(to, now_ms).is_none() => {
            call.slot.set(to, entry.value, entry.expires_at_ms, now_ms)?;
            true
        }
        _ => false,
    };
    call.reply.integer(copied.into());
    Ok(())
}

/// `OBJECT ENCODING key`
pub fn object_encoding(call: &mut Keyed<'_, '_>) -> Outcome {
    match call.slot.peek(call.args.at(2), call.now_ms) {
        Some(stored) => call.reply.bulk(stored.value().encoding().as_bytes()),
        None => call.reply.null(),
    }
    Ok(())
}

/// `OBJECT FREQ key`: what the eviction policy counts.
pub fn object_freq(call: &mut Keyed<'_, '_>) -> Outcome {
    const NOT_COUNTED: CommandError = CommandError::Fixed(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. The eviction policy tinylfu counts it.",
    );
    let key = call.args.at(2);
    if call.slot.peek(key, call.now_ms).is_none() {
        call.reply.null();
        return Ok(());
    }
    let uses = call.slot.uses(key).ok_or(NOT_COUNTED)?;
    call.reply.integer(i64::try_from(uses).unwrap_or(i64::MAX));
    Ok(())
}

/// `OBJECT IDLETIME key`
pub fn object_idletime(call: &mut Keyed<'_, '_>) -> Outcome {
    match call
        .slot
        .peek(call.args.at(2), call.now_ms)
        .map(|stored| stored.idle_ms(call.now_ms) / 1000)
    {
        Some(idle_s) => call.reply.integer(i64::try_from(idle_s).unwrap_or(i64::MAX)),
        None => call.reply.null(),
    }
    Ok(())
}

/// `OBJECT REFCOUNT key`: values are never shared.
pub fn object_refcount(call: &mut Keyed<'_, '_>) -> Outcome {
    match call.slot.peek(call.args.at(2), call.now_ms) {
        Some(_) => call.reply.integer(1),
        None => call.reply.null(),
    }
    Ok(())
}

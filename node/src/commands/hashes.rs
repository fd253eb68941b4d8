//! Commands on hashes.

use crate::commands::counters::sum_of;
use crate::commands::elements::{
    ElementScan, RandomCount, check_growth, find, peek, random_below, read, write_scan_head,
};
use crate::commands::integer;
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::resp::number::{self, Decimal};
use crate::resp::{Args, Reply};
use crate::store::collections::Hash;

/// Sets the fields of `… key field value [field value …]`, and says how many are new.
fn set_all(call: &mut Keyed<'_, '_>, name: &str) -> Result<usize, CommandError> {
    let (key, args) = (call.args.at(1), call.args);
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(name.to_owned()));
    }
    check_growth::<Hash>(call, key, args.from(2))?;
    let pairs = args.from(2).step_by(2).zip(args.from(3).step_by(2));
    Ok(call.slot.update(key, call.now_ms, |hash: &mut Hash| {
        pairs.filter(|(field, value)| hash.set(field, value)).count()
    })?)
}

/// `HSET key field value [field value …]`
pub fn hset(call: &mut Keyed<'_, '_>) -> Outcome {
    let new = set_all(call, "hset")?;
    call.reply.count(new);
    Ok(())
}

/// `HMSET key field value [field value …]`
pub fn hmset(call: &mut Keyed<'_, '_>) -> Outcome {
    set_all(call, "hmset")?;
    call.reply.ok();
    Ok(())
}

/// `HSETNX key field value`
pub fn hsetnx(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, field) = (call.args.at(1), call.args.at(2));
    let exists = find::<Hash>(call.slot, key, call.now_ms)?.is_some_and(|hash| hash.get(field).is_some());
    if !exists {
        set_one(call, key, field, call.args.at(3))?;
    }
    call.reply.integer((!exists).into());
    Ok(())
}

fn set_one(call: &mut Keyed<'_, '_>, key: &[u8], field: &[u8], value: &[u8]) -> Outcome {
    check_growth::<Hash>(call, key, [field, value].into_iter())?;
    call.slot
        .update(key, call.now_ms, |hash: &mut Hash| hash.set(field, value))?;
    Ok(())
}

fn write_value(value: Option<&[u8]>, reply: &mut Reply) {
    match value {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
}

/// `HGET key field`
pub fn hget(call: &mut Keyed<'_, '_>) -> Outcome {
    let hash = read::<Hash>(call.slot, call.args.at(1), call.now_ms)?;
    write_value(hash.and_then(|hash| hash.get(call.args.at(2))), call.reply);
    Ok(())
}

/// `HMGET key field [field …]`
pub fn hmget(call: &mut Keyed<'_, '_>) -> Outcome {
    let hash = read::<Hash>(call.slot, call.args.at(1), call.now_ms)?;
    let fields = call.args.from(2);
    call.reply.array(fields.len());
    for field in fields {
        write_value(hash.and_then(|hash| hash.get(field)), call.reply);
    }
    Ok(())
}

/// `HGETALL key`
pub fn hgetall(call: &mut Keyed<'_, '_>) -> Outcome {
    let hash = read::<Hash>(call.slot, call.args.at(1), call.now_ms)?;
    call.reply.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.into_iter().flat_map(Hash::iter) {
        call.reply.bulk(field);
        call.reply.bulk(value);
    }
    Ok(())
}

/// `HKEYS key`
pub fn hkeys(call: &mut Keyed<'_, '_>) -> Outcome {
    let hash = read::<Hash>(call.slot, call.args.at(1), call.now_ms)?;
    call.reply.array(hash.map_or(0, Hash::len));
    for (field, _) in hash.into_iter().flat_map(Hash::iter) {
        call.reply.bulk(field);
    }
    Ok(())
}

/// `HVALS key`
pub fn hvals(call: &mut Keyed<'_, '_>) -> Outcome {
    let hash = read::<Hash>(call.slot, call.args.at(1), call.now_ms)?;
    call.reply.array(hash.map_or(0, Hash::len));
    for (_, value) in hash.into_iter().flat_map(Hash::iter) {
        call.reply.bulk(value);
    }
    Ok(())
}

/// `HDEL key field [field …]`
pub fn hdel(call: &mut Keyed<'_, '_>) -> Outcome {
    let fields = call.args.from(2);
    let removed = call
        .slot
        .update(call.args.at(1), call.now_ms, |hash: &mut Hash| {
            fields.filter(|field| hash.remove(field)).count()
        })?;
    call.reply.count(removed);
    Ok(())
}

/// `HEXISTS key field`
pub fn hexists(call: &mut Keyed<'_, '_>) -> Outcome {
    let hash = read::<Hash>(call.slot, call.args.at(1), call.now_ms)?;
    let exists = hash.is_some_and(|hash| hash.get(call.args.at(2)).is_some());
    call.reply.integer(exists.into());
    Ok(())
}

/// `HLEN key`
pub fn hlen(call: &mut Keyed<'_, '_>) -> Outcome {
    let hash = read::<Hash>(call.slot, call.args.at(1), call.now_ms)?;
    call.reply.count(hash.map_or(0, Hash::len));
    Ok(())
}

/// `HSTRLEN key field`
pub fn hstrlen(call: &mut Keyed<'_, '_>) -> Outcome {
    let hash = read::<Hash>(call.slot, call.args.at(1), call.now_ms)?;
    let value = hash.and_then(|hash| hash.get(call.args.at(2)));
    call.reply.count(value.map_or(0, <[u8]>::len));
    Ok(())
}

/// `HINCRBY key field increment`
pub fn hincrby(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, field) = (call.args.at(1), call.args.at(2));
    let increment = integer(call.args.at(3))?;
    let old = find::<Hash>(call.slot, key, call.now_ms)?.and_then(|hash| hash.get(field));
    let old = old.map_or(Ok(0), |old| {
        number::parse_i64(old).ok_or(CommandError::Fixed("ERR hash value is not an integer"))
    })?;
    let sum = old
        .checked_add(increment)
        .ok_or(CommandError::IncrementOverflow)?;
    set_one(call, key, field, Decimal::new(sum).as_bytes())?;
    call.reply.integer(sum);
    Ok(())
}

/// `HINCRBYFLOAT key field increment`
pub fn hincrbyfloat(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, field, increment) = (call.args.at(1), call.args.at(2), call.args.at(3));
    let number = number::parse_f64(increment).ok_or(CommandError::NotAFloat)?;
    if number.is_infinite() {
        return Err(CommandError::Fixed("ERR value is NaN or Infinity"));
    }
    let old = find::<Hash>(call.slot, key, call.now_ms)?.and_then(|hash| hash.get(field));
    let old = old.unwrap_or(b"0");
    if number::parse_f64(old).is_none() {
        return Err(CommandError::Fixed("ERR hash value is not a float"));
    }
    let sum = sum_of(old, increment)?;
    set_one(call, key, field, sum.as_bytes())?;
    call.reply.bulk(sum.as_bytes());
    Ok(())
}

/// `HRANDFIELD key [count [WITHVALUES]]`
pub fn hrandfield(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    let count = RandomCount::parse(call.args, "WITHVALUES")?;
    let len = read::<Hash>(call.slot, key, now_ms)?.map_or(0, Hash::len);
    let hash = peek::<Hash>(call.slot, key, now_ms)?;
    match (count, hash) {
        (None, None) => call.reply.null(),
        (None, Some(hash)) => call.reply.bulk(hash.at(random_below(call.slot, len)).0),
        (Some(_), None) => call.reply.array(0),
        (Some((count, with_values)), Some(hash)) => {
            let as_pairs = with_values && call.reply.is_resp3();
            let width = if with_values && !as_pairs { 2 } else { 1 };
            call.reply.array(width * count.of(len));
            count.pick(call.slot, len, call.reply, |place, reply| {
                let (field, value) = hash.at(place);
                if as_pairs {
                    reply.array(2);
                }
                reply.bulk(field);
                if with_values {
                    reply.bulk(value);
                }
            });
        }
    }
    Ok(())
}

/// `HSCAN key cursor [MATCH pattern] [COUNT count] [NOVALUES]`
pub fn hscan(call: &mut Keyed<'_, '_>) -> Outcome {
    let args: Args<'_> = call.args;
    let cursor = ElementScan::cursor(args)?;
    let Some(hash) = read::<Hash>(call.slot, args.at(1), call.now_ms)? else {
        write_scan_head(0, 0, call.reply);
        return Ok(());
    };
    let options = ElementScan::parse(args, Some("NOVALUES"))?;
    let (found, next) = hash.scan(cursor, options.count);
    let found: Vec<_> = found.filter(|(field, _)| options.wants(field)).collect();
    let strings_each = if options.halves { 1 } else { 2 };
    write_scan_head(next, strings_each * found.len(), call.reply);
    for (field, value) in found {
        call.reply.bulk(field);
        if !options.halves {
            call.reply.bulk(value);
        }
    }
    Ok(())
}

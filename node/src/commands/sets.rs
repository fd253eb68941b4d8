//! Commands on one set.

use crate::commands::elements::{
    ElementScan, RandomCount, check_growth, find, peek, random_below, read, sample, write_scan_head,
};
use crate::commands::positive;
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::store::collections::Set;

/// `SADD key member [member …]`
pub fn sadd(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, members) = (call.args.at(1), call.args.from(2));
    check_growth::<Set>(call, key, members.clone())?;
    let added = call.slot.update(key, call.now_ms, |set: &mut Set| {
        members.filter(|member| set.insert(member)).count()
    })?;
    call.reply.count(added);
    Ok(())
}

/// `SREM key member [member …]`
pub fn srem(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, members) = (call.args.at(1), call.args.from(2));
    let removed = call.slot.update(key, call.now_ms, |set: &mut Set| {
        members.filter(|member| set.remove(member)).count()
    })?;
    call.reply.count(removed);
    Ok(())
}

/// `SISMEMBER key member`
pub fn sismember(call: &mut Keyed<'_, '_>) -> Outcome {
    let set = read::<Set>(call.slot, call.args.at(1), call.now_ms)?;
    let is_member = set.is_some_and(|set| set.contains(call.args.at(2)));
    call.reply.integer(is_member.into());
    Ok(())
}

/// `SMISMEMBER key member [member …]`
pub fn smismember(call: &mut Keyed<'_, '_>) -> Outcome {
    let set = read::<Set>(call.slot, call.args.at(1), call.now_ms)?;
    let members = call.args.from(2);
    call.reply.array(members.len());
    for member in members {
        let is_member = set.is_some_and(|set| set.contains(member));
        call.reply.integer(is_member.into());
    }
    Ok(())
}

/// `SCARD key`
pub fn scard(call: &mut Keyed<'_, '_>) -> Outcome {
    let set = read::<Set>(call.slot, call.args.at(1), call.now_ms)?;
    call.reply.count(set.map_or(0, Set::len));
    Ok(())
}

/// `SMEMBERS key`
pub fn smembers(call: &mut Keyed<'_, '_>) -> Outcome {
    let set = read::<Set>(call.slot, call.args.at(1), call.now_ms)?;
    call.reply.set(set.map_or(0, Set::len));
    for member in set.into_iter().flat_map(Set::iter) {
        call.reply.bulk(member);
    }
    Ok(())
}

/// `SMOVE source destination member`
pub fn smove(call: &mut Keyed<'_, '_>) -> Outcome {
    let (from, to, member) = (call.args.at(1), call.args.at(2), call.args.at(3));
    let now_ms = call.now_ms;
    let Some(set) = find::<Set>(call.slot, from, now_ms)? else {
        call.reply.integer(0);
        return Ok(());
    };
    let is_member = set.contains(member);
    let is_there = find::<Set>(call.slot, to, now_ms)?.is_some_and(|set| set.contains(member));
    if is_member && from != to && is_there {
        // The destination doesn't change: who watches it is not told.
        call.slot
            .update(from, now_ms, |set: &mut Set| set.remove(member))?;
    } else if is_member && from != to {
        check_growth::<Set>(call, to, std::iter::once(member))?;
        call.slot
            .update(from, now_ms, |set: &mut Set| set.remove(member))?;
        call.slot.update(to, now_ms, |set: &mut Set| set.insert(member))?;
    }
    call.reply.integer(is_member.into());
    Ok(())
}

/// `SPOP key [count]`
pub fn spop(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    let count = match (call.args.get(2), call.args.len()) {
        (None, _) => None,
        (Some(count), 3) => Some(positive(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let len = find::<Set>(call.slot, key, now_ms)?.map_or(0, Set::len);
    let Some(count) = count else {
        if len == 0 {
            call.reply.null();
            return Ok(());
        }
        let place = random_below(call.slot, len);
        let reply = &mut *call.reply;
        call.slot.update(key, now_ms, |set: &mut Set| {
            reply.bulk(set.at(place));
            set.remove_at(place);
        })?;
        return Ok(());
    };
    let popped = count.min(len);
    call.reply.set(popped);
    if popped == 0 {
        return Ok(());
    }
    let places = sample(call.slot, len, popped);
    let reply = &mut *call.reply;
    call.slot.update(key, now_ms, |set: &mut Set| {
        // From the last place on: the gap is filled from behind it, where no place to come is.
        for place in places.into_iter().rev() {
            reply.bulk(set.at(place));
            set.remove_at(place);
        }
    })?;
    Ok(())
}

/// `SRANDMEMBER key [count]`
pub fn srandmember(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    if call.args.len() > 3 {
        return Err(CommandError::Syntax);
    }
    let count = RandomCount::parse(call.args, "")?;
    let len = read::<Set>(call.slot, key, now_ms)?.map_or(0, Set::len);
    let set = peek::<Set>(call.slot, key, now_ms)?;
    match (count, set) {
        (None, None) => call.reply.null(),
        (None, Some(set)) => call.reply.bulk(set.at(random_below(call.slot, len))),
        (Some(_), None) => call.reply.array(0),
        (Some((count, _)), Some(set)) => {
            call.reply.array(count.of(len));
            count.pick(call.slot, len, call.reply, |place, reply| {
                reply.bulk(set.at(place));
            });
        }
    }
    Ok(())
}

/// `SSCAN key cursor [MATCH pattern] [COUNT count]`
pub fn sscan(call: &mut Keyed<'_, '_>) -> Outcome {
    let cursor = ElementScan::cursor(call.args)?;
    let Some(set) = read::<Set>(call.slot, call.args.at(1), call.now_ms)? else {
        write_scan_head(0, 0, call.reply);
        return Ok(());
    };
    let options = ElementScan::parse(call.args, None)?;
    let (found, next) = set.scan(cursor, options.count);
    let found: Vec<_> = found.filter(|member| options.wants(member)).collect();
    write_scan_head(next, found.len(), call.reply);
    for member in found {
        call.reply.bulk(member);
    }
    Ok(())
}

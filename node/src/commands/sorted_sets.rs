//! Commands on single members of a sorted set, and those that take its ends or random members.

use crate::commands::elements::{
    ElementScan, RandomCount, check_growth, counted_keys, find, peek, random_below, read, write_scan_head,
};
use crate::commands::lists::pop_count;
use crate::commands::{is_word, positive};
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::resp::number::{format_f64, parse_score};
use crate::resp::{Args, Reply};
use crate::store::SlotGuard;
use crate::store::collections::SortedSet;

/// Writes a member with its score: as a pair in RESP3, one after the other in RESP2.
pub(super) fn write_scored(member: &[u8], score: f64, reply: &mut Reply) {
    if reply.is_resp3() {
        reply.array(2);
    }
    reply.bulk(member);
    reply.double(score);
}

/// The head of an array of so many members, with or without scores, as [`write_scored`] writes them.
pub(super) fn write_members_head(count: usize, with_scores: bool, reply: &mut Reply) {
    let width = if with_scores && !reply.is_resp3() { 2 } else { 1 };
    reply.array(width * count);
}

/// Which changes `ZADD` makes and what it answers.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are the command's own words")]
struct AddOptions {
    only_new: bool,
    only_existing: bool,
    only_greater: bool,
    only_less: bool,
    counts_changed: bool,
    increments: bool,
}

impl AddOptions {
    /// Reads the words before the first score, and says how many there are.
    fn parse(args: Args<'_>) -> Result<(Self, usize), CommandError> {
        let (mut options, mut count) = (Self::default(), 0);
        for word in args.from(2) {
            match word {
                word if is_word(word, "NX") => options.only_new = true,
                word if is_word(word, "XX") => options.only_existing = true,
                word if is_word(word, "GT") => options.only_greater = true,
                word if is_word(word, "LT") => options.only_less = true,
                word if is_word(word, "CH") => options.counts_changed = true,
                word if is_word(word, "INCR") => options.increments = true,
                _ => break,
            }
            count += 1;
        }
        let pairs = args.len() - 2 - count;
        if pairs == 0 || !pairs.is_multiple_of(2) {
            return Err(CommandError::Syntax);
        }
        if options.only_new && options.only_existing {
            return Err(CommandError::Fixed(
                "ERR XX and NX options at the same time are not compatible",
            ));
        }
        if [options.only_new, options.only_greater, options.only_less]
            .into_iter()
            .filter(|&is_set| is_set)
            .count()
            > 1
        {
            return Err(CommandError::Fixed(
                "ERR GT, LT, and/or NX options at the same time are not compatible",
            ));
        }
        if options.increments && pairs > 2 {
            return Err(CommandError::Fixed(
                "ERR INCR option supports a single increment-element pair",
            ));
        }
        Ok((options, count))
    }

    /// The score that a member has afterwards, if the options allow it to be set.
    fn apply(self, old: Option<f64>, score: f64) -> Result<Option<f64>, CommandError> {
        let Some(old) = old else {
            return Ok((!self.only_existing).then_some(score));
        };
        if self.only_new {
            return Ok(None);
        }
        let score = if self.increments { old + score } else { score };
        if score.is_nan() {
            return Err(CommandError::Fixed("ERR resulting score is not a number (NaN)"));
        }
        let is_refused = self.only_greater && score <= old || self.only_less && score >= old;
        Ok((!is_refused).then_some(score))
    }
}

fn add(call: &mut Keyed<'_, '_>, options: AddOptions, first: usize) -> Outcome {
    let (key, args) = (call.args.at(1), call.args);
    let mut pairs = Vec::with_capacity((args.len() - first) / 2);
    for (score, member) in args.from(first).step_by(2).zip(args.from(first + 1).step_by(2)) {
        pairs.push((parse_score(score).ok_or(CommandError::NotAFloat)?, member));
    }
    check_growth::<SortedSet>(call, key, pairs.iter().map(|(_, member)| *member))?;
    let (mut added, mut changed, mut last) = (0, 0, None);
    call.slot.update(key, call.now_ms, |set: &mut SortedSet| {
        for (score, member) in pairs {
            let old = set.score(member);
            last = options.apply(old, score)?;
            let Some(score) = last else { continue };
            if old.is_none() {
                added += 1;
            } else if old != last {
                changed += 1;
            }
            if old != last {
                set.insert(member, score);
            }
        }
        Ok::<(), CommandError>(())
    })??;
    match last {
        Some(score) if options.increments => call.reply.double(score),
        None if options.increments => call.reply.null(),
        _ if options.counts_changed => call.reply.count(added + changed),
        _ => call.reply.count(added),
    }
    Ok(())
}

/// `ZADD key [NX | XX] [GT | LT] [CH] [INCR] score member [score member …]`
pub fn zadd(call: &mut Keyed<'_, '_>) -> Outcome {
    let (options, count) = AddOptions::parse(call.args)?;
    add(call, options, 2 + count)
}

/// `ZINCRBY key increment member`
pub fn zincrby(call: &mut Keyed<'_, '_>) -> Outcome {
    let options = AddOptions {
        increments: true,
        ..AddOptions::default()
    };
    add(call, options, 2)
}

/// `ZREM key member [member …]`
pub fn zrem(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, members) = (call.args.at(1), call.args.from(2));
    let removed = call.slot.update(key, call.now_ms, |set: &mut SortedSet| {
        members.filter(|member| set.remove(member).is_some()).count()
    })?;
    call.reply.count(removed);
    Ok(())
}

fn write_score(score: Option<f64>, reply: &mut Reply) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

/// `ZSCORE key member`
pub fn zscore(call: &mut Keyed<'_, '_>) -> Outcome {
    let set = read::<SortedSet>(call.slot, call.args.at(1), call.now_ms)?;
    write_score(set.and_then(|set| set.score(call.args.at(2))), call.reply);
    Ok(())
}

/// `ZMSCORE key member [member …]`
pub fn zmscore(call: &mut Keyed<'_, '_>) -> Outcome {
    let set = read::<SortedSet>(call.slot, call.args.at(1), call.now_ms)?;
    let members = call.args.from(2);
    call.reply.array(members.len());
    for member in members {
        write_score(set.and_then(|set| set.score(member)), call.reply);
    }
    Ok(())
}

/// `ZCARD key`
pub fn zcard(call: &mut Keyed<'_, '_>) -> Outcome {
    let set = read::<SortedSet>(call.slot, call.args.at(1), call.now_ms)?;
    call.reply.count(set.map_or(0, SortedSet::len));
    Ok(())
}

fn rank(call: &mut Keyed<'_, '_>, reversed: bool) -> Outcome {
    let (member, with_score) = (call.args.at(2), call.args.get(3));
    if with_score.is_some_and(|word| !is_word(word, "WITHSCORE")) {
        return Err(CommandError::Syntax);
    }
    if call.args.len() > 4 {
        return Err(CommandError::Arity(
            if reversed { "zrevrank" } else { "zrank" }.to_owned(),
        ));
    }
    let set = read::<SortedSet>(call.slot, call.args.at(1), call.now_ms)?;
    let found = set.and_then(|set| {
        let rank = set.rank(member)?;
        let rank = if reversed { set.len() - 1 - rank } else { rank };
        Some((rank, set.score(member)?))
    });
    match (found, with_score) {
        (Some((rank, _)), None) => call.reply.count(rank),
        (Some((rank, score)), Some(_)) => {
            call.reply.array(2);
            call.reply.count(rank);
            call.reply.double(score);
        }
        (None, None) => call.reply.null(),
        (None, Some(_)) => call.reply.null_array(),
    }
    Ok(())
}

/// `ZRANK key member [WITHSCORE]`
pub fn zrank(call: &mut Keyed<'_, '_>) -> Outcome {
    rank(call, false)
}

/// `ZREVRANK key member [WITHSCORE]`
pub fn zrevrank(call: &mut Keyed<'_, '_>) -> Outcome {
    rank(call, true)
}

/// Takes so many members, which are there, from the lower or upper end; `write` gets them from the outermost on.
fn pop_into(
    slot: &mut SlotGuard<'_>,
    (key, now_ms): (&[u8], u64),
    (from_top, count): (bool, usize),
    mut write: impl FnMut(&[u8], f64),
) -> Outcome {
    slot.update(key, now_ms, |set: &mut SortedSet| {
        let len = set.len();
        if from_top {
            set.iter_back_from(len)
                .take(count)
                .for_each(|(member, score)| write(member, score));
            set.remove_range(len - count, len);
        } else {
            set.iter()
                .take(count)
                .for_each(|(member, score)| write(member, score));
            set.remove_range(0, count);
        }
    })?;
    Ok(())
}

fn pop(call: &mut Keyed<'_, '_>, from_top: bool) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    let count = match (call.args.get(2), call.args.len()) {
        (None, _) => None,
        (Some(count), 3) => Some(positive(count)?),
        _ => return Err(CommandError::Syntax),
    };
    let len = find::<SortedSet>(call.slot, key, now_ms)?.map_or(0, SortedSet::len);
    let popped = count.unwrap_or(1).min(len);
    let reply = &mut *call.reply;
    if count.is_none() && popped == 1 {
        // One member alone is no array of pairs.
        reply.array(2);
        return pop_into(call.slot, (key, now_ms), (from_top, 1), |member, score| {
            reply.bulk(member);
            reply.double(score);
        });
    }
    write_members_head(popped, true, reply);
    pop_into(call.slot, (key, now_ms), (from_top, popped), |member, score| {
        write_scored(member, score, reply);
    })
}

/// `ZPOPMIN key [count]`
pub fn zpopmin(call: &mut Keyed<'_, '_>) -> Outcome {
    pop(call, false)
}

/// `ZPOPMAX key [count]`
pub fn zpopmax(call: &mut Keyed<'_, '_>) -> Outcome {
    pop(call, true)
}

/// `ZMPOP numkeys key [key …] MIN | MAX [COUNT count]`
pub fn zmpop(call: &mut Keyed<'_, '_>) -> Outcome {
    let keys = counted_keys(call.args, 1);
    let mut words = call.args.from(2 + keys.len());
    let from_top = match words.next() {
        Some(word) if is_word(word, "MIN") => false,
        Some(word) if is_word(word, "MAX") => true,
        _ => return Err(CommandError::Syntax),
    };
    let count = pop_count(words)?;
    for key in keys {
        let len = find::<SortedSet>(call.slot, key, call.now_ms)?.map_or(0, SortedSet::len);
        if len > 0 {
            let popped = count.min(len);
            let reply = &mut *call.reply;
            reply.array(2);
            reply.bulk(key);
            reply.array(popped);
            return pop_into(
                call.slot,
                (key, call.now_ms),
                (from_top, popped),
                |member, score| {
                    reply.array(2);
                    reply.bulk(member);
                    reply.double(score);
                },
            );
        }
    }
    call.reply.null_array();
    Ok(())
}

/// `ZRANDMEMBER key [count [WITHSCORES]]`
pub fn zrandmember(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    let count = RandomCount::parse(call.args, "WITHSCORES")?;
    let len = read::<SortedSet>(call.slot, key, now_ms)?.map_or(0, SortedSet::len);
    let set = peek::<SortedSet>(call.slot, key, now_ms)?;
    match (count, set) {
        (None, None) => call.reply.null(),
        (None, Some(set)) => {
            let (member, _) = set.at(random_below(call.slot, len)).unwrap_or_default();
            call.reply.bulk(member);
        }
        (Some(_), None) => call.reply.array(0),
        (Some((count, with_scores)), Some(set)) => {
            write_members_head(count.of(len), with_scores, call.reply);
            count.pick(call.slot, len, call.reply, |rank, reply| {
                let (member, score) = set.at(rank).unwrap_or_default();
                if with_scores {
                    write_scored(member, score, reply);
                } else {
                    reply.bulk(member);
                }
            });
        }
    }
    Ok(())
}

/// `ZSCAN key cursor [MATCH pattern] [COUNT count] [NOSCORES]`
pub fn zscan(call: &mut Keyed<'_, '_>) -> Outcome {
    let cursor = ElementScan::cursor(call.args)?;
    let Some(set) = read::<SortedSet>(call.slot, call.args.at(1), call.now_ms)? else {
        write_scan_head(0, 0, call.reply);
        return Ok(());
    };
    let options = ElementScan::parse(call.args, Some("NOSCORES"))?;
    let (found, next) = set.scan(cursor, options.count);
    let found: Vec<_> = found.filter(|(member, _)| options.wants(member)).collect();
    let strings_each = if options.halves { 1 } else { 2 };
    write_scan_head(next, strings_each * found.len(), call.reply);
    for (member, score) in found {
        call.reply.bulk(member);
        if !options.halves {
            write_scanned(score, set.is_compact(), call.reply);
        }
    }
    Ok(())
}

/// A score as a string: small sets of Redis keep integers as such, and scans show it from 17 digits on.
fn write_scanned(score: f64, is_compact: bool, reply: &mut Reply) {
    const INTEGER_MAX: f64 = 4_611_686_018_427_387_904.0;
    if is_compact && score.fract() == 0.0 && score.abs() < INTEGER_MAX {
        reply.bulk(format!("{score:.0}").as_bytes());
    } else {
        reply.bulk(format_f64(score).as_bytes());
    }
}

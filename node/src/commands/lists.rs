//! Commands on lists.

use crate::commands::elements::{check_growth, counted_keys, find, peek, read};
use crate::commands::{at_least, integer, is_word, positive};
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::resp::Reply;
use crate::store::SlotGuard;
use crate::store::collections::List;

/// An end of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

impl End {
    fn parse(word: &[u8]) -> Result<Self, CommandError> {
        if is_word(word, "LEFT") {
            Ok(Self::Left)
        } else if is_word(word, "RIGHT") {
            Ok(Self::Right)
        } else {
            Err(CommandError::Syntax)
        }
    }

    fn push(self, list: &mut List, item: &[u8]) {
        match self {
            Self::Left => list.push_front(item),
            Self::Right => list.push_back(item),
        }
    }
}

fn push(call: &mut Keyed<'_, '_>, end: End, only_existing: bool) -> Outcome {
    let (key, items, now_ms) = (call.args.at(1), call.args.from(2), call.now_ms);
    if only_existing && find::<List>(call.slot, key, now_ms)?.is_none() {
        call.reply.integer(0);
        return Ok(());
    }
    check_growth::<List>(call, key, items.clone())?;
    let len = call.slot.update(key, now_ms, |list: &mut List| {
        for item in items {
            end.push(list, item);
        }
        list.len()
    })?;
    call.reply.count(len);
    Ok(())
}

/// `LPUSH key element [element …]`
pub fn lpush(call: &mut Keyed<'_, '_>) -> Outcome {
    push(call, End::Left, false)
}

/// `RPUSH key element [element …]`
pub fn rpush(call: &mut Keyed<'_, '_>) -> Outcome {
    push(call, End::Right, false)
}

/// `LPUSHX key element [element …]`
pub fn lpushx(call: &mut Keyed<'_, '_>) -> Outcome {
    push(call, End::Left, true)
}

/// `RPUSHX key element [element …]`
pub fn rpushx(call: &mut Keyed<'_, '_>) -> Outcome {
    push(call, End::Right, true)
}

/// Takes so many elements, which are there, from that end, and writes them as they come.
fn pop_into(
    slot: &mut SlotGuard<'_>,
    key: &[u8],
    end: End,
    count: usize,
    now_ms: u64,
    reply: &mut Reply,
) -> Result<(), CommandError> {
    slot.update(key, now_ms, |list: &mut List| match end {
        End::Left => {
            list.iter().take(count).for_each(|item| reply.bulk(item));
            list.remove(0, count);
        }
        End::Right => {
            list.iter_reversed().take(count).for_each(|item| reply.bulk(item));
            list.remove(list.len() - count, count);
        }
    })?;
    Ok(())
}

fn pop(call: &mut Keyed<'_, '_>, end: End, name: &str) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    let count = match (call.args.get(2), call.args.len()) {
        (None, _) => None,
        (Some(count), 3) => Some(positive(count)?),
        _ => return Err(CommandError::Arity(name.to_owned())),
    };
    let Some(len) = find::<List>(call.slot, key, now_ms)?.map(List::len) else {
        match count {
            None => call.reply.null(),
            Some(_) => call.reply.null_array(),
        }
        return Ok(());
    };
    let popped = count.unwrap_or(1).min(len);
    if count.is_some() {
        call.reply.array(popped);
    }
    pop_into(call.slot, key, end, popped, now_ms, call.reply)
}

/// `LPOP key [count]`
pub fn lpop(call: &mut Keyed<'_, '_>) -> Outcome {
    pop(call, End::Left, "lpop")
}

/// `RPOP key [count]`
pub fn rpop(call: &mut Keyed<'_, '_>) -> Outcome {
    pop(call, End::Right, "rpop")
}

/// `LMPOP numkeys key [key …] LEFT | RIGHT [COUNT count]`
pub fn lmpop(call: &mut Keyed<'_, '_>) -> Outcome {
    let keys = counted_keys(call.args, 1);
    let mut words = call.args.from(2 + keys.len());
    let end = End::parse(words.next().ok_or(CommandError::Syntax)?)?;
    let count = pop_count(words)?;
    for key in keys {
        let len = find::<List>(call.slot, key, call.now_ms)?.map_or(0, List::len);
        if len > 0 {
            let popped = count.min(len);
            call.reply.array(2);
            call.reply.bulk(key);
            call.reply.array(popped);
            return pop_into(call.slot, key, end, popped, call.now_ms, call.reply);
        }
    }
    call.reply.null_array();
    Ok(())
}

/// Reads the `[COUNT count]` at the end of `LMPOP` and `ZMPOP`.
pub(super) fn pop_count<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Result<usize, CommandError> {
    let Some(word) = words.next() else { return Ok(1) };
    match words.next() {
        Some(count) if is_word(word, "COUNT") => {
            let count = at_least(count, 1, "ERR count should be greater than 0")?;
            if words.next().is_some() {
                return Err(CommandError::Syntax);
            }
            Ok(count)
        }
        _ => Err(CommandError::Syntax),
    }
}

/// `LLEN key`
pub fn llen(call: &mut Keyed<'_, '_>) -> Outcome {
    let list = read::<List>(call.slot, call.args.at(1), call.now_ms)?;
    call.reply.count(list.map_or(0, List::len));
    Ok(())
}

/// The range from `start` to `end`, both included, both counted from the end when negative, as the index of the first
/// and of the one behind the last; empty ranges are at 0.
pub(super) fn range(start: i64, end: i64, len: usize) -> (usize, usize) {
    let from_front = |index: i64| {
        if index < 0 {
            let back = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
            len.checked_sub(back)
        } else {
            Some(usize::try_from(index).unwrap_or(usize::MAX))
        }
    };
    let start = from_front(start).unwrap_or(0);
    match from_front(end) {
        Some(end) if start <= end && start < len => (start, end.saturating_add(1).min(len)),
        _ => (0, 0),
    }
}

/// `LRANGE key start stop`
pub fn lrange(call: &mut Keyed<'_, '_>) -> Outcome {
    let (start, end) = (integer(call.args.at(2))?, integer(call.args.at(3))?);
    let Some(list) = read::<List>(call.slot, call.args.at(1), call.now_ms)? else {
        call.reply.array(0);
        return Ok(());
    };
    let (start, end) = range(start, end, list.len());
    call.reply.array(end - start);
    for item in list.iter_from(start).take(end - start) {
        call.reply.bulk(item);
    }
    Ok(())
}

/// The index of an element, counted from the end when negative; `None` when there is none.
fn place(index: i64, len: usize) -> Option<usize> {
    let place = match usize::try_from(index) {
        Ok(place) => place,
        Err(_) => len.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
    };
    (place < len).then_some(place)
}

/// `LINDEX key index`
pub fn lindex(call: &mut Keyed<'_, '_>) -> Outcome {
    let Some(list) = read::<List>(call.slot, call.args.at(1), call.now_ms)? else {
        call.reply.null();
        return Ok(());
    };
    let index = integer(call.args.at(2))?;
    match place(index, list.len()).and_then(|place| list.get(place)) {
        Some(item) => call.reply.bulk(item),
        None => call.reply.null(),
    }
    Ok(())
}

/// `LSET key index element`
pub fn lset(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, item) = (call.args.at(1), call.args.at(3));
    let list = find::<List>(call.slot, key, call.now_ms)?.ok_or(CommandError::NoSuchKey)?;
    let index = integer(call.args.at(2))?;
    let place = place(index, list.len()).ok_or(CommandError::Fixed("ERR index out of range"))?;
    check_growth::<List>(call, key, std::iter::once(item))?;
    call.slot
        .update(key, call.now_ms, |list: &mut List| list.set(place, item))?;
    call.reply.ok();
    Ok(())
}

/// `LINSERT key BEFORE | AFTER pivot element`
pub fn linsert(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, side, pivot, item) = (call.args.at(1), call.args.at(2), call.args.at(3), call.args.at(4));
    let offset = match side {
        side if is_word(side, "BEFORE") => 0,
        side if is_word(side, "AFTER") => 1,
        _ => return Err(CommandError::Syntax),
    };
    let Some(list) = find::<List>(call.slot, key, call.now_ms)? else {
        call.reply.integer(0);
        return Ok(());
    };
    let Some(place) = list.iter().position(|found| found == pivot) else {
        call.reply.integer(-1);
        return Ok(());
    };
    check_growth::<List>(call, key, std::iter::once(item))?;
    let len = call.slot.update(key, call.now_ms, |list: &mut List| {
        list.insert(place + offset, item);
        list.len()
    })?;
    call.reply.count(len);
    Ok(())
}

/// `LREM key count element`
pub fn lrem(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, item) = (call.args.at(1), call.args.at(3));
    let count = integer(call.args.at(2))?;
    let count_max = match usize::try_from(count.unsigned_abs()) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(count) => count,
    };
    let removed = call.slot.update(key, call.now_ms, |list: &mut List| {
        list.remove_equal(item, count_max, count < 0)
    })?;
    call.reply.count(removed);
    Ok(())
}

/// `LTRIM key start stop`
pub fn ltrim(call: &mut Keyed<'_, '_>) -> Outcome {
    let (start, end) = (integer(call.args.at(2))?, integer(call.args.at(3))?);
    call.slot
        .update(call.args.at(1), call.now_ms, |list: &mut List| {
            let (start, end) = range(start, end, list.len());
            list.trim(start, end);
        })?;
    call.reply.ok();
    Ok(())
}

struct Search {
    /// How many matches to pass over.
    skipped: usize,
    from_end: bool,
    /// How many to return; `None` for the first one, not in an array.
    count: Option<usize>,
    /// How many elements to look at.
    len_max: usize,
}

fn search_options(call: &Keyed<'_, '_>) -> Result<Search, CommandError> {
    let mut search = Search {
        skipped: 0,
        from_end: false,
        count: None,
        len_max: usize::MAX,
    };
    let mut words = call.args.from(3);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(CommandError::Syntax)?;
        if is_word(word, "RANK") {
            let rank = integer(value)?;
            if rank == i64::MIN {
                return Err(CommandError::BeyondSymmetric);
            }
            let matches = usize::try_from(rank.unsigned_abs()).unwrap_or(usize::MAX);
            search.skipped = matches.checked_sub(1).ok_or(CommandError::Fixed(
                "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use \
                 negative to start from the end of the list",
            ))?;
            search.from_end = rank < 0;
        } else if is_word(word, "COUNT") {
            let count = at_least(value, 0, "ERR COUNT can't be negative")?;
            search.count = Some(if count == 0 { usize::MAX } else { count });
        } else if is_word(word, "MAXLEN") {
            let len = at_least(value, 0, "ERR MAXLEN can't be negative")?;
            search.len_max = if len == 0 { usize::MAX } else { len };
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(search)
}

/// `LPOS key element [RANK rank] [COUNT count] [MAXLEN len]`
pub fn lpos(call: &mut Keyed<'_, '_>) -> Outcome {
    let item = call.args.at(2);
    let options = search_options(call)?;
    let Some(list) = read::<List>(call.slot, call.args.at(1), call.now_ms)? else {
        match options.count {
            Some(_) => call.reply.array(0),
            None => call.reply.null(),
        }
        return Ok(());
    };
    let len = list.len();
    let equal = |(index, found): (usize, &[u8])| (found == item).then_some(index);
    let wanted = options.count.unwrap_or(1);
    let found: Vec<usize> = if options.from_end {
        let looked_at = list.iter_reversed().enumerate().take(options.len_max);
        let matches = looked_at.filter_map(equal).skip(options.skipped);
        matches.take(wanted).map(|index| len - 1 - index).collect()
    } else {
        let looked_at = list.iter().enumerate().take(options.len_max);
        let matches = looked_at.filter_map(equal).skip(options.skipped);
        matches.take(wanted).collect()
    };
    match (options.count, found.first()) {
        (Some(_), _) => {
            call.reply.array(found.len());
            for index in found {
                call.reply.count(index);
            }
        }
        (None, Some(index)) => call.reply.count(*index),
        (None, None) => call.reply.null(),
    }
    Ok(())
}

fn move_element(call: &mut Keyed<'_, '_>, from_end: End, to_end: End) -> Outcome {
    let (from, to, now_ms) = (call.args.at(1), call.args.at(2), call.now_ms);
    let Some(list) = find::<List>(call.slot, from, now_ms)? else {
        call.reply.null();
        return Ok(());
    };
    let place = match from_end {
        End::Left => 0,
        End::Right => list.len() - 1,
    };
    let item = list.get(place).unwrap_or_default().to_vec();
    peek::<List>(call.slot, to, now_ms)?;
    if from == to {
        call.slot.update(from, now_ms, |list: &mut List| {
            list.remove(place, 1);
            to_end.push(list, &item);
        })?;
    } else {
        check_growth::<List>(call, to, std::iter::once(&*item))?;
        call.slot
            .update(from, now_ms, |list: &mut List| list.remove(place, 1))?;
        call.slot
            .update(to, now_ms, |list: &mut List| to_end.push(list, &item))?;
    }
    call.reply.bulk(&item);
    Ok(())
}

/// `LMOVE source destination LEFT | RIGHT LEFT | RIGHT`
pub fn lmove(call: &mut Keyed<'_, '_>) -> Outcome {
    let (from_end, to_end) = (End::parse(call.args.at(3))?, End::parse(call.args.at(4))?);
    move_element(call, from_end, to_end)
}

/// `RPOPLPUSH source destination`
pub fn rpoplpush(call: &mut Keyed<'_, '_>) -> Outcome {
    move_element(call, End::Right, End::Left)
}

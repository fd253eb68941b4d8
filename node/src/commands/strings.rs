//! Commands on strings, other than counting.

use crate::commands::{integer, is_word};
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::groups::Given;
use crate::resp::number::Decimal;
use crate::resp::{Args, Reply};
use crate::store::{Stored, ValueRef, WrongType};

use super::expiry::{TimeUnit, expiry_from};

/// Writes a string value, or that there is none.
#[inline]
fn write_value(stored: Option<&Stored>, reply: &mut Reply) -> Outcome {
    match stored.map(Stored::value) {
        Some(ValueRef::Bytes(bytes)) => reply.bulk(bytes),
        Some(ValueRef::Int(number)) => reply.bulk_integer(number),
        Some(_) => return Err(WrongType.into()),
        None => reply.null(),
    }
    Ok(())
}

/// The length of a string value, if there is one.
fn string_len(stored: Option<&Stored>) -> Result<Option<usize>, WrongType> {
    match stored {
        Some(stored) if !stored.value().is_string() => Err(WrongType),
        Some(stored) => Ok(Some(stored.value().len())),
        None => Ok(None),
    }
}

/// `GET key`
#[inline]
pub fn get(call: &mut Keyed<'_, '_>) -> Outcome {
    write_value(call.slot.read(call.args.at(1), call.now_ms), call.reply)
}

/// `GET` and `MGET` where some keys get what was loaded for them, and not what is stored.
pub fn get_given(call: &mut Keyed<'_, '_>, given: &Given) -> Outcome {
    let is_many = is_word(call.args.at(0), "MGET");
    if is_many {
        call.reply.array(call.args.len() - 1);
    }
    // Both are in the order of the arguments.
    let mut given = given.iter().peekable();
    for (place, key) in (1..).zip(call.args.from(1)) {
        match given.next_if(|(of, _)| *of == place) {
            Some((_, Some(value))) => call.reply.bulk(value),
            Some((_, None)) => call.reply.null(),
            None => {
                let stored = call.slot.read(key, call.now_ms);
                let is_shown = |stored: &&Stored| !is_many || stored.value().is_string();
                write_value(stored.filter(is_shown), call.reply)?;
            }
        }
    }
    Ok(())
}

/// What `SET` and `GETEX` do to the time of expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// None from now on (`SET`), or as it is (`GETEX`).
    Default,
    /// As it is.
    Keep,
    /// None from now on.
    Persist,
    /// Then.
    At(u64),
}

/// Under which condition `SET` sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition<'a> {
    Always,
    IfAbsent,
    IfPresent,
    /// The value is a string of these bytes.
    IfEqual(&'a [u8]),
}

struct SetOptions<'a> {
    expiry: Expiry,
    condition: Condition<'a>,
    returns_old: bool,
}

/// The option that this word names and that the next argument is a time for.
fn time_option(word: &[u8]) -> Option<(TimeUnit, bool)> {
    [
        ("EX", TimeUnit::Seconds, false),
        ("PX", TimeUnit::Milliseconds, false),
        ("EXAT", TimeUnit::Seconds, true),
        ("PXAT", TimeUnit::Milliseconds, true),
    ]
    .into_iter()
    .find_map(|(name, unit, is_absolute)| is_word(word, name).then_some((unit, is_absolute)))
}

fn set_options(args: Args<'_>, now_ms: u64) -> Result<SetOptions<'_>, CommandError> {
    let mut options = SetOptions {
        expiry: Expiry::Default,
        condition: Condition::Always,
        returns_old: false,
    };
    let mut words = args.from(3);
    while let Some(word) = words.next() {
        let no_expiry_yet = options.expiry == Expiry::Default;
        let no_condition_yet = options.condition == Condition::Always;
        if is_word(word, "NX") && no_condition_yet {
            options.condition = Condition::IfAbsent;
        } else if is_word(word, "XX") && no_condition_yet {
            options.condition = Condition::IfPresent;
        } else if is_word(word, "IFEQ") && no_condition_yet {
            options.condition = Condition::IfEqual(words.next().ok_or(CommandError::Syntax)?);
        } else if is_word(word, "GET") {
            options.returns_old = true;
        } else if is_word(word, "KEEPTTL") && no_expiry_yet {
            options.expiry = Expiry::Keep;
        } else if let (Some((unit, is_absolute)), true) = (time_option(word), no_expiry_yet) {
            let time = words.next().ok_or(CommandError::Syntax)?;
            options.expiry = Expiry::At(expiry_from(time, unit, is_absolute, now_ms, "set")?);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    Ok(options)
}

/// `SET key value [NX | XX | IFEQ old] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]`
pub fn set(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, value, now_ms) = (call.args.at(1), call.args.at(2), call.now_ms);
    if call.args.len() == 3 {
        call.slot.set_string(key, value, None, now_ms)?;
        call.reply.ok();
        return Ok(());
    }
    let options = set_options(call.args, now_ms)?;
    call.slot.check_size(key.len(), value.len())?;
    let old = if options.returns_old {
        call.slot.read(key, now_ms)
    } else {
        call.slot.find(key, now_ms)
    };
    let (exists, old_expiry) = (old.is_some(), old.and_then(Stored::expires_at_ms));
    let is_met = match options.condition {
        Condition::Always => true,
        Condition::IfAbsent => !exists,
        Condition::IfPresent => exists,
        Condition::IfEqual(expected) => is_equal(old, expected)?,
    };
    if options.returns_old {
        write_value(old, call.reply)?;
    }
    if is_met {
        let expires_at_ms = match options.expiry {
            Expiry::Default | Expiry::Persist => None,
            Expiry::Keep => old_expiry,
            Expiry::At(at_ms) => Some(at_ms),
        };
        if expires_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            call.slot.remove(key, now_ms);
        } else {
            call.slot.set_string(key, value, expires_at_ms, now_ms)?;
        }
    }
    match (options.returns_old, is_met) {
        (true, _) => {}
        (false, true) => call.reply.ok(),
        (false, false) => call.reply.null(),
    }
    Ok(())
}

/// Whether there is a string of these bytes.
fn is_equal(stored: Option<&Stored>, expected: &[u8]) -> Result<bool, WrongType> {
    string_len(stored)?;
    Ok(stored.is_some_and(|stored| *stored.value().to_bytes() == *expected))
}

/// `DELIFEQ key value`
pub fn delifeq(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, expected) = (call.args.at(1), call.args.at(2));
    let is_met = is_equal(call.slot.find(key, call.now_ms), expected)?;
    if is_met {
        call.slot.remove(key, call.now_ms);
    }
    call.reply.integer(is_met.into());
    Ok(())
}

/// `SETNX key value`
pub fn setnx(call: &mut Keyed<'_, '_>) -> Outcome {
    let key = call.args.at(1);
    let is_absent = call.slot.find(key, call.now_ms).is_none();
    if is_absent {
        call.slot.set_string(key, call.args.at(2), None, call.now_ms)?;
    }
    call.reply.integer(is_absent.into());
    Ok(())
}

fn set_for(call: &mut Keyed<'_, '_>, unit: TimeUnit, name: &'static str) -> Outcome {
    let at_ms = expiry_from(call.args.at(2), unit, false, call.now_ms, name)?;
    call.slot
        .set_string(call.args.at(1), call.args.at(3), Some(at_ms), call.now_ms)?;
    call.reply.ok();
    Ok(())
}

/// `SETEX key seconds value`
pub fn setex(call: &mut Keyed<'_, '_>) -> Outcome {
    set_for(call, TimeUnit::Seconds, "setex")
}

/// `PSETEX key milliseconds value`
pub fn psetex(call: &mut Keyed<'_, '_>) -> Outcome {
    set_for(call, TimeUnit::Milliseconds, "psetex")
}

/// `GETSET key value`
pub fn getset(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, value) = (call.args.at(1), call.args.at(2));
    call.slot.check_size(key.len(), value.len())?;
    write_value(call.slot.read(key, call.now_ms), call.reply)?;
    call.slot.set_string(key, value, None, call.now_ms)?;
    Ok(())
}

/// `GETDEL key`
pub fn getdel(call: &mut Keyed<'_, '_>) -> Outcome {
    let key = call.args.at(1);
    write_value(call.slot.read(key, call.now_ms), call.reply)?;
    call.slot.remove(key, call.now_ms);
    Ok(())
}

/// `GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]`
pub fn getex(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    let mut expiry = Expiry::Default;
    let mut words = call.args.from(2);
    while let Some(word) = words.next() {
        if expiry != Expiry::Default {
            return Err(CommandError::Syntax);
        }
        expiry = if is_word(word, "PERSIST") {
            Expiry::Persist
        } else {
            let (unit, is_absolute) = time_option(word).ok_or(CommandError::Syntax)?;
            let time = words.next().ok_or(CommandError::Syntax)?;
            Expiry::At(expiry_from(time, unit, is_absolute, now_ms, "getex")?)
        };
    }
    write_value(call.slot.read(key, now_ms), call.reply)?;
    match expiry {
        Expiry::Default | Expiry::Keep => {}
        Expiry::Persist => {
            call.slot.set_expiry(key, None, now_ms);
        }
        Expiry::At(at_ms) if at_ms <= now_ms => {
            call.slot.remove(key, now_ms);
        }
        Expiry::At(at_ms) => {
            call.slot.set_expiry(key, Some(at_ms), now_ms);
        }
    }
    Ok(())
}

/// `MGET key [key …]`
pub fn mget(call: &mut Keyed<'_, '_>) -> Outcome {
    let keys = call.args.from(1);
    call.reply.array(keys.len());
    for key in keys {
        // A value that is no string is as good as none.
        let stored = call.slot.read(key, call.now_ms);
        write_value(stored.filter(|stored| stored.value().is_string()), call.reply)?;
    }
    Ok(())
}

/// The pairs of `MSET` and `MSETNX`, once each of them is known to fit.
fn pairs<'a>(
    call: &Keyed<'a, '_>,
    name: &str,
) -> Result<impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a>, CommandError> {
    if call.args.len().is_multiple_of(2) {
        return Err(CommandError::Arity(name.to_owned()));
    }
    let pairs = call.args.from(1).step_by(2).zip(call.args.from(2).step_by(2));
    for (key, value) in pairs.clone() {
        call.slot.check_size(key.len(), value.len())?;
    }
    Ok(pairs)
}

/// `MSET key value [key value …]`
pub fn mset(call: &mut Keyed<'_, '_>) -> Outcome {
    for (key, value) in pairs(call, "mset")? {
        call.slot.set_string(key, value, None, call.now_ms)?;
    }
    call.reply.ok();
    Ok(())
}

/// `MSETNX key value [key value …]`
pub fn msetnx(call: &mut Keyed<'_, '_>) -> Outcome {
    let pairs = pairs(call, "msetnx")?;
    let all_absent = pairs
        .clone()
        .all(|(key, _)| call.slot.peek(key, call.now_ms).is_none());
    if all_absent {
        for (key, value) in pairs {
            call.slot.set_string(key, value, None, call.now_ms)?;
        }
    }
    call.reply.integer(all_absent.into());
    Ok(())
}

/// Whether a command may build a value of that length.
fn check_len(call: &Keyed<'_, '_>, key: &[u8], len: usize) -> Result<(), CommandError> {
    if len > call.value_bytes_max {
        return Err(CommandError::StringTooLong);
    }
    Ok(call.slot.check_size(key.len(), len)?)
}

/// `APPEND key value`
pub fn append(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, suffix, now_ms) = (call.args.at(1), call.args.at(2), call.now_ms);
    let Some(old_len) = string_len(call.slot.find(key, now_ms))? else {
        call.slot.set_string(key, suffix, None, now_ms)?;
        call.reply.count(suffix.len());
        return Ok(());
    };
    let len = old_len + suffix.len();
    check_len(call, key, len)?;
    call.slot
        .edit_string(key, len, now_ms, |bytes| bytes[old_len..].copy_from_slice(suffix));
    call.reply.count(len);
    Ok(())
}

/// `STRLEN key`
pub fn strlen(call: &mut Keyed<'_, '_>) -> Outcome {
    let len = string_len(call.slot.read(call.args.at(1), call.now_ms))?;
    call.reply.count(len.unwrap_or(0));
    Ok(())
}

/// `GETRANGE key start end`, and `SUBSTR`, its old name
pub fn getrange(call: &mut Keyed<'_, '_>) -> Outcome {
    let (start, end) = (integer(call.args.at(2))?, integer(call.args.at(3))?);
    let stored = call.slot.read(call.args.at(1), call.now_ms);
    match stored.map(Stored::value) {
        None => call.reply.bulk(b""),
        Some(ValueRef::Bytes(bytes)) => call.reply.bulk(range(bytes, start, end)),
        Some(ValueRef::Int(number)) => call
            .reply
            .bulk(range(Decimal::new(number).as_bytes(), start, end)),
        Some(_) => return Err(WrongType.into()),
    }
    Ok(())
}

/// The bytes from `start` to `end`, both included, both counted from the end when negative.
fn range(bytes: &[u8], start: i64, end: i64) -> &[u8] {
    let len = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    let from_front = |index: i64| {
        if index < 0 {
            index.saturating_add(len).max(0)
        } else {
            index
        }
    };
    // An inverted range counted from the end is empty, even where both ends lie before the first byte.
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let (start, end) = (from_front(start), from_front(end).min(len - 1));
    match (usize::try_from(start), usize::try_from(end)) {
        (Ok(start), Ok(end)) if start <= end => &bytes[start..=end],
        _ => &[],
    }
}

/// `SETRANGE key offset value`
pub fn setrange(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, part, now_ms) = (call.args.at(1), call.args.at(3), call.now_ms);
    let offset = integer(call.args.at(2))?;
    let Ok(offset) = usize::try_from(offset) else {
        return Err(CommandError::OffsetOutOfRange);
    };
    let old_len = string_len(call.slot.find(key, now_ms))?;
    if part.is_empty() {
        call.reply.count(old_len.unwrap_or(0));
        return Ok(());
    }
    let end = offset
        .checked_add(part.len())
        .ok_or(CommandError::StringTooLong)?;
    let len = end.max(old_len.unwrap_or(0));
    check_len(call, key, len)?;
    if old_len.is_none() {
        call.slot.set_string(key, b"", None, now_ms)?;
    }
    call.slot
        .edit_string(key, len, now_ms, |bytes| bytes[offset..end].copy_from_slice(part));
    call.reply.count(len);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let table: [(i64, i64, &[u8]); 12] = [
            (0, -1, b"hello"),
            (0, 0, b"h"),
            (1, 3, b"ell"),
            (-3, -2, b"ll"),
            (-100, 1, b"he"),
            (3, 100, b"lo"),
            (5, 10, b""),
            (3, 1, b""),
            (-1, -3, b""),
            (-100, -200, b""),
            (-100, -100, b"h"),
            (i64::MIN, i64::MAX, b"hello"),
        ];
        for (start, end, expected) in table {
            assert_eq!(range(b"hello", start, end), expected, "{start} {end}");
        }
        assert_eq!(range(b"", 0, -1), b"");
    }
}

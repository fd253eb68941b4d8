//! Commands that say how long keys live.
//!
//! A time of expiry is kept in milliseconds since the Unix epoch, whichever way it was given. A time that has
//! passed removes the key at once.

use std::cmp::Ordering;

use crate::commands::{integer, is_word};
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;

/// What a time was given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

impl TimeUnit {
    fn to_ms(self, time: i64) -> Option<i64> {
        match self {
            Self::Seconds => time.checked_mul(1000),
            Self::Milliseconds => Some(time),
        }
    }
}

/// The time of expiry of a value that is being set: later than the epoch, and later than now unless absolute.
/// `command` is for the error.
pub fn expiry_from(
    arg: &[u8],
    unit: TimeUnit,
    is_absolute: bool,
    now_ms: u64,
    command: &'static str,
) -> Result<u64, CommandError> {
    let time = integer(arg)?;
    let expiry = if time > 0 {
        to_expiry(time, unit, is_absolute, now_ms)
    } else {
        None
    };
    expiry
        .and_then(|at_ms| u64::try_from(at_ms).ok())
        .ok_or(CommandError::InvalidExpireTime(command))
}

fn to_expiry(time: i64, unit: TimeUnit, is_absolute: bool, now_ms: u64) -> Option<i64> {
    let time_ms = unit.to_ms(time)?;
    if is_absolute {
        Some(time_ms)
    } else {
        time_ms.checked_add(i64::try_from(now_ms).ok()?)
    }
}

/// Under which conditions `EXPIRE` and its kin act. Without time of expiry a key lives for ever, and so longer
/// than any other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Conditions {
    /// `NX` or `XX`: whether the key must have a time of expiry.
    is_volatile: Option<bool>,
    /// `GT` or `LT`: how the new time must compare with the old one.
    ordering: Option<Ordering>,
}

impl Conditions {
    fn parse<'a>(words: impl Iterator<Item = &'a [u8]>) -> Result<Self, CommandError> {
        const NX_ALONE: CommandError =
            CommandError::Fixed("ERR NX and XX, GT or LT options at the same time are not compatible");
        const GT_OR_LT: CommandError =
            CommandError::Fixed("ERR GT and LT options at the same time are not compatible");
        let mut conditions = Self::default();
        for word in words {
            let (is_volatile, ordering) = match word {
                nx if is_word(nx, "NX") => (Some(false), None),
                xx if is_word(xx, "XX") => (Some(true), None),
                gt if is_word(gt, "GT") => (None, Some(Ordering::Greater)),
                lt if is_word(lt, "LT") => (None, Some(Ordering::Less)),
                _ => {
                    let word = String::from_utf8_lossy(word);
                    return Err(CommandError::Other(format!("ERR Unsupported option {word}")));
                }
            };
            if is_volatile.is_some()
                && conditions
                    .is_volatile
                    .is_some_and(|before| Some(before) != is_volatile)
            {
                return Err(NX_ALONE);
            }
            if ordering.is_some() && conditions.ordering.is_some_and(|before| Some(before) != ordering) {
                return Err(GT_OR_LT);
            }
            conditions.is_volatile = conditions.is_volatile.or(is_volatile);
            conditions.ordering = conditions.ordering.or(ordering);
        }
        if conditions.is_volatile == Some(false) && conditions.ordering.is_some() {
            return Err(NX_ALONE);
        }
        Ok(conditions)
    }

    fn allow(self, old: Option<u64>, new_ms: i64) -> bool {
        let for_ever = i128::MAX;
        let old_ms = old.map_or(for_ever, i128::from);
        self.is_volatile
            .is_none_or(|is_volatile| is_volatile == old.is_some())
            && self
                .ordering
                .is_none_or(|ordering| i128::from(new_ms).cmp(&old_ms) == ordering)
    }
}

fn expire_generic(
    call: &mut Keyed<'_, '_>,
    unit: TimeUnit,
    is_absolute: bool,
    name: &'static str,
) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    let time = integer(call.args.at(2))?;
    let conditions = Conditions::parse(call.args.from(3))?;
    let at_ms = to_expiry(time, unit, is_absolute, now_ms).ok_or(CommandError::InvalidExpireTime(name))?;
    let Some(old) = call
        .slot
        .peek(key, now_ms)
        .map(crate::store::Stored::expires_at_ms)
    else {
        call.reply.integer(0);
        return Ok(());
    };
    if !conditions.allow(old, at_ms) {
        call.reply.integer(0);
        return Ok(());
    }
    match u64::try_from(at_ms) {
        Ok(at_ms) if at_ms > now_ms => {
            call.slot.set_expiry(key, Some(at_ms), now_ms);
        }
        _ => {
            call.slot.remove(key, now_ms);
        }
    }
    call.reply.integer(1);
    Ok(())
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`
pub fn expire(call: &mut Keyed<'_, '_>) -> Outcome {
    expire_generic(call, TimeUnit::Seconds, false, "expire")
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`
pub fn pexpire(call: &mut Keyed<'_, '_>) -> Outcome {
    expire_generic(call, TimeUnit::Milliseconds, false, "pexpire")
}

/// `EXPIREAT key unix-seconds [NX | XX | GT | LT]`
pub fn expireat(call: &mut Keyed<'_, '_>) -> Outcome {
    expire_generic(call, TimeUnit::Seconds, true, "expireat")
}

/// `PEXPIREAT key unix-milliseconds [NX | XX | GT | LT]`
pub fn pexpireat(call: &mut Keyed<'_, '_>) -> Outcome {
    expire_generic(call, TimeUnit::Milliseconds, true, "pexpireat")
}

/// Replies -2 without key, -1 without time of expiry, or what `read` makes of that time.
fn write_time(call: &mut Keyed<'_, '_>, read: fn(at_ms: u64, now_ms: u64) -> u64) {
    let now_ms = call.now_ms;
    let time = match call.slot.peek_counted(call.args.at(1), now_ms) {
        None => -2,
        Some(stored) => match stored.expires_at_ms() {
            None => -1,
            Some(at_ms) => i64::try_from(read(at_ms, now_ms)).unwrap_or(i64::MAX),
        },
    };
    call.reply.integer(time);
}

/// `TTL key`
pub fn ttl(call: &mut Keyed<'_, '_>) -> Outcome {
    write_time(call, |at_ms, now_ms| {
        at_ms.saturating_sub(now_ms).saturating_add(500) / 1000
    });
    Ok(())
}

/// `PTTL key`
pub fn pttl(call: &mut Keyed<'_, '_>) -> Outcome {
    write_time(call, u64::saturating_sub);
    Ok(())
}

/// `EXPIRETIME key`
pub fn expiretime(call: &mut Keyed<'_, '_>) -> Outcome {
    write_time(call, |at_ms, _| at_ms.saturating_add(500) / 1000);
    Ok(())
}

/// `PEXPIRETIME key`
pub fn pexpiretime(call: &mut Keyed<'_, '_>) -> Outcome {
    write_time(call, |at_ms, _| at_ms);
    Ok(())
}

/// `PERSIST key`
pub fn persist(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    let is_volatile = call
        .slot
        .peek(key, now_ms)
        .is_some_and(|stored| stored.expires_at_ms().is_some());
    if is_volatile {
        call.slot.set_expiry(key, None, now_ms);
    }
    call.reply.integer(is_volatile.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_with_for_ever() {
        let words = |words: &'static str| words.split_whitespace().map(str::as_bytes);
        let table = [
            ("", None, 5, true),
            ("nx", None, 5, true),
            ("NX", Some(4), 5, false),
            ("XX", None, 5, false),
            ("XX", Some(4), 5, true),
            ("GT", None, 5, false),
            ("GT", Some(5), 5, false),
            ("GT", Some(4), 5, true),
            ("LT", None, 5, true),
            ("LT", Some(5), 5, false),
            ("LT", Some(6), 5, true),
            ("XX LT", None, 5, false),
            ("XX GT", Some(4), 5, true),
        ];
        for (options, old, new_ms, allowed) in table {
            let conditions = Conditions::parse(words(options)).unwrap();
            assert_eq!(
                conditions.allow(old, new_ms),
                allowed,
                "{options} {old:?} {new_ms}"
            );
        }
        for refused in ["NX XX", "NX GT", "LT NX", "GT LT", "AB"] {
            assert!(Conditions::parse(words(refused)).is_err(), "{refused}");
        }
    }

    #[test]
    fn times_of_expiry() {
        use TimeUnit::{Milliseconds, Seconds};
        let invalid = Err(CommandError::InvalidExpireTime("set"));
        let table = [
            ("10", Seconds, false, Ok(11_000)),
            ("10", Milliseconds, false, Ok(1010)),
            ("10", Seconds, true, Ok(10_000)),
            ("0", Seconds, false, invalid.clone()),
            ("-1", Milliseconds, true, invalid.clone()),
            ("9223372036854775807", Seconds, false, invalid.clone()),
            ("9223372036854775807", Milliseconds, false, invalid),
            (
                "9223372036854775807",
                Milliseconds,
                true,
                Ok(9_223_372_036_854_775_807),
            ),
            ("x", Seconds, false, Err(CommandError::NotAnInteger)),
        ];
        for (arg, unit, is_absolute, expected) in table {
            assert_eq!(
                expiry_from(arg.as_bytes(), unit, is_absolute, 1000, "set"),
                expected,
                "{arg}"
            );
        }
    }
}

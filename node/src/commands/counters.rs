//! Commands that count in strings.

use crate::commands::integer;
use crate::error::{CommandError, Outcome};
use crate::execute::Keyed;
use crate::resp::number::{self, Decimal};
use crate::store::{Stored, Value, ValueRef, WrongType};

fn add(call: &mut Keyed<'_, '_>, increment: i64) -> Outcome {
    let (key, now_ms) = (call.args.at(1), call.now_ms);
    let sum = match call.slot.find(key, now_ms).map(Stored::value) {
        Some(ValueRef::Int(number)) => number
            .checked_add(increment)
            .ok_or(CommandError::IncrementOverflow)?,
        Some(ValueRef::Bytes(_)) => return Err(CommandError::NotAnInteger),
        Some(_) => return Err(WrongType.into()),
        None => {
            call.slot.set(key, Value::Int(increment), None, now_ms)?;
            call.reply.integer(increment);
            return Ok(());
        }
    };
    call.slot.replace_integer(key, sum, now_ms);
    call.reply.integer(sum);
    Ok(())
}

/// `INCR key`
pub fn incr(call: &mut Keyed<'_, '_>) -> Outcome {
    add(call, 1)
}

/// `DECR key`
pub fn decr(call: &mut Keyed<'_, '_>) -> Outcome {
    add(call, -1)
}

/// `INCRBY key increment`
pub fn incrby(call: &mut Keyed<'_, '_>) -> Outcome {
    let increment = integer(call.args.at(2))?;
    add(call, increment)
}

/// `DECRBY key decrement`
pub fn decrby(call: &mut Keyed<'_, '_>) -> Outcome {
    let decrement = integer(call.args.at(2))?;
    add(
        call,
        decrement.checked_neg().ok_or(CommandError::DecrementOverflow)?,
    )
}

/// `INCRBYFLOAT key increment`
pub fn incrbyfloat(call: &mut Keyed<'_, '_>) -> Outcome {
    let (key, increment, now_ms) = (call.args.at(1), call.args.at(2), call.now_ms);
    let stored = call.slot.find(key, now_ms);
    let exists = stored.is_some();
    let sum = match stored.map(Stored::value) {
        None => sum_of(b"0", increment)?,
        Some(ValueRef::Int(number)) => sum_of(Decimal::new(number).as_bytes(), increment)?,
        Some(ValueRef::Bytes(bytes)) => sum_of(bytes, increment)?,
        Some(_) => return Err(WrongType.into()),
    };
    if exists {
        call.slot.replace_string(key, sum.as_bytes(), now_ms)?;
    } else {
        call.slot.set_string(key, sum.as_bytes(), None, now_ms)?;
    }
    call.reply.bulk(sum.as_bytes());
    Ok(())
}

/// The sum of two numbers in decimal: exact where both have at most 17 decimals, as many as are written.
pub(super) fn sum_of(a: &[u8], b: &[u8]) -> Result<String, CommandError> {
    if let (Some(a), Some(b)) = (Fixed::parse(a), Fixed::parse(b)) {
        return Ok(Fixed(a.0 + b.0).to_string());
    }
    let parse = |text| number::parse_f64(text).ok_or(CommandError::NotAFloat);
    let sum = parse(a)? + parse(b)?;
    if !sum.is_finite() {
        return Err(CommandError::NotFinite);
    }
    let decimals = format!("{sum:.17}");
    let shortest = decimals.trim_end_matches('0').trim_end_matches('.');
    Ok(if shortest == "-0" { "0" } else { shortest }.to_owned())
}

/// A number with 17 decimals and up to 19 digits before them, so that `0.1 + 0.2` is `0.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fixed(i128);

impl Fixed {
    const DECIMALS: isize = 17;
    const ONE: i128 = 10i128.pow(17);
    const WHOLE_DIGITS_MAX: isize = 19;

    /// Reads `[+-] digits [. digits] [e exponent]`; other forms and longer numbers are left to floating point.
    fn parse(text: &[u8]) -> Option<Self> {
        let (negative, number) = match text {
            [b'-', number @ ..] => (true, number),
            [b'+', number @ ..] | number => (false, number),
        };
        let mut halves = number.splitn(2, |byte| matches!(byte, b'e' | b'E'));
        let plain = halves.next()?;
        let exponent: isize = match halves.next() {
            Some(exponent) => std::str::from_utf8(exponent).ok()?.parse().ok()?,
            None => 0,
        };
        let mut parts = plain.splitn(2, |&byte| byte == b'.');
        let (whole, decimals) = (parts.next()?, parts.next().unwrap_or_default());
        let digits: Vec<u8> = whole.iter().chain(decimals).copied().collect();
        // How many of the digits, zeros added, stand before the point.
        let whole_len = isize::try_from(whole.len()).ok()?.checked_add(exponent)?;
        let decimals_len = isize::try_from(digits.len()).ok()?.checked_sub(whole_len)?;
        let is_plain = !digits.is_empty()
            && digits.iter().all(u8::is_ascii_digit)
            && whole_len <= Self::WHOLE_DIGITS_MAX
            && decimals_len <= Self::DECIMALS;
        if !is_plain {
            return None;
        }
        let padding = usize::try_from(Self::DECIMALS - decimals_len).ok()?;
        let magnitude = digits
            .iter()
            .chain(std::iter::repeat_n(&b'0', padding))
            .fold(0, |sum: i128, digit| sum * 10 + i128::from(digit - b'0'));
        Some(Self(if negative { -magnitude } else { magnitude }))
    }
}

impl std::fmt::Display for Fixed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let (whole, decimals) = (self.0.abs() / Self::ONE, self.0.abs() % Self::ONE);
        if decimals == 0 {
            return write!(f, "{sign}{whole}");
        }
        let decimals = format!("{decimals:017}");
        write!(f, "{sign}{whole}.{}", decimals.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_decimals() {
        let table: [(&str, &str, Result<&str, CommandError>); 18] = [
            ("9223372036854775807", "1e3", Ok("9223372036854776807")),
            ("0.5e-3", "1E+1", Ok("10.0005")),
            ("1e-400", "1", Ok("1")),
            ("10.50", "0.1", Ok("10.6")),
            ("0.1", "0.2", Ok("0.3")),
            ("5.0e3", "2.0e2", Ok("5200")),
            ("1", "-1.0", Ok("0")),
            ("-0.5", "0.25", Ok("-0.25")),
            ("+1", "1.", Ok("2")),
            (".5", "1", Ok("1.5")),
            ("9223372036854775807", "1", Ok("9223372036854775808")),
            ("1e400", "1", Err(CommandError::NotFinite)),
            ("inf", "1", Err(CommandError::NotFinite)),
            ("abc", "1", Err(CommandError::NotAFloat)),
            ("1", "", Err(CommandError::NotAFloat)),
            ("1", ".", Err(CommandError::NotAFloat)),
            ("1", "nan", Err(CommandError::NotAFloat)),
            (" 1", "1", Err(CommandError::NotAFloat)),
        ];
        for (a, b, expected) in table {
            assert_eq!(
                sum_of(a.as_bytes(), b.as_bytes()),
                expected.map(str::to_owned),
                "{a} + {b}"
            );
        }
    }
}

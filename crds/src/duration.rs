//! Durations such as `1h30m`, in milliseconds.
//!
//! Source: Gateway API's `Duration`: `([0-9]{1,5}(h|m|s|ms)){1,4}`. It is what CEL's `duration()` reads, too, so that rules
//! can compare them.

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurationError(String);

impl std::fmt::Display for DurationError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} is not a duration, write for example 10m, 1h30m or 500ms",
            self.0
        )
    }
}

impl std::error::Error for DurationError {}

const PARTS_MAX: usize = 4;
const DIGITS_MAX: usize = 5;
/// `ms` before `m` and `s`, of which it is not made.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// The milliseconds that a duration stands for.
pub fn milliseconds_of(text: &str) -> Result<u64, DurationError> {
    parse(text).ok_or_else(|| DurationError(text.to_owned()))
}

fn parse(text: &str) -> Option<u64> {
    let (mut rest, mut sum, mut parts) = (text, 0, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| tail.starts_with(unit))?;
        parts += 1;
        if digits == 0 || digits > DIGITS_MAX || parts > PARTS_MAX {
            return None;
        }
        sum += number.parse::<u64>().ok()? * factor;
        rest = tail.strip_prefix(unit)?;
    }
    (parts > 0).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_gateway_api_reads_them() {
        for (text, milliseconds) in [
            ("10m", Some(600_000)),
            ("1h30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("1m1ms", Some(60_001)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("m", None),
            ("1d", None),
            ("1.5h", None),
            ("-1s", None),
            ("100000s", None),
            ("1s1s1s1s1s", None),
        ] {
            assert_eq!(milliseconds_of(text).ok(), milliseconds, "{text:?}");
        }
    }
}

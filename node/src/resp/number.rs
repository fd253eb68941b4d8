//! Numbers as the protocol and its values write them.
//!
//! An integer has one form: decimal, no leading zeros, no plus sign, no minus zero. A string in any other form is
//! not an integer, so that reading and writing one back never changes a byte.

/// The integer that these bytes are the canonical form of.
#[inline]
pub fn parse_i64(bytes: &[u8]) -> Option<i64> {
    const DIGITS_MAX: usize = 19;
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= DIGITS_MAX => {}
        _ => return None,
    }
    let mut magnitude = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits are below 10^19, and so below 2^64.
        magnitude = magnitude * 10 + u64::from(digit);
    }
    if negative {
        0i64.checked_sub_unsigned(magnitude)
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// The unsigned integer that these bytes are the canonical form of.
#[inline]
pub fn parse_u64(bytes: &[u8]) -> Option<u64> {
    match parse_i64(bytes) {
        Some(number) => u64::try_from(number).ok(),
        None => match bytes {
            [b'1'..=b'9', ..] => std::str::from_utf8(bytes).ok()?.parse().ok(),
            _ => None,
        },
    }
}

/// A floating point number as `INCRBYFLOAT` takes it: decimal or with an exponent, or an infinity; never NaN,
/// never with spaces around it.
pub fn parse_f64(bytes: &[u8]) -> Option<f64> {
    std::str::from_utf8(bytes)
        .ok()?
        .parse()
        .ok()
        .filter(|number: &f64| !number.is_nan())
}

/// A number as scores are written: 17 significant digits, which tell any two numbers apart, without zeros at the
/// end; with an exponent from 1e17 on and below 1e-4.
pub fn format_f64(number: f64) -> String {
    const DIGITS: usize = 17;
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if number.is_nan() {
        return if number.is_sign_negative() { "-nan" } else { "nan" }.to_owned();
    }
    let scientific = format!("{number:.16e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(mantissa) => ("-", mantissa),
        None => ("", mantissa),
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let significant = digits.trim_end_matches('0');
    match usize::try_from(exponent) {
        Ok(whole) if whole < DIGITS => {
            let (whole, decimals) = digits.split_at(whole + 1);
            let decimals = decimals.trim_end_matches('0');
            let point = if decimals.is_empty() { "" } else { "." };
            format!("{sign}{whole}{point}{decimals}")
        }
        Err(_) if exponent >= -4 => {
            let zeros = "0".repeat(usize::try_from(-1 - exponent).unwrap_or(0));
            format!("{sign}0.{zeros}{significant}")
        }
        _ => {
            let (whole, decimals) = significant.split_at(1);
            let point = if decimals.is_empty() { "" } else { "." };
            let exponent_sign = if exponent < 0 { '-' } else { '+' };
            format!(
                "{sign}{whole}{point}{decimals}e{exponent_sign}{:02}",
                exponent.unsigned_abs()
            )
        }
    }
}

/// A score: as [`parse_f64`], but neither so large nor so small that it would become another number.
pub fn parse_score(bytes: &[u8]) -> Option<f64> {
    let number = parse_f64(bytes)?;
    let digits = bytes.iter().take_while(|byte| !matches!(byte, b'e' | b'E'));
    let is_named = bytes.iter().any(|byte| matches!(byte, b'n' | b'N'));
    let is_nonzero = digits.clone().any(|byte| matches!(byte, b'1'..=b'9'));
    let is_kept = (number.is_finite() || is_named) && (number != 0.0 || !is_nonzero);
    is_kept.then_some(number)
}

/// An integer in decimal, without allocation.
pub struct Decimal {
    digits: [u8; Self::LEN_MAX],
    start: usize,
}

impl Decimal {
    const LEN_MAX: usize = 20;

    /// The digits of a number.
    #[inline]
    pub fn new(number: i64) -> Self {
        let mut decimal = Self::unsigned(number.unsigned_abs());
        if number < 0 {
            decimal.start -= 1;
            decimal.digits[decimal.start] = b'-';
        }
        decimal
    }

    /// The digits of a number without sign.
    #[inline]
    pub fn unsigned(number: u64) -> Self {
        let mut digits = [b'0'; Self::LEN_MAX];
        let mut start = Self::LEN_MAX;
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break Self { digits, start };
            }
        }
    }

    /// The text.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.start..]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_have_one_form() {
        let table: [(&str, Option<i64>); 18] = [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("42", Some(42)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("1e3", None),
            ("0x10", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_i64(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(parse_u64(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_u64(b"18446744073709551616"), None);
        assert_eq!(parse_u64(b"-1"), None);
    }

    #[test]
    fn floats_are_not_nan() {
        for (text, expected) in [
            ("1.5", Some(1.5)),
            ("-3e2", Some(-300.0)),
            ("nan", None),
            (" 1", None),
            ("", None),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn scores_are_written_with_17_digits() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (0.1, "0.10000000000000001"),
            (100.0, "100"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (123_456_789_012_345_680.0, "1.2345678901234568e+17"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.2500000000000001e-05"),
            (1e-7, "9.9999999999999995e-08"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (-f64::NAN, "-nan"),
        ] {
            assert_eq!(format_f64(number), expected);
        }
        for (text, expected) in [
            ("1e400", None),
            ("-1e400", None),
            ("1e-400", None),
            ("0e400", Some(0.0)),
            ("+inf", Some(f64::INFINITY)),
            ("-Infinity", Some(f64::NEG_INFINITY)),
            ("nan", None),
            ("", None),
            (" 1", None),
        ] {
            assert_eq!(parse_score(text.as_bytes()), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn written_scores_are_read_back(number in any::<f64>().prop_filter("a number", |number| !number.is_nan())) {
            prop_assert_eq!(parse_f64(format_f64(number).as_bytes()).map(f64::to_bits), Some(number.to_bits()));
        }

        #[test]
        fn written_numbers_are_read_back(number: i64) {
            let (written, expected) = (Decimal::new(number), number.to_string());
            prop_assert_eq!(written.as_bytes(), expected.as_bytes());
            prop_assert_eq!(parse_i64(Decimal::new(number).as_bytes()), Some(number));
        }
    }
}

//! Amounts of memory as people write them.
//!
//! Grammar: a decimal number, optionally with a fraction, then a unit out of [`UNITS`]. Units are those of
//! Kubernetes quantities (`Ki`, `Mi`, `k`, `M`, …) and the same with a trailing `B`. `m` is refused: Kubernetes
//! means thousandths by it and other tools mean megabytes, so whoever wrote it would be surprised either way.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, read from a text like `512Mi`, `1GiB`, `1.5G` or `1073741824`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(pub u64);

/// A text that is not an amount of memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// No number, a sign, or several points.
    #[error("{0:?} is not an amount of memory; write for example 512Mi, 1GiB, 2G or a number of bytes")]
    NotANumber(String),
    /// `m` is thousandths to Kubernetes and megabytes to others.
    #[error("{text:?} is ambiguous, in Kubernetes m means thousandths; write {number}Mi or {number}M")]
    Milli {
        /// What was given.
        text: String,
        /// Its number without the unit.
        number: String,
    },
    /// A unit that is not in the table.
    #[error(
        "{text:?} has the unknown unit {unit:?}; use one of k, M, G, T, Ki, Mi, Gi, Ti, with or without B, or none for bytes"
    )]
    UnknownUnit {
        /// What was given.
        text: String,
        /// Its unit.
        unit: String,
    },
    /// More than 2^64 bytes, or a fraction that isn't whole bytes long enough to count.
    #[error("{0:?} is more memory than a machine can have")]
    TooLarge(String),
}

const UNITS: [(&str, u64); 20] = [
    ("", 1),
    ("B", 1),
    ("k", 1_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("M", 1_000_000),
    ("MB", 1_000_000),
    ("G", 1_000_000_000),
    ("g", 1_000_000_000),
    ("GB", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("Ki", 1 << 10),
    ("KiB", 1 << 10),
    ("Mi", 1 << 20),
    ("MiB", 1 << 20),
    ("Gi", 1 << 30),
    ("GiB", 1 << 30),
    ("Ti", 1 << 40),
    ("TiB", 1 << 40),
];

/// Digits after the point that count; more would be less than a byte of any unit.
const FRACTION_DIGITS_MAX: usize = 9;

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let unit = unit.trim_start();
        if whole.is_empty()
            || fraction.contains('.')
            || fraction.len() > FRACTION_DIGITS_MAX
            || number.ends_with('.')
        {
            return Err(QuantityError::NotANumber(text.to_owned()));
        }
        if unit == "m" {
            return Err(QuantityError::Milli {
                text: text.to_owned(),
                number: number.to_owned(),
            });
        }
        let factor = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|&(_, factor)| factor)
            .ok_or_else(|| QuantityError::UnknownUnit {
                text: text.to_owned(),
                unit: unit.to_owned(),
            })?;

        let too_large = || QuantityError::TooLarge(text.to_owned());
        let whole: u128 = whole.parse().map_err(|_| too_large())?;
        // Nine digits at most, so both fit; the rest of a byte is cut off.
        let numerator: u128 = if fraction.is_empty() {
            0
        } else {
            fraction.parse().map_err(|_| too_large())?
        };
        let denominator = 10_u128.pow(u32::try_from(fraction.len()).map_err(|_| too_large())?);
        let bytes = whole
            .checked_mul(factor.into())
            .and_then(|bytes| bytes.checked_add(numerator * u128::from(factor) / denominator))
            .ok_or_else(too_large)?;
        u64::try_from(bytes).map(Self).map_err(|_| too_large())
    }
}

impl fmt::Display for Quantity {
    /// The largest binary unit that divides it, otherwise one decimal of the largest that fits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            ("Ti", 1_u64 << 40),
            ("Gi", 1 << 30),
            ("Mi", 1 << 20),
            ("Ki", 1 << 10),
        ];
        match units.iter().find(|(_, size)| self.0 >= *size) {
            None => write!(f, "{}", self.0),
            Some((unit, size)) if self.0.is_multiple_of(*size) => write!(f, "{}{unit}", self.0 / size),
            Some((unit, size)) => {
                let tenths = u128::from(self.0) * 10 / u128::from(*size);
                write!(f, "{}.{}{unit}", tenths / 10, tenths % 10)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_the_usual_forms() {
        let table = [
            ("0", 0),
            ("1073741824", 1 << 30),
            ("512Mi", 512 << 20),
            ("1GiB", 1 << 30),
            ("1Gi", 1 << 30),
            ("1.5GiB", 3 << 29),
            ("1g", 1_000_000_000),
            ("1G", 1_000_000_000),
            ("2GB", 2_000_000_000),
            ("250M", 250_000_000),
            ("64k", 64_000),
            ("64 KiB", 65_536),
            ("0.5Ki", 512),
            ("1.000000001G", 1_000_000_001),
            ("2Ti", 2 << 40),
        ];
        for (text, bytes) in table {
            assert_eq!(text.parse(), Ok(Quantity(bytes)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_what_to_write_instead() {
        let table = [
            ("", "write for example 512Mi"),
            ("-1Gi", "write for example 512Mi"),
            ("1.2.3Gi", "write for example 512Mi"),
            ("1.Gi", "write for example 512Mi"),
            (".5Gi", "write for example 512Mi"),
            ("lots", "write for example 512Mi"),
            ("512m", "write 512Mi or 512M"),
            ("1gb", "unknown unit \"gb\""),
            ("1Zi", "use one of k, M, G"),
            ("99999999999999999999Ti", "more memory than a machine can have"),
            (
                "999999999999999999999999999999999999999999",
                "more memory than a machine can have",
            ),
        ];
        for (text, expected) in table {
            let message = text.parse::<Quantity>().expect_err(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn amounts_are_shown_short_and_read_back_when_whole() {
        for (bytes, shown) in [
            (1 << 30, "1Gi"),
            (3 << 29, "1.5Gi"),
            (1_000, "1000"),
            (1 << 20, "1Mi"),
            (0, "0"),
        ] {
            assert_eq!(Quantity(bytes).to_string(), shown);
            assert_eq!(shown.parse(), Ok(Quantity(bytes)));
        }
    }
}

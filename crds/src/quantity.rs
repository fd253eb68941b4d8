//! Kubernetes quantities as bytes.
//!
//! Source: the grammar of `resource.Quantity` (a signed decimal, then `Ki Mi Gi Ti Pi Ei`, `m k M G T P E`, or
//! an exponent `e3`). Only what can be an amount of memory is read.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Why a quantity is not an amount of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuantityError(String);

impl std::fmt::Display for QuantityError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} is not an amount of memory, write for example 512Mi or 2Gi",
            self.0
        )
    }
}

impl std::error::Error for QuantityError {}

const SUFFIXES: [(&str, u64); 13] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("Ei", 1 << 60),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("E", 1_000_000_000_000_000_000),
    ("", 1),
];

/// The bytes that a quantity stands for, rounded up as Kubernetes does.
pub fn bytes_of(quantity: &Quantity) -> Result<u64, QuantityError> {
    let text = quantity.0.trim();
    parse(text).ok_or_else(|| QuantityError(text.to_owned()))
}

fn parse(text: &str) -> Option<u64> {
    if let Some(digits) = text.strip_suffix('m') {
        return scale(digits, 1).map(|thousandths| thousandths.div_ceil(1_000));
    }
    if let Some((digits, exponent)) = text.split_once(['e', 'E']).filter(|(_, exp)| !exp.is_empty()) {
        return scale(digits, 10_u64.checked_pow(exponent.parse().ok()?)?);
    }
    let (suffix, factor) = SUFFIXES.into_iter().find(|(suffix, _)| text.ends_with(suffix))?;
    scale(text.strip_suffix(suffix)?, factor)
}

/// `digits × factor` exactly, rounded up; `None` for anything that isn't an unsigned decimal or overflows.
fn scale(digits: &str, factor: u64) -> Option<u64> {
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let denominator = 10_u128.checked_pow(fraction.len().try_into().ok()?)?;
    let numerator: u128 = format!("{whole}{fraction}").parse().ok()?;
    let product = numerator.checked_mul(factor.into())?;
    product.div_ceil(denominator).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1048576", Some(1_048_576)),
            ("64Mi", Some(64 << 20)),
            ("1.5Gi", Some(3 << 29)),
            (".5Ki", Some(512)),
            ("2G", Some(2_000_000_000)),
            ("1e3", Some(1_000)),
            ("1E3", Some(1_000)),
            ("1E", Some(1_000_000_000_000_000_000)),
            ("1500m", Some(2)),
            ("+1Ki", Some(1_024)),
            ("-1Gi", None),
            ("", None),
            ("Gi", None),
            (".", None),
            ("1 Gi", None),
            ("1GiB", None),
            ("1.2.3", None),
            ("100Ei", None),
        ] {
            assert_eq!(bytes_of(&Quantity(text.into())).ok(), bytes, "{text:?}");
        }
    }
}

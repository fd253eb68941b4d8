//! Certificates and keys in PEM, and until when a certificate is valid.

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What is wrong with certificates or keys.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CertificateError {
    /// A file without what it is for.
    #[error("{0} holds no PEM block of that kind")]
    Empty(&'static str),
    /// Not PEM.
    #[error("{what} can't be read: {why}")]
    Unreadable {
        /// Which of the inputs.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// Certificate and key are no pair, or of a kind that can't be used.
    #[error("certificate and key can't be used: {0}")]
    Unusable(#[from] rustls::Error),
    /// It names nobody, or somebody else.
    #[error(transparent)]
    Identity(#[from] crate::identity::IdentityError),
}

/// The certificates of a PEM text, at least one.
pub fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| CertificateError::Unreadable {
        what,
        why: error.to_string(),
    })?;
    if read.is_empty() {
        return Err(CertificateError::Empty(what));
    }
    Ok(read)
}

/// The first private key of a PEM text.
pub fn private_key(what: &'static str, pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => CertificateError::Empty(what),
        error => CertificateError::Unreadable {
            what,
            why: error.to_string(),
        },
    })
}

/// The certificates of a PEM text as those whose signatures count.
pub fn authorities(what: &'static str, pem: &[u8]) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, pem)? {
        roots
            .add(certificate)
            .map_err(|error| CertificateError::Unreadable {
                what,
                why: error.to_string(),
            })?;
    }
    Ok(roots)
}

/// When a certificate is valid, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub from_s: i64,
    /// Up to then.
    pub until_s: i64,
}

impl Validity {
    /// The certificate's; `None` for what is no certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        // Certificate { tbs { [0] version, serial, algorithm, issuer, validity { from, until } … } … }
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (mut rest, _) = element(certificate, SEQUENCE)?;
        if let Some((_, after)) = element(rest, VERSION) {
            rest = after;
        }
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            (_, rest) = element(rest, tag)?;
        }
        let (validity, _) = element(rest, SEQUENCE)?;
        let (from_s, rest) = moment(validity)?;
        let (until_s, _) = moment(rest)?;
        Some(Self { from_s, until_s })
    }
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The content of the DER element in front, if it has that tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let digits = usize::from(first & 0x7f);
        if !(1..=4).contains(&digits) {
            return None;
        }
        let (digits, rest) = rest.split_at_checked(digits)?;
        let len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
        (len, rest)
    };
    rest.split_at_checked(len)
}

/// The time in front, `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, and what follows it.
fn moment(der: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, year_digits) = match element(der, UTC_TIME) {
        Some((text, rest)) => (text, rest, 2),
        None => element(der, GENERALIZED_TIME).map(|(text, rest)| (text, rest, 4))?,
    };
    let (year, text) = text.strip_suffix(b"Z")?.split_at_checked(year_digits)?;
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<i64>().ok();
    let year = match (number(year)?, year_digits) {
        (year, 2) if year < 50 => year + 2000,
        (year, 2) => year + 1900,
        (year, _) => year,
    };
    let fields: Vec<i64> = text.chunks(2).map(number).collect::<Option<_>>()?;
    let [month, day, hour, minute, second] = fields[..] else {
        return None;
    };
    let days = days_since_1970(year, month, day);
    Some((((days * 24 + hour) * 60 + minute) * 60 + second, rest))
}

/// Days of the Gregorian calendar, with years that begin in March, so that the leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (date, days) in [
            ((1970, 1, 1), 0),
            ((1969, 12, 31), -1),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 21), 20_778),
            ((2100, 3, 1), 47_541),
        ] {
            assert_eq!(days_since_1970(date.0, date.1, date.2), days, "{date:?}");
        }
    }

    #[test]
    fn validity_is_what_the_certificate_was_made_with() {
        let key = rcgen::KeyPair::generate().unwrap();
        // The second one's years need four digits.
        for (from, until) in [((2026, 11, 21), (2027, 2, 28)), ((1999, 1, 1), (2051, 12, 31))] {
            let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from.0, from.1, from.2);
            params.not_after = rcgen::date_time_ymd(until.0, until.1, until.2);
            let certificate = params.self_signed(&key).unwrap();
            let expected = Validity {
                from_s: params.not_before.unix_timestamp(),
                until_s: params.not_after.unix_timestamp(),
            };
            assert_eq!(Validity::of(certificate.der()), Some(expected));
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_validity() {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        let whole = params.self_signed(&key).unwrap().der().to_vec();
        for len in 0..40 {
            assert_eq!(Validity::of(&CertificateDer::from(&whole[..len])), None);
        }
        assert_eq!(Validity::of(&CertificateDer::from(&[0xff; 64][..])), None);
    }
}

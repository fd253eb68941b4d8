//! From a `CacheGroup` as it was written to one that can be planned. The API server enforces most of these rules at
//! `kubectl apply`; this is for objects that got past it, and for what no rule of the schema can see.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use annulus_crds::v1alpha1::{BloomFilter, CacheGroup, HttpOrigin, defaults};
use annulus_crds::{bytes_of, milliseconds_of};
use annulus_proto::groups::{Filter, Group, KEY_PLACEHOLDER, Origin};
use annulus_proto::tenants::TenantId;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::origin::{Target, target};
use crate::key::{ClusterKey, GroupKey};
use crate::validate::{InvalidSpec, Mistakes, is_label};

const NAME_LENGTH_MAX: usize = 63;
const PREFIX_BYTES_MAX: usize = 256;
const VALUE_BYTES_MAX: u64 = 512 << 20;
const CA_BYTES_MAX: usize = 65_536;
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 4_096;
const KEYS_MAX: u64 = 100_000_000;
const PER_MILLION_MAX: u32 = 500_000;
/// What the connection itself says.
const HEADERS_OF_OTHERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A checked group.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidGroup {
    /// Where it is.
    pub key: GroupKey,
    /// Which one of that name.
    pub uid: String,
    /// The version of its spec.
    pub generation: i64,
    /// The cluster that it names.
    pub cluster: ClusterKey,
    /// The `CacheTenant` that it names, if any.
    pub tenant: Option<String>,
    /// Whereto nodes connect for it.
    pub targets: Vec<Target>,
    /// Headers whose values are in Secrets.
    pub headers_from: Vec<ValidHeaderFrom>,
    /// What nodes are to know, but for its tenant and those headers.
    pub group: Group,
}

/// A header whose value is in a Secret of the group's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidHeaderFrom {
    /// The header's name.
    pub name: String,
    /// The Secret.
    pub secret: String,
    /// The key in it.
    pub key: String,
}

/// Checks the group against every rule and fills in the defaults.
pub fn validate(group: &CacheGroup) -> Result<ValidGroup, InvalidSpec> {
    let (key, spec) = (GroupKey::from(group), &group.spec);
    let mut mistakes = Mistakes::default();
    mistakes.require(
        is_label(&key.name, NAME_LENGTH_MAX),
        "metadata.name",
        "must be at most 63 characters of a-z, 0-9 and '-', starting and ending with a letter or digit",
    );
    mistakes.require(
        (1..=PREFIX_BYTES_MAX).contains(&spec.key_prefix.len()),
        "spec.keyPrefix",
        "must be 1 to 256 bytes, for example user:",
    );
    let mut targets = Vec::new();
    let (origin, headers_from) = origin(&spec.origin.http, &mut targets, &mut mistakes);
    let mut time = |written: Option<&String>, path: &str, usual, range| {
        milliseconds(written, path, usual, range, &mut mistakes)
    };
    let hard_ttl_ms = time(Some(&spec.ttl.hard), "spec.ttl.hard", 0, 1..=u64::MAX);
    let soft_ttl_ms = time(spec.ttl.soft.as_ref(), "spec.ttl.soft", hard_ttl_ms, 1..=u64::MAX);
    let any = 0..=u64::MAX;
    let negative_ttl_ms = time(
        spec.negative_ttl.as_ref(),
        "spec.negativeTTL",
        defaults::NEGATIVE_TTL_MS,
        any.clone(),
    );
    let failure_ttl_ms = time(
        spec.failure_ttl.as_ref(),
        "spec.failureTTL",
        defaults::FAILURE_TTL_MS,
        any.clone(),
    );
    let stale_ms = time(
        spec.serve_stale_on_error.as_ref(),
        "spec.serveStaleOnError",
        0,
        any,
    );
    mistakes.require(
        soft_ttl_ms <= hard_ttl_ms || hard_ttl_ms == 0,
        "spec.ttl.soft",
        "must not be longer than ttl.hard",
    );
    let jitter_percent = spec.ttl.jitter_percent.unwrap_or(defaults::GROUP_JITTER_PERCENT);
    mistakes.require(jitter_percent <= 90, "spec.ttl.jitterPercent", "must be 0 to 90");
    let value_bytes_max = match spec.max_value_bytes.as_ref().map(bytes_of) {
        None => defaults::GROUP_VALUE_BYTES_MAX,
        Some(Ok(bytes)) if (1..=VALUE_BYTES_MAX).contains(&bytes) => bytes,
        Some(_) => {
            mistakes.add(
                "spec.maxValueBytes",
                "must be a positive quantity of at most 512Mi, for example 1Mi",
            );
            defaults::GROUP_VALUE_BYTES_MAX
        }
    };
    let filter = spec
        .bloom_filter
        .as_ref()
        .map(|filter| self::filter(filter, &mut targets, &mut mistakes));
    mistakes.into_result()?;
    let valid = Group {
        tenant: TenantId::CLUSTER,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
        key_prefix: spec.key_prefix.clone(),
        origin,
        soft_ttl_ms,
        hard_ttl_ms,
        jitter_percent,
        negative_ttl_ms,
        failure_ttl_ms,
        stale_ms,
        value_bytes_max,
        filter,
    };
    // What nodes would refuse must never get to them: they refuse a document as a whole.
    let mut mistakes = Mistakes::default();
    if let Err(error) = valid.check() {
        mistakes.add("spec", error.to_string());
    }
    mistakes.into_result()?;
    Ok(ValidGroup {
        uid: group.metadata.uid.clone().unwrap_or_default(),
        generation: group.metadata.generation.unwrap_or_default(),
        cluster: ClusterKey::of_group(group),
        tenant: spec.tenant_ref.as_ref().map(|tenant| tenant.name.clone()),
        targets,
        headers_from,
        group: valid,
        key,
    })
}

fn origin(
    http: &HttpOrigin,
    targets: &mut Vec<Target>,
    mistakes: &mut Mistakes,
) -> (Origin, Vec<ValidHeaderFrom>) {
    const PATH: &str = "spec.origin.http";
    let at = |field: &str| format!("{PATH}.{field}");
    match target(&http.url_template) {
        Ok(target) => {
            mistakes.require(
                http.url_template.contains(KEY_PLACEHOLDER),
                &at("urlTemplate"),
                "must have {key} in its path or query, for example http://users.shop.svc/users/{key}",
            );
            mistakes.require(
                http.ca_bundle.is_none() || target.secure,
                &at("caBundle"),
                "is about an origin with TLS: write https:// in urlTemplate, or leave it out",
            );
            targets.push(target);
        }
        Err(problem) => mistakes.add(at("urlTemplate"), problem),
    }
    if let Some(pem) = &http.ca_bundle {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        mistakes.require(
            pem.len() <= CA_BYTES_MAX && certificates.is_ok_and(|certificates| !certificates.is_empty()),
            &at("caBundle"),
            "must be certificates in PEM (-----BEGIN CERTIFICATE-----), 64 KiB at most",
        );
    }
    let (headers, headers_from) = headers(http, mistakes);
    let retries = http.retries.clone().unwrap_or_default();
    let breaker = http.circuit_breaker.clone().unwrap_or_default();
    let attempts = retries.attempts.unwrap_or(defaults::ORIGIN_RETRIES);
    mistakes.require(attempts <= 10, &at("retries.attempts"), "must be 0 to 10");
    let concurrent_max = http.max_concurrent.unwrap_or(defaults::ORIGIN_CONCURRENT_MAX);
    mistakes.require(
        (1..=10_000).contains(&concurrent_max),
        &at("maxConcurrent"),
        "must be 1 to 10000",
    );
    let breaker_failures = breaker.failures.unwrap_or(defaults::BREAKER_FAILURES);
    mistakes.require(
        (1..=1_000).contains(&breaker_failures),
        &at("circuitBreaker.failures"),
        "must be 1 to 1000",
    );
    let mut time = |written: Option<&String>, field: &str, usual, range| {
        milliseconds(written, &at(field), usual, range, mistakes)
    };
    let origin = Origin {
        url_template: http.url_template.clone(),
        headers,
        ca_pem: http.ca_bundle.clone(),
        may_be_local: false,
        timeout_ms: time(
            http.timeout.as_ref(),
            "timeout",
            defaults::ORIGIN_TIMEOUT_MS,
            10..=300_000,
        ),
        retries: attempts,
        backoff_ms: time(
            retries.backoff.as_ref(),
            "retries.backoff",
            defaults::ORIGIN_BACKOFF_MS,
            0..=60_000,
        ),
        backoff_max_ms: time(
            retries.max_backoff.as_ref(),
            "retries.maxBackoff",
            defaults::ORIGIN_BACKOFF_MAX_MS,
            0..=60_000,
        ),
        concurrent_max,
        breaker_failures,
        breaker_open_ms: time(
            breaker.open_for.as_ref(),
            "circuitBreaker.openFor",
            defaults::BREAKER_OPEN_MS,
            100..=3_600_000,
        ),
    };
    mistakes.require(
        origin.backoff_ms <= origin.backoff_max_ms,
        &at("retries.backoff"),
        "must not be longer than retries.maxBackoff (100ms and 2s where they are left out)",
    );
    (origin, headers_from)
}

fn headers(http: &HttpOrigin, mistakes: &mut Mistakes) -> (Vec<(String, String)>, Vec<ValidHeaderFrom>) {
    let mut seen = BTreeSet::new();
    let mut name = |written: &str, path: &str, mistakes: &mut Mistakes| {
        let name = written.to_ascii_lowercase();
        mistakes.require(
            http::HeaderName::from_bytes(name.as_bytes()).is_ok(),
            path,
            "is no name of a header: write for example authorization",
        );
        mistakes.require(
            !HEADERS_OF_OTHERS.contains(&name.as_str()),
            path,
            "is a header that belongs to the connection and is not yours to send: leave it out",
        );
        mistakes.require(
            seen.insert(name.clone()),
            path,
            "is the name of another header already: write it once, in headers or in headersFrom",
        );
        name
    };
    let mut headers = Vec::new();
    for (index, header) in http.headers.iter().enumerate() {
        let path = format!("spec.origin.http.headers[{index}]");
        mistakes.require(
            is_header_value(&header.value),
            &format!("{path}.value"),
            "must be at most 4096 characters of ASCII without control characters",
        );
        let name = name(&header.name, &format!("{path}.name"), mistakes);
        headers.push((name, header.value.clone()));
    }
    let mut from = Vec::new();
    for (index, header) in http.headers_from.iter().enumerate() {
        let path = format!("spec.origin.http.headersFrom[{index}]");
        mistakes.require(
            is_object_name(&header.secret_key_ref.name),
            &format!("{path}.secretKeyRef.name"),
            "must be the name of a Secret: a-z, 0-9, '-' and '.'",
        );
        from.push(ValidHeaderFrom {
            name: name(&header.name, &format!("{path}.name"), mistakes),
            secret: header.secret_key_ref.name.clone(),
            key: header.secret_key_ref.key.clone(),
        });
    }
    mistakes.require(
        headers.len() + from.len() <= HEADERS_MAX,
        "spec.origin.http.headers",
        "must be at most 32, together with headersFrom",
    );
    (headers, from)
}

/// Whether a text can be the value of a header.
pub(super) fn is_header_value(text: &str) -> bool {
    text.len() <= HEADER_BYTES_MAX && http::HeaderValue::from_str(text).is_ok()
}

/// It becomes a part of a request's path.
fn is_object_name(name: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    (1..=253).contains(&name.len())
        && name.bytes().all(is_inside)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

fn filter(written: &BloomFilter, targets: &mut Vec<Target>, mistakes: &mut Mistakes) -> Filter {
    match target(&written.keys_url) {
        Ok(_) if written.keys_url.contains(KEY_PLACEHOLDER) => {
            mistakes.add(
                "spec.bloomFilter.keysURL",
                "answers all keys: it must not have {key} in it",
            );
        }
        Ok(target) => targets.push(target),
        Err(problem) => mistakes.add("spec.bloomFilter.keysURL", problem),
    }
    let false_positives_per_million = match &written.false_positive_rate {
        None => defaults::FILTER_FALSE_POSITIVES_PER_MILLION,
        Some(text) => per_million(text).unwrap_or_else(|| {
            mistakes.add(
                "spec.bloomFilter.falsePositiveRate",
                "must be a text from \"0.000001\" to \"0.5\", for example \"0.01\"",
            );
            defaults::FILTER_FALSE_POSITIVES_PER_MILLION
        }),
    };
    let keys_max = written.max_keys.unwrap_or(defaults::FILTER_KEYS_MAX);
    mistakes.require(
        (1..=KEYS_MAX).contains(&keys_max),
        "spec.bloomFilter.maxKeys",
        "must be 1 to 100000000",
    );
    Filter {
        keys_url: written.keys_url.clone(),
        refresh_ms: milliseconds(
            written.refresh.as_ref(),
            "spec.bloomFilter.refresh",
            defaults::FILTER_REFRESH_MS,
            10_000..=u64::MAX,
            mistakes,
        ),
        false_positives_per_million,
        keys_max,
    }
}

/// `0.01` in millionths, exactly.
fn per_million(text: &str) -> Option<u32> {
    let digits = text.strip_prefix('0').unwrap_or(text).strip_prefix('.')?;
    let is_number = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let millionths = format!("{digits:0<6}").parse().ok().filter(|_| is_number)?;
    (1..=PER_MILLION_MAX).contains(&millionths).then_some(millionths)
}

/// The milliseconds of a duration within that range, which is told in words.
fn milliseconds(
    written: Option<&String>,
    path: &str,
    usual: u64,
    range: RangeInclusive<u64>,
    mistakes: &mut Mistakes,
) -> u64 {
    let Some(written) = written else { return usual };
    match milliseconds_of(written) {
        Ok(milliseconds) if range.contains(&milliseconds) => return milliseconds,
        Ok(_) if *range.end() == u64::MAX && *range.start() <= 1 => {
            mistakes.add(path, "must be longer than nothing, for example 10m");
        }
        Ok(_) if *range.end() == u64::MAX => {
            mistakes.add(path, format!("must be at least {}ms", range.start()));
        }
        Ok(_) => mistakes.add(path, format!("must be {}ms to {}ms", range.start(), range.end())),
        Err(error) => mistakes.add(path, error.to_string()),
    }
    usual
}

//! Decisions about groups, a row each: what is handed to nodes, what is left out, and why.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use annulus_crds::v1alpha1::{CacheGroup, GroupReason};
use annulus_operator::groups::GroupRefusal;
use annulus_operator::groups::plan::{Around, GROUPS_MAX, GroupVerdict, Reach, SeenGroup, plan};
use annulus_operator::groups::tell::see_one;
use annulus_operator::groups::validate::validate;
use annulus_operator::key::{GroupKey, TenantKey};
use annulus_operator::validate::ValidCluster;
use annulus_proto::groups::Group;
use annulus_proto::tenants::{Quota, Tenant, TenantId, TenantsDocument, TtlBounds, User};
use support::views::cluster;

const ORIGIN: &str =
    "keyPrefix: 'user:', origin: {http: {urlTemplate: 'http://users.blog.svc/{key}'}}, ttl: {hard: 10m}";

/// A group of the cluster `n/c` with that spec, in YAML's flow style.
fn object(namespace: &str, name: &str, spec: &str) -> CacheGroup {
    let text = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheGroup, metadata: {{name: {name}, namespace: {namespace}, uid: u}}, spec: {{clusterRef: {{name: c, namespace: n}}, {spec}}}}}"
    );
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn group(namespace: &str, name: &str, created_ms: i64, spec: &str) -> SeenGroup {
    SeenGroup {
        created_ms,
        ..see_one(&object(namespace, name, spec))
    }
}

fn with_prefix(namespace: &str, name: &str, created_ms: i64, prefix: &str) -> SeenGroup {
    let host = format!("http://users.{namespace}.svc/{{key}}");
    let spec =
        format!("keyPrefix: '{prefix}', origin: {{http: {{urlTemplate: '{host}'}}}}, ttl: {{hard: 10m}}");
    group(namespace, name, created_ms, &spec)
}

fn tenant(id: u32, namespace: &str, name: &str, has_users: bool) -> Tenant {
    let user = User {
        name: format!("{namespace}.{name}"),
        passwords: Vec::new(),
        rules: Vec::new(),
    };
    Tenant {
        id: TenantId(id),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        quota: Quota::default(),
        ttl: TtlBounds::default(),
        users: if has_users { vec![user] } else { Vec::new() },
    }
}

/// A cluster with tenants, and what is decided about groups of it.
struct Setting {
    cluster: ValidCluster,
    tenants: Vec<Tenant>,
    cache_tenants: BTreeSet<TenantKey>,
    before: Vec<Group>,
    watched: Option<BTreeSet<String>>,
    reach: Reach,
    bytes_max: usize,
}

impl Setting {
    /// Namespace `blog` has one tenant that is bound, `shop` two, `late` one that isn't.
    fn new() -> Self {
        let tenants = vec![
            tenant(1, "blog", "cache", true),
            tenant(2, "shop", "a", true),
            tenant(3, "shop", "b", true),
            tenant(4, "late", "cache", false),
            tenant(5, "n", "own", true),
        ];
        let keys = tenants
            .iter()
            .map(|tenant| TenantKey::new(&tenant.namespace, &tenant.name));
        Self {
            cluster: cluster("nodes: 1"),
            cache_tenants: keys.chain([TenantKey::new("new", "cache")]).collect(),
            tenants,
            before: Vec::new(),
            watched: None,
            reach: Reach::Fenced,
            bytes_max: 900_000,
        }
    }

    fn decide(&self, groups: &[SeenGroup]) -> (Vec<Group>, BTreeMap<GroupKey, GroupVerdict>) {
        let around = Around {
            cluster: &self.cluster,
            tenants: &self.tenants,
            cache_tenants: &self.cache_tenants,
            before: &self.before,
            watched: self.watched.as_ref(),
            reach: self.reach,
            bytes_max: self.bytes_max,
        };
        let (taken, verdicts) = plan(&around, groups);
        // Nodes must never refuse what was decided.
        let mut document = TenantsDocument::empty("u-1".parse().unwrap());
        document.next_id = TenantId(9);
        document.tenants.clone_from(&self.tenants);
        document.groups.clone_from(&taken);
        assert_eq!(TenantsDocument::from_json(&document.to_json()).unwrap(), document);
        (taken, verdicts)
    }

    /// Why the first group is left out, if it is.
    fn reason(&self, groups: &[SeenGroup]) -> Option<GroupReason> {
        let (_, verdicts) = self.decide(groups);
        let refused = verdicts[&groups[0].key].refused.as_ref();
        refused.map(|refusal| refusal.reason)
    }
}

#[test]
fn a_group_as_it_is_written_is_what_nodes_follow() {
    let spec = "
        keyPrefix: 'user:',
        origin: {http: {
            urlTemplate: 'https://api.example.com:8443/users/{key}?full=1',
            headers: [{name: Accept, value: application/json}],
            timeout: 500ms, retries: {attempts: 3, backoff: 50ms, maxBackoff: 1s},
            maxConcurrent: 7, circuitBreaker: {failures: 2, openFor: 30s}}},
        ttl: {soft: 1m, hard: 1h, jitterPercent: 20},
        negativeTTL: 0s, failureTTL: 2s, maxValueBytes: 2Mi, serveStaleOnError: 24h,
        bloomFilter: {keysURL: 'https://api.example.com/keys', refresh: 1h, falsePositiveRate: '0.001', maxKeys: 1000}";
    let mut setting = Setting::new();
    setting.cluster = cluster("nodes: 1, groups: {allowedOrigins: [api.example.com]}");
    let mut seen = group("blog", "users", 0, spec);
    seen.headers = Ok(vec![("authorization".to_owned(), "Bearer x".to_owned())]);
    let (taken, verdicts) = setting.decide(&[seen]);
    assert_eq!(
        verdicts[&GroupKey::new("blog", "users")].tenant.as_deref(),
        Some("cache")
    );
    let [group] = taken.as_slice() else {
        panic!("{taken:?}")
    };
    assert_eq!(
        (group.tenant, group.label().as_str()),
        (TenantId(1), "blog/users")
    );
    let origin = &group.origin;
    let headers: Vec<_> = origin
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(
        headers,
        [("accept", "application/json"), ("authorization", "Bearer x")]
    );
    assert_eq!(
        (
            origin.timeout_ms,
            origin.retries,
            origin.backoff_ms,
            origin.backoff_max_ms
        ),
        (500, 3, 50, 1_000)
    );
    assert_eq!(
        (
            origin.concurrent_max,
            origin.breaker_failures,
            origin.breaker_open_ms
        ),
        (7, 2, 30_000)
    );
    assert!(!origin.may_be_local);
    assert_eq!(
        (group.soft_ttl_ms, group.hard_ttl_ms, group.jitter_percent),
        (60_000, 3_600_000, 20)
    );
    assert_eq!(
        (group.negative_ttl_ms, group.failure_ttl_ms, group.stale_ms),
        (0, 2_000, 86_400_000)
    );
    assert_eq!(group.value_bytes_max, 2 << 20);
    let filter = group.filter.as_ref().unwrap();
    assert_eq!(
        (
            filter.refresh_ms,
            filter.false_positives_per_million,
            filter.keys_max
        ),
        (3_600_000, 1_000, 1_000)
    );
}

#[test]
fn what_is_left_out_has_its_default() {
    let valid = validate(&object("blog", "users", ORIGIN)).unwrap().group;
    let origin = &valid.origin;
    assert_eq!(
        (
            origin.timeout_ms,
            origin.retries,
            origin.backoff_ms,
            origin.backoff_max_ms
        ),
        (2_000, 1, 100, 2_000)
    );
    assert_eq!(
        (
            origin.concurrent_max,
            origin.breaker_failures,
            origin.breaker_open_ms
        ),
        (32, 5, 10_000)
    );
    assert_eq!(
        (valid.soft_ttl_ms, valid.hard_ttl_ms, valid.jitter_percent),
        (600_000, 600_000, 10)
    );
    assert_eq!(
        (valid.negative_ttl_ms, valid.failure_ttl_ms, valid.stale_ms),
        (30_000, 1_000, 0)
    );
    assert_eq!((valid.value_bytes_max, valid.filter), (1 << 20, None));
}

#[test]
fn mistakes_name_the_field_and_what_to_write() {
    let http = |more: &str| {
        format!(
            "keyPrefix: u, ttl: {{hard: 10m}}, origin: {{http: {{urlTemplate: 'https://users.blog.svc/{{key}}', {more}}}}}"
        )
    };
    let rest = |more: &str| {
        format!("keyPrefix: u, origin: {{http: {{urlTemplate: 'http://users.blog.svc/{{key}}'}}}}, {more}")
    };
    let url =
        |url: &str| format!("keyPrefix: u, ttl: {{hard: 10m}}, origin: {{http: {{urlTemplate: '{url}'}}}}");
    for (spec, expected) in [
        (
            ORIGIN.replace("user:", ""),
            "spec.keyPrefix: must be 1 to 256 bytes",
        ),
        (ORIGIN.replace("user:", &"ü".repeat(129)), "spec.keyPrefix"),
        (
            url("http://users.blog.svc/"),
            "spec.origin.http.urlTemplate: must have {key}",
        ),
        (
            url("ftp://users.blog.svc/{key}"),
            "urlTemplate: must begin with http://",
        ),
        (
            url("http://{key}.blog.svc/"),
            "urlTemplate: must not have {key} in its host",
        ),
        (
            rest("ttl: {hard: 10m, soft: 11m}"),
            "spec.ttl.soft: must not be longer than ttl.hard",
        ),
        (
            rest("ttl: {hard: 0s}"),
            "spec.ttl.hard: must be longer than nothing",
        ),
        (rest("ttl: {hard: 10}"), "spec.ttl.hard: \"10\" is not a duration"),
        (
            rest("ttl: {hard: 10m, jitterPercent: 91}"),
            "spec.ttl.jitterPercent: must be 0 to 90",
        ),
        (rest("ttl: {hard: 10m}, maxValueBytes: 1Gi"), "spec.maxValueBytes"),
        (rest("ttl: {hard: 10m}, negativeTTL: soon"), "spec.negativeTTL"),
        (
            rest("ttl: {hard: 10m}, bloomFilter: {keysURL: 'http://users.blog.svc/{key}'}"),
            "keysURL: answers all keys",
        ),
        (
            rest("ttl: {hard: 10m}, bloomFilter: {keysURL: 'http://a.b.svc', falsePositiveRate: '0'}"),
            "falsePositiveRate: must be a text from",
        ),
        (
            rest("ttl: {hard: 10m}, bloomFilter: {keysURL: 'http://a.b.svc', falsePositiveRate: '.6'}"),
            "falsePositiveRate: must be a text from",
        ),
        (http("timeout: 6m"), "timeout: must be 10ms to 300000ms"),
        (
            http("retries: {attempts: 11}"),
            "retries.attempts: must be 0 to 10",
        ),
        (
            http("retries: {backoff: 3s}"),
            "retries.backoff: must not be longer than retries.maxBackoff",
        ),
        (http("maxConcurrent: 0"), "maxConcurrent: must be 1 to 10000"),
        (
            http("circuitBreaker: {failures: 0}"),
            "circuitBreaker.failures: must be 1 to 1000",
        ),
        (
            http("caBundle: nonsense"),
            "caBundle: must be certificates in PEM",
        ),
        (
            http("headers: [{name: Host, value: a}]"),
            "headers[0].name: is a header that belongs to the connection",
        ),
        (
            http("headers: [{name: 'a b', value: a}]"),
            "headers[0].name: is no name of a header",
        ),
        (
            http("headers: [{name: a, value: \"x\\r\\ny: z\"}]"),
            "headers[0].value",
        ),
        (
            http(
                "headers: [{name: Auth, value: a}], headersFrom: [{name: auth, secretKeyRef: {name: s, key: k}}]",
            ),
            "headersFrom[0].name: is the name of another header already",
        ),
        (
            http("headersFrom: [{name: auth, secretKeyRef: {name: ../configmaps/s, key: k}}]"),
            "secretKeyRef.name: must be the name of a Secret",
        ),
    ] {
        let invalid = validate(&object("blog", "users", &spec)).unwrap_err().to_string();
        assert!(invalid.contains(expected), "{spec}: {invalid}");
    }
}

#[test]
fn a_group_is_in_the_keyspace_of_its_tenant() {
    let setting = Setting::new();
    let anywhere = |namespace: &str, tenant: &str| {
        let spec = format!(
            "{tenant}keyPrefix: u, origin: {{http: {{urlTemplate: 'http://o.{namespace}.svc/{{key}}'}}}}, ttl: {{hard: 1m}}"
        );
        group(namespace, "g", 0, &spec)
    };
    for (namespace, tenant, expected) in [
        ("n", "", Ok(0)),
        ("n", "tenantRef: {name: own}, ", Ok(5)),
        (
            "n",
            "tenantRef: {name: cache}, ",
            Err(GroupReason::TenantNotFound),
        ),
        ("blog", "", Ok(1)),
        ("blog", "tenantRef: {name: cache}, ", Ok(1)),
        ("blog", "tenantRef: {name: a}, ", Err(GroupReason::TenantNotFound)),
        ("shop", "", Err(GroupReason::TenantNotNamed)),
        ("shop", "tenantRef: {name: b}, ", Ok(3)),
        ("late", "", Err(GroupReason::TenantNotBound)),
        ("new", "", Err(GroupReason::TenantNotBound)),
        ("other", "", Err(GroupReason::TenantNotFound)),
    ] {
        let seen = anywhere(namespace, tenant);
        let (taken, verdicts) = setting.decide(std::slice::from_ref(&seen));
        let refused = verdicts[&seen.key].refused.as_ref();
        let answer = refused.map_or_else(|| Ok(taken[0].tenant.0), |refusal| Err(refusal.reason));
        assert_eq!(answer, expected, "{namespace} {tenant}");
        assert_eq!(taken.is_empty(), answer.is_err());
    }
    // A deleted CacheTenant whose data is kept has no groups.
    let mut retained = Setting::new();
    retained.cache_tenants.clear();
    assert_eq!(
        retained.reason(&[anywhere("blog", "")]),
        Some(GroupReason::TenantNotFound)
    );
}

#[test]
fn of_overlapping_prefixes_the_older_group_is_taken() {
    let setting = Setting::new();
    for (mine, others, overlaps) in [
        ("user:", "user:", true),
        ("user:", "user:1", true),
        ("user:1", "user:", true),
        ("user:1", "user:2", false),
        ("user:", "users", false),
    ] {
        for (age, other_age) in [(2, 1), (1, 2)] {
            let groups = [
                with_prefix("blog", "mine", age, mine),
                with_prefix("blog", "other", other_age, others),
            ];
            let expected = (overlaps && age > other_age).then_some(GroupReason::PrefixTaken);
            assert_eq!(
                setting.reason(&groups),
                expected,
                "{mine} {age}, {others} {other_age}"
            );
            assert_eq!(setting.decide(&groups).0.len(), if overlaps { 1 } else { 2 });
        }
    }
    let groups = [
        with_prefix("blog", "mine", 2, "a"),
        with_prefix("blog", "other", 1, "a"),
    ];
    let (_, verdicts) = setting.decide(&groups);
    let message = &verdicts[&groups[0].key].refused.as_ref().unwrap().message;
    assert!(message.contains("older CacheGroup blog/other"), "{message}");
    // As old as each other: whoever is in stays.
    let groups = [with_prefix("blog", "a", 1, "x"), with_prefix("blog", "b", 1, "x")];
    let mut settled = Setting::new();
    settled.before = settled.decide(&groups[1..]).0;
    assert_eq!(settled.reason(&groups), Some(GroupReason::PrefixTaken));
    // Another keyspace has keys of its own; who is left out takes no prefix.
    let own = with_prefix("n", "g", 1, "user:");
    let blog = with_prefix("blog", "g", 2, "user:");
    assert_eq!(setting.decide(&[own, blog]).0.len(), 2);
    let mut spoilt = with_prefix("blog", "older", 1, "user:");
    spoilt.headers = Err(GroupRefusal::new(GroupReason::SecretMissing, "x"));
    assert_eq!(
        setting.reason(&[with_prefix("blog", "g", 2, "user:"), spoilt]),
        None
    );
}

#[test]
fn one_group_that_is_left_out_stops_no_other() {
    let mut setting = Setting::new();
    let good = with_prefix("blog", "good", 9, "good:");
    let invalid = group("blog", "invalid", 1, &ORIGIN.replace("10m", "0s"));
    let mut secretless = with_prefix("blog", "secretless", 2, "s:");
    secretless.headers = Err(GroupRefusal::new(
        GroupReason::SecretMissing,
        "there is no Secret",
    ));
    let elsewhere = group("blog", "elsewhere", 3, &ORIGIN.replace("blog", "shop"));
    let filtered = ORIGIN.to_owned() + ", bloomFilter: {keysURL: 'http://10.0.0.1/keys'}";
    let filtered = group("blog", "filtered", 4, &filtered);
    let groups = [invalid, secretless, elsewhere, filtered, good];
    let (taken, verdicts) = setting.decide(&groups);
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].name, "good");
    let reasons: Vec<_> = groups
        .iter()
        .map(|group| verdicts[&group.key].refused.as_ref().map(|it| it.reason))
        .collect();
    let expected = [
        Some(GroupReason::InvalidSpec),
        Some(GroupReason::SecretMissing),
        Some(GroupReason::OriginNotAllowed),
        Some(GroupReason::OriginNotAllowed),
        None,
    ];
    assert_eq!(reasons, expected);
    // On somebody's own machine origins are wherever they are, and nodes may connect to loopback.
    setting.reach = Reach::Anywhere;
    let (taken, _) = setting.decide(&groups[2..3]);
    assert!(taken[0].origin.may_be_local);
}

#[test]
fn the_youngest_are_left_out_of_what_does_not_fit() {
    let mut setting = Setting::new();
    let mut groups: Vec<SeenGroup> = (0..=GROUPS_MAX)
        .map(|number| {
            with_prefix(
                "blog",
                &format!("g{number}"),
                i64::try_from(number).unwrap(),
                &format!("{number}:"),
            )
        })
        .collect();
    groups.reverse();
    assert_eq!(setting.reason(&groups), Some(GroupReason::TooManyGroups));
    assert_eq!(setting.decide(&groups).0.len(), GROUPS_MAX);
    // Another keyspace has room of its own.
    assert_eq!(setting.reason(&[with_prefix("n", "g", 99, "x")]), None);
    let long = "x".repeat(4_000);
    let headers = (0..20).map(|number| format!("{{name: h{number}, value: {long}}}"));
    let headers = headers.collect::<Vec<_>>().join(", ");
    let heavy = |name: &str, created_ms| {
        let spec = format!(
            "keyPrefix: '{name}', origin: {{http: {{urlTemplate: 'http://o.blog.svc/{{key}}', headers: [{headers}]}}}}, ttl: {{hard: 1m}}"
        );
        group("blog", name, created_ms, &spec)
    };
    assert_eq!(
        setting.reason(&[heavy("b", 2), heavy("a", 1)]),
        Some(GroupReason::TooManyGroups)
    );
    assert_eq!(setting.reason(&[heavy("a", 1), heavy("b", 2)]), None);
    setting.bytes_max = 50_000;
    assert_eq!(setting.reason(&[heavy("a", 1)]), Some(GroupReason::TooManyGroups));
}

#[test]
fn groups_that_nobody_looks_after_any_more_stay() {
    let mut setting = Setting::new();
    let groups = [
        with_prefix("blog", "g", 1, "a"),
        with_prefix("n", "g", 1, "a"),
        with_prefix("n", "h", 1, "b"),
    ];
    setting.before = setting.decide(&groups).0;
    setting.watched = Some(BTreeSet::from(["n".to_owned()]));
    let (taken, _) = setting.decide(&groups[1..2]);
    let names: Vec<String> = taken.iter().map(Group::label).collect();
    assert_eq!(names, ["n/g", "blog/g"]);
    // But not those of a tenant that nobody gets into.
    setting.tenants[0].users.clear();
    assert_eq!(setting.decide(&groups[1..2]).0.len(), 1);
}

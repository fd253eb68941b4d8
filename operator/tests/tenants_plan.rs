//! Decisions about tenants, a row each: who is taken, with what, and who is not.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests: helpers may panic, tables may be long"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use annulus_crds::v1alpha1::CacheTenant;
use annulus_operator::build::secret::Password;
use annulus_operator::groups::plan::Reach;
use annulus_operator::key::TenantKey;
use annulus_operator::tenants::ledger::{Ledger, RotationWish};
use annulus_operator::tenants::plan::{BindingSeen, Seen, SeenTenant, TenantsPlan, plan};
use annulus_operator::tenants::status::{is_bound, summary};
use annulus_operator::tenants::validate::validate;
use annulus_operator::validate::ValidCluster;
use annulus_proto::tenants::{OverRate, PasswordDigest, TenantId};
use support::views::cluster;

const MIB: u64 = 1 << 20;

/// A tenant of the cluster `n/c` with that spec, in YAML's flow style.
fn object(namespace: &str, name: &str, spec: &str) -> CacheTenant {
    let text = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheTenant, metadata: {{name: {name}, namespace: {namespace}, uid: {namespace}-{name}}}, spec: {{clusterRef: {{name: c, namespace: n}}, {spec}}}}}"
    );
    serde_yaml::from_str(&text).unwrap()
}

fn tenant(namespace: &str, name: &str, spec: &str) -> SeenTenant {
    let asks = validate(&object(namespace, name, spec));
    let missing = asks.iter().flat_map(|asks| &asks.users);
    SeenTenant {
        key: TenantKey::new(namespace, name),
        created_ms: 0,
        labels: Some(BTreeMap::new()),
        told_id: None,
        bindings: missing
            .map(|user| (user.name.clone(), BindingSeen::Missing))
            .collect(),
        asks,
    }
}

/// Plans with passwords that are counted up.
fn decide(cluster: &ValidCluster, ledger: &Ledger, tenants: &[SeenTenant], now_ms: u64) -> TenantsPlan {
    decide_as(&Seen {
        cluster,
        ledger,
        tenants,
        groups: &[],
        reach: Reach::Fenced,
        watched: None,
        versions_told: &[],
        last_id_told: 0,
        now_ms,
    })
}

fn decide_as(seen: &Seen<'_>) -> TenantsPlan {
    let mut drawn = u8::try_from(seen.now_ms % 256).unwrap();
    let draw = || {
        drawn = drawn.wrapping_add(1);
        Password::draw(|bytes: &mut [u8]| {
            bytes.fill(drawn % 62);
            Ok::<_, ()>(())
        })
    };
    plan(seen, draw).unwrap()
}

fn empty() -> Ledger {
    Ledger::empty("u-1".parse().unwrap())
}

/// The ledger after these tenants have come.
fn with(cluster: &ValidCluster, tenants: &[SeenTenant]) -> Ledger {
    decide(cluster, &empty(), tenants, 0).next.unwrap()
}

/// The same tenants, with bindings that nobody looked at.
fn unlooked(tenants: &[SeenTenant]) -> Vec<SeenTenant> {
    let mut tenants = tenants.to_vec();
    for tenant in &mut tenants {
        tenant.bindings.clear();
    }
    tenants
}

/// What a tenant is told: a reason, or nothing.
fn reason(plan: &TenantsPlan, namespace: &str, name: &str) -> Option<&'static str> {
    let verdict = &plan.verdicts[&TenantKey::new(namespace, name)];
    let refusal = verdict.refused.as_ref().or(verdict.unbound.as_ref());
    refusal.map(|refusal| refusal.reason.as_str())
}

fn passwords(plan: &TenantsPlan, before: &Ledger) -> Vec<PasswordDigest> {
    let ledger = plan.next.as_ref().unwrap_or(before);
    ledger.document.tenants[0].users[0].passwords.clone()
}

#[test]
fn whom_a_cluster_takes() {
    const ALL: &str = "nodes: 2, memory: {max: 100Mi}, tenancy: {allowedNamespaces: {from: All}";
    let labelled = |operator: &str| {
        format!(
            "nodes: 1, tenancy: {{allowedNamespaces: {{from: Selector, selector: {{matchExpressions: [{{key: team, operator: {operator}}}]}}}}"
        )
    };
    let rows: [(&str, String, &str, &str, Option<&str>); 21] = [
        ("own namespace", "nodes: 1, tenancy: {".to_owned(), "n", "", None),
        (
            "another namespace",
            "nodes: 1, tenancy: {".to_owned(),
            "a",
            "",
            Some("NamespaceNotAllowed"),
        ),
        ("all", ALL.to_owned(), "a", "", None),
        (
            "no such label",
            labelled("Exists"),
            "a",
            "",
            Some("NamespaceNotAllowed"),
        ),
        ("no such label asked", labelled("DoesNotExist"), "a", "", None),
        (
            "in",
            labelled("In, values: [x]"),
            "a",
            "",
            Some("NamespaceNotAllowed"),
        ),
        ("not in", labelled("NotIn, values: [x]"), "a", "", None),
        (
            "an operator of the future",
            labelled("Like, values: [x]"),
            "a",
            "",
            Some("NamespaceNotAllowed"),
        ),
        (
            "own namespace whatever its labels",
            labelled("Exists"),
            "n",
            "",
            None,
        ),
        (
            "a quota within the limit",
            format!("{ALL}, limits: {{quota: {{memory: 64Mi}}}}"),
            "a",
            "quota: {memory: 64Mi}",
            None,
        ),
        (
            "above the limit",
            format!("{ALL}, limits: {{quota: {{memory: 64Mi}}}}"),
            "a",
            "quota: {memory: 65Mi}",
            Some("QuotaTooHigh"),
        ),
        (
            "connections above",
            format!("{ALL}, limits: {{quota: {{connections: 5}}}}"),
            "a",
            "quota: {connections: 6}",
            Some("QuotaTooHigh"),
        ),
        (
            "operations above",
            format!("{ALL}, limits: {{quota: {{opsPerSecond: 5}}}}"),
            "a",
            "quota: {opsPerSecond: 6}",
            Some("QuotaTooHigh"),
        ),
        (
            "bytes above",
            format!("{ALL}, limits: {{quota: {{bytesPerSecond: 1Mi}}}}"),
            "a",
            "quota: {bytesPerSecond: 2Mi}",
            Some("QuotaTooHigh"),
        ),
        (
            "keys above",
            format!("{ALL}, limits: {{quota: {{keys: 5}}}}"),
            "a",
            "quota: {keys: 6}",
            Some("QuotaTooHigh"),
        ),
        (
            "values above",
            format!("{ALL}, limits: {{quota: {{maxValueBytes: 5Ki}}}}"),
            "a",
            "quota: {maxValueBytes: 6Ki}",
            Some("QuotaTooHigh"),
        ),
        (
            "lives too long",
            format!("{ALL}, limits: {{maxTtl: 1h}}"),
            "a",
            "ttl: {max: 2h}",
            Some("QuotaTooHigh"),
        ),
        (
            "guaranteed more than the default memory",
            format!("{ALL}, defaults: {{quota: {{memory: 1Mi}}}}"),
            "a",
            "quota: {guaranteedMemory: 2Mi}",
            Some("QuotaTooHigh"),
        ),
        (
            "all of the memory",
            ALL.to_owned(),
            "a",
            "quota: {guaranteedMemory: 200Mi}",
            None,
        ),
        (
            "more than all",
            ALL.to_owned(),
            "a",
            "quota: {guaranteedMemory: 201Mi}",
            Some("MemoryOvercommitted"),
        ),
        (
            "none at all",
            format!("{ALL}, limits: {{maxTenants: 0}}"),
            "a",
            "",
            Some("TooManyTenants"),
        ),
    ];
    for (case, spec, namespace, asks, expected) in rows {
        let cluster = cluster(&format!("{spec}}}"));
        let plan = decide(&cluster, &empty(), &[tenant(namespace, "t", asks)], 0);
        assert_eq!(reason(&plan, namespace, "t"), expected, "{case}");
        assert_eq!(
            plan.next.is_some(),
            expected.is_none(),
            "{case}: who is refused is nowhere"
        );
        assert_eq!(plan.writes.len(), usize::from(expected.is_none()), "{case}");
    }
}

#[test]
fn copies_and_derived_budgets_count() {
    // 512Mi is a node's limit where none is written; 15 % of it are headroom.
    let derived = cluster("nodes: 2");
    assert_eq!(
        derived.pools[0].budget_bytes(),
        512 * MIB - (512 * MIB) / 100 * 15
    );
    let small = cluster("nodes: 1, resources: {limits: {memory: 96Mi}}");
    assert_eq!(small.budget_bytes(), 48 * MIB);
    let copied = cluster("nodes: 4, memory: {max: 100Mi}, replication: {factor: 2}");
    assert_eq!(copied.budget_bytes(), 200 * MIB);
    let plan = decide(
        &copied,
        &empty(),
        &[tenant("n", "t", "quota: {guaranteedMemory: 201Mi}")],
        0,
    );
    assert_eq!(reason(&plan, "n", "t"), Some("MemoryOvercommitted"));
}

#[test]
fn what_a_tenant_gets() {
    let spec = "nodes: 1, tenancy: {defaults: {quota: {memory: 8Mi, guaranteedMemory: 1Mi, connections: 50, overRate: Delay}, ttl: {default: 1h}}, limits: {quota: {connections: 20, opsPerSecond: 100, bytesPerSecond: 2Mi}, maxTtl: 24h}}";
    let cluster = cluster(spec);
    let rows = [
        (
            "nothing said",
            "",
            (
                Some(8 * MIB),
                MIB,
                Some(20),
                [Some(100), Some(2 * MIB)],
                OverRate::Delay,
            ),
            (Some(3_600_000), Some(86_400_000)),
        ),
        (
            "all said",
            "quota: {memory: 2Mi, guaranteedMemory: 0, connections: 3, opsPerSecond: 4, bytesPerSecond: 1Mi, overRate: Reject}, ttl: {default: 1m, max: 2m}",
            (Some(2 * MIB), 0, Some(3), [Some(4), Some(MIB)], OverRate::Reject),
            (Some(60_000), Some(120_000)),
        ),
        (
            "a default beyond what it allows itself",
            "ttl: {max: 10m}",
            (
                Some(8 * MIB),
                MIB,
                Some(20),
                [Some(100), Some(2 * MIB)],
                OverRate::Delay,
            ),
            (Some(600_000), Some(600_000)),
        ),
    ];
    for (case, asks, (memory, guaranteed, connections, rates, over), (default_ms, max_ms)) in rows {
        let ledger = with(&cluster, &[tenant("n", "t", asks)]);
        let given = &ledger.document.tenants[0];
        let quota = given.quota;
        assert_eq!(
            (
                quota.memory_bytes,
                quota.guaranteed_bytes,
                quota.connections,
                [quota.ops_per_second, quota.bytes_per_second],
                quota.over_rate
            ),
            (memory, guaranteed, connections, rates, over),
            "{case}"
        );
        assert_eq!(
            (given.ttl.default_ms, given.ttl.max_ms),
            (default_ms, max_ms),
            "{case}"
        );
    }
}

#[test]
fn who_is_in_stays_and_the_elder_comes_first() {
    let cluster = cluster("nodes: 1, memory: {max: 100Mi}, tenancy: {limits: {maxTenants: 2}}");
    let aged = |name: &str, created_ms, spec: &str| SeenTenant {
        created_ms,
        ..tenant("n", name, spec)
    };
    let tenants = [
        aged("a", 3, "quota: {guaranteedMemory: 60Mi}"),
        aged("b", 2, "quota: {guaranteedMemory: 60Mi}"),
        aged("c", 1, ""),
    ];
    let plan = decide(&cluster, &empty(), &tenants, 0);
    assert_eq!(reason(&plan, "n", "c"), None);
    assert_eq!(reason(&plan, "n", "b"), None);
    assert_eq!(reason(&plan, "n", "a"), Some("TooManyTenants"));
    let ledger = plan.next.unwrap();
    let ids: Vec<_> = ledger
        .document
        .tenants
        .iter()
        .map(|it| (it.id.0, it.name.as_str()))
        .collect();
    assert_eq!(ids, [(1, "c"), (2, "b")]);

    // One that grows beyond what there is keeps what it had; a newcomer that is older than all changes nothing.
    let tenants = unlooked(&[
        aged("b", 2, "quota: {guaranteedMemory: 101Mi}"),
        aged("c", 1, ""),
        aged("d", 0, ""),
    ]);
    let plan = decide(&cluster, &ledger, &tenants, 0);
    assert_eq!(reason(&plan, "n", "b"), Some("MemoryOvercommitted"));
    assert!(is_bound(&plan.verdicts[&TenantKey::new("n", "b")]));
    assert_eq!(reason(&plan, "n", "d"), Some("TooManyTenants"));
    assert_eq!(plan.next, None, "nothing changes");
    let told = summary(plan.verdicts.iter(), 2);
    assert_eq!((told.bound, told.refused, told.refusals.len()), (2, 2, 2));

    // A limit that was lowered touches nobody who is in.
    let fewer = support::views::cluster("nodes: 1, memory: {max: 50Mi}, tenancy: {limits: {maxTenants: 0}}");
    let tenants = unlooked(&[aged("b", 2, "quota: {guaranteedMemory: 60Mi}"), aged("c", 1, "")]);
    let plan = decide(&fewer, &ledger, &tenants, 0);
    assert!(plan.verdicts.values().all(|verdict| verdict.refused.is_none()));
    assert_eq!(plan.next, None);
}

#[test]
fn numbers_and_versions_only_grow() {
    let cluster = cluster("nodes: 1");
    let first = with(&cluster, &[tenant("n", "a", "")]);
    assert_eq!((first.document.version, first.document.next_id), (1, TenantId(2)));
    let second = decide(&cluster, &first, &[tenant("n", "b", "")], 0).next.unwrap();
    let ids: Vec<_> = second.document.tenants.iter().map(|it| it.id).collect();
    assert_eq!(
        ids,
        [TenantId(2)],
        "a was deleted, and its number is not used again"
    );
    assert_eq!(second.document.version, 2);
    // All is lost but what statuses and nodes tell.
    let told = [
        SeenTenant {
            told_id: Some(2),
            ..tenant("n", "b", "")
        },
        tenant("n", "new", ""),
    ];
    let lost = empty();
    let plan = decide_as(&Seen {
        versions_told: &[2],
        last_id_told: 7,
        ..seen(&cluster, &lost, &told)
    });
    let next = plan.next.unwrap().document;
    let ids: Vec<_> = next
        .tenants
        .iter()
        .map(|it| (it.id.0, it.name.as_str()))
        .collect();
    assert_eq!(ids, [(2, "b"), (8, "new")]);
    assert_eq!((next.version, next.next_id), (3, TenantId(9)));
    // Two that tell the same number can't both have it.
    let told = ["a", "b"].map(|name| SeenTenant {
        told_id: Some(2),
        ..tenant("n", name, "")
    });
    let next = decide(&cluster, &lost, &told, 0).next.unwrap().document;
    let ids: BTreeSet<_> = next.tenants.iter().map(|it| it.id.0).collect();
    assert_eq!(ids, BTreeSet::from([2, 3]));
}

fn seen<'a>(cluster: &'a ValidCluster, ledger: &'a Ledger, tenants: &'a [SeenTenant]) -> Seen<'a> {
    Seen {
        cluster,
        ledger,
        tenants,
        groups: &[],
        reach: Reach::Fenced,
        watched: None,
        versions_told: &[],
        last_id_told: 0,
        now_ms: 0,
    }
}

/// The case, the namespaces that are watched, and who is left with how many users.
type Watched<'a> = (&'a str, Option<&'a [&'a str]>, &'a [(&'a str, usize)]);

#[test]
fn absence_means_deletion_only_where_it_could_have_been_seen() {
    let cluster = cluster("nodes: 1, tenancy: {allowedNamespaces: {from: All}}");
    let ledger = with(
        &cluster,
        &[tenant("a", "t", ""), tenant("b", "t", "deletionPolicy: Retain")],
    );
    let rows: [Watched<'_>; 4] = [
        ("all are watched", None, &[("b", 0)]),
        ("both are", Some(&["a", "b"]), &[("b", 0)]),
        ("one is", Some(&["a"]), &[("b", 1)]),
        ("none is", Some(&["n"]), &[("a", 1), ("b", 1)]),
    ];
    for (case, watched, expected) in rows {
        let watched = watched.map(|namespaces| namespaces.iter().map(|&name| name.to_owned()).collect());
        let plan = decide_as(&Seen {
            watched: watched.as_ref(),
            ..seen(&cluster, &ledger, &[])
        });
        let left = plan.next.unwrap_or_else(|| ledger.clone()).document;
        let left: Vec<_> = left
            .tenants
            .iter()
            .map(|it| (it.namespace.as_str(), it.users.len()))
            .collect();
        assert_eq!(left, expected, "{case}");
    }
}

#[test]
fn labels_that_cannot_be_read_lock_nobody_out() {
    let spec = "nodes: 1, tenancy: {allowedNamespaces: {from: Selector, selector: {matchLabels: {a: b}}}}";
    let cluster = cluster(spec);
    let known = SeenTenant {
        labels: Some(BTreeMap::from([("a".to_owned(), "b".to_owned())])),
        ..tenant("a", "t", "")
    };
    let ledger = with(&cluster, std::slice::from_ref(&known));
    let unknown = SeenTenant {
        labels: None,
        ..known
    };
    let plan = decide(&cluster, &ledger, std::slice::from_ref(&unknown), 0);
    assert_eq!(reason(&plan, "a", "t"), Some("NamespaceNotAllowed"));
    assert_eq!(plan.next, None, "its users stay");
    assert_eq!(
        decide(&cluster, &empty(), &[unknown], 0).next,
        None,
        "but nobody comes in"
    );
}

#[test]
fn a_spec_that_breaks_rules_changes_nothing() {
    let cluster = cluster("nodes: 1");
    let ledger = with(&cluster, &[tenant("n", "t", "quota: {memory: 2Mi}")]);
    let broken = tenant("n", "t", "quota: {memory: lots}");
    let plan = decide(&cluster, &ledger, &[broken], 0);
    assert_eq!(reason(&plan, "n", "t"), Some("InvalidSpec"));
    assert_eq!(plan.next, None);
}

#[test]
fn when_passwords_are_replaced() {
    let cluster = cluster("nodes: 1");
    let spec = "rotation: {interval: 1h, overlap: 10m}";
    let (hour, minute) = (3_600_000, 60_000);
    let ledger = with(&cluster, &[tenant("n", "t", spec)]);
    let first = ledger.document.tenants[0].users[0].passwords[0];
    let other = PasswordDigest([9; 32]);
    let looked = |binding: Option<BindingSeen>, rotate: Option<&str>| {
        let mut tenant = tenant("n", "t", spec);
        if let Ok(asks) = &mut tenant.asks {
            asks.rotate = rotate.map(RotationWish::of);
        }
        tenant.bindings = binding.map(|seen| ("n.t".to_owned(), seen)).into_iter().collect();
        tenant
    };
    let holds = |digest| Some(BindingSeen::Holds(digest));
    // The case, what the binding holds, what the annotation says, when; how many are drawn, and which old one works on.
    let rows = [
        ("nothing to do", None, None, minute, 0, None),
        ("seen to be well", holds(first), None, minute, 0, None),
        (
            "the binding is gone",
            Some(BindingSeen::Missing),
            None,
            minute,
            1,
            Some(first),
        ),
        ("it holds another", holds(other), None, minute, 0, Some(first)),
        ("somebody asks", holds(first), Some("1"), minute, 1, Some(first)),
        (
            "somebody asks, and nobody looked",
            None,
            Some("1"),
            minute,
            1,
            Some(first),
        ),
        ("its time is over", None, None, hour, 1, Some(first)),
        ("just before", None, None, hour - 1, 0, None),
    ];
    for (case, binding, rotate, now_ms, drawn, old) in rows {
        let plan = decide(&cluster, &ledger, &[looked(binding, rotate)], now_ms);
        assert_eq!(plan.writes.len(), drawn, "{case}");
        let works = passwords(&plan, &ledger);
        assert_eq!(works.get(1).copied(), old, "{case}");
        let newest = match (drawn, binding) {
            (1, _) => plan.writes[0].password.digest(),
            (_, Some(BindingSeen::Holds(digest))) => digest,
            _ => first,
        };
        assert_eq!(works[0], newest, "{case}");
        let again = if old.is_some() { now_ms + 10 * minute } else { hour };
        assert_eq!(plan.look_again_ms, Some(again), "{case}");
    }

    // The overlap ends, and with it the old password.
    let rotated = decide(&cluster, &ledger, &[looked(None, Some("1"))], minute)
        .next
        .unwrap();
    let newest = rotated.document.tenants[0].users[0].passwords[0];
    let plan = decide(&cluster, &rotated, &[looked(None, Some("1"))], 11 * minute - 1);
    assert_eq!(plan.next, None);
    let plan = decide(&cluster, &rotated, &[looked(None, Some("1"))], 11 * minute);
    assert_eq!(passwords(&plan, &rotated), [newest]);
    // An operator that died before it wrote the binding left the old password there: a new one is drawn.
    let plan = decide(&cluster, &rotated, &[looked(holds(first), Some("1"))], 2 * minute);
    assert_eq!(plan.writes.len(), 1);
    assert_eq!(
        passwords(&plan, &rotated),
        [plan.writes[0].password.digest(), first]
    );
}

#[test]
fn a_document_that_would_not_fit_into_a_secret_takes_nobody_more() {
    let cluster = cluster("nodes: 1, tenancy: {limits: {maxTenants: 2000}}");
    let spec = greedy(20);
    let tenants: Vec<_> = (0..60)
        .map(|number| tenant("n", &format!("t{number}"), &spec))
        .collect();
    let plan = decide(&cluster, &empty(), &tenants, 0);
    let refused = plan
        .verdicts
        .values()
        .filter(|verdict| verdict.refused.is_some())
        .count();
    assert!((1..59).contains(&refused), "{refused}");
    let next = plan.next.unwrap();
    assert!(next.document.to_json().len() + next.notes_json().len() < 1 << 20);
    assert!(
        plan.writes
            .iter()
            .all(|write| plan.verdicts[&write.tenant].refused.is_none())
    );
}

/// What an author can at most have stored: users with many long rules.
fn greedy(rules: usize) -> String {
    let rules = vec![format!("+{}", "a".repeat(60)); rules].join(", ");
    let users: Vec<String> = (0..16)
        .map(|user| format!("{{name: u{user}, rules: [{rules}]}}"))
        .collect();
    format!("access: {{users: [{}]}}", users.join(", "))
}

#[test]
fn who_is_in_cannot_outgrow_the_secret_and_can_still_have_new_passwords() {
    let cluster = cluster("nodes: 1, tenancy: {limits: {maxTenants: 2000}}");
    let name = |number: usize| format!("t{number}");
    let asking = |rules: usize, rotate: Option<&str>| -> Vec<SeenTenant> {
        let spec = greedy(rules);
        let mut tenants: Vec<_> = (0..60).map(|number| tenant("n", &name(number), &spec)).collect();
        for tenant in &mut tenants {
            tenant.bindings.clear();
            tenant.asks.as_mut().unwrap().rotate = rotate.map(RotationWish::of);
        }
        tenants
    };
    let fits = |ledger: &Ledger| ledger.document.to_json().len() + ledger.notes_json().len() < 1 << 20;
    let small = with(&cluster, &asking(1, None));
    assert_eq!(small.document.tenants.len(), 60);

    let grown = decide(&cluster, &small, &asking(32, None), 1);
    let refused: Vec<_> = (0..60)
        .filter(|number| reason(&grown, "n", &name(*number)).is_some())
        .collect();
    assert!((20..60).contains(&refused.len()), "{refused:?}");
    let ledger = grown.next.unwrap();
    assert!(fits(&ledger));
    for number in refused {
        let verdict = &grown.verdicts[&TenantKey::new("n", name(number))];
        assert_eq!(
            verdict.refused.as_ref().unwrap().reason.as_str(),
            "TooManyTenants"
        );
        let find = |ledger: &Ledger| {
            let mut tenants = ledger.document.tenants.clone();
            tenants.retain(|tenant| tenant.name == name(number));
            tenants
        };
        assert_eq!(find(&ledger), find(&small), "it keeps what it had");
    }

    // Nothing fits in any more, and who stays as it is can rotate, with a wish of any length.
    let mut tenants = asking(32, Some(&"1".repeat(200_000)));
    tenants.retain(|tenant| grown.verdicts[&tenant.key].refused.is_none());
    assert!(tenants.len() > 1);
    let others = asking(1, None).into_iter();
    let others = others.filter(|tenant| grown.verdicts[&tenant.key].refused.is_some());
    let all: Vec<_> = tenants.iter().cloned().chain(others).collect();
    let rotated = decide(&cluster, &ledger, &all, 2);
    assert!(rotated.verdicts.values().all(|verdict| verdict.refused.is_none()));
    assert_eq!(rotated.writes.len(), 17 * tenants.len());
    assert!(fits(&rotated.next.unwrap()));
}

#[test]
fn the_length_of_a_wish_for_new_passwords_does_not_matter() {
    let mut wishes = object("n", "t", "");
    let wish = "1".repeat(200_000);
    let annotations = wishes.metadata.annotations.get_or_insert_default();
    annotations.insert("annulus.dev/rotate".to_owned(), wish);
    let cluster = cluster("nodes: 1");
    let tenant = SeenTenant {
        asks: validate(&wishes),
        ..tenant("n", "t", "")
    };
    let ledger = with(&cluster, std::slice::from_ref(&tenant));
    assert!(ledger.notes_json().len() < 300);
    let again = decide(&cluster, &ledger, &unlooked(&[tenant]), 1);
    assert!(again.writes.is_empty(), "the wish is known");
}

#[test]
fn who_is_refused_a_quota_can_still_shut_somebody_out() {
    let cluster = cluster("nodes: 1");
    let (minute, overlap) = (60_000, 600_000);
    let access = "access: {users: [{name: u, rules: [+get]}, {name: v}]}";
    let first = tenant(
        "n",
        "t",
        &format!("quota: {{memory: 8Mi}}, ttl: {{max: 1h}}, {access}"),
    );
    let ledger = with(&cluster, &[first]);
    let had = &ledger.document.tenants[0];
    // The limits are lower now, and it can't be guaranteed more than there is.
    let limits = "nodes: 1, memory: {max: 100Mi}, tenancy: {limits: {quota: {memory: 4Mi}}}";
    let rows = [
        (limits, "quota: {memory: 8Mi}, ttl: {max: 1h}", "QuotaTooHigh"),
        (
            "nodes: 1, memory: {max: 100Mi}",
            "quota: {guaranteedMemory: 101Mi}, ttl: {max: 2h}",
            "MemoryOvercommitted",
        ),
    ];
    for (spec, asks, expected) in rows {
        let cluster = support::views::cluster(spec);
        let spec = format!("deletionPolicy: Retain, {asks}, access: {{users: [{{name: u, rules: [+set]}}]}}");
        let mut revoking = tenant("n", "t", &spec);
        revoking.bindings.clear();
        revoking.asks.as_mut().unwrap().rotate = Some(RotationWish::of("1"));
        let revoking = [revoking];
        let plan = decide(&cluster, &ledger, &revoking, minute);
        assert_eq!(reason(&plan, "n", "t"), Some(expected));
        assert_eq!(plan.writes.len(), 2, "{expected}: both users have new passwords");
        let next = plan.next.unwrap();
        let entry = &next.document.tenants[0];
        assert_eq!((entry.quota, entry.ttl), (had.quota, had.ttl), "{expected}");
        let users: Vec<_> = entry
            .users
            .iter()
            .map(|user| (user.name.as_str(), user.rules[0].as_str()))
            .collect();
        assert_eq!(users, [("n.t", "+@all"), ("n.t.u", "+set")], "{expected}");
        assert!(next.notes[&entry.id].retain, "{expected}");
        assert_eq!(plan.look_again_ms, Some(minute + overlap), "{expected}");
        let plan = decide(&cluster, &next, &revoking, minute + overlap);
        assert_eq!(
            passwords(&plan, &next),
            [entry.users[0].passwords[0]],
            "{expected}"
        );
        // Another one of that name is a newcomer to what was left.
        let mut another = revoking.to_vec();
        another[0].asks.as_mut().unwrap().uid = "another".to_owned();
        let plan = decide(&cluster, &next, &another, minute);
        assert_eq!(reason(&plan, "n", "t"), Some(expected));
        assert!(
            plan.next.unwrap().document.tenants[0].users.is_empty(),
            "{expected}"
        );
    }
}

#[test]
fn replaced_passwords_end_whatever_becomes_of_the_spec() {
    let cluster = cluster("nodes: 1");
    let spec = "rotation: {overlap: 2m}";
    let ledger = with(&cluster, &[tenant("n", "t", spec)]);
    let mut rotating = tenant("n", "t", spec);
    rotating.bindings.clear();
    rotating.asks.as_mut().unwrap().rotate = Some(RotationWish::of("1"));
    let rotated = decide(&cluster, &ledger, &[rotating], 1).next.unwrap();
    let broken = [tenant("n", "t", "quota: {memory: lots}")];
    let plan = decide(&cluster, &rotated, &broken, 120_000);
    assert_eq!((plan.next.as_ref(), plan.look_again_ms), (None, Some(120_001)));
    let plan = decide(&cluster, &rotated, &broken, 120_001);
    assert_eq!(reason(&plan, "n", "t"), Some("InvalidSpec"));
    assert_eq!(
        passwords(&plan, &rotated),
        [rotated.document.tenants[0].users[0].passwords[0]]
    );
}

#[test]
fn versions_that_no_node_can_have_do_not_count() {
    let cluster = cluster("nodes: 1");
    let ledger = with(&cluster, &[tenant("n", "a", "")]);
    let leap = 1 << 32;
    let rows: [(&str, &[u64], Option<u64>); 5] = [
        ("the highest number", &[u64::MAX], None),
        ("just too far", &[1 + leap + 1], None),
        ("far", &[1 + leap], Some(2 + leap)),
        ("another one beside it", &[u64::MAX, 7], Some(8)),
        ("the stored one", &[1], None),
    ];
    for (case, versions_told, expected) in rows {
        let tenants = unlooked(&[tenant("n", "a", "")]);
        let plan = decide_as(&Seen {
            versions_told,
            ..seen(&cluster, &ledger, &tenants)
        });
        assert_eq!(plan.next.map(|next| next.document.version), expected, "{case}");
    }
}

#[test]
fn a_rule_that_is_none_is_named() {
    let rows = [("'+get', '~*'", "\"~*\""), ("'+@Read'", "\"+@Read\"")];
    for (rules, shown) in rows {
        let spec = format!("access: {{users: [{{name: a, rules: [{rules}]}}]}}");
        let invalid = validate(&object("n", "t", &spec)).unwrap_err().to_string();
        assert!(invalid.contains(shown), "{invalid}");
    }
}

#[test]
fn mistakes_in_a_tenant_are_named() {
    let rows = [
        ("t", "quota: {memory: 1Ki}", "spec.quota.memory"),
        (
            "t",
            "quota: {memory: 2Mi, guaranteedMemory: 3Mi}",
            "spec.quota.guaranteedMemory",
        ),
        ("t", "quota: {maxValueBytes: 0}", "spec.quota.maxValueBytes"),
        ("t", "quota: {connections: 0}", "spec.quota.connections"),
        ("t", "quota: {opsPerSecond: 0}", "spec.quota.opsPerSecond"),
        ("t", "quota: {bytesPerSecond: 1Ki}", "spec.quota.bytesPerSecond"),
        ("t", "quota: {keys: 0}", "spec.quota.keys"),
        ("t", "ttl: {default: 2h, max: 1h}", "spec.ttl.default"),
        ("t", "ttl: {default: 1d}", "spec.ttl.default"),
        ("t", "ttl: {max: 0s}", "spec.ttl.max"),
        ("t", "rotation: {interval: 29s}", "spec.rotation.interval"),
        (
            "t",
            "rotation: {interval: 1m, overlap: 1m}",
            "spec.rotation.overlap",
        ),
        ("t.u", "", "metadata.name"),
        ("0t", "", "metadata.name"),
        ("t", "access: {users: [{name: A}]}", "spec.access.users[0].name"),
        (
            "t",
            "access: {users: [{name: a}, {name: a}]}",
            "spec.access.users[1].name",
        ),
        (
            "t",
            "access: {users: [{name: a, rules: []}]}",
            "spec.access.users[0].rules",
        ),
        (
            "t",
            "access: {users: [{name: a, rules: ['~*']}]}",
            "spec.access.users[0].rules",
        ),
        (
            "t",
            "access: {users: [{name: a, rules: ['>secret']}]}",
            "spec.access.users[0].rules",
        ),
        (
            "t",
            "access: {users: [{name: a, rules: ['+@all ~*']}]}",
            "spec.access.users[0].rules",
        ),
        (
            "t",
            "access: {users: [{name: a, rules: ['+get'], permissions: ReadOnly}]}",
            "spec.access.users[0]",
        ),
    ];
    for (name, spec, field) in rows {
        let invalid = validate(&object("n", name, spec)).unwrap_err();
        assert_eq!(invalid.mistakes[0].field, field, "{spec}: {invalid}");
    }
    for rules in ["+@all", "-@write", "+get", "-config|set", "+client|no-evict"] {
        let spec = format!("access: {{users: [{{name: a, rules: ['{rules}']}}]}}");
        assert!(validate(&object("n", "t", &spec)).is_ok(), "{rules}");
    }
}

//! What the webhook decides, a row each: who is refused and why, what is only said, and what pods get.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests: helpers may panic, tables may be long"
)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use annulus_crds::v1alpha1::{CacheCluster, CacheGroup, CacheTenant};
use annulus_operator::groups::validate::validate as validate_group;
use annulus_operator::tenants::admission::Labels;
use annulus_operator::validate::Installation;
use annulus_operator::webhook::decision::Decision;
use annulus_operator::webhook::tenant::Around;
use annulus_operator::webhook::{cluster, group, pod, tenant};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const OPEN: &str = "nodes: 2, memory: {max: 100Mi}, tenancy: {allowedNamespaces: {from: All}";

fn object(namespace: &str, name: &str, spec: &str) -> CacheTenant {
    let text = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheTenant, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{clusterRef: {{name: c, namespace: n}}, {spec}}}}}"
    );
    serde_yaml::from_str(&text).unwrap()
}

/// A tenant to which the cluster has given a number.
fn bound(namespace: &str, name: &str, spec: &str) -> Arc<CacheTenant> {
    let mut tenant = object(namespace, name, spec);
    tenant.status = serde_json::from_value(json!({"tenantId": 7})).unwrap();
    Arc::new(tenant)
}

/// One that asks for something else now, which the cluster has refused.
fn refused(namespace: &str, name: &str, spec: &str) -> Arc<CacheTenant> {
    let mut tenant = object(namespace, name, spec);
    let condition = json!({
        "type": "Accepted", "status": "False", "reason": "QuotaTooHigh", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    tenant.status = serde_json::from_value(json!({"tenantId": 8, "conditions": [condition]})).unwrap();
    Arc::new(tenant)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn around(spec: &str, tenants: &[Arc<CacheTenant>]) -> Around {
    Around {
        cluster: Some(Ok(support::views::cluster(spec))),
        labels: Some(Labels::new()),
        tenants: tenants.to_vec(),
    }
}

/// The reason of a refusal, or what is said.
fn said(decision: &Decision) -> String {
    match decision {
        Decision::Deny { reason, message } => format!("no, {reason}: {message}"),
        Decision::Allow { warnings, .. } if warnings.is_empty() => "yes".to_owned(),
        Decision::Allow { warnings, .. } => format!("yes, but {}", warnings.join("; ")),
    }
}

#[test]
fn which_tenants_may_be_stored() {
    let guaranteed = |mib: u32| format!("quota: {{guaranteedMemory: {mib}Mi}}");
    let limited = format!("{OPEN}, limits: {{quota: {{memory: 64Mi}}}}}}");
    let open = format!("{OPEN}}}");
    let by_label =
        "nodes: 1, tenancy: {allowedNamespaces: {from: Selector, selector: {matchLabels: {team: a}}}}";
    let two = [
        bound("x", "one", &guaranteed(90)),
        bound("x", "two", &guaranteed(90)),
    ];
    let rows: Vec<(&str, Around, String, &str)> = vec![
        ("nothing is in the way", around(&open, &[]), String::new(), "yes"),
        (
            "another namespace",
            around("nodes: 1", &[]),
            String::new(),
            "no, NamespaceNotAllowed: CacheCluster n/c takes tenants of its own namespace only",
        ),
        (
            "without the label",
            around(by_label, &[]),
            String::new(),
            "no, NamespaceNotAllowed: namespace a has not the labels",
        ),
        (
            "with the label",
            Around {
                labels: Some(labels(&[("team", "a")])),
                ..around(by_label, &[])
            },
            String::new(),
            "yes",
        ),
        (
            "nobody knows the labels",
            Around {
                labels: None,
                ..around(by_label, &[])
            },
            String::new(),
            "yes, but the labels of namespace a are not known",
        ),
        (
            "more than a limit",
            around(&limited, &[]),
            "quota: {memory: 65Mi}".to_owned(),
            "no, QuotaTooHigh: spec.quota.memory is 68157440, and the cluster's spec.tenancy.limits allow 67108864",
        ),
        (
            "exactly a limit",
            around(&limited, &[]),
            "quota: {memory: 64Mi}".to_owned(),
            "yes",
        ),
        ("the sum fits", around(&open, &two), guaranteed(20), "yes"),
        (
            "the sum doesn't fit",
            around(&open, &two),
            guaranteed(21),
            "no, MemoryOvercommitted: quota.guaranteedMemory is 22020096 bytes; of the cluster's 209715200 bytes other \
             tenants are guaranteed 188743680",
        ),
        (
            "others who have no number yet don't count",
            around(&open, &[Arc::new(object("x", "new", &guaranteed(200)))]),
            guaranteed(100),
            "yes",
        ),
        (
            "nor do they take a place",
            around(
                &format!("{OPEN}, limits: {{maxTenants: 1}}}}"),
                &[Arc::new(object("x", "new", ""))],
            ),
            String::new(),
            "yes",
        ),
        (
            "what a refused tenant has is for the reconciler to know",
            around(&open, &[refused("x", "greedy", &guaranteed(200))]),
            guaranteed(100),
            "yes",
        ),
        (
            "as many tenants as there may be",
            around(&format!("{OPEN}, limits: {{maxTenants: 2}}}}"), &two),
            String::new(),
            "no, TooManyTenants: the cluster takes 2 tenants and has as many",
        ),
        (
            "no cluster yet",
            Around::default(),
            String::new(),
            "yes, but CacheCluster n/c does not exist",
        ),
        (
            "a mistake, without a cluster",
            Around::default(),
            "access: {users: [{name: r, rules: [get]}]}".to_owned(),
            "no, InvalidSpec: spec.access.users[0].rules",
        ),
        (
            "a default that doesn't fit",
            around(
                &format!("{OPEN}, defaults: {{quota: {{guaranteedMemory: 300Mi, memory: 300Mi}}}}}}"),
                &[],
            ),
            String::new(),
            "no, MemoryOvercommitted",
        ),
        (
            "the cluster has mistakes of its own",
            Around {
                cluster: Some(Err(annulus_operator::validate::InvalidSpec {
                    mistakes: Vec::new(),
                })),
                ..Around::default()
            },
            String::new(),
            "yes, but CacheCluster n/c has an invalid spec",
        ),
    ];
    for (what, around, spec, expected) in rows {
        let decision = tenant::check(&object("a", "t", &spec), None, &around);
        let told = said(&decision);
        assert!(
            told.starts_with(expected) && (expected != "yes" || told == "yes"),
            "{what}: {told}"
        );
    }
}

#[test]
fn which_tenants_may_change() {
    let guaranteed = |mib: u32| format!("quota: {{guaranteedMemory: {mib}Mi}}");
    let full = around(
        &format!("{OPEN}, limits: {{quota: {{keys: 10}}}}}}"),
        &[
            bound("x", "one", &guaranteed(150)),
            bound("a", "t", &guaranteed(80)),
        ],
    );
    let rows = [
        ("what doesn't fit stays", guaranteed(80), guaranteed(80), "yes"),
        (
            "it may want less, though all is given away",
            guaranteed(80),
            guaranteed(60),
            "yes",
        ),
        (
            "not more",
            guaranteed(80),
            guaranteed(81),
            "no, MemoryOvercommitted",
        ),
        (
            "above a limit that came later, untouched",
            "quota: {keys: 11}".to_owned(),
            "quota: {keys: 11}".to_owned(),
            "yes",
        ),
        (
            "above that limit, changed",
            "quota: {keys: 11}".to_owned(),
            "quota: {keys: 12}".to_owned(),
            "no, QuotaTooHigh",
        ),
        (
            "above that limit, without a user that it had",
            "quota: {keys: 11}, access: {users: [{name: u}]}".to_owned(),
            "quota: {keys: 11}".to_owned(),
            "yes, but spec.quota.keys is 11",
        ),
        (
            "above that limit, with another time to live",
            "quota: {keys: 11}".to_owned(),
            "quota: {keys: 11}, ttl: {max: 1h}".to_owned(),
            "no, QuotaTooHigh",
        ),
    ];
    let lowered = around(
        &format!("{OPEN}, limits: {{quota: {{guaranteedMemory: 70Mi}}}}}}"),
        &[
            bound("x", "one", &guaranteed(60)),
            bound("x", "two", &guaranteed(60)),
            bound("x", "three", &guaranteed(60)),
        ],
    );
    let less = tenant::check(
        &object("a", "t", &guaranteed(70)),
        Some(&bound("a", "t", &guaranteed(80))),
        &lowered,
    );
    assert_eq!(
        less,
        Decision::allow(),
        "what it has may be above what anybody may ask for now"
    );
    let newcomer = tenant::check(&object("a", "t", &guaranteed(70)), None, &lowered);
    assert!(said(&newcomer).starts_with("no, MemoryOvercommitted"));
    for (what, before, after, expected) in rows {
        let before = bound("a", "t", &before);
        let decision = tenant::check(&object("a", "t", &after), Some(&before), &full);
        assert!(
            said(&decision).starts_with(expected),
            "{what}: {}",
            said(&decision)
        );
    }
    let (had, wants) = (
        "quota: {keys: 11}, access: {users: [{name: u}]}",
        "quota: {keys: 11}",
    );
    let never_in = tenant::check(&object("a", "t", wants), Some(&object("a", "t", had)), &full);
    assert!(said(&never_in).starts_with("no, QuotaTooHigh"));
    let closed = around("nodes: 1", &[]);
    let locked_out = tenant::check(&object("a", "t", wants), Some(&bound("a", "t", had)), &closed);
    assert!(said(&locked_out).starts_with("no, NamespaceNotAllowed"));
    // Nobody holds up a deletion.
    let mut leaving = object("a", "t", &guaranteed(190));
    leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
    let before = bound("a", "t", &guaranteed(80));
    assert_eq!(tenant::check(&leaving, Some(&before), &full), Decision::allow());
}

/// The object after the patch of a decision.
fn patched<K: serde::Serialize>(object: &K, decision: &Decision) -> Value {
    let Decision::Allow { patch, .. } = decision else {
        panic!("{decision:?}");
    };
    let mut value = serde_json::to_value(object).unwrap();
    json_patch::patch(&mut value, patch).unwrap();
    value
}

#[test]
fn tenants_are_labelled_and_nothing_else() {
    let labels = json!({
        "annulus.dev/tenant": "t", "annulus.dev/cluster": "c", "annulus.dev/cluster-namespace": "n",
    });
    let mut tenant = object("a", "t", "quota: {keys: 3}");
    let labelled = patched(&tenant, &tenant::label(&tenant));
    let mut expected = serde_json::to_value(&tenant).unwrap();
    expected["metadata"]["labels"] = labels.clone();
    assert_eq!(labelled, expected);

    // A second look changes nothing; what says something else is put right, other labels stay.
    let again: CacheTenant = serde_json::from_value(labelled).unwrap();
    assert_eq!(tenant::label(&again), Decision::allow());
    tenant.metadata.labels =
        serde_json::from_value(json!({"annulus.dev/tenant": "other", "app": "blog"})).unwrap();
    let relabelled = patched(&tenant, &tenant::label(&tenant))["metadata"]["labels"].clone();
    assert_eq!(relabelled["app"], "blog");
    assert_eq!(relabelled["annulus.dev/tenant"], "t");

    // Names that the API server draws are not known yet; a cluster without a namespace is in the tenant's.
    let text = "{apiVersion: annulus.dev/v1alpha1, kind: CacheTenant, metadata: {generateName: t-, namespace: a}, spec: {clusterRef: {name: c}}}";
    let nameless: CacheTenant = serde_yaml::from_str(text).unwrap();
    let found = patched(&nameless, &tenant::label(&nameless))["metadata"]["labels"].clone();
    assert_eq!(
        found,
        json!({"annulus.dev/cluster": "c", "annulus.dev/cluster-namespace": "a"})
    );
}

fn cluster_object(spec: &str) -> CacheCluster {
    let text = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheCluster, metadata: {{name: c, namespace: n, uid: u-1}}, spec: {{{spec}}}}}"
    );
    serde_yaml::from_str(&text).unwrap()
}

#[test]
fn what_is_said_of_a_cluster_that_changes() {
    let tenants = [
        bound("a", "one", "quota: {guaranteedMemory: 90Mi, memory: 128Mi}"),
        bound("b", "two", "quota: {guaranteedMemory: 60Mi, memory: 128Mi}"),
        Arc::new(object(
            "b",
            "three",
            "quota: {guaranteedMemory: 500Mi, memory: 1Gi}",
        )),
    ];
    let open = format!("{OPEN}}}");
    let with = |more: &str| format!("{OPEN}, {more}}}");
    let chosen = |label: &str| {
        format!(
            "nodes: 2, memory: {{max: 100Mi}}, tenancy: {{allowedNamespaces: {{from: Selector, selector: {{matchLabels: {{team: {label}}}}}}}}}"
        )
    };
    let limit = |memory: &str| with(&format!("limits: {{quota: {{memory: {memory}}}}}"));
    let rows: [(&str, String, String, &str); 10] = [
        ("nothing", open.clone(), open.clone(), "yes"),
        ("more", open.clone(), open.replace("100Mi", "200Mi"), "yes"),
        (
            "less, and enough",
            open.clone(),
            open.replace("100Mi", "75Mi"),
            "yes",
        ),
        (
            "less than is guaranteed",
            open.clone(),
            open.replace("100Mi", "74Mi"),
            "yes, but the cluster is left with 155189248 bytes, and its tenants are guaranteed 157286400",
        ),
        (
            "fewer nodes",
            open.clone(),
            open.replace("nodes: 2", "nodes: 1"),
            "yes, but the cluster is left with 104857600 bytes",
        ),
        (
            "it was too little before",
            open.replace("100Mi", "70Mi"),
            open.replace("100Mi", "71Mi"),
            "yes",
        ),
        (
            "fewer tenants",
            open.clone(),
            with("limits: {maxTenants: 1}"),
            "yes, but spec.tenancy.limits.maxTenants is 1, and 2 tenants are in",
        ),
        (
            "a lower limit",
            limit("128Mi"),
            limit("127Mi"),
            "yes, but above spec.tenancy.limits are now: a/one, b/two. They keep what they have",
        ),
        (
            "a namespace less",
            chosen("a"),
            chosen("b"),
            "yes, but spec.tenancy.allowedNamespaces leaves out: a/one. Their access ends at once",
        ),
        (
            "mistakes are others' to tell",
            open.clone(),
            "nodes: 0".to_owned(),
            "yes",
        ),
    ];
    let installation = Installation {
        node_image: Some("annulus-node:1".to_owned()),
        ..Installation::default()
    };
    let of = |namespace: &str| Some(labels(&[("team", namespace)]));
    for (what, before, after, expected) in rows {
        let (before, after) = (cluster_object(&before), cluster_object(&after));
        let told = said(&cluster::check(&after, &before, &tenants, of, &installation));
        assert!(
            told.starts_with(expected) && (expected != "yes" || told == "yes"),
            "{what}: {told}"
        );
    }
    // Many are not all called by name.
    let many: Vec<_> = (0..9)
        .map(|n| bound("a", &format!("t{n}"), "quota: {memory: 2Mi}"))
        .collect();
    let (before, after) = (cluster_object(&limit("2Mi")), cluster_object(&limit("1Mi")));
    let told = said(&cluster::check(&after, &before, &many, of, &installation));
    assert!(told.contains("a/t0, a/t1, a/t2 and 6 more"), "{told}");
}

fn pod_object(annotations: &[(&str, &str)], spec: &str) -> Pod {
    let annotations: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    let spec: Value = serde_yaml::from_str(spec).unwrap();
    serde_json::from_value(json!({"metadata": {"name": "web", "annotations": annotations}, "spec": spec}))
        .unwrap()
}

fn injected(pod: &Pod, tenant: Option<&Arc<CacheTenant>>) -> (Value, String) {
    let asks = pod::asks(pod, "blog").unwrap().unwrap();
    let decision = pod::inject(pod, &asks, tenant);
    (patched(pod, &decision), said(&decision))
}

#[test]
fn what_a_pod_asks_for() {
    const TENANT: &str = pod::TENANT_ANNOTATION;
    let rows: [(&[(&str, &str)], &str); 8] = [
        (&[], "nothing"),
        (&[(pod::USER_ANNOTATION, "reader")], "nothing"),
        (&[(TENANT, "cache")], "blog/cache None Files"),
        (
            &[(TENANT, "cache"), (pod::USER_ANNOTATION, "reader")],
            r#"blog/cache Some("reader") Files"#,
        ),
        (
            &[(TENANT, "cache"), (pod::INJECT_AS_ANNOTATION, "env")],
            "blog/cache None Env",
        ),
        (
            &[(TENANT, "other/cache")],
            "annotation annulus.dev/tenant is \"other/cache\": write the name",
        ),
        (
            &[(TENANT, "cache"), (pod::USER_ANNOTATION, "A")],
            "annotation annulus.dev/tenant-user is \"A\"",
        ),
        (
            &[(TENANT, "cache"), (pod::INJECT_AS_ANNOTATION, "vars")],
            "annotation annulus.dev/inject-as is \"vars\": write files or env",
        ),
    ];
    for (annotations, expected) in rows {
        let found = match pod::asks(&pod_object(annotations, "{containers: []}"), "blog") {
            Ok(None) => "nothing".to_owned(),
            Ok(Some(asks)) => format!("{} {:?} {:?}", asks.tenant, asks.user, asks.inject_as),
            Err(message) => message,
        };
        assert!(found.starts_with(expected), "{annotations:?}: {found}");
    }
}

#[test]
fn pods_get_the_binding_as_files() {
    let tenant = bound("blog", "cache", "access: {users: [{name: reader}]}");
    let plain = pod_object(
        &[("annulus.dev/tenant", "cache")],
        "{containers: [{name: a}, {name: b, env: [{name: X, value: y}], volumeMounts: [{name: v, mountPath: /v}]}], initContainers: [{name: i}]}",
    );
    let (pod, told) = injected(&plain, Some(&tenant));
    assert_eq!(told, "yes");
    assert_eq!(pod["metadata"]["labels"], json!({"annulus.dev/tenant": "cache"}));
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "annulus-binding", "projected": {"sources": [{"secret": {"name": "cache-binding"}}]}}])
    );
    let mount = json!({"name": "annulus-binding", "mountPath": "/bindings/cache", "readOnly": true});
    let root = json!({"name": "SERVICE_BINDING_ROOT", "value": "/bindings"});
    for container in [&pod["spec"]["containers"][0], &pod["spec"]["initContainers"][0]] {
        assert_eq!(
            (&container["env"], &container["volumeMounts"]),
            (&json!([root]), &json!([mount]))
        );
    }
    let second = &pod["spec"]["containers"][1];
    assert_eq!(second["env"], json!([{"name": "X", "value": "y"}, root]));
    assert_eq!(
        second["volumeMounts"],
        json!([{"name": "v", "mountPath": "/v"}, mount])
    );

    // Once more changes nothing.
    let again: Pod = serde_json::from_value(pod).unwrap();
    let asks = pod::asks(&again, "blog").unwrap().unwrap();
    assert_eq!(pod::inject(&again, &asks, Some(&tenant)), Decision::allow());

    let mut reader = plain;
    let annotations = reader.metadata.annotations.as_mut().unwrap();
    annotations.insert("annulus.dev/tenant-user".to_owned(), "reader".to_owned());
    let (pod, told) = injected(&reader, Some(&tenant));
    assert_eq!(told, "yes");
    assert_eq!(
        pod["spec"]["volumes"][0]["projected"]["sources"][0]["secret"]["name"],
        "cache-binding.reader"
    );
}

#[test]
fn what_a_pod_has_is_not_overwritten() {
    let annotations = [("annulus.dev/tenant", "cache")];
    let tenant = bound("blog", "cache", "");
    let own_root = pod_object(
        &annotations,
        "{containers: [{name: a, env: [{name: SERVICE_BINDING_ROOT, value: /own/}]}, {name: b, env: [{name: SERVICE_BINDING_ROOT, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}, {name: c, volumeMounts: [{name: v, mountPath: /bindings/cache/}]}]}",
    );
    let (pod, told) = injected(&own_root, Some(&tenant));
    assert!(
        told.starts_with("yes, but container b sets SERVICE_BINDING_ROOT"),
        "{told}"
    );
    let containers = pod["spec"]["containers"].as_array().unwrap();
    assert_eq!(containers[0]["env"].as_array().unwrap().len(), 1);
    assert_eq!(containers[0]["volumeMounts"][0]["mountPath"], "/own/cache");
    assert_eq!(containers[1].get("volumeMounts"), None);
    assert_eq!(
        containers[2]["volumeMounts"],
        json!([{"name": "v", "mountPath": "/bindings/cache/"}])
    );

    let own_volume = pod_object(
        &annotations,
        "{containers: [{name: a}], volumes: [{name: annulus-binding, emptyDir: {}}]}",
    );
    let (pod, told) = injected(&own_volume, Some(&tenant));
    assert!(
        told.starts_with("yes, but the pod has a volume annulus-binding of its own"),
        "{told}"
    );
    assert_eq!(pod["spec"], serde_json::to_value(&own_volume.spec).unwrap());

    let mut labelled = pod_object(&annotations, "{containers: []}");
    labelled.metadata.labels = Some(labels(&[("annulus.dev/tenant", "mine")]));
    let (pod, _) = injected(&labelled, Some(&tenant));
    assert_eq!(pod["metadata"]["labels"]["annulus.dev/tenant"], "mine");
}

#[test]
fn pods_get_the_binding_as_variables() {
    let annotations = [("annulus.dev/tenant", "cache"), ("annulus.dev/inject-as", "env")];
    let pod = pod_object(
        &annotations,
        "{containers: [{name: a, env: [{name: CACHE_HOST, value: mine}]}]}",
    );
    let (pod, told) = injected(&pod, Some(&bound("blog", "cache", "")));
    assert_eq!(told, "yes");
    assert_eq!(pod["spec"].get("volumes"), None);
    let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
    assert_eq!(env[0], json!({"name": "CACHE_HOST", "value": "mine"}));
    let names: Vec<&str> = env.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "CACHE_HOST",
            "CACHE_PORT",
            "CACHE_USERNAME",
            "CACHE_PASSWORD",
            "CACHE_URI"
        ]
    );
    let password = json!({"secretKeyRef": {"name": "cache-binding", "key": "password"}});
    assert_eq!(env[3]["valueFrom"], password);
}

#[test]
fn a_pod_may_come_before_its_tenant() {
    let pod = pod_object(&[("annulus.dev/tenant", "cache")], "{containers: [{name: a}]}");
    let (patched, told) = injected(&pod, None);
    assert_eq!(
        told,
        "yes, but CacheTenant blog/cache does not exist yet: the pod waits for its Secret cache-binding"
    );
    assert!(patched["spec"]["volumes"].is_array());
    let annotations = [
        ("annulus.dev/tenant", "cache"),
        ("annulus.dev/tenant-user", "reader"),
    ];
    let (_, told) = injected(
        &pod_object(&annotations, "{containers: []}"),
        Some(&bound("blog", "cache", "")),
    );
    assert!(
        told.starts_with("yes, but CacheTenant blog/cache has no user reader"),
        "{told}"
    );
}

#[test]
fn which_groups_may_be_stored() {
    const GOOD: &str = "keyPrefix: 'user:', ttl: {soft: 5m, hard: 10m}, origin: {http: {urlTemplate: 'http://users.blog.svc/{key}', headers: [{name: accept, value: text}]}}";
    let object = |spec: &str| -> CacheGroup {
        let text = format!(
            "{{apiVersion: annulus.dev/v1alpha1, kind: CacheGroup, metadata: {{name: users, namespace: blog}}, spec: {{clusterRef: {{name: c, namespace: n}}, {spec}}}}}"
        );
        serde_yaml::from_str(&text).unwrap()
    };
    let bad = |from: &str, to: &str| {
        let spec = GOOD.replace(from, to);
        assert_ne!(spec, GOOD, "{from}");
        spec
    };
    let rows = [
        ("all is well", GOOD.to_owned(), "yes"),
        // What may become right without the group: its origin may be allowed, and its tenant may come.
        ("somebody else's Service", bad("users.blog", "users.shop"), "yes"),
        (
            "a tenant that nobody made",
            format!("{GOOD}, tenantRef: {{name: none}}"),
            "yes",
        ),
        (
            "no place for the key",
            bad("{key}", "all"),
            "no, InvalidSpec: spec.origin.http.urlTemplate: must have {key} in its path or query, for example http://users.shop.svc/users/{key}",
        ),
        (
            "the times are the wrong way round",
            bad("soft: 5m", "soft: 15m"),
            "no, InvalidSpec: spec.ttl.soft: must not be longer than ttl.hard",
        ),
        (
            "a header of the connection",
            bad("accept", "Host"),
            "no, InvalidSpec: spec.origin.http.headers[0].name: is a header that belongs to the connection and is not yours to send: leave it out",
        ),
        (
            "a value of two lines",
            bad("value: text", "value: \"a\\nb\""),
            "no, InvalidSpec: spec.origin.http.headers[0].value: must be at most 4096 characters of ASCII without control characters",
        ),
    ];
    for (name, spec, expected) in &rows {
        let new = object(spec);
        let decision = group::check(&new, None);
        assert_eq!(&said(&decision), expected, "{name}");
        assert_eq!(
            decision.is_allowed(),
            validate_group(&new).is_ok(),
            "{name}: the reconciler says the same"
        );
        // What was stored without the webhook can be labelled and deleted, and can't be made worse.
        assert_eq!(said(&group::check(&new, Some(&new))), "yes", "{name}, unchanged");
        let mut leaving = new.clone();
        leaving.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(
            said(&group::check(&leaving, None)),
            "yes",
            "{name}, on its way out"
        );
        let before = object(&bad("10m", "20m"));
        assert_eq!(
            &said(&group::check(&new, Some(&before))),
            expected,
            "{name}, changed"
        );
    }
}

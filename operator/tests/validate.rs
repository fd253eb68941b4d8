//! Every rule, broken once: the mistake names the field and says what to write.
#![expect(
    clippy::unwrap_used,
    clippy::too_many_lines,
    reason = "tests: helpers may panic, tables may be long"
)]

use annulus_crds::v1alpha1::CacheCluster;
use annulus_operator::validate::{Installation, ValidAuth, validate};

fn cluster(name: &str, spec: &str) -> CacheCluster {
    let text = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheCluster, metadata: {{name: {name}, namespace: n, uid: u-1}}, spec: {{{spec}}}}}"
    );
    serde_yaml::from_str(&text).unwrap()
}

fn installation() -> Installation {
    Installation {
        node_image: Some("node:1".to_owned()),
        ..Installation::default()
    }
}

fn mistakes(name: &str, spec: &str) -> Vec<(String, String)> {
    let invalid = validate(&cluster(name, spec), &installation()).unwrap_err();
    invalid
        .mistakes
        .into_iter()
        .map(|mistake| (mistake.field, mistake.problem))
        .collect()
}

#[test]
fn each_mistake_is_named_with_its_cure() {
    let rows = [
        ("c", "", "spec", "nodes: 3"),
        ("c", "nodes: 0", "spec.nodes", "1 to 200"),
        ("c", "nodes: 201", "spec.nodes", "1 to 200"),
        (
            "c",
            "nodes: 1, pools: [{name: a, nodes: 1}]",
            "spec",
            "exclude each other",
        ),
        ("c", "pools: []", "spec.pools", "1 to 16"),
        (
            "c",
            "pools: [{name: a, nodes: 0}]",
            "spec.pools",
            "at least one node",
        ),
        (
            "c",
            "pools: [{name: a, nodes: 150}, {name: b, nodes: 51}]",
            "spec.pools",
            "at most 200",
        ),
        (
            "c",
            "pools: [{name: a, nodes: 1}, {name: a, nodes: 1}]",
            "spec.pools[1].name",
            "another pool",
        ),
        ("c", "pools: [{name: A_, nodes: 1}]", "spec.pools[0].name", "a-z"),
        (
            "c",
            "pools: [{name: a, nodes: 1, weight: 0}]",
            "spec.pools[0].weight",
            "1 to 10000",
        ),
        (
            "c",
            "pools: [{name: a, nodes: 1, zone: ''}]",
            "spec.pools[0].zone",
            "1 to 63",
        ),
        (
            "c",
            "nodes: 2, replication: {factor: 3}",
            "spec.replication.factor",
            "greater than the number of nodes",
        ),
        (
            "c",
            "nodes: 9, replication: {factor: 6}",
            "spec.replication.factor",
            "1 to 5",
        ),
        (
            "c",
            "nodes: 3, replication: {factor: 2, acks: 2}",
            "spec.replication.acks",
            "less than",
        ),
        (
            "c",
            "nodes: 3, replication: {acks: 1}",
            "spec.replication.acks",
            "less than",
        ),
        (
            "c",
            "nodes: 3, replication: {factor: 2, maxStalenessMs: 499}",
            "spec.replication.maxStalenessMs",
            "500 to 86400000",
        ),
        (
            "c",
            "nodes: 3, replication: {maxStalenessMs: 1000}",
            "spec.replication.maxStalenessMs",
            "raise factor or leave it out",
        ),
        (
            "c",
            "nodes: 3, rebalance: {maxBytesPerSecond: 1023Ki}",
            "spec.rebalance.maxBytesPerSecond",
            "at least 1Mi",
        ),
        (
            "c",
            "nodes: 3, autoscaling: {minNodes: 3, maxNodes: 2}",
            "spec.autoscaling",
            "not greater than maxNodes",
        ),
        (
            "c",
            "pools: [{name: a, nodes: 3}], autoscaling: {minNodes: 3, maxNodes: 4}",
            "spec.autoscaling",
            "nodes instead of pools",
        ),
        (
            "c",
            "nodes: 3, replication: {factor: 2}, autoscaling: {minNodes: 1, maxNodes: 4}",
            "spec.autoscaling.minNodes",
            "less than replication.factor",
        ),
        ("c", "nodes: 3, virtualNodes: 65", "spec.virtualNodes", "1 to 64"),
        ("c", "nodes: 3, threads: 0", "spec.threads", "1 to 64"),
        ("c", "nodes: 3, image: ''", "spec.image", "1 to 512"),
        (
            "c",
            "nodes: 3, memory: {max: 512Mi}",
            "spec.memory.max",
            "less than the container's memory limit",
        ),
        (
            "c",
            "nodes: 3, memory: {max: 1GiB}",
            "spec.memory.max",
            "not an amount of memory",
        ),
        ("c", "nodes: 3, memory: {max: '0'}", "spec.memory.max", "positive"),
        (
            "c",
            "nodes: 3, resources: {limits: {memory: 32Mi}}",
            "spec.resources.limits.memory",
            "at least 64Mi",
        ),
        (
            "c",
            "nodes: 3, resources: {limits: {memory: lots}}",
            "spec.resources.limits.memory",
            "not an amount",
        ),
        (
            "c",
            "nodes: 3, resources: {limits: {memory: 128Mi}, requests: {memory: 1Gi}}",
            "spec.resources.requests.memory",
            "not be greater",
        ),
        (
            "c",
            "pools: [{name: a, nodes: 1, resources: {limits: {memory: 1Mi}}}]",
            "spec.pools[0].resources.limits.memory",
            "at least 64Mi",
        ),
        (
            "c",
            "nodes: 3, podMetadata: {labels: {annulus.dev/cluster: x}}",
            "spec.podMetadata.labels",
            "selects pods",
        ),
        ("c", "nodes: 3, auth: {}", "spec.auth", "exactly one"),
        (
            "c",
            "nodes: 3, auth: {generated: true, disabled: true}",
            "spec.auth",
            "exactly one",
        ),
        (
            "c",
            "nodes: 3, auth: {secretRef: {name: ''}}",
            "spec.auth.secretRef.name",
            "must name",
        ),
        (
            "c",
            "nodes: 3, tls: {clientAuth: Required}",
            "spec.tls.enabled",
            "must be true",
        ),
        (
            "c",
            "nodes: 3, tls: {enabled: true, secretRef: {name: ''}}",
            "spec.tls.secretRef.name",
            "must name",
        ),
        (
            "c",
            "nodes: 3, persistence: {enabled: true}",
            "spec.persistence.enabled",
            "not available",
        ),
        (
            "c",
            "nodes: 3, tenancy: {allowedNamespaces: {from: Selector}}",
            "spec.tenancy.allowedNamespaces",
            "selector goes with",
        ),
        ("1c", "nodes: 3", "metadata.name", "starting with a letter"),
        (
            "a-name-that-is-longer-than-forty-characters",
            "nodes: 3",
            "metadata.name",
            "at most 40",
        ),
        (
            "a-name-of-thirty-eight-characters-okay",
            "pools: [{name: twelve-chars, nodes: 1}]",
            "spec.pools[0].name",
            "at most 48",
        ),
    ];
    for (name, spec, field, cure) in rows {
        let found = mistakes(name, spec);
        assert!(
            found
                .iter()
                .any(|(at, problem)| at == field && problem.contains(cure)),
            "{name} {{{spec}}} should complain of {field}: {cure}, but says {found:?}"
        );
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let invalid = validate(&cluster("c", "nodes: 0, threads: 99, auth: {}"), &installation()).unwrap_err();
    assert_eq!(invalid.mistakes.len(), 3, "{invalid}");
}

#[test]
fn an_image_must_come_from_somewhere() {
    let invalid = validate(&cluster("c", "nodes: 1"), &Installation::default()).unwrap_err();
    assert!(invalid.to_string().contains("--node-image"), "{invalid}");
}

#[test]
fn absent_fields_get_their_defaults() {
    let valid = validate(&cluster("c", "nodes: 1"), &installation()).unwrap();
    let pool = &valid.pools[0];
    assert_eq!(
        (pool.name.as_str(), pool.stateful_set.as_str(), pool.nodes),
        ("default", "c", 1)
    );
    let limits = pool.resources.limits.as_ref().unwrap();
    assert_eq!(limits["memory"].0, "512Mi");
    assert!(!limits.contains_key("cpu"));
    let requests = pool.resources.requests.as_ref().unwrap();
    assert_eq!(
        (requests["cpu"].0.as_str(), requests["memory"].0.as_str()),
        ("100m", "512Mi")
    );
    assert_eq!((valid.replication_factor, valid.tokens_per_member), (1, 32));
    assert_eq!(
        valid.auth,
        ValidAuth::Generated {
            secret: "c-auth".to_owned()
        }
    );
}

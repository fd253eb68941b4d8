//! The rules, field by field. Bounds and wording follow the schema in the `crds` crate.

use super::{
    BTreeMap, BTreeSet, CacheCluster, CacheClusterSpec, Mistakes, NamespacesFrom, Pool, Quantity,
    ResourceRequirements, bytes_of, defaults,
};

const NODES_MAX: u16 = 200;
const NAME_LENGTH_MAX: usize = 40;
const NAME_AND_POOL_LENGTH_MAX: usize = 48;
const POOL_NAME_LENGTH_MAX: usize = 20;

pub(super) fn check(cluster: &CacheCluster, mistakes: &mut Mistakes) {
    let spec = &cluster.spec;
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    mistakes.require(
        is_label(name, NAME_LENGTH_MAX) && name.starts_with(|c: char| c.is_ascii_lowercase()),
        "metadata.name",
        "must be at most 40 characters of a-z, 0-9 and '-', starting with a letter",
    );
    counts(spec, mistakes);
    if let Some(pools) = &spec.pools {
        check_pools(name, pools, mistakes);
    }
    replication(spec, mistakes);
    autoscaling(spec, mistakes);
    hot_keys(spec, mistakes);
    mistakes.require(
        spec.virtual_nodes.is_none_or(|count| (1..=64).contains(&count)),
        "spec.virtualNodes",
        "must be 1 to 64",
    );
    mistakes.require(
        spec.image
            .as_ref()
            .is_none_or(|image| (1..=512).contains(&image.len())),
        "spec.image",
        "must be 1 to 512 characters, for example registry.example.com/annulus-node:0.1.0",
    );
    mistakes.require(
        spec.threads.is_none_or(|count| (1..=64).contains(&count)),
        "spec.threads",
        "must be 1 to 64",
    );
    if let Some(metadata) = &spec.pod_metadata {
        let reserved =
            |key: &String| key.starts_with("annulus.dev/") || key.starts_with("app.kubernetes.io/");
        mistakes.require(
            !metadata.labels.keys().any(reserved),
            "spec.podMetadata.labels",
            "must not start with annulus.dev/ or app.kubernetes.io/: the operator selects pods by those",
        );
    }
    access(spec, mistakes);
}

fn counts(spec: &CacheClusterSpec, mistakes: &mut Mistakes) {
    match (&spec.nodes, &spec.pools) {
        (None, None) => mistakes.add(
            "spec",
            "say how many nodes: write nodes: 3, or pools: with nodes in each",
        ),
        (Some(_), Some(_)) => mistakes.add(
            "spec",
            "nodes and pools exclude each other: remove nodes and write nodes in each pool, or remove pools",
        ),
        _ => {}
    }
    mistakes.require(
        spec.nodes.is_none_or(|nodes| (1..=NODES_MAX).contains(&nodes)),
        "spec.nodes",
        "must be 1 to 200; to stop a cluster, delete it",
    );
}

fn check_pools(cluster: &str, pools: &[Pool], mistakes: &mut Mistakes) {
    mistakes.require(
        (1..=16).contains(&pools.len()),
        "spec.pools",
        "must have 1 to 16 pools",
    );
    let total: u32 = pools.iter().map(|pool| u32::from(pool.nodes)).sum();
    mistakes.require(
        total >= 1,
        "spec.pools",
        "must have at least one node in all pools together",
    );
    mistakes.require(
        total <= NODES_MAX.into(),
        "spec.pools",
        "must have at most 200 nodes in all pools together",
    );
    let mut seen = BTreeSet::new();
    for (index, pool) in pools.iter().enumerate() {
        let path = format!("spec.pools[{index}]");
        mistakes.require(
            is_label(&pool.name, POOL_NAME_LENGTH_MAX),
            &format!("{path}.name"),
            "must be 1 to 20 characters of a-z, 0-9 and '-', starting and ending with a letter or digit",
        );
        mistakes.require(
            cluster.len() + pool.name.len() <= NAME_AND_POOL_LENGTH_MAX,
            &format!("{path}.name"),
            "must be at most 48 characters together with metadata.name",
        );
        mistakes.require(
            seen.insert(&pool.name),
            &format!("{path}.name"),
            "is the name of another pool already: give each its own",
        );
        mistakes.require(
            pool.nodes <= NODES_MAX,
            &format!("{path}.nodes"),
            "must be 0 to 200",
        );
        mistakes.require(
            pool.weight.is_none_or(|weight| (1..=10_000).contains(&weight)),
            &format!("{path}.weight"),
            "must be 1 to 10000",
        );
        mistakes.require(
            pool.zone
                .as_ref()
                .is_none_or(|zone| (1..=63).contains(&zone.len())),
            &format!("{path}.zone"),
            "must be 1 to 63 characters",
        );
    }
}

fn replication(spec: &CacheClusterSpec, mistakes: &mut Mistakes) {
    let Some(replication) = &spec.replication else {
        return;
    };
    let factor = replication.factor.unwrap_or(defaults::REPLICATION_FACTOR);
    let acks = replication.acks.unwrap_or(defaults::REPLICATION_ACKS);
    mistakes.require(
        (1..=5).contains(&factor),
        "spec.replication.factor",
        "must be 1 to 5",
    );
    let nodes: u32 = match (&spec.pools, spec.nodes) {
        (Some(pools), _) => pools.iter().map(|pool| u32::from(pool.nodes)).sum(),
        (None, nodes) => nodes.unwrap_or_default().into(),
    };
    mistakes.require(
        u32::from(factor) <= nodes,
        "spec.replication.factor",
        "must not be greater than the number of nodes: each copy of a slot lives on a node of its own",
    );
    mistakes.require(
        acks == 0 || acks < factor,
        "spec.replication.acks",
        "must be less than replication.factor: only the other copies can acknowledge; raise factor or lower acks",
    );
    if let Some(staleness_ms) = replication.max_staleness_ms {
        mistakes.require(
            (500..=86_400_000).contains(&staleness_ms),
            "spec.replication.maxStalenessMs",
            "must be 500 to 86400000: a copy hears of its owner every 100 ms",
        );
        mistakes.require(
            factor > 1,
            "spec.replication.maxStalenessMs",
            "is about copies, and with a replication.factor of 1 there are none; raise factor or leave it out",
        );
    }
}

fn hot_keys(spec: &CacheClusterSpec, mistakes: &mut Mistakes) {
    let Some(mirror) = spec
        .hot_keys
        .as_ref()
        .and_then(|hot_keys| hot_keys.mirror.as_ref())
    else {
        return;
    };
    mistakes.require(
        mirror
            .reads_per_second
            .is_none_or(|reads| (1..=1_000_000).contains(&reads)),
        "spec.hotKeys.mirror.readsPerSecond",
        "must be 1 to 1000000; leave mirror out for no mirrors",
    );
    mistakes.require(
        mirror
            .max_staleness_ms
            .is_none_or(|ms| (20..=60_000).contains(&ms)),
        "spec.hotKeys.mirror.maxStalenessMs",
        "must be 20 to 60000: the owner is asked again in half of that",
    );
}

fn autoscaling(spec: &CacheClusterSpec, mistakes: &mut Mistakes) {
    let Some(autoscaling) = &spec.autoscaling else {
        return;
    };
    let bounds = [autoscaling.min_nodes, autoscaling.max_nodes];
    mistakes.require(
        bounds.iter().all(|nodes| (1..=NODES_MAX).contains(nodes)) && bounds[0] <= bounds[1],
        "spec.autoscaling",
        "minNodes and maxNodes must be 1 to 200, and minNodes not greater than maxNodes",
    );
    mistakes.require(
        spec.nodes.is_some(),
        "spec.autoscaling",
        "sets nodes and knows nothing of pools: write nodes instead of pools, or leave autoscaling out",
    );
    let factor = spec
        .replication
        .as_ref()
        .and_then(|replication| replication.factor);
    mistakes.require(
        u16::from(factor.unwrap_or(defaults::REPLICATION_FACTOR)) <= autoscaling.min_nodes,
        "spec.autoscaling.minNodes",
        "must not be less than replication.factor: each copy of a slot lives on a node of its own",
    );
    mistakes.require(
        autoscaling
            .target_memory_percent
            .is_none_or(|percent| (10..=95).contains(&percent)),
        "spec.autoscaling.targetMemoryPercent",
        "must be 10 to 95",
    );
    mistakes.require(
        autoscaling
            .cooldown_seconds
            .is_none_or(|seconds| (5..=86_400).contains(&seconds)),
        "spec.autoscaling.cooldownSeconds",
        "must be 5 to 86400",
    );
}

fn access(spec: &CacheClusterSpec, mistakes: &mut Mistakes) {
    if let Some(auth) = &spec.auth {
        let chosen = [
            auth.secret_ref.is_some(),
            auth.generated == Some(true),
            auth.disabled == Some(true),
        ];
        mistakes.require(
            chosen.into_iter().filter(|chosen| *chosen).count() == 1,
            "spec.auth",
            "needs exactly one of secretRef: {name: …}, generated: true and disabled: true",
        );
        mistakes.require(
            auth.secret_ref
                .as_ref()
                .is_none_or(|secret| (1..=253).contains(&secret.name.len())),
            "spec.auth.secretRef.name",
            "must name a Secret of this namespace",
        );
    }
    super::tls::check(spec, mistakes);
    mistakes.require(
        spec.persistence
            .as_ref()
            .is_none_or(|persistence| !persistence.enabled),
        "spec.persistence.enabled",
        "is not available in this version: write enabled: false or leave persistence out",
    );
    let allowed = spec
        .tenancy
        .as_ref()
        .and_then(|tenancy| tenancy.allowed_namespaces.as_ref());
    mistakes.require(
        allowed
            .is_none_or(|allowed| (allowed.from == NamespacesFrom::Selector) == allowed.selector.is_some()),
        "spec.tenancy.allowedNamespaces",
        "selector goes with from: Selector, and only with it",
    );
}

/// What each node sends at most to move slots and to fill copies; 0 for no limit.
pub(super) fn transfer_bytes_per_second(spec: &CacheClusterSpec, mistakes: &mut Mistakes) -> u64 {
    const LEAST_BYTES: u64 = 1 << 20;
    let rebalance = spec.rebalance.as_ref();
    let Some(written) = rebalance.and_then(|rebalance| rebalance.max_bytes_per_second.as_ref()) else {
        return 0;
    };
    let field = "spec.rebalance.maxBytesPerSecond";
    match bytes_of(written) {
        Ok(bytes) if bytes >= LEAST_BYTES => return bytes,
        Ok(_) => mistakes.add(
            field,
            "must be at least 1Mi, for example 50Mi; leave it out for no limit",
        ),
        Err(error) => mistakes.add(field, error.to_string()),
    }
    0
}

/// Fills in the memory limit, and the requests that follow from it, and checks both. The limit in bytes goes along; it is 0
/// after a mistake.
pub(super) fn resources(
    mut resources: ResourceRequirements,
    path: &str,
    mistakes: &mut Mistakes,
) -> (ResourceRequirements, u64) {
    let memory = || "memory".to_owned();
    let limits = resources.limits.get_or_insert_with(BTreeMap::new);
    let limit = limits
        .entry(memory())
        .or_insert_with(|| Quantity(defaults::MEMORY_LIMIT.to_owned()))
        .clone();
    let cpu_is_limited = limits.contains_key("cpu");
    let requests = resources.requests.get_or_insert_with(BTreeMap::new);
    let request = requests.entry(memory()).or_insert_with(|| limit.clone()).clone();
    if !cpu_is_limited {
        requests
            .entry("cpu".to_owned())
            .or_insert_with(|| Quantity(defaults::CPU_REQUEST.to_owned()));
    }
    let least = bytes_of(&Quantity(defaults::MEMORY_LIMIT_MIN.to_owned())).unwrap_or(u64::MAX);
    let mut limit_bytes = 0;
    match bytes_of(&limit) {
        Ok(bytes) => {
            limit_bytes = bytes;
            mistakes.require(
                bytes >= least,
                &format!("{path}.limits.memory"),
                "must be at least 64Mi, for example 512Mi",
            );
            match bytes_of(&request) {
                Ok(requested) => mistakes.require(
                    requested <= bytes,
                    &format!("{path}.requests.memory"),
                    "must not be greater than limits.memory",
                ),
                Err(error) => mistakes.add(format!("{path}.requests.memory"), error.to_string()),
            }
        }
        Err(error) => mistakes.add(format!("{path}.limits.memory"), error.to_string()),
    }
    (resources, limit_bytes)
}

/// The budget for data, which must leave room below the memory limit, which stands at `path`.
pub(super) fn memory_max(
    spec: &CacheClusterSpec,
    resources: &ResourceRequirements,
    path: &str,
    mistakes: &mut Mistakes,
) -> Option<u64> {
    let written = spec.memory.as_ref().and_then(|memory| memory.max.as_ref())?;
    let field = "spec.memory.max";
    let max = match bytes_of(written) {
        Ok(bytes) if bytes > 0 => bytes,
        Ok(_) => {
            mistakes.add(field, "must be a positive quantity, for example 400Mi or 2Gi");
            return None;
        }
        Err(error) => {
            mistakes.add(field, error.to_string());
            return None;
        }
    };
    let limit = resources.limits.as_ref().and_then(|limits| limits.get("memory"));
    if let Some(limit) = limit
        && bytes_of(limit).is_ok_and(|limit_bytes| max >= limit_bytes)
    {
        let problem = format!(
            "is {} and must be less than the container's memory limit, {path}.limits.memory, which is {}: leave \
             memory.max out to have it derived, or raise the limit",
            written.0, limit.0
        );
        mistakes.add(field, problem);
    }
    Some(max)
}

pub(crate) fn is_label(text: &str, length_max: usize) -> bool {
    (1..=length_max).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

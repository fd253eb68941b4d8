//! What tenants use, and when that is worth telling: a status that followed every write to a cache would be a write to the API
//! server each.

use std::collections::BTreeMap;
use std::sync::Arc;

use annulus_crds::bytes_of;
use annulus_crds::v1alpha1::TenantUsageStatus;
use annulus_proto::tenants::TenantId;
use annulus_proto::v1;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Differences below these are not worth telling, however large their share is.
const MEMORY_BYTES_STEP: u64 = 1 << 20;
const COUNT_STEP: u64 = 100;
const CONNECTIONS_STEP: u64 = 10;
const HIT_RATIO_POINTS: i32 = 5;

/// What a tenant uses, on one node or on all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// What its entries take.
    pub used_bytes: u64,
    /// Its entries.
    pub keys: u64,
    /// Its connections.
    pub connections: u64,
    /// Reads that found something, since boot.
    pub hits: u64,
    /// Reads that found nothing, since boot.
    pub misses: u64,
    /// Entries that made room, since boot.
    pub evictions: u64,
    /// Commands that came too fast, since boot.
    pub throttled: u64,
}

impl From<&v1::TenantUsage> for Usage {
    fn from(usage: &v1::TenantUsage) -> Self {
        Self {
            used_bytes: usage.used_bytes,
            keys: usage.keys,
            connections: usage.connections,
            hits: usage.hits,
            misses: usage.misses,
            evictions: usage.evictions,
            throttled: usage.throttled,
        }
    }
}

/// What each tenant uses on all nodes together.
pub fn sum<'a>(nodes: impl Iterator<Item = &'a Arc<[(TenantId, Usage)]>>) -> BTreeMap<TenantId, Usage> {
    let mut sums = BTreeMap::<TenantId, Usage>::new();
    for (id, usage) in nodes.flat_map(|tenants| tenants.iter()) {
        let sum = sums.entry(*id).or_default();
        // A node may tell anything.
        sum.used_bytes = sum.used_bytes.saturating_add(usage.used_bytes);
        sum.keys = sum.keys.saturating_add(usage.keys);
        sum.connections = sum.connections.saturating_add(usage.connections);
        sum.hits = sum.hits.saturating_add(usage.hits);
        sum.misses = sum.misses.saturating_add(usage.misses);
        sum.evictions = sum.evictions.saturating_add(usage.evictions);
        sum.throttled = sum.throttled.saturating_add(usage.throttled);
    }
    sums
}

/// What is told of it.
pub fn figures(usage: &Usage) -> TenantUsageStatus {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let reads = u128::from(usage.hits) + u128::from(usage.misses);
    let percent = (u128::from(usage.hits) * 100).checked_div(reads);
    TenantUsageStatus {
        memory: match usage.used_bytes {
            bytes if bytes >= 10 << 20 => format!("{}Mi", bytes.div_ceil(1 << 20)),
            bytes => format!("{}Ki", bytes.div_ceil(1 << 10)),
        },
        keys: count(usage.keys),
        connections: count(usage.connections),
        hit_ratio_percent: percent.and_then(|percent| percent.try_into().ok()),
        evictions: count(usage.evictions),
        throttled: count(usage.throttled),
    }
}

/// Whether what was told is still right to about a tenth.
pub fn is_still_right(told: &TenantUsageStatus, now: &TenantUsageStatus) -> bool {
    let bytes = |text: &str| bytes_of(&Quantity(text.to_owned())).unwrap_or_default();
    let near = |told: u64, now: u64, step: u64| told.abs_diff(now) <= (told / 10).max(step);
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    let ratio = match (told.hit_ratio_percent, now.hit_ratio_percent) {
        (Some(told), Some(now)) => (told - now).abs() <= HIT_RATIO_POINTS,
        (told, now) => told == now,
    };
    ratio
        && near(bytes(&told.memory), bytes(&now.memory), MEMORY_BYTES_STEP)
        && near(count(told.keys), count(now.keys), COUNT_STEP)
        && near(count(told.connections), count(now.connections), CONNECTIONS_STEP)
        && near(count(told.evictions), count(now.evictions), COUNT_STEP)
        && near(count(told.throttled), count(now.throttled), COUNT_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(used_bytes: u64, keys: u64, hits: u64) -> Usage {
        Usage {
            used_bytes,
            keys,
            hits,
            misses: 100 - hits,
            ..Usage::default()
        }
    }

    #[test]
    fn nodes_add_up() {
        let node = |keys| -> Arc<[(TenantId, Usage)]> { Arc::from([(TenantId(1), usage(1_024, keys, 50))]) };
        let sums = sum([node(1), node(2)].iter());
        let told = figures(&sums[&TenantId(1)]);
        assert_eq!(
            (told.memory.as_str(), told.keys, told.hit_ratio_percent),
            ("2Ki", 3, Some(50))
        );
        assert_eq!(figures(&Usage::default()).hit_ratio_percent, None);
        assert_eq!(figures(&usage(64 << 20, 0, 0)).memory, "64Mi");
    }

    #[test]
    fn a_tenth_is_not_worth_a_write() {
        let told = figures(&usage(100 << 20, 10_000, 90));
        for (now, right) in [
            (usage(100 << 20, 10_000, 90), true),
            (usage(110 << 20, 10_900, 86), true),
            (usage(112 << 20, 10_000, 90), false),
            (usage(100 << 20, 8_000, 90), false),
            (usage(100 << 20, 10_000, 80), false),
        ] {
            assert_eq!(is_still_right(&told, &figures(&now)), right, "{now:?}");
        }
        // Next to nothing may grow to something small.
        assert!(is_still_right(
            &figures(&usage(0, 0, 0)),
            &figures(&usage(1 << 20, 100, 0))
        ));
    }
}

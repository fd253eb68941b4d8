//! A pool's StatefulSet.
//!
//! Pods start in parallel, since a ring needs all of them. Its update strategy is `OnDelete`: the StatefulSet
//! controller knows readiness alone, the operator also knows who owns which slots, so it alone decides when a
//! pod is replaced.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};

use super::{POOL_LABEL, metadata, pod, pod_selector, selects, service};
use crate::plan::PoolPlan;
use crate::validate::ValidCluster;

pub(super) fn build(cluster: &ValidCluster, plan: &PoolPlan) -> StatefulSet {
    let pool = &plan.pool;
    let mut selector = pod_selector(&cluster.key.name);
    selector.insert(POOL_LABEL.to_owned(), pool.name.clone());
    let mut metadata = metadata(cluster, pool.stateful_set.clone());
    metadata
        .labels
        .get_or_insert_default()
        .insert(POOL_LABEL.to_owned(), pool.name.clone());
    StatefulSet {
        metadata,
        spec: Some(StatefulSetSpec {
            replicas: Some(plan.replicas.into()),
            service_name: Some(service::nodes_name(cluster)),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            revision_history_limit: Some(3),
            selector: selects(selector),
            template: pod::template(cluster, pool),
            ..StatefulSetSpec::default()
        }),
        status: None,
    }
}

//! Groups around a pass: what is seen of them before it, and what they are told after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheGroup, CacheGroupStatus, GroupConditionType, GroupReason, TenantReason};
use annulus_proto::groups::Group;
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde_json::json;
use tokio::time::Instant;

use super::GroupRefusal;
use super::plan::{GroupVerdict, SeenGroup, may_load};
use super::secrets;
use super::status::{Outcome, Reach, event, holds, is_refused, status};
use super::validate::{ValidGroup, validate};
use crate::context::Context;
use crate::drift::FIELD_MANAGER;
use crate::key::{ClusterKey, GroupKey};
use crate::node_client::Snapshot;
use crate::tenants::admission::Refusal;
use crate::tenants::memory::Tenancy;
use crate::tenants::reconcile::{TenantsError, behind, names};
use crate::validate::ValidCluster;

/// Statuses that are written at the same time.
const AT_ONCE: usize = 16;
/// How long a cache may lag behind a status that was written.
const STATUS_LAG: Duration = Duration::from_secs(5);

/// What is remembered of a cluster's groups between passes.
#[derive(Default)]
pub struct Remembered {
    /// The values of headers that were in Secrets.
    pub headers: secrets::Remembered,
    /// In which version of the document a group changed last.
    pub changed: HashMap<GroupKey, u64>,
    /// The statuses that were written last, and when: caches may not show them yet.
    pub told: HashMap<GroupKey, (CacheGroupStatus, Instant)>,
}

impl Remembered {
    /// Remembers in which version each group changed: only those wait for the nodes to have it.
    pub fn note_changes(&mut self, before: &[Group], next: &[Group], version: u64) {
        let key = |group: &Group| GroupKey::new(&group.namespace, &group.name);
        let known: BTreeMap<GroupKey, &Group> = before.iter().map(|group| (key(group), group)).collect();
        let present: BTreeSet<GroupKey> = next.iter().map(key).collect();
        for group in next {
            if known.get(&key(group)) != Some(&group) {
                self.changed.insert(key(group), version);
            }
        }
        self.changed.retain(|key, _| present.contains(key));
    }
}

/// What is seen of each `CacheGroup`, the Secrets that it names included, and when these are to be looked at again. `stored` are
/// the groups of the stored document.
pub async fn see(
    ctx: &Context,
    cluster: &ValidCluster,
    objects: &[Arc<CacheGroup>],
    stored: &[Group],
    remembered: &mut Remembered,
) -> (Vec<SeenGroup>, Option<Duration>) {
    let mut seen: Vec<SeenGroup> = objects.iter().map(|object| see_one(object)).collect();
    // Nobody's Secret is read for an origin that it may not be sent to.
    let loading: Vec<&ValidGroup> = seen
        .iter()
        .filter_map(|group| group.asks.as_ref().ok())
        .filter(|asks| may_load(cluster, asks).is_ok())
        .collect();
    let mut look = secrets::look(ctx, &loading, stored, &mut remembered.headers).await;
    for group in &mut seen {
        if let Some(headers) = look.headers.remove(&group.key) {
            group.headers = headers;
        }
    }
    (seen, look.again)
}

/// What is seen of a group without a look into Secrets.
pub fn see_one(object: &CacheGroup) -> SeenGroup {
    let created = object.metadata.creation_timestamp.as_ref();
    SeenGroup {
        key: GroupKey::from(object),
        asks: validate(object),
        created_ms: created.map_or(0, |created| created.0.as_millisecond()),
        headers: Ok(Vec::new()),
    }
}

/// Tells each group what was decided, and how far the nodes are with it.
pub async fn tell_groups(
    shell: &Tenancy,
    ctx: &Context,
    key: &ClusterKey,
    objects: &[Arc<CacheGroup>],
    (verdicts, version): (&BTreeMap<GroupKey, GroupVerdict>, u64),
    snapshot: &Snapshot,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    let nodes = snapshot.reports.len();
    let mut news = Vec::new();
    for object in objects {
        let group = GroupKey::from(object.as_ref());
        let Some(verdict) = verdicts.get(&group) else {
            continue;
        };
        let previous = previous(object, &group, remembered);
        let generation = object.metadata.generation.unwrap_or_default();
        if remembered.headers.waits(&group) && is_refused(&previous, generation) {
            continue;
        }
        // Of what an earlier leader stored it is not known when it changed.
        let was_ready = holds(&previous, GroupConditionType::Ready);
        let since = remembered.changed.get(&group).copied();
        let late = behind(snapshot, since.unwrap_or(if was_ready { 0 } else { version }));
        let reach = if snapshot.connecting {
            Reach::Unknown
        } else if nodes == 0 {
            Reach::Nowhere
        } else if late.is_empty() {
            Reach::Everywhere
        } else {
            Reach::Behind {
                following: nodes - late.len(),
                nodes,
                late: names(&late),
            }
        };
        news.extend(change(
            object,
            group,
            key,
            previous,
            &Outcome::Done(verdict, reach),
        ));
    }
    let present: BTreeSet<GroupKey> = objects
        .iter()
        .map(|object| GroupKey::from(object.as_ref()))
        .collect();
    remembered.told.retain(|group, _| present.contains(group));
    ctx.metrics.count_groups(
        key,
        verdicts.values().map(|verdict| {
            let refused = verdict.refused.as_ref();
            refused.map_or(GroupReason::AsSpecified, |refusal| refusal.reason)
        }),
    );
    tell(shell, ctx, news, remembered).await
}

/// Tells groups that nothing can be done, for a reason that tenants are told, too. Where the cluster is only not to be touched,
/// those that are taken stay so.
pub async fn block(
    shell: &Tenancy,
    key: &ClusterKey,
    objects: &[Arc<CacheGroup>],
    refusal: &Refusal,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    let Some(ctx) = shell.scopes.first() else {
        return Ok(());
    };
    let (reason, concerns_taken) = match refusal.reason {
        TenantReason::Paused => (GroupReason::Paused, false),
        TenantReason::ClusterInvalid => (GroupReason::ClusterInvalid, false),
        TenantReason::NameTaken => (GroupReason::NameTaken, true),
        _ => (GroupReason::ClusterNotFound, true),
    };
    let refusal = GroupRefusal::new(reason, &refusal.message);
    let mut news = Vec::new();
    for object in objects {
        let group = GroupKey::from(object.as_ref());
        let previous = previous(object, &group, remembered);
        if concerns_taken || !holds(&previous, GroupConditionType::Accepted) {
            news.extend(change(object, group, key, previous, &Outcome::Blocked(&refusal)));
        }
    }
    tell(shell, ctx, news, remembered).await
}

/// A status that is to be written.
struct News {
    object: Arc<CacheGroup>,
    group: GroupKey,
    previous: CacheGroupStatus,
    status: CacheGroupStatus,
}

fn previous(object: &CacheGroup, group: &GroupKey, remembered: &Remembered) -> CacheGroupStatus {
    let told = remembered.told.get(group);
    let written = told.filter(|(_, at)| at.elapsed() < STATUS_LAG);
    written.map_or_else(
        || object.status.clone().unwrap_or_default(),
        |(status, _)| status.clone(),
    )
}

fn change(
    object: &Arc<CacheGroup>,
    group: GroupKey,
    key: &ClusterKey,
    previous: CacheGroupStatus,
    outcome: &Outcome<'_>,
) -> Option<News> {
    let generation = object.metadata.generation.unwrap_or_default();
    let now = Time(Timestamp::now());
    let status = status(&previous, key, generation, outcome, &now);
    (status != previous).then(|| News {
        object: Arc::clone(object),
        group,
        previous,
        status,
    })
}

async fn tell(
    shell: &Tenancy,
    ctx: &Context,
    news: Vec<News>,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    let writable = news
        .into_iter()
        .filter(|news| shell.scope_of(&news.group.namespace).is_some());
    let mut answers = futures::stream::iter(writable)
        .map(|news| async move {
            let outcome = write_status(ctx, &news).await;
            (news, outcome)
        })
        .buffer_unordered(AT_ONCE);
    let mut failure = None;
    while let Some((news, outcome)) = answers.next().await {
        match outcome {
            Ok(()) => {
                if let Some((reason, note)) = event(&news.previous, &news.status) {
                    ctx.events.publish_of_group(&news.object, reason, note);
                }
                remembered.told.insert(news.group, (news.status, Instant::now()));
            }
            // It is gone, or another one has its name.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(source) => {
                failure.get_or_insert(TenantsError::GroupStatus {
                    group: news.group,
                    source: Box::new(source),
                });
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn write_status(ctx: &Context, news: &News) -> Result<(), kube::Error> {
    let GroupKey { namespace, name } = &news.group;
    let body = json!({
        "apiVersion": CacheGroup::api_version(&()),
        "kind": CacheGroup::kind(&()),
        "metadata": {"name": name, "namespace": namespace, "uid": news.object.metadata.uid},
        "status": news.status,
    });
    let params = PatchParams {
        force: true,
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let api: Api<CacheGroup> = Api::namespaced(ctx.client.clone(), namespace);
    ctx.metrics.wrote("CacheGroup", "apply_status");
    api.patch_status(name, &params, &Patch::Apply(&body)).await?;
    Ok(())
}

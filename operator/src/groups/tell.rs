//! Groups around a pass: what is seen of them before it, and what they are told after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheGroup, CacheGroupStatus, GroupConditionType, GroupReason, TenantReason};
use annulus_proto::groups::Group;

use super::GroupRefusal;
use super::plan::{GroupVerdict, SeenGroup, may_load};
use super::secrets;
use super::status::{Outcome, event, holds, is_refused, status};
use super::validate::{ValidGroup, validate};
use crate::context::Context;
use crate::events::EventReason;
use crate::key::{ClusterKey, GroupKey};
use crate::node_client::Snapshot;
use crate::tell::{News, Statuses, Told};
use crate::tenants::admission::Refusal;
use crate::tenants::error::TenantsError;
use crate::tenants::memory::Tenancy;
use crate::tenants::reach::Reach;
use crate::validate::ValidCluster;

impl Told for CacheGroup {
    const KIND: &'static str = "CacheGroup";
    type Key = GroupKey;
    type Status = CacheGroupStatus;

    fn status(&self) -> Option<&CacheGroupStatus> {
        self.status.as_ref()
    }

    fn event(previous: &CacheGroupStatus, next: &CacheGroupStatus) -> Option<(EventReason, String)> {
        event(previous, next)
    }
}

/// What is remembered of a cluster's groups between passes.
#[derive(Default)]
pub struct Remembered {
    /// The values of headers that were in Secrets.
    pub headers: secrets::Remembered,
    /// In which version of the document a group changed last.
    pub changed: HashMap<GroupKey, u64>,
    /// What groups were told.
    pub told: Statuses<CacheGroup>,
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
    let mut news = Vec::new();
    for object in objects {
        let group = GroupKey::from(object.as_ref());
        let Some(verdict) = verdicts.get(&group) else {
            continue;
        };
        let previous = remembered.told.previous(object);
        let generation = object.metadata.generation.unwrap_or_default();
        if remembered.headers.waits(&group) && is_refused(&previous, generation) {
            continue;
        }
        let was_ready = holds(&previous, GroupConditionType::Ready);
        let changed = remembered.changed.get(&group).copied();
        let reach = Reach::of(snapshot, version, changed, was_ready);
        news.extend(change(object, key, previous, &Outcome::Done(verdict, reach)));
    }
    let present: BTreeSet<GroupKey> = objects
        .iter()
        .map(|object| GroupKey::from(object.as_ref()))
        .collect();
    remembered.told.retain(&present);
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
        let previous = remembered.told.previous(object);
        if concerns_taken || !holds(&previous, GroupConditionType::Accepted) {
            news.extend(change(object, key, previous, &Outcome::Blocked(&refusal)));
        }
    }
    tell(shell, ctx, news, remembered).await
}

fn change(
    object: &Arc<CacheGroup>,
    key: &ClusterKey,
    previous: CacheGroupStatus,
    outcome: &Outcome<'_>,
) -> Option<News<CacheGroup>> {
    News::of(object, previous, |previous, generation, now| {
        status(previous, key, generation, outcome, now)
    })
}

async fn tell(
    shell: &Tenancy,
    ctx: &Context,
    news: Vec<News<CacheGroup>>,
    remembered: &mut Remembered,
) -> Result<(), TenantsError> {
    match remembered.told.tell(shell, ctx, news).await.failure {
        None => Ok(()),
        Some((group, source)) => Err(TenantsError::GroupStatus { group, source }),
    }
}

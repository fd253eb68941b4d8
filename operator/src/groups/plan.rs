//! Which groups a cluster follows: a pure decision from what they ask for and from the tenants that it has.
//!
//! Of two groups whose keys overlap the older one is taken, and of all that don't fit the youngest are left out, so that
//! nobody loses a group by what others make later. Tenants come before groups: these get the room that those leave.

use std::collections::{BTreeMap, BTreeSet};

use annulus_crds::v1alpha1::GroupReason;
use annulus_proto::groups::Group;
use annulus_proto::tenants::{Tenant, TenantId};

use super::GroupRefusal;
use super::headers::Headers;
use super::origin::may_reach;
use super::validate::ValidGroup;
use crate::key::{ClusterKey, GroupKey, TenantKey};
use crate::validate::{InvalidSpec, ValidCluster};

/// Groups of one keyspace.
pub const GROUPS_MAX: usize = 64;
/// Bytes of these in the document, so that no tenant takes all the room that there is for groups.
const KEYSPACE_BYTES_MAX: usize = 128 << 10;

/// What is seen of a group.
#[derive(Debug, Clone)]
pub struct SeenGroup {
    /// Where it is.
    pub key: GroupKey,
    /// What it asks for.
    pub asks: Result<ValidGroup, InvalidSpec>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// The headers whose values are in Secrets.
    pub headers: Result<Headers, GroupRefusal>,
}

/// Where groups may have their values from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// In Kubernetes: from where the [fence](may_reach) lets them, and never from what is beside a node.
    Fenced,
    /// On somebody's own machine: from anywhere, loopback included.
    Anywhere,
}

/// What is around the groups.
pub struct Around<'a> {
    /// Whose groups these are.
    pub cluster: &'a ValidCluster,
    /// The tenants as they will be in the document.
    pub tenants: &'a [Tenant],
    /// Every `CacheTenant` that names the cluster.
    pub cache_tenants: &'a BTreeSet<TenantKey>,
    /// The groups of the stored document.
    pub before: &'a [Group],
    /// The namespaces whose `CacheGroup`s the operator sees; `None` for all.
    pub watched: Option<&'a BTreeSet<String>>,
    /// Where they may have their values from.
    pub reach: Reach,
    /// Bytes that there are for them in the document.
    pub bytes_max: usize,
}

/// What is said to a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupVerdict {
    /// The `CacheTenant` in whose keyspace it is, unless that is the cluster's own.
    pub tenant: Option<String>,
    /// Why it is left out, if so.
    pub refused: Option<GroupRefusal>,
}

/// Decides which groups are in the document, in its order, and what each is told.
pub fn plan(around: &Around<'_>, groups: &[SeenGroup]) -> (Vec<Group>, BTreeMap<GroupKey, GroupVerdict>) {
    let mut work = Work {
        around,
        taken: Vec::new(),
        bytes: 0,
    };
    work.keep_unseen();
    let known: BTreeSet<GroupKey> = around.before.iter().map(key).collect();
    let mut in_order: Vec<&SeenGroup> = groups.iter().collect();
    // Times are in whole seconds: of two that are as old as each other, whoever is in stays.
    in_order.sort_by_key(|group| (group.created_ms, !known.contains(&group.key), &group.key));
    let mut verdicts = BTreeMap::new();
    for group in in_order {
        let verdict = match work.take(group) {
            Ok(tenant) => GroupVerdict {
                tenant,
                refused: None,
            },
            Err(refusal) => GroupVerdict {
                tenant: None,
                refused: Some(refusal),
            },
        };
        verdicts.insert(group.key.clone(), verdict);
    }
    let mut taken = work.taken;
    taken.sort_by(|a, b| (a.tenant, &a.namespace, &a.name).cmp(&(b.tenant, &b.namespace, &b.name)));
    (taken, verdicts)
}

/// Whether the spec alone lets nodes connect to the group's origin.
pub fn may_load(cluster: &ValidCluster, asks: &ValidGroup) -> Result<(), GroupRefusal> {
    asks.targets.iter().try_for_each(|target| {
        may_reach(
            target,
            &asks.key.namespace,
            &cluster.key,
            &cluster.allowed_origins,
        )
    })
}

fn key(group: &Group) -> GroupKey {
    GroupKey::new(&group.namespace, &group.name)
}

struct Work<'a> {
    around: &'a Around<'a>,
    taken: Vec<Group>,
    bytes: usize,
}

impl Work<'_> {
    /// Groups of namespaces that the operator doesn't look after any more stay as they are.
    fn keep_unseen(&mut self) {
        let Some(watched) = self.around.watched else {
            return;
        };
        for group in self.around.before {
            if !watched.contains(&group.namespace) && self.is_open(group.tenant) {
                self.bytes += bytes_of(group);
                self.taken.push(group.clone());
            }
        }
    }

    /// Whether somebody gets into that keyspace.
    fn is_open(&self, tenant: TenantId) -> bool {
        let mut tenants = self.around.tenants.iter();
        tenant == TenantId::CLUSTER || tenants.any(|one| one.id == tenant && !one.users.is_empty())
    }

    /// Takes the group, or says why not. Returns the name of its tenant.
    fn take(&mut self, seen: &SeenGroup) -> Result<Option<String>, GroupRefusal> {
        let asks = match &seen.asks {
            Ok(asks) => asks,
            Err(invalid) => return Err(GroupRefusal::new(GroupReason::InvalidSpec, invalid.to_string())),
        };
        let (tenant, name) = self.keyspace(asks)?;
        if self.around.reach == Reach::Fenced {
            may_load(self.around.cluster, asks)?;
        }
        let headers = seen.headers.clone()?;
        let mut group = asks.group.clone();
        group.tenant = tenant;
        group.origin.headers.extend(headers);
        group.origin.may_be_local = self.around.reach == Reach::Anywhere;
        self.has_room(&group)?;
        self.bytes += bytes_of(&group);
        self.taken.push(group);
        Ok(name)
    }

    /// The keyspace that the group is in, and the name of its tenant.
    fn keyspace(&self, asks: &ValidGroup) -> Result<(TenantId, Option<String>), GroupRefusal> {
        let (cluster, namespace) = (&self.around.cluster.key, &asks.key.namespace);
        let name = match &asks.tenant {
            Some(name) => name,
            None if *namespace == cluster.namespace => return Ok((TenantId::CLUSTER, None)),
            None => self.only_tenant(cluster, namespace)?,
        };
        let key = TenantKey::new(namespace, name);
        let entry = self.around.tenants.iter().find(|tenant| {
            (tenant.namespace.as_str(), tenant.name.as_str()) == (key.namespace.as_str(), key.name.as_str())
        });
        let is_there = self.around.cache_tenants.contains(&key);
        match entry.filter(|tenant| is_there && self.is_open(tenant.id)) {
            Some(tenant) => Ok((tenant.id, Some(name.clone()))),
            None if is_there => {
                let message = format!(
                    "CacheTenant {key} is not bound to CacheCluster {cluster}: see its conditions, the group waits for it"
                );
                Err(GroupRefusal::new(GroupReason::TenantNotBound, message))
            }
            None => {
                let message = format!(
                    "there is no CacheTenant {key} that names CacheCluster {cluster}: make one, or correct spec.tenantRef"
                );
                Err(GroupRefusal::new(GroupReason::TenantNotFound, message))
            }
        }
    }

    fn only_tenant(&self, cluster: &ClusterKey, namespace: &str) -> Result<&String, GroupRefusal> {
        let tenants = self.around.cache_tenants.iter();
        let tenants: Vec<&String> = tenants
            .filter(|tenant| tenant.namespace == namespace)
            .map(|tenant| &tenant.name)
            .collect();
        match tenants.as_slice() {
            [only] => Ok(only),
            [] => {
                let message = format!(
                    "namespace {namespace} has no CacheTenant on CacheCluster {cluster}: make one, whose keyspace the group is to \
                     be in"
                );
                Err(GroupRefusal::new(GroupReason::TenantNotFound, message))
            }
            [first, ..] => {
                let message = format!(
                    "namespace {namespace} has {} CacheTenants on CacheCluster {cluster}: say in whose keyspace the group is, for \
                     example spec.tenantRef: {{name: {first}}}",
                    tenants.len()
                );
                Err(GroupRefusal::new(GroupReason::TenantNotNamed, message))
            }
        }
    }

    /// Whether its keys are nobody's yet, and it fits.
    fn has_room(&self, group: &Group) -> Result<(), GroupRefusal> {
        let beside = || self.taken.iter().filter(|other| other.tenant == group.tenant);
        let overlaps = |other: &&Group| {
            let (prefix, others) = (&group.key_prefix, &other.key_prefix);
            prefix.starts_with(others.as_str()) || others.starts_with(prefix.as_str())
        };
        if let Some(other) = beside().find(overlaps) {
            let message = format!(
                "keyPrefix {:?} overlaps with {:?} of the older CacheGroup {}: no key can be in two groups, choose another prefix",
                group.key_prefix,
                other.key_prefix,
                key(other)
            );
            return Err(GroupRefusal::new(GroupReason::PrefixTaken, message));
        }
        let bytes = bytes_of(group);
        let refuse = |message: String| Err(GroupRefusal::new(GroupReason::TooManyGroups, message));
        if beside().count() >= GROUPS_MAX {
            return refuse(format!(
                "a keyspace has at most {GROUPS_MAX} groups, and this one has as many: delete one"
            ));
        }
        if beside().map(bytes_of).sum::<usize>() + bytes > KEYSPACE_BYTES_MAX {
            return refuse(format!(
                "the groups of a keyspace take at most {KEYSPACE_BYTES_MAX} bytes together: shorten headers and caBundle, or delete a group"
            ));
        }
        if self.bytes + bytes > self.around.bytes_max {
            return refuse(
                "tenants and groups of the cluster don't fit into one Secret any more: use another cluster"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// What a group takes in the document.
fn bytes_of(group: &Group) -> usize {
    // Numbers, texts and lists always serialize.
    serde_json::to_vec(group).map_or(0, |json| json.len() + 1)
}

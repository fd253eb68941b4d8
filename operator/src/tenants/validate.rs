//! From a `CacheTenant` as it was written to one that can be planned. The API server enforces the same rules at
//! `kubectl apply`; this is for objects that got past it.

use std::collections::BTreeSet;
use std::sync::Arc;

use annulus_crds::v1alpha1::{CacheTenant, DeletionPolicy, Permissions, TenantUser, defaults};

use super::ROTATE_ANNOTATION;
use super::ledger::RotationWish;
use super::memory::Stamp;
use crate::build::binding::{Binding, Endpoint};
use crate::key::{ClusterKey, TenantKey};
use crate::validate::tenancy::{AskedQuota, AskedTtl, duration, quota, ttl};
use crate::validate::{InvalidSpec, Mistakes, is_label};

/// Longest name of a `CacheTenant`.
pub(crate) const NAME_LENGTH_MAX: usize = 40;
/// Longest name of a further user.
pub(crate) const USER_LENGTH_MAX: usize = 32;
const USERS_MAX: usize = 16;
const RULES_MAX: usize = 32;
const RULE_LENGTH_MAX: usize = 64;
const INTERVAL_MS_MIN: u64 = 30_000;
const READ_WRITE: [&str; 1] = ["+@all"];
/// Publishing is no writing of keys, and no reading either.
const READ_ONLY: [&str; 4] = ["+@all", "-@write", "-publish", "-spublish"];

/// A checked tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidTenant {
    /// Where it is.
    pub key: TenantKey,
    /// Which one of that name.
    pub uid: String,
    /// The version of its spec.
    pub generation: i64,
    /// The cluster that it names.
    pub cluster: ClusterKey,
    /// What it asks for.
    pub quota: AskedQuota,
    /// How long its entries are to live.
    pub ttl: AskedTtl,
    /// At least one: first the one that is named as the tenant.
    pub users: Vec<ValidUser>,
    /// When passwords are replaced.
    pub rotation: ValidRotation,
    /// The wish for a rotation that its annotation tells.
    pub rotate: Option<RotationWish>,
    /// The data is kept when the tenant is deleted.
    pub retain: bool,
}

/// A user of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidUser {
    /// The name to give with `AUTH`.
    pub name: String,
    /// The Secret that its password is in.
    pub secret: String,
    /// What it may do.
    pub rules: Vec<String>,
}

/// When passwords are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidRotation {
    /// How long they live.
    pub interval_ms: Option<u64>,
    /// How long the old one works beside the new one.
    pub overlap_ms: u64,
}

impl ValidTenant {
    /// What makes its bindings worth another look when it changes.
    pub fn stamp(&self, endpoint: &Arc<Endpoint>) -> Stamp {
        Stamp {
            uid: self.uid.clone(),
            generation: self.generation,
            rotate: self.rotate.clone(),
            endpoint: Arc::clone(endpoint),
        }
    }

    /// The binding of one of its users.
    pub fn binding(&self, user: &ValidUser, endpoint: &Arc<Endpoint>) -> Binding {
        Binding {
            tenant: self.key.clone(),
            tenant_uid: self.uid.clone(),
            secret: user.secret.clone(),
            user: user.name.clone(),
            endpoint: Arc::clone(endpoint),
        }
    }
}

/// Name of the Secret of a tenant's first user.
pub fn binding_name(tenant: &str) -> String {
    format!("{tenant}-binding")
}

/// Name of the Secret of a tenant's further user. The dot is in no tenant's name, so that no two Secrets can have the same.
pub fn user_binding_name(tenant: &str, user: &str) -> String {
    format!("{}.{user}", binding_name(tenant))
}

/// Checks the tenant against every rule and fills in what doesn't depend on the cluster.
pub fn validate(tenant: &CacheTenant) -> Result<ValidTenant, InvalidSpec> {
    let (key, spec) = (TenantKey::from(tenant), &tenant.spec);
    let mut mistakes = Mistakes::default();
    mistakes.require(
        is_label(&key.name, NAME_LENGTH_MAX) && key.name.starts_with(|c: char| c.is_ascii_lowercase()),
        "metadata.name",
        "must be at most 40 characters of a-z, 0-9 and '-', starting with a letter",
    );
    let quota = quota(spec.quota.as_ref(), "spec.quota", &mut mistakes);
    let ttl = ttl(spec.ttl.as_ref(), "spec.ttl", &mut mistakes);
    let users = users(tenant, &key, &mut mistakes);
    let rotation = rotation(tenant, &mut mistakes);
    mistakes.into_result()?;
    let metadata = &tenant.metadata;
    let annotations = metadata.annotations.as_ref();
    Ok(ValidTenant {
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        cluster: ClusterKey::of_tenant(tenant),
        quota,
        ttl,
        users,
        rotation,
        rotate: annotations
            .and_then(|annotations| annotations.get(ROTATE_ANNOTATION))
            .map(|value| RotationWish::of(value)),
        retain: spec.deletion_policy == Some(DeletionPolicy::Retain),
        key,
    })
}

fn users(tenant: &CacheTenant, key: &TenantKey, mistakes: &mut Mistakes) -> Vec<ValidUser> {
    let access = tenant.spec.access.clone().unwrap_or_default();
    let first = ValidUser {
        name: format!("{}.{}", key.namespace, key.name),
        secret: binding_name(&key.name),
        rules: rules_of(access.permissions.unwrap_or_default()),
    };
    mistakes.require(
        access.users.len() <= USERS_MAX,
        "spec.access.users",
        "must be at most 16",
    );
    let mut seen = BTreeSet::new();
    let mut users = vec![first];
    for (index, user) in access.users.iter().enumerate() {
        let path = format!("spec.access.users[{index}]");
        mistakes.require(
            is_label(&user.name, USER_LENGTH_MAX),
            &format!("{path}.name"),
            "must be 1 to 32 characters of a-z, 0-9 and '-', starting and ending with a letter or digit",
        );
        mistakes.require(
            seen.insert(&user.name),
            &format!("{path}.name"),
            "is the name of another user already: give each its own",
        );
        users.push(ValidUser {
            name: format!("{}.{}", users[0].name, user.name),
            secret: user_binding_name(&key.name, &user.name),
            rules: rules(user, &path, mistakes),
        });
    }
    users
}

fn rules(user: &TenantUser, path: &str, mistakes: &mut Mistakes) -> Vec<String> {
    let Some(rules) = &user.rules else {
        return rules_of(user.permissions.unwrap_or_default());
    };
    mistakes.require(
        user.permissions.is_none(),
        path,
        "permissions and rules exclude each other: write the one or the other",
    );
    let path = format!("{path}.rules");
    mistakes.require(
        (1..=RULES_MAX).contains(&rules.len()),
        &path,
        "must be 1 to 32 rules such as +@read, -@write, +get or -config|set",
    );
    if let Some(rule) = rules.iter().find(|rule| !is_rule(rule)) {
        let shown: String = rule.chars().take(RULE_LENGTH_MAX).collect();
        let problem = format!(
            "has {shown:?}, which is no rule: write rules such as +@read, -@write, +get or -config|set"
        );
        mistakes.add(&path, problem);
    }
    rules.clone()
}

fn rules_of(permissions: Permissions) -> Vec<String> {
    let rules: &[&str] = match permissions {
        Permissions::ReadWrite => &READ_WRITE,
        Permissions::ReadOnly => &READ_ONLY,
    };
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}

/// A rule about commands: what speaks of keys, channels and passwords is not for tenants to write.
fn is_rule(rule: &str) -> bool {
    let Some(what) = rule
        .strip_prefix(['+', '-'])
        .filter(|_| rule.len() <= RULE_LENGTH_MAX)
    else {
        return false;
    };
    let (name, first) = match what.strip_prefix('@') {
        Some(category) => return !category.is_empty() && category.bytes().all(|b| b.is_ascii_lowercase()),
        None => what.split_once('|').unwrap_or((what, "x")),
    };
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_.-".contains(&b))
    };
    name.starts_with(|c: char| c.is_ascii_lowercase()) && word(name) && word(first)
}

fn rotation(tenant: &CacheTenant, mistakes: &mut Mistakes) -> ValidRotation {
    let written = tenant.spec.rotation.clone().unwrap_or_default();
    let interval_ms = duration(written.interval.as_ref(), "spec.rotation.interval", mistakes);
    let overlap_ms = duration(written.overlap.as_ref(), "spec.rotation.overlap", mistakes);
    if let Some(interval_ms) = interval_ms {
        mistakes.require(
            interval_ms >= INTERVAL_MS_MIN,
            "spec.rotation.interval",
            "must be at least 30s",
        );
        mistakes.require(
            overlap_ms.is_none_or(|overlap_ms| overlap_ms < interval_ms),
            "spec.rotation.overlap",
            "must be shorter than rotation.interval: no more than two passwords work at a time",
        );
    }
    let usual = defaults::ROTATION_OVERLAP_MS;
    ValidRotation {
        interval_ms,
        overlap_ms: overlap_ms.unwrap_or_else(|| interval_ms.map_or(usual, |ms| usual.min(ms / 2))),
    }
}

//! The tenants document: who may use a cluster, with what, and how much of it.
//!
//! The operator writes it, as JSON in camelCase, into a Secret that nodes mount, and pushes it to them when it changes.
//! It holds digests of passwords, never a password. A [`TenantsDocument`] that came through
//! [`TenantsDocument::from_json`] is valid. Fields that a later version adds are ignored.

use std::collections::BTreeSet;
use std::fmt;

use annulus_ring::ClusterUid;
use serde::{Deserialize, Serialize};

use crate::groups::{Group, GroupError};

/// The document's key in the Secret `<cluster>-tenants`, and its file name where that is mounted.
pub const TENANTS_DOCUMENT_KEY: &str = "tenants.json";

/// A tenant in the life of a cluster: never used again for another one. 0 is the cluster's own keyspace, that of the user
/// `default`, and in no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantId(pub u32);

impl TenantId {
    /// The cluster's own keyspace.
    pub const CLUSTER: Self = Self(0);
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// All tenants of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantsDocument {
    /// Whose tenants these are.
    pub cluster_uid: ClusterUid,
    /// It only grows; a node keeps the highest that it has seen.
    pub version: u64,
    /// The id that the next new tenant gets.
    pub next_id: TenantId,
    /// Sorted by id.
    pub tenants: Vec<Tenant>,
    /// What loads itself.
    #[serde(default)]
    pub groups: Vec<Group>,
}

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Its number.
    pub id: TenantId,
    /// Its namespace.
    pub namespace: String,
    /// The name of the `CacheTenant`.
    pub name: String,
    /// What it may use.
    #[serde(default)]
    pub quota: Quota,
    /// How long its entries live.
    #[serde(default)]
    pub ttl: TtlBounds,
    /// Who gets in; without users the data is kept for nobody.
    #[serde(default)]
    pub users: Vec<User>,
}

/// What a tenant may use. `None` is without a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Quota {
    /// Bytes of its entries in the whole cluster, copies not counted. Each node allows as much of it as it has of the
    /// slots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// So much of that no other tenant's entries ever take; the rest is lent as long as there is room.
    pub guaranteed_bytes: u64,
    /// Entries in the whole cluster, as with the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// Connections to each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Commands a second in the whole cluster, as with the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ops_per_second: Option<u64>,
    /// Bytes of requests, replies and messages a second in the whole cluster, as with the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// What happens to commands beyond these rates.
    pub over_rate: OverRate,
    /// The longest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_bytes_max: Option<u64>,
}

/// What happens to commands beyond the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OverRate {
    /// They are answered with an error.
    #[default]
    Reject,
    /// They wait.
    Delay,
}

/// How long entries live, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TtlBounds {
    /// An entry for which nobody says how long. `None` is for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_ms: Option<u64>,
    /// The longest that can be asked for; entries for ever live so long, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<u64>,
}

/// Who gets in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// The name to give with `AUTH`; no two users of a cluster have the same, and none is named `default`.
    pub name: String,
    /// Any of these passwords will do: two while one replaces the other.
    pub passwords: Vec<PasswordDigest>,
    /// What the user may do, as rules of Redis' ACL about commands, one after the other: `+@all`, `-@write`, `+get`.
    /// Nothing is allowed that no rule allows, and nothing ever that is about the cluster and not about its own keyspace.
    pub rules: Vec<String>,
}

/// The SHA-256 of a password, in hexadecimal in the document.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PasswordDigest(pub [u8; 32]);

impl fmt::Debug for PasswordDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<PasswordDigest> for String {
    fn from(digest: PasswordDigest) -> Self {
        digest.0.iter().fold(Self::with_capacity(64), |mut text, byte| {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from_digit(digit.into(), 16).unwrap_or_default());
            }
            text
        })
    }
}

impl TryFrom<String> for PasswordDigest {
    type Error = TenantsError;

    fn try_from(text: String) -> Result<Self, TenantsError> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(TenantsError::NotADigest);
        }
        let mut digest = [0; 32];
        for (place, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16)
                .map_err(|_| TenantsError::NotADigest)?;
        }
        Ok(Self(digest))
    }
}

/// What is wrong with a tenants document.
#[derive(Debug, thiserror::Error)]
pub enum TenantsError {
    /// It is not JSON of the right shape.
    #[error("the tenants document cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A digest is 64 hexadecimal digits.
    #[error("a password's digest must be 64 hexadecimal digits")]
    NotADigest,
    /// Tenants are in strict order of their ids, which begin with 1 and end before `nextId`.
    #[error("tenants must be sorted by id from 1 on, below nextId, and named once; {0} is out of place")]
    OutOfOrder(TenantId),
    /// One namespace and name is one tenant.
    #[error("tenant {0} is in the document twice")]
    SharedName(String),
    /// A user name says who somebody is.
    #[error("user {0} is in the document twice, or is named default")]
    SharedUser(String),
    /// A group can't be followed.
    #[error("group {name}: {source}")]
    Group {
        /// Its namespace and name.
        name: String,
        /// Why.
        source: GroupError,
    },
    /// A group belongs to a tenant of the document, or to the cluster.
    #[error("group {name} is in the keyspace of tenant {tenant}, which the document doesn't have")]
    GroupOfNobody {
        /// Its namespace and name.
        name: String,
        /// Whose it would be.
        tenant: TenantId,
    },
    /// A key is in one group at most.
    #[error(
        "groups {0} and {1} of one keyspace: one's keyPrefix begins with the other's, or they share a name"
    )]
    SharedKeys(String, String),
}

impl TenantsDocument {
    /// No tenants.
    pub fn empty(cluster_uid: ClusterUid) -> Self {
        Self {
            cluster_uid,
            version: 0,
            next_id: TenantId(1),
            tenants: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Reads and checks a document.
    pub fn from_json(json: &[u8]) -> Result<Self, TenantsError> {
        let document: Self = serde_json::from_slice(json)?;
        document.check()?;
        Ok(document)
    }

    /// The document as it is stored and sent.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), TenantsError> {
        let mut last = TenantId::CLUSTER;
        let (mut names, mut users) = (BTreeSet::new(), BTreeSet::from(["default"]));
        for tenant in &self.tenants {
            if tenant.id <= last || tenant.id >= self.next_id {
                return Err(TenantsError::OutOfOrder(tenant.id));
            }
            last = tenant.id;
            if !names.insert((&tenant.namespace, &tenant.name)) {
                return Err(TenantsError::SharedName(format!(
                    "{}/{}",
                    tenant.namespace, tenant.name
                )));
            }
            if let Some(user) = tenant.users.iter().find(|user| !users.insert(&user.name)) {
                return Err(TenantsError::SharedUser(user.name.clone()));
            }
        }
        self.check_groups()
    }

    fn check_groups(&self) -> Result<(), TenantsError> {
        let mut by_prefix: Vec<&Group> = self.groups.iter().collect();
        by_prefix.sort_by_key(|group| (group.tenant, &group.key_prefix));
        let tenants: BTreeSet<TenantId> = self.tenants.iter().map(|tenant| tenant.id).collect();
        let mut names = BTreeSet::new();
        for group in &self.groups {
            let name = group.label();
            if let Err(source) = group.check() {
                return Err(TenantsError::Group { name, source });
            }
            let tenant = group.tenant;
            if tenant != TenantId::CLUSTER && !tenants.contains(&tenant) {
                return Err(TenantsError::GroupOfNobody { name, tenant });
            }
            if !names.insert((tenant, &group.name)) {
                return Err(TenantsError::SharedKeys(name.clone(), name));
            }
        }
        // What begins with a prefix comes right behind it.
        for pair in by_prefix.windows(2) {
            let [first, second] = pair else { continue };
            if first.tenant == second.tenant && second.key_prefix.starts_with(&first.key_prefix) {
                return Err(TenantsError::SharedKeys(first.label(), second.label()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::Origin;

    fn document(ids: &[u32], name: impl Fn(u32) -> String, user: impl Fn(u32) -> String) -> TenantsDocument {
        TenantsDocument {
            version: 3,
            next_id: TenantId(9),
            tenants: ids
                .iter()
                .map(|id| Tenant {
                    id: TenantId(*id),
                    namespace: "shop".to_owned(),
                    name: name(*id),
                    quota: Quota {
                        memory_bytes: Some(1 << 20),
                        ..Quota::default()
                    },
                    ttl: TtlBounds::default(),
                    users: vec![User {
                        name: user(*id),
                        passwords: vec![PasswordDigest([7; 32])],
                        rules: vec!["+@all".to_owned()],
                    }],
                })
                .collect(),
            ..TenantsDocument::empty("uid-1".parse().unwrap())
        }
    }

    #[test]
    fn a_document_reads_as_it_was_written() {
        let written = document(&[1, 4], |id| format!("t{id}"), |id| format!("u{id}"));
        assert_eq!(TenantsDocument::from_json(&written.to_json()).unwrap(), written);
        assert!(!format!("{written:?}").contains("0707"));
    }

    fn group(tenant: u32, name: &str, prefix: &str) -> Group {
        Group {
            tenant: TenantId(tenant),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            key_prefix: prefix.to_owned(),
            origin: Origin {
                url_template: "http://users.shop.svc/{key}".to_owned(),
                headers: vec![("authorization".to_owned(), "Bearer s3cret".to_owned())],
                ca_pem: None,
                may_be_local: false,
                timeout_ms: 2000,
                retries: 1,
                backoff_ms: 100,
                backoff_max_ms: 1000,
                concurrent_max: 32,
                breaker_failures: 5,
                breaker_open_ms: 10_000,
            },
            soft_ttl_ms: 60_000,
            hard_ttl_ms: 600_000,
            jitter_percent: 10,
            negative_ttl_ms: 30_000,
            failure_ttl_ms: 1000,
            stale_ms: 0,
            value_bytes_max: 1 << 20,
            filter: None,
        }
    }

    #[test]
    fn groups_have_keys_of_their_own() {
        let with = |groups: &[Group]| {
            let mut all = document(&[1, 4], |id| format!("t{id}"), |id| format!("u{id}"));
            all.groups = groups.to_vec();
            TenantsDocument::from_json(&all.to_json()).map(|read| {
                assert_eq!(read, all);
                assert!(!format!("{read:?}").contains("s3cret"));
            })
        };
        with(&[
            group(1, "a", "user:"),
            group(4, "a", "user:"),
            group(0, "a", "user:"),
        ])
        .unwrap();
        with(&[group(1, "b", "user:"), group(1, "a", "order:")]).unwrap();
        let changed = |change: fn(&mut Group)| {
            let mut changed = group(1, "a", "user:");
            change(&mut changed);
            changed
        };
        for (groups, expected) in [
            (
                vec![group(1, "a", "user:"), group(1, "b", "user:x")],
                "begins with the other's",
            ),
            (vec![group(1, "a", "x"), group(1, "a", "y")], "shop/a and shop/a"),
            (vec![group(2, "a", "x")], "tenant 2"),
            (vec![group(1, "a", "")], "keyPrefix"),
            (
                vec![changed(|group| {
                    group.origin.url_template = "http://{key}/".to_owned();
                })],
                "urlTemplate",
            ),
            (vec![changed(|group| group.hard_ttl_ms = 1)], "ttl.hard"),
            (
                vec![changed(|group| group.origin.concurrent_max = 0)],
                "maxConcurrent",
            ),
        ] {
            let error = with(&groups).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let numbered = |id: u32| format!("n{id}");
        for (spoilt, expected) in [
            (document(&[0], numbered, numbered), "0 is out of place"),
            (document(&[2, 1], numbered, numbered), "1 is out of place"),
            (document(&[2, 9], numbered, numbered), "9 is out of place"),
            (
                document(&[1, 2], |_| "a".to_owned(), numbered),
                "shop/a is in the document twice",
            ),
            (document(&[1, 2], numbered, |_| "a".to_owned()), "user a"),
            (document(&[1], numbered, |_| "default".to_owned()), "user default"),
        ] {
            let error = TenantsDocument::from_json(&spoilt.to_json()).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let json = String::from_utf8(document(&[1], numbered, numbered).to_json()).unwrap();
        let error = TenantsDocument::from_json(json.replace("0707", "07").as_bytes()).unwrap_err();
        assert!(error.to_string().contains("64 hexadecimal digits"), "{error}");
    }
}

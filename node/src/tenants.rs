//! Who may use the cluster: the tenants and users of the tenants document that this node follows.
//!
//! A node keeps the highest version that it has seen, and refuses another cluster's. A document is taken over live: rules and
//! limits hold from the next command on; connections end whose user, or whose password, is no longer in it; what a tenant
//! that is gone had is dropped by and by ([`Tenants::drop_some`]). A tenant that no document has told of yet keeps what other
//! nodes send of it: ids are never used again, so that `nextId` tells the unknown from the gone.
//!
//! The directory is replaced under one lock, and then the connections are looked at; who logs in meanwhile looks at the
//! directory again behind its login. So no connection is left that the newest document wouldn't let in.

mod acl;
mod file;
mod login;
mod reach;
mod turns;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use annulus_proto::tenants::{PasswordDigest, TenantId, TenantsDocument};
use annulus_ring::ClusterUid;
use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use tracing::info;

pub use acl::{CATEGORIES, is_in};
pub use file::follow_file;
pub use login::{Login, Tenant, User};
pub use turns::{TURN_MAX, Turn, take_turn};

use crate::clients::{Clients, Stop};
use crate::error::CommandError;
use crate::store::Store;

/// What one document says, in the form that commands look at.
#[derive(Default)]
struct Directory {
    version: u64,
    next_id: TenantId,
    tenants: BTreeMap<TenantId, Arc<Tenant>>,
    users: HashMap<String, Arc<User>, foldhash::fast::RandomState>,
}

impl Directory {
    /// Whether the user that somebody logged in as is still there. A password that was replaced since ends nothing, as in
    /// Redis: applications keep connections for days, and would all be cut off at once.
    fn holds(&self, login: &Login) -> bool {
        self.users
            .get(login.user().name())
            .is_some_and(|user| Arc::ptr_eq(user, login.user()))
    }
}

/// Why a document was not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another cluster's.
    #[error("the tenants are those of cluster {found}, and this node belongs to cluster {expected}")]
    OtherCluster {
        /// This node's.
        expected: ClusterUid,
        /// The document's.
        found: ClusterUid,
    },
}

/// The tenants of a node.
#[derive(Default)]
pub struct Tenants {
    directory: RwLock<Arc<Directory>>,
    /// Held while a document is taken over, so that one comes after the other.
    adopting: Mutex<()>,
    version: AtomicU64,
}

impl Tenants {
    /// The version that is followed; 0 for none.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// All tenants of the document, by id.
    pub fn all(&self) -> Vec<Arc<Tenant>> {
        self.directory.read().tenants.values().cloned().collect()
    }

    /// Takes over a document that is newer, and says whether it was.
    pub fn adopt(
        &self,
        document: TenantsDocument,
        (cluster_uid, store, clients): (&ClusterUid, &Store, &Clients),
    ) -> Result<bool, Refusal> {
        if document.cluster_uid != *cluster_uid {
            return Err(Refusal::OtherCluster {
                expected: cluster_uid.clone(),
                found: document.cluster_uid,
            });
        }
        let adopting = self.adopting.lock();
        if document.version <= self.version() {
            return Ok(false);
        }
        let before = Arc::clone(&self.directory.read());
        let mut directory = Directory {
            version: document.version,
            next_id: document.next_id,
            ..Directory::default()
        };
        for described in document.tenants {
            let known = before.tenants.get(&described.id);
            let tenant = known.map_or_else(
                || Arc::new(Tenant::new(&described, store.keyspace(described.id))),
                Arc::clone,
            );
            tenant.space().limits.follow(described.quota, described.ttl);
            for described in described.users {
                let known = before.users.get(&described.name);
                let user = known
                    .filter(|user| Arc::ptr_eq(user.tenant(), &tenant))
                    .map_or_else(|| Arc::new(User::new(&described.name, &tenant)), Arc::clone);
                user.follow(&described);
                directory.users.insert(described.name, user);
            }
            directory.tenants.insert(tenant.id(), tenant);
        }
        let (version, tenants) = (directory.version, directory.tenants.len());
        *self.directory.write() = Arc::new(directory);
        self.version.store(version, Ordering::Relaxed);
        drop(adopting);
        let ended = self.end_strangers(clients);
        info!(version, tenants, connections_ended = ended, "follows new tenants");
        Ok(true)
    }

    /// Ends the connections that the document wouldn't let in.
    fn end_strangers(&self, clients: &Clients) -> usize {
        let directory = Arc::clone(&self.directory.read());
        let mut ended = 0;
        for client in clients.all() {
            if client.login().is_some_and(|login| !directory.holds(&login)) {
                client.stop(Stop::Kill);
                ended += 1;
            }
        }
        ended
    }

    /// Lets a tenant's user in. Whoever is unknown takes as long as whoever is known.
    /// A connection that is logged in already, as `present` says, takes no second place of the same tenant.
    pub fn log_in(
        &self,
        name: &[u8],
        password: &[u8],
        present: Option<&Login>,
    ) -> Result<Arc<Login>, CommandError> {
        let digest = PasswordDigest(Sha256::digest(password).into());
        let directory = Arc::clone(&self.directory.read());
        let name = std::str::from_utf8(name).unwrap_or_default();
        let nobody = User::nobody();
        let user = directory.users.get(name).unwrap_or(nobody);
        if !user.knows(digest) {
            return Err(CommandError::WrongPass);
        }
        Login::new(user, present)
    }

    /// Whether somebody who has just logged in like this, and can be seen by whoever takes over a document, still may.
    pub fn still_holds(&self, login: &Login) -> bool {
        self.directory.read().holds(login)
    }

    /// Drops some of what tenants had that are gone, `keys_max` entries at most, and says how many.
    pub fn drop_some(&self, store: &Store, keys_max: usize) -> usize {
        if !store.has_tenants() || self.version() == 0 {
            return 0;
        }
        let directory = Arc::clone(&self.directory.read());
        let mut dropped = 0;
        for space in store.spaces() {
            let is_gone = space.id < directory.next_id && !directory.tenants.contains_key(&space.id);
            if is_gone && dropped < keys_max {
                dropped += store.drop_some(&space, keys_max - dropped);
            }
        }
        dropped
    }

    /// Whether any tenant has a user of that name.
    pub fn has_user(&self, name: &str) -> bool {
        self.directory.read().users.contains_key(name)
    }

    /// The names of a tenant's users.
    pub fn users_of(&self, tenant: TenantId) -> BTreeSet<String> {
        let directory = Arc::clone(&self.directory.read());
        let users = directory.users.values();
        users
            .filter(|user| user.tenant().id() == tenant)
            .map(|user| user.name().to_owned())
            .collect()
    }
}

#[cfg(test)]
mod tests;

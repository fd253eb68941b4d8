//! A tenant, its users, and the connections that have logged in as one of them.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use annulus_proto::tenants::{self as document, PasswordDigest, TenantId};
use parking_lot::RwLock;

use super::acl::permitted;
use crate::command::{Entry, table};
use crate::error::{CommandError, Outcome};
use crate::resp::Args;
use crate::store::{Keyspace, Space};

/// A tenant of the document.
pub struct Tenant {
    id: TenantId,
    label: String,
    keyspace: Keyspace,
    space: Arc<Space>,
    connections: AtomicU32,
}

impl Tenant {
    /// The tenant that the document describes, with its keyspace.
    pub(super) fn new(described: &document::Tenant, keyspace: Keyspace) -> Self {
        let space = keyspace.tenant().cloned();
        Self {
            id: described.id,
            label: format!("{}/{}", described.namespace, described.name),
            keyspace,
            // Documents name no tenant 0.
            space: space.unwrap_or_else(|| Arc::new(Space::unused())),
            connections: AtomicU32::new(0),
        }
    }

    /// Its number.
    pub fn id(&self) -> TenantId {
        self.id
    }

    /// Its namespace and name, as `namespace/name`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What it has here.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Where its entries are.
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// Refuses arguments that are longer than values may be.
    pub fn check_values(&self, args: Args<'_>) -> Outcome {
        let bytes_max = self.space.limits.value_bytes_max();
        if args.from(1).any(|arg| arg.len() as u64 > bytes_max) {
            return Err(CommandError::ValueTooLong {
                tenant: self.label.clone(),
                bytes_max,
            });
        }
        Ok(())
    }

    /// How many connections have logged in.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// A user of a tenant.
pub struct User {
    name: String,
    tenant: Arc<Tenant>,
    passwords: RwLock<Vec<PasswordDigest>>,
    rules: RwLock<Vec<String>>,
    /// A bit for each entry of the command table, which rules and the [`reach`](super::reach) of tenants both allow.
    allowed: Box<[AtomicU64]>,
}

impl User {
    /// A user that may do nothing yet.
    pub(super) fn new(name: &str, tenant: &Arc<Tenant>) -> Self {
        Self {
            name: name.to_owned(),
            tenant: Arc::clone(tenant),
            passwords: RwLock::default(),
            rules: RwLock::default(),
            allowed: (0..table().len().div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect(),
        }
    }

    /// Nobody at all, who takes as long to be refused as anybody.
    pub(super) fn nobody() -> &'static Arc<Self> {
        static NOBODY: LazyLock<Arc<User>> = LazyLock::new(|| {
            let tenant = Tenant {
                id: TenantId::CLUSTER,
                label: String::new(),
                keyspace: Keyspace::default(),
                space: Arc::new(Space::unused()),
                connections: AtomicU32::new(0),
            };
            Arc::new(User::new("", &Arc::new(tenant)))
        });
        &NOBODY
    }

    /// Takes what the document says, for the commands to come.
    pub(super) fn follow(&self, described: &document::User) {
        for (word, bits) in self.allowed.iter().zip(permitted(&described.rules)) {
            word.store(bits, Ordering::Relaxed);
        }
        self.passwords.write().clone_from(&described.passwords);
        self.rules.write().clone_from(&described.rules);
    }

    /// What to give with `AUTH`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose user it is.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// The rules as the document has them.
    pub fn rules(&self) -> Vec<String> {
        self.rules.read().clone()
    }

    /// Whether that is one of its passwords. All of them are looked at, and all of each.
    pub(super) fn knows(&self, digest: PasswordDigest) -> bool {
        let mut is_known = false;
        for password in &*self.passwords.read() {
            let bytes = password.0.iter().zip(digest.0);
            let difference = bytes.fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
            is_known |= black_box(difference == 0);
        }
        is_known
    }

    /// Whether it may use the command at all.
    #[inline]
    pub fn may(&self, entry: &Entry) -> bool {
        let index = usize::from(entry.index);
        self.allowed
            .get(index / 64)
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (index % 64) & 1 == 1)
    }
}

/// A connection's right to be there: counted for its tenant as long as it lives.
pub struct Login {
    user: Arc<User>,
}

impl Login {
    /// One more connection, unless that is one too many.
    pub(super) fn new(user: &Arc<User>, present: Option<&Self>) -> Result<Arc<Self>, CommandError> {
        let tenant = user.tenant();
        // Which is given back as soon as this one stands.
        let own_place = u32::from(present.is_some_and(|login| Arc::ptr_eq(login.tenant(), tenant)));
        let connections_max = tenant.space.limits.connections();
        // Counted first: of two that come at once at most one gets the last place.
        let login = Self {
            user: Arc::clone(user),
        };
        if tenant.connections.fetch_add(1, Ordering::Relaxed) >= connections_max.saturating_add(own_place) {
            tenant.space.counters.connections_refused.add(1);
            return Err(CommandError::Other(format!(
                "ERR tenant {} has its {connections_max} connections to this node already; close some, or raise its \
                 quota of connections",
                tenant.label
            )));
        }
        Ok(Arc::new(login))
    }

    /// Who it is.
    pub fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// Whose user that is.
    pub fn tenant(&self) -> &Arc<Tenant> {
        &self.user.tenant
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.user.tenant.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

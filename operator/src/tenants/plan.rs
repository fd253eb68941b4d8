//! What is to be done about a cluster's tenants: a pure decision from what is stored, what is asked for and what is seen.
//!
//! Whoever is in comes before whoever wants to come in, and of those who want to, the elder: so a tenant that fits stays,
//! whatever others ask for. A tenant whose new quota doesn't fit keeps the old one, and everything else follows its spec, so
//! that it can always shut somebody out. A tenant whose namespace is no longer allowed loses its users, not its data.

use std::collections::{BTreeMap, BTreeSet};

use annulus_crds::v1alpha1::{NamespacesFrom, TenantReason, defaults};
use annulus_proto::tenants::{PasswordDigest, Quota, Tenant, TenantId, TtlBounds, User};

use super::admission::{Labels, Others, Refusal, agree, fits, may_bind};
use super::ledger::{self, Ledger, Note, bytes_of};
use super::validate::{ValidTenant, ValidUser};
use crate::build::secret::Password;
use crate::groups::plan::{self as groups, GroupVerdict, Reach, SeenGroup};
use crate::key::{GroupKey, TenantKey};
use crate::validate::{InvalidSpec, ValidCluster};

/// So far above the stored version one that a node tells may be: even with a change each millisecond that takes weeks.
const VERSION_LEAP_MAX: u64 = 1 << 32;

/// A Secret that is on its way out is looked at again after this time.
const ENDING_MS: u64 = 1_000;
/// One of somebody else's, after this.
const FOREIGN_MS: u64 = 30_000;

/// What is seen of a tenant.
#[derive(Debug, Clone)]
pub struct SeenTenant {
    /// Where it is.
    pub key: TenantKey,
    /// What it asks for.
    pub asks: Result<ValidTenant, InvalidSpec>,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// The labels of its namespace, where they are known.
    pub labels: Option<Labels>,
    /// The id that its status tells.
    pub told_id: Option<u32>,
    /// Its bindings, by user, as far as they were looked at.
    pub bindings: BTreeMap<String, BindingSeen>,
}

/// What is seen of a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingSeen {
    /// It holds that password.
    Holds(PasswordDigest),
    /// It isn't there, or holds no password.
    Missing,
    /// Something of somebody else has its name.
    Foreign,
    /// That of a deleted `CacheTenant` of the same name is still there.
    Predecessor,
}

/// Everything that a decision is made from.
#[derive(Debug)]
pub struct Seen<'a> {
    /// Whose tenants these are.
    pub cluster: &'a ValidCluster,
    /// What is stored, or an empty one.
    pub ledger: &'a Ledger,
    /// Every `CacheTenant` that names the cluster.
    pub tenants: &'a [SeenTenant],
    /// Every `CacheGroup` that names the cluster.
    pub groups: &'a [SeenGroup],
    /// Where groups may have their values from.
    pub reach: Reach,
    /// The namespaces whose `CacheTenant`s and `CacheGroup`s the operator sees; `None` for all.
    pub watched: Option<&'a BTreeSet<String>>,
    /// The versions that nodes tell. Those that are not [believable](is_believable) don't count.
    pub versions_told: &'a [u64],
    /// The highest id that the cluster's status tells.
    pub last_id_told: u32,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// What is to be done.
pub struct TenantsPlan {
    /// What is to be stored, where it differs from what is.
    pub next: Option<Ledger>,
    /// What is said to each tenant.
    pub verdicts: BTreeMap<TenantKey, Verdict>,
    /// What is said to each group.
    pub groups: BTreeMap<GroupKey, GroupVerdict>,
    /// The bindings to be written once the document is with the nodes.
    pub writes: Vec<BindingWrite>,
    /// When time alone changes the decision, in milliseconds since 1970.
    pub look_again_ms: Option<u64>,
}

/// What is said to a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its number, if it is in the document.
    pub id: Option<TenantId>,
    /// Why the cluster doesn't take it as it is, if so.
    pub refused: Option<Refusal>,
    /// Why it has not all of its bindings, if so.
    pub unbound: Option<Refusal>,
}

/// A binding to be written.
pub struct BindingWrite {
    /// Whose.
    pub tenant: TenantKey,
    /// For whom.
    pub user: ValidUser,
    /// With what.
    pub password: Password,
}

/// Whether a node can have the version that it tells, when that one is stored. The next version must be above all of
/// them, and there is none above the highest number.
pub fn is_believable(stored: u64, told: u64) -> bool {
    told.saturating_sub(stored) <= VERSION_LEAP_MAX
}

/// Decides everything. `draw` gives a new password each time.
pub fn plan<E>(seen: &Seen<'_>, mut draw: impl FnMut() -> Result<Password, E>) -> Result<TenantsPlan, E> {
    let mut work = Work::begin(seen);
    work.remove_deleted();
    for tenant in work.in_order() {
        let verdict = work.admit(tenant, &mut draw)?;
        work.plan.verdicts.insert(tenant.key.clone(), verdict);
    }
    Ok(work.end())
}

struct Work<'a> {
    seen: &'a Seen<'a>,
    entries: BTreeMap<TenantId, (Tenant, Note)>,
    ids: BTreeMap<TenantKey, TenantId>,
    next_id: TenantId,
    guaranteed_bytes: u64,
    ledger_bytes: usize,
    plan: TenantsPlan,
}

fn key(tenant: &Tenant) -> TenantKey {
    TenantKey::new(&tenant.namespace, &tenant.name)
}

impl<'a> Work<'a> {
    fn begin(seen: &'a Seen<'a>) -> Self {
        let Ledger { document, notes } = seen.ledger;
        let note = |id| notes.get(&id).cloned().unwrap_or_default();
        let told = seen.tenants.iter().filter_map(|tenant| tenant.told_id);
        let last = told.chain([seen.last_id_told]).max().unwrap_or_default();
        Self {
            seen,
            entries: document
                .tenants
                .iter()
                .map(|tenant| (tenant.id, (tenant.clone(), note(tenant.id))))
                .collect(),
            ids: document
                .tenants
                .iter()
                .map(|tenant| (key(tenant), tenant.id))
                .collect(),
            next_id: document.next_id.max(TenantId(last.saturating_add(1))),
            guaranteed_bytes: 0,
            ledger_bytes: 0,
            plan: TenantsPlan {
                next: None,
                verdicts: BTreeMap::new(),
                groups: BTreeMap::new(),
                writes: Vec::new(),
                look_again_ms: None,
            },
        }
    }

    /// Takes out whose `CacheTenant` is gone, or takes away its users where its data is to be kept.
    fn remove_deleted(&mut self) {
        let uids: BTreeMap<&TenantKey, Option<&str>> = self
            .seen
            .tenants
            .iter()
            .map(|tenant| {
                (
                    &tenant.key,
                    tenant.asks.as_ref().ok().map(|asks| asks.uid.as_str()),
                )
            })
            .collect();
        let watched = |namespace: &String| {
            self.seen
                .watched
                .is_none_or(|watched| watched.contains(namespace))
        };
        self.entries.retain(|_, (tenant, note)| {
            let is_there = match uids.get(&key(tenant)) {
                None => !watched(&tenant.namespace),
                // Another one has the name now: what the first one left is not for it to see.
                Some(Some(uid)) => note.uid.is_empty() || note.uid == *uid,
                Some(None) => true,
            };
            if !is_there && note.retain {
                tenant.users.clear();
            }
            is_there || note.retain
        });
        self.ids.retain(|_, id| self.entries.contains_key(id));
        let entries = || self.entries.values();
        self.guaranteed_bytes = entries().map(|(tenant, _)| tenant.quota.guaranteed_bytes).sum();
        self.ledger_bytes = ledger::BYTES_WITHOUT_TENANTS
            + entries()
                .map(|(tenant, note)| bytes_of(tenant, note))
                .sum::<usize>();
    }

    /// Those who are in by their numbers, then the others by age.
    fn in_order(&self) -> Vec<&'a SeenTenant> {
        let mut tenants: Vec<&SeenTenant> = self.seen.tenants.iter().collect();
        tenants.sort_by_key(|tenant| {
            let id = self.ids.get(&tenant.key).copied();
            (id.is_none(), id, tenant.created_ms, &tenant.key)
        });
        tenants
    }

    fn admit<E>(
        &mut self,
        tenant: &SeenTenant,
        draw: &mut impl FnMut() -> Result<Password, E>,
    ) -> Result<Verdict, E> {
        let known = self.ids.get(&tenant.key).copied();
        let asks = match &tenant.asks {
            Ok(asks) => asks,
            Err(invalid) => {
                let refusal = Refusal::new(TenantReason::InvalidSpec, invalid.to_string());
                return Ok(self.refuse(known, refusal));
            }
        };
        let cluster = self.seen.cluster;
        let allowed = may_bind(
            &cluster.tenancy,
            &cluster.key,
            &tenant.key.namespace,
            tenant.labels.as_ref(),
        );
        if let Err(refusal) = allowed {
            // Labels that can't be read are no reason to lock somebody out.
            let is_certain =
                tenant.labels.is_some() || cluster.tenancy.allowed_namespaces.from == NamespacesFrom::Same;
            if let Some((entry, _)) = known
                .filter(|_| is_certain)
                .and_then(|id| self.entries.get_mut(&id))
            {
                entry.users.clear();
            }
            return Ok(self.refuse(known, refusal));
        }
        let before = known.and_then(|id| self.entries.get(&id));
        let had_bytes = before.map(|(entry, _)| entry.quota.guaranteed_bytes);
        let (agreed, refused) = match (self.agree(asks, had_bytes), before) {
            (Ok(agreed), _) => (agreed, None),
            // Its users, their rules and their passwords are nothing that a quota is about.
            (Err(refusal), Some((entry, note))) if note.uid.is_empty() || note.uid == asks.uid => {
                ((entry.quota, entry.ttl), Some(refusal))
            }
            (Err(refusal), _) => return Ok(self.refuse(known, refusal)),
        };
        let had_ledger_bytes = before.map_or(0, |(entry, note)| bytes_of(entry, note));
        let (mut entry, mut note) = before.cloned().unwrap_or_else(|| {
            let id = tenant.told_id.map(TenantId).filter(|id| self.is_free(*id));
            (self.newcomer(&tenant.key, id), Note::default())
        });
        let is_new = note.uid != asks.uid;
        note.uid.clone_from(&asks.uid);
        note.retain = asks.retain;
        note.overlap_ms = Some(asks.rotation.overlap_ms);
        (entry.quota, entry.ttl) = agreed;
        let unbound = self.users(&mut entry, &mut note, tenant, asks, is_new, draw)?;
        let (bytes, others_bytes) = (bytes_of(&entry, &note), self.ledger_bytes - had_ledger_bytes);
        if bytes > had_ledger_bytes && others_bytes + bytes > ledger::BYTES_MAX {
            self.plan.writes.retain(|write| write.tenant != tenant.key);
            let message = if known.is_some() {
                "the tenants of the cluster don't fit into one Secret with the users and rules that this one asks for now: \
                 ask for fewer, or use another cluster"
            } else {
                "the tenants of the cluster don't fit into one Secret any more: use another cluster"
            };
            return Ok(self.refuse(known, Refusal::new(TenantReason::TooManyTenants, message)));
        }
        self.ledger_bytes = others_bytes + bytes;
        let id = entry.id;
        self.guaranteed_bytes = self.others(had_bytes).guaranteed_bytes + entry.quota.guaranteed_bytes;
        self.next_id = self.next_id.max(TenantId(id.0.saturating_add(1)));
        self.ids.insert(tenant.key.clone(), id);
        self.entries.insert(id, (entry, note));
        Ok(Verdict {
            id: Some(id),
            refused,
            unbound,
        })
    }

    /// What the cluster gives to a tenant that has had so much.
    fn agree(&self, asks: &ValidTenant, had_bytes: Option<u64>) -> Result<(Quota, TtlBounds), Refusal> {
        let cluster = self.seen.cluster;
        let (quota, ttl) = agree(&cluster.tenancy, asks)?;
        fits(cluster, self.others(had_bytes), had_bytes, quota.guaranteed_bytes)?;
        Ok((quota, ttl))
    }

    /// Leaves everything as it was, but for replaced passwords whose time is over: whoever replaced one counts on its end.
    fn refuse(&mut self, known: Option<TenantId>, refusal: Refusal) -> Verdict {
        let now_ms = self.seen.now_ms;
        let mut look_at_ms = None;
        if let Some((entry, note)) = known.and_then(|id| self.entries.get_mut(&id)) {
            let ends_ms = overlap_ends_ms(note);
            if ends_ms <= now_ms {
                end_overlap(&mut entry.users);
            } else if overlaps(&entry.users) {
                look_at_ms = Some(ends_ms);
            }
        }
        if let Some(at_ms) = look_at_ms {
            self.look_at(at_ms);
        }
        Verdict {
            id: known,
            refused: Some(refusal),
            unbound: None,
        }
    }

    /// An id that a status tells, of a ledger that was lost: nobody else may have got it since.
    fn is_free(&self, id: TenantId) -> bool {
        id != TenantId::CLUSTER && id >= self.seen.ledger.document.next_id && !self.entries.contains_key(&id)
    }

    fn newcomer(&self, key: &TenantKey, id: Option<TenantId>) -> Tenant {
        Tenant {
            id: id.unwrap_or(self.next_id),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            quota: Quota::default(),
            ttl: TtlBounds::default(),
            users: Vec::new(),
        }
    }

    /// What the cluster has given to all but the one that has `had_bytes` of it.
    fn others(&self, had_bytes: Option<u64>) -> Others {
        Others {
            tenants: self.entries.len() - usize::from(had_bytes.is_some()),
            guaranteed_bytes: self.guaranteed_bytes - had_bytes.unwrap_or_default(),
        }
    }

    /// Gives each user its passwords. Returns why some have none.
    fn users<E>(
        &mut self,
        entry: &mut Tenant,
        note: &mut Note,
        tenant: &SeenTenant,
        asks: &ValidTenant,
        is_new: bool,
        draw: &mut impl FnMut() -> Result<Password, E>,
    ) -> Result<Option<Refusal>, E> {
        let (mut unbound, now_ms) = (None, self.seen.now_ms);
        let due_ms = asks
            .rotation
            .interval_ms
            .map(|interval_ms| note.passwords_since_ms.saturating_add(interval_ms));
        let asked = asks.rotate.is_some() && asks.rotate != note.rotate;
        let rotates = !is_new && (asked || due_ms.is_some_and(|due_ms| due_ms <= now_ms));
        let mut replaced = false;
        let mut users = Vec::with_capacity(asks.users.len());
        for user in &asks.users {
            let before = entry.users.iter().find(|before| before.name == user.name);
            let mut passwords = before.map(|before| before.passwords.clone()).unwrap_or_default();
            let binding = tenant.bindings.get(&user.name);
            match next_password(&passwords, binding, rotates) {
                Next::Keep => {}
                Next::Adopt(digest) => {
                    replaced |= !passwords.is_empty();
                    passwords = newest_two(digest, passwords.first());
                }
                Next::Draw(working) => {
                    let password = draw()?;
                    replaced |= !passwords.is_empty();
                    passwords = newest_two(password.digest(), working.as_ref());
                    self.plan.writes.push(BindingWrite {
                        tenant: tenant.key.clone(),
                        user: user.clone(),
                        password,
                    });
                }
                Next::Refuse(refusal) => {
                    unbound.get_or_insert(refusal(user));
                    let is_ending = binding == Some(&BindingSeen::Predecessor);
                    let wait_ms = if is_ending { ENDING_MS } else { FOREIGN_MS };
                    self.look_at(now_ms + wait_ms);
                    continue;
                }
            }
            users.push(User {
                name: user.name.clone(),
                passwords,
                rules: user.rules.clone(),
            });
        }
        if replaced || is_new || rotates {
            note.passwords_since_ms = now_ms;
            note.rotate.clone_from(&asks.rotate);
        } else if overlap_ends_ms(note) <= now_ms {
            end_overlap(&mut users);
        }
        entry.users = users;
        self.look_again(entry, note, asks);
        Ok(unbound)
    }

    /// Notes when the overlap of two passwords ends, or a password's life.
    fn look_again(&mut self, entry: &Tenant, note: &Note, asks: &ValidTenant) {
        if overlaps(&entry.users) {
            self.look_at(overlap_ends_ms(note));
        }
        if let Some(interval_ms) = asks.rotation.interval_ms {
            self.look_at(note.passwords_since_ms.saturating_add(interval_ms));
        }
    }

    fn look_at(&mut self, at_ms: u64) {
        self.plan.look_again_ms = Some(
            self.plan
                .look_again_ms
                .map_or(at_ms, |other_ms| other_ms.min(at_ms)),
        );
    }

    fn end(mut self) -> TenantsPlan {
        let before = &self.seen.ledger.document;
        let mut notes = BTreeMap::new();
        let mut tenants = Vec::with_capacity(self.entries.len());
        for (id, (tenant, note)) in self.entries {
            tenants.push(tenant);
            notes.insert(id, note);
        }
        let around = groups::Around {
            cluster: self.seen.cluster,
            tenants: &tenants,
            cache_tenants: &self
                .seen
                .tenants
                .iter()
                .map(|tenant| tenant.key.clone())
                .collect(),
            before: &before.groups,
            watched: self.seen.watched,
            reach: self.seen.reach,
            bytes_max: ledger::BYTES_MAX.saturating_sub(self.ledger_bytes),
        };
        let (groups, verdicts) = groups::plan(&around, self.seen.groups);
        self.plan.groups = verdicts;
        let mut document = before.clone();
        (document.tenants, document.groups, document.next_id) = (tenants, groups, self.next_id);
        let told = self.seen.versions_told.iter().copied();
        let told = told.filter(|told| is_believable(before.version, *told)).max();
        let highest = before.version.max(told.unwrap_or_default());
        // Nodes that tell a higher version would not take this one.
        if document != *before || before.version < highest {
            document.version = highest.saturating_add(1);
        }
        let next = Ledger { document, notes };
        if next != *self.seen.ledger {
            self.plan.next = Some(next);
        }
        self.plan
    }
}

/// When replaced passwords end, in milliseconds since 1970.
fn overlap_ends_ms(note: &Note) -> u64 {
    note.passwords_since_ms
        .saturating_add(note.overlap_ms.unwrap_or(defaults::ROTATION_OVERLAP_MS))
}

fn overlaps(users: &[User]) -> bool {
    users.iter().any(|user| user.passwords.len() > 1)
}

fn end_overlap(users: &mut [User]) {
    for user in users {
        user.passwords.truncate(1);
    }
}

/// What is to be done about a user's password.
enum Next {
    /// Nothing.
    Keep,
    /// The binding holds one that nodes don't know: it was put there, or the document was lost.
    Adopt(PasswordDigest),
    /// A new one is to be drawn; that one works on for a while.
    Draw(Option<PasswordDigest>),
    /// It can't have one.
    Refuse(fn(&ValidUser) -> Refusal),
}

fn next_password(known: &[PasswordDigest], binding: Option<&BindingSeen>, rotates: bool) -> Next {
    let newest = known.first().copied();
    match binding {
        Some(BindingSeen::Foreign) => Next::Refuse(|user| {
            let message = format!(
                "Secret {} exists and isn't this tenant's: delete it, or give the CacheTenant another name",
                user.secret
            );
            Refusal::new(TenantReason::NameTaken, message)
        }),
        Some(BindingSeen::Predecessor) => Next::Refuse(|user| {
            let message = format!(
                "Secret {} of the deleted CacheTenant of the same name is still there",
                user.secret
            );
            Refusal::new(TenantReason::NameTaken, message)
        }),
        // One that was made by hand, or whose write was lost, is replaced by one that is known.
        Some(BindingSeen::Missing) => Next::Draw(newest),
        // The newest one never got into the binding.
        Some(BindingSeen::Holds(digest)) if rotates || known.get(1) == Some(digest) => {
            Next::Draw(Some(*digest))
        }
        Some(BindingSeen::Holds(digest)) if newest != Some(*digest) => Next::Adopt(*digest),
        None if known.is_empty() || rotates => Next::Draw(newest),
        Some(BindingSeen::Holds(_)) | None => Next::Keep,
    }
}

fn newest_two(newest: PasswordDigest, other: Option<&PasswordDigest>) -> Vec<PasswordDigest> {
    let other = other.filter(|other| **other != newest);
    [newest].into_iter().chain(other.copied()).collect()
}

//! Read-through groups: keys that load themselves from an origin when somebody reads them.
//!
//! The owner of a key's slot loads it, once, whoever asks: a read that finds no value, or one that is too old, waits for the
//! load that is under way or begins one. Whether it does is decided ([`verdict`]) while the slot is locked, and a load's value is
//! stored under the same lock, so that no read falls between a load's end and its value. A write by a client ends the
//! load's right to store anything: what the origin said before the write may be older.
//!
//! Times of entries are on the clock that clients see. What is remembered and waited for beside them is on the journal's, which is
//! never set back.
//!
//! Loads run on a thread of their own ([`loader`]); who waits for one waits as for its turn, and whoever leaves doesn't end it
//! for the others. What is remembered of keys without a value is this process's own knowledge: a new owner asks anew.

mod age;
mod breaker;
mod counters;
mod filter;
mod holds;
mod lane;
mod load;
pub mod loader;
mod origin;
mod places;
mod read;
mod remembered;
mod resolver;
mod url;
mod verdict;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use annulus_proto::groups as document;
use annulus_proto::tenants::TenantId;
use annulus_ring::{SLOT_COUNT, Slot};
use hyper::Uri;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc};

use crate::routing::Tenure;
use crate::store::limits::Limits;
use crate::store::{Keyspace, Store};
use age::{Age, Life};
use breaker::{Breaker, Rules};
pub use counters::GroupCounters;
use filter::KeyFilter;
use holds::{Holds, holds};
pub use load::Awaited;
use load::{Load, Loaded};
use origin::OriginClient;
use places::{GroupNumber, Place, Places};
pub use read::{Given, Reading, look};
use remembered::{Remembered, Why};
use url::NoUrl;
use verdict::{Known, Verdict, verdict};

/// What a key without a value takes to be remembered, about.
const REMEMBERED_BYTES: u64 = 80;
/// Of the budget, all groups' keys without a value may take this part together.
const REMEMBERED_PART: u64 = 32;
/// So many of them each may always have.
const REMEMBERED_MIN: u64 = 1000;

/// A group, as this node follows it.
pub struct Group {
    described: document::Group,
    label: String,
    /// The same as long as there is a group of that name.
    number: GroupNumber,
    /// By how many descriptions, ones after which not all that was learned held, it is known.
    lessons: u64,
    keyspace: Keyspace,
    origin: OriginClient,
    state: Arc<State>,
}

/// What a group keeps when it is described anew.
struct State {
    counters: GroupCounters,
    keys: Mutex<Keys>,
    filter: KeyFilter,
    /// When the list of the origin's keys is to be read, by the journal's clock; the maximum while that is being done.
    filter_due_ms: AtomicU64,
    requests: Semaphore,
    requests_max: Mutex<usize>,
}

struct Keys {
    loading: HashMap<Box<[u8]>, Arc<Load>, foldhash::fast::RandomState>,
    remembered: Remembered,
    breaker: Breaker,
    /// Loads of groups that have this number teach something.
    lessons: u64,
}

/// A key of a slot that this node serves.
#[derive(Clone, Copy)]
struct HeldKey<'a> {
    slot: Slot,
    /// Which time it does.
    tenure: Tenure,
    key: &'a [u8],
}

/// A load to be done. However it ends, those who wait for it are told.
struct Job {
    group: Arc<Group>,
    load: Arc<Load>,
    slot: Slot,
    key: Box<[u8]>,
    /// The breaker lets nothing else through before this has told how it went.
    is_probe: bool,
    _place: Place,
}

impl Job {
    /// It asks nothing.
    fn give_up_probe(&self) {
        if self.is_probe {
            self.group.tell_breaker(Breaker::give_up_probe);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if !self.load.is_over() {
            self.give_up_probe();
            self.group.settle(&self.key, &self.load, None);
            self.load
                .finish(Loaded::Failed("the load ended early: try again".into()));
        }
    }
}

/// The groups of a node.
pub struct Groups {
    is_on: AtomicBool,
    /// Sorted by prefix, of which none begins with another.
    by_tenant: RwLock<HashMap<TenantId, Vec<Arc<Group>>>>,
    /// The version of the document that they are from.
    version: Mutex<u64>,
    jobs: mpsc::UnboundedSender<Job>,
    /// Those that they take.
    places: Places,
    /// The number of the group that comes next.
    next_number: AtomicU64,
    jobs_to_do: Mutex<Option<mpsc::UnboundedReceiver<Job>>>,
}

impl Default for Groups {
    fn default() -> Self {
        let (jobs, jobs_to_do) = mpsc::unbounded_channel();
        Self {
            is_on: AtomicBool::new(false),
            by_tenant: RwLock::default(),
            version: Mutex::new(0),
            jobs,
            places: Places::default(),
            next_number: AtomicU64::new(0),
            jobs_to_do: Mutex::new(Some(jobs_to_do)),
        }
    }
}

impl Groups {
    /// Whether there are any. One load.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Slots have come here, of whose keys the filters may not know.
    pub fn note_gains(&self) {
        for group in self.all() {
            if group.described.filter.is_some() {
                group.state.filter.clear();
                group.state.filter_due_ms.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Follows the groups of a document unless it is older than one that was followed.
    pub fn follow(&self, version: u64, described: Vec<document::Group>, store: &Store) {
        let mut followed = self.version.lock();
        if version <= *followed {
            return;
        }
        *followed = version;
        let (before, mut changed) = (self.all(), Vec::new());
        let mut by_tenant: HashMap<TenantId, Vec<Arc<Group>>> = HashMap::new();
        for described in described {
            let is_same = |group: &&Arc<Group>| {
                let known = &group.described;
                (known.tenant, &known.namespace, &known.name)
                    == (described.tenant, &described.namespace, &described.name)
            };
            let known = before.iter().find(is_same);
            let group = match known {
                Some(known) if known.described == described => Arc::clone(known),
                Some(known) => {
                    let holds = holds(&known.described, &described);
                    let group = Arc::new(Group::again(described, known, holds, store));
                    changed.push((Arc::clone(&group), holds));
                    group
                }
                None => {
                    let number = self.next_number.fetch_add(1, Ordering::Relaxed);
                    Arc::new(Group::new(described, number, store))
                }
            };
            by_tenant.entry(group.described.tenant).or_default().push(group);
        }
        for groups in by_tenant.values_mut() {
            groups.sort_by(|one, other| one.described.key_prefix.cmp(&other.described.key_prefix));
        }
        self.is_on.store(!by_tenant.is_empty(), Ordering::Relaxed);
        *self.by_tenant.write() = by_tenant;
        for (group, holds) in changed {
            if !holds.is_all() {
                group.state.forget(holds, group.lessons);
            }
        }
        let after = self.all();
        let remembered_max = remembered_max(store, after.len());
        for group in &after {
            group.state.keys.lock().remembered.resize(remembered_max);
        }
        for group in before {
            let state = &group.state;
            if !after.iter().any(|other| Arc::ptr_eq(&other.state, state)) {
                state.supersede_all();
            }
        }
    }

    /// The group that a key is in.
    pub fn of(&self, tenant: TenantId, key: &[u8]) -> Option<Arc<Group>> {
        let by_tenant = self.by_tenant.read();
        let groups = by_tenant.get(&tenant)?;
        let behind = groups.partition_point(|group| group.described.key_prefix.as_bytes() < key);
        let group = groups.get(behind.checked_sub(1)?)?;
        // A key that is the prefix alone has no name at the origin; it isn't less than itself, so it isn't found.
        key.starts_with(group.described.key_prefix.as_bytes())
            .then(|| Arc::clone(group))
    }

    /// The group of that name in a keyspace.
    pub fn named(&self, tenant: TenantId, name: &str) -> Option<Arc<Group>> {
        let by_tenant = self.by_tenant.read();
        let mut groups = by_tenant.get(&tenant)?.iter();
        groups.find(|group| group.described.name == name).cloned()
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<Group>> {
        self.by_tenant.read().values().flatten().cloned().collect()
    }

    /// A client has written that key, whose slot is locked still: what the origin said before isn't stored any more, and what is
    /// remembered of the key doesn't hold.
    pub fn note_write(&self, tenant: TenantId, key: &[u8], tenure: Tenure) {
        if let Some(group) = self.of(tenant, key) {
            group.state.note_write(tenure, key);
        }
    }

    /// A client removes everything in a keyspace.
    pub fn note_flush(&self, tenant: TenantId) {
        let groups = self.by_tenant.read().get(&tenant).cloned();
        for group in groups.into_iter().flatten() {
            group.state.supersede_all();
        }
    }
}

impl Group {
    fn new(described: document::Group, number: GroupNumber, store: &Store) -> Self {
        let state = Arc::new(State::new(store));
        Self::with(described, (number, 0), state, store)
    }

    /// The same group as `known`, of which that holds still.
    fn again(described: document::Group, known: &Self, holds: Holds, store: &Store) -> Self {
        if !holds.keys {
            return Self::new(described, known.number, store);
        }
        let lessons = known.lessons + u64::from(!holds.is_all());
        Self::with(
            described,
            (known.number, lessons),
            Arc::clone(&known.state),
            store,
        )
    }

    fn with(
        described: document::Group,
        (number, lessons): (GroupNumber, u64),
        state: Arc<State>,
        store: &Store,
    ) -> Self {
        Self {
            label: described.label(),
            number,
            lessons,
            keyspace: store.keyspace(described.tenant),
            origin: OriginClient::new(&described.origin),
            described,
            state,
        }
    }

    /// Its namespace and name.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How its keys begin.
    pub fn prefix(&self) -> &str {
        &self.described.key_prefix
    }

    /// What was counted.
    pub fn counters(&self) -> &GroupCounters {
        &self.state.counters
    }

    /// Loads under way, and keys without a value that are remembered.
    pub fn sizes(&self) -> (usize, usize) {
        let keys = self.state.keys.lock();
        (keys.loading.len(), keys.remembered.len())
    }

    /// The state of the breaker: 0 closed, 1 half open, 2 open.
    pub fn breaker(&self) -> u64 {
        self.state.keys.lock().breaker.number()
    }

    /// Keys and bytes of the filter, if there is one.
    pub fn filter_figures(&self) -> Option<(u64, u64)> {
        let figures = self.state.filter.figures()?;
        Some((figures.keys, figures.bytes))
    }

    /// Where the origin has a key of the group.
    fn url(&self, key: &[u8]) -> Result<Uri, NoUrl> {
        let name = key.get(self.described.key_prefix.len()..).unwrap_or_default();
        url::url(&self.described.origin.url_template, name)
    }

    fn rules(&self) -> Rules {
        Rules {
            failures: self.described.origin.breaker_failures,
            open_ms: self.described.origin.breaker_open_ms,
        }
    }

    fn life(&self, key: &[u8]) -> Life {
        let limits = self.keyspace.tenant().map(|space| &space.limits);
        Life::of(&self.described, key, limits.and_then(Limits::ttl_max_ms))
    }

    /// So many requests of this node may be under way, as long as it has so many slots.
    fn requests_max(&self, slots: u32) -> usize {
        let share =
            u64::from(self.described.origin.concurrent_max) * u64::from(slots) / u64::from(SLOT_COUNT);
        usize::try_from(share.max(1)).unwrap_or(1)
    }

    /// Decides what a read of the key gets, whose slot is locked and whose entry has that age, at a time by the journal's clock; a
    /// load that is to be waited for comes with it.
    fn decide(
        self: &Arc<Self>,
        HeldKey { slot, tenure, key }: HeldKey<'_>,
        age: Option<Age>,
        groups: &Groups,
        (clock_ms, slots): (u64, u32),
    ) -> (Verdict, Option<Arc<Load>>) {
        let mut keys = self.state.keys.lock();
        let keys = &mut *keys;
        let loading = keys.loading.get(key).filter(|load| load.tenure() == tenure);
        let verdict = verdict(Known {
            age,
            is_filtered: age.is_none()
                && loading.is_none()
                && self.described.filter.is_some()
                && self.state.filter.excludes(key),
            is_loading: loading.is_some(),
            may_load: keys.breaker.allows(self.rules(), clock_ms),
            remembered: keys.remembered.of((tenure, key), clock_ms),
        });
        let counters = &self.state.counters;
        match (&verdict, loading) {
            (Verdict::Load, Some(load)) => {
                counters.joined.add(1);
                return (verdict, Some(Arc::clone(load)));
            }
            (Verdict::Load, None) => {}
            // Nobody waits for it: it has no place in the queue.
            (Verdict::ServeAndLoad, None) if keys.loading.len() < self.requests_max(slots) => {}
            _ => return (verdict, None),
        }
        let Some(place) = groups.places.take(self.described.tenant, self.number) else {
            return (verdict, None);
        };
        if verdict == Verdict::Load {
            counters.began.add(1);
        }
        let load = Load::new(tenure);
        // A key that has no URL tells nothing of the origin.
        let is_probe = keys.breaker.wants_probe() && self.url(key).is_ok();
        if is_probe {
            keys.breaker.probe(clock_ms);
        }
        keys.loading.insert(key.into(), Arc::clone(&load));
        let job = Job {
            group: Arc::clone(self),
            load: Arc::clone(&load),
            slot,
            key: key.into(),
            is_probe,
            _place: place,
        };
        if let Err(refused) = groups.jobs.send(job) {
            // The process is about to end.
            keys.loading.remove(key);
            refused
                .0
                .load
                .finish(Loaded::Failed("this node is stopping".into()));
        }
        (verdict, Some(load))
    }

    /// Something to tell the breaker, unless the group was described anew since in a way that makes it of no use.
    fn tell_breaker<R>(&self, tell: impl FnOnce(&mut Breaker) -> R) -> Option<R> {
        let mut keys = self.state.keys.lock();
        (keys.lessons == self.lessons).then(|| tell(&mut keys.breaker))
    }

    /// What a load brought is over for the key, whose slot is locked. What it teaches is only remembered if that holds.
    fn settle(&self, key: &[u8], load: &Arc<Load>, lesson: Option<(Why, u64)>) {
        let mut keys = self.state.keys.lock();
        if keys
            .loading
            .get(key)
            .is_some_and(|present| Arc::ptr_eq(present, load))
        {
            keys.loading.remove(key);
            match lesson.filter(|_| keys.lessons == self.lessons) {
                Some((why, until_ms)) => keys.remembered.note((load.tenure(), key), why, until_ms),
                None => keys.remembered.forget((load.tenure(), key)),
            }
        }
    }
}

/// How many keys each of so many groups remembers.
fn remembered_max(store: &Store, groups: usize) -> NonZeroUsize {
    let all = store.budget_bytes() / REMEMBERED_PART / REMEMBERED_BYTES;
    let each = (all / groups.max(1) as u64).max(REMEMBERED_MIN);
    let each = usize::try_from(each).ok().and_then(NonZeroUsize::new);
    each.unwrap_or(NonZeroUsize::MIN)
}

impl State {
    fn new(store: &Store) -> Self {
        Self {
            counters: GroupCounters::default(),
            keys: Mutex::new(Keys {
                loading: HashMap::default(),
                remembered: Remembered::new(remembered_max(store, 1)),
                breaker: Breaker::default(),
                lessons: 0,
            }),
            filter: KeyFilter::default(),
            filter_due_ms: AtomicU64::new(0),
            requests: Semaphore::new(0),
            requests_max: Mutex::new(0),
        }
    }

    fn note_write(&self, tenure: Tenure, key: &[u8]) {
        let mut keys = self.keys.lock();
        keys.remembered.note((tenure, key), Why::Written, u64::MAX);
        if let Some(load) = keys.loading.remove(key) {
            load.supersede();
        }
        drop(keys);
        self.filter.add(key);
    }

    /// Forgets what doesn't hold any more.
    fn forget(&self, holds: Holds, lessons: u64) {
        let mut keys = self.keys.lock();
        keys.lessons = lessons;
        keys.remembered.retain(|why| match why {
            Why::Absent => holds.absences,
            Why::Failed(_) => holds.failures,
            Why::Written => true,
        });
        if !holds.breaker {
            keys.breaker = Breaker::default();
        }
        if !holds.loads {
            for (_, load) in keys.loading.drain() {
                load.supersede();
            }
        }
        drop(keys);
        if !holds.filter {
            self.filter.clear();
            self.filter_due_ms.store(0, Ordering::Relaxed);
        }
    }

    fn supersede_all(&self) {
        let mut keys = self.keys.lock();
        keys.remembered.forget_all();
        for (_, load) in keys.loading.drain() {
            load.supersede();
        }
    }

    /// Makes room for so many requests at a time; those that are under way beyond that end first.
    fn allow_requests(&self, max: usize) {
        let mut allowed = self.requests_max.lock();
        if max > *allowed {
            self.requests.add_permits(max - *allowed);
            *allowed = max;
        } else if max < *allowed {
            *allowed -= self.requests.forget_permits(*allowed - max);
        }
    }
}

#[cfg(test)]
mod tests;

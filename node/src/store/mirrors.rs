//! Very hot keys of slots that other nodes serve, as their owner told them a moment ago: for connections that said `READONLY`.
//!
//! A mirror is made where it is asked for: a node that is asked for the same foreign key often enough fetches it from the
//! owner, and again and again while that goes on. It answers with a value for as long after it asked the owner as the ring
//! allows, and never longer; so no clocks need to agree, nobody has to be told of a change, and no lost message matters. The
//! owner knows nothing of mirrors: to it each fetch is a read.
//!
//! Times are in milliseconds on the journal's clock.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use annulus_proto::tenants::TenantId;
use annulus_ring::RingSettings;
use bytes::Bytes;
use foldhash::fast::RandomState;
use lru::LruCache;
use parking_lot::Mutex;
use std::hash::BuildHasher;
use tokio::sync::mpsc;

use crate::stats::Total;

/// Keys that are counted, or mirrored, at a time.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("more than none");
const KEY_BYTES_MAX: usize = 1024;
/// Longer values are not mirrored.
const VALUE_BYTES_MAX: usize = 64 << 10;
/// How often a key is asked for is looked at over so long.
const WINDOW_MS: u64 = 1000;
/// A fetch that isn't answered for so long is forgotten.
const FETCH_PATIENCE_MS: u64 = 1000;

/// A key to fetch from its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// In whose keyspace.
    pub tenant: TenantId,
    /// The key.
    pub key: Box<[u8]>,
}

/// The mirrors of a node.
pub struct Mirrors {
    /// Keys that are asked for so often are mirrored; 0 for none.
    reads_per_second: AtomicU64,
    /// A value is served for so long.
    staleness_max_ms: AtomicU64,
    seed: RandomState,
    keys: Mutex<LruCache<u64, Asked, RandomState>>,
    fetches: mpsc::UnboundedSender<Fetch>,
    fetches_to_do: Mutex<Option<mpsc::UnboundedReceiver<Fetch>>>,
    /// Reads that were answered.
    pub served: Total,
    /// Fetches from owners.
    pub fetched: Total,
}

/// One key that clients ask for here.
struct Asked {
    tenant: TenantId,
    key: Box<[u8]>,
    heat: Heat,
    copy: Option<Copied>,
    fetching_since_ms: Option<u64>,
}

/// What its owner said.
struct Copied {
    value: Option<Bytes>,
    asked_ms: u64,
    until_ms: u64,
}

/// How often a key is asked for.
#[derive(Debug, Default)]
struct Heat {
    window_ms: u64,
    now: u64,
    before: u64,
}

impl Heat {
    /// One more; whether that makes it hot.
    fn count(&mut self, threshold: u64, now_ms: u64) -> bool {
        let age_ms = now_ms.saturating_sub(self.window_ms);
        if age_ms >= WINDOW_MS {
            self.before = if age_ms < 2 * WINDOW_MS { self.now } else { 0 };
            (self.now, self.window_ms) = (0, now_ms);
        }
        self.now += 1;
        self.now.max(self.before) >= threshold
    }
}

impl Mirrors {
    pub(super) fn new() -> Self {
        let (fetches, fetches_to_do) = mpsc::unbounded_channel();
        let mut keys = LruCache::unbounded_with_hasher(RandomState::default());
        keys.resize(KEYS_MAX);
        Self {
            reads_per_second: AtomicU64::new(0),
            staleness_max_ms: AtomicU64::new(0),
            seed: RandomState::default(),
            keys: Mutex::new(keys),
            fetches,
            fetches_to_do: Mutex::new(Some(fetches_to_do)),
            served: Total::default(),
            fetched: Total::default(),
        }
    }

    /// Whether there may be any. One load.
    #[inline]
    pub fn are_on(&self) -> bool {
        self.reads_per_second.load(Ordering::Relaxed) > 0
    }

    /// Follows what the ring says.
    pub fn follow(&self, settings: RingSettings) {
        self.staleness_max_ms
            .store(settings.mirror_staleness_max_ms, Ordering::Relaxed);
        self.reads_per_second
            .store(settings.mirror_reads_per_second, Ordering::Relaxed);
        if !self.are_on() {
            self.keys.lock().clear();
        }
    }

    /// What is to be fetched, for the one who does it.
    pub fn fetches_to_do(&self) -> Option<mpsc::UnboundedReceiver<Fetch>> {
        self.fetches_to_do.lock().take()
    }

    /// The value of a key of another node's slot, if it is mirrored; `Some(None)` when the owner has none. Whoever asks makes
    /// the key hotter.
    pub fn read(&self, tenant: TenantId, key: &[u8], now_ms: u64) -> Option<Option<Bytes>> {
        let threshold = self.reads_per_second.load(Ordering::Relaxed);
        if threshold == 0 || key.len() > KEY_BYTES_MAX {
            return None;
        }
        let hash = self.hash(tenant, key);
        let mut keys = self.keys.lock();
        let is_it = |known: &Asked| known.tenant == tenant && *known.key == *key;
        if !keys.peek(&hash).is_some_and(is_it) {
            let counted = Asked {
                tenant,
                key: key.into(),
                heat: Heat::default(),
                copy: None,
                fetching_since_ms: None,
            };
            keys.put(hash, counted);
        }
        let known = keys.get_mut(&hash)?;
        let is_hot = known.heat.count(threshold, now_ms);
        let copy = known.copy.as_ref().filter(|copy| now_ms < copy.until_ms);
        // In the second half of its time a new one is fetched, so that there is always one.
        let is_young = copy.is_some_and(|copy| now_ms < copy.asked_ms + (copy.until_ms - copy.asked_ms) / 2);
        let is_fetching = known
            .fetching_since_ms
            .is_some_and(|since_ms| now_ms < since_ms + FETCH_PATIENCE_MS);
        let value = copy.map(|copy| copy.value.clone());
        if is_hot && !is_young && !is_fetching {
            known.fetching_since_ms = Some(now_ms);
            let fetch = Fetch {
                tenant,
                key: key.into(),
            };
            // Whoever fetches ends with the process.
            self.fetches.send(fetch).unwrap_or_default();
        }
        if value.is_some() {
            self.served.add(1);
        }
        value
    }

    /// What the owner answered to a question of `asked_ms`: the value, if there is one, which expires after `ttl_ms`.
    /// `None`: it didn't answer, or the value can't be mirrored.
    pub fn fetched(&self, fetch: &Fetch, asked_ms: u64, answer: Option<(Option<Bytes>, Option<u64>)>) {
        self.fetched.add(1);
        let staleness_max_ms = self.staleness_max_ms.load(Ordering::Relaxed);
        let mut keys = self.keys.lock();
        let Some(known) = keys.peek_mut(&self.hash(fetch.tenant, &fetch.key)) else {
            return;
        };
        if known.tenant != fetch.tenant || known.key != fetch.key {
            return;
        }
        let fits = |value: &Option<Bytes>| value.as_ref().is_none_or(|value| value.len() <= VALUE_BYTES_MAX);
        // After anything else it isn't asked for again for a while.
        if let Some((value, ttl_ms)) = answer.filter(|(value, _)| fits(value)) {
            known.fetching_since_ms = None;
            known.copy = Some(Copied {
                value,
                asked_ms,
                until_ms: asked_ms + staleness_max_ms.min(ttl_ms.unwrap_or(u64::MAX)),
            });
        }
    }

    /// How many keys have a value here that may be served.
    pub fn len(&self, now_ms: u64) -> usize {
        let keys = self.keys.lock();
        let copies = keys.iter().filter_map(|(_, key)| key.copy.as_ref());
        copies.filter(|copy| now_ms < copy.until_ms).count()
    }

    fn hash(&self, tenant: TenantId, key: &[u8]) -> u64 {
        self.seed.hash_one((tenant, key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: TenantId = TenantId(7);

    fn mirrors(reads_per_second: u64) -> (Mirrors, mpsc::UnboundedReceiver<Fetch>) {
        let mirrors = Mirrors::new();
        mirrors.follow(RingSettings {
            mirror_reads_per_second: reads_per_second,
            mirror_staleness_max_ms: 100,
            ..RingSettings::default()
        });
        let fetches = mirrors.fetches_to_do().unwrap();
        (mirrors, fetches)
    }

    fn value(text: &'static str) -> (Option<Bytes>, Option<u64>) {
        (Some(Bytes::from_static(text.as_bytes())), None)
    }

    #[test]
    fn a_key_that_is_asked_for_often_is_fetched_once_at_a_time() {
        let (mirrors, mut fetches) = mirrors(10);
        for now_ms in 0..9 {
            assert_eq!(mirrors.read(TENANT, b"a", now_ms), None);
        }
        assert!(fetches.try_recv().is_err(), "not yet");
        for now_ms in 9..50 {
            assert_eq!(mirrors.read(TENANT, b"a", now_ms), None);
        }
        let fetch = fetches.try_recv().unwrap();
        assert_eq!((fetch.tenant, &*fetch.key), (TENANT, &b"a"[..]));
        assert!(fetches.try_recv().is_err(), "one is under way");
        // One that is never answered is forgotten.
        for now_ms in 1000..1020 {
            mirrors.read(TENANT, b"a", now_ms);
        }
        assert!(fetches.try_recv().is_ok());
    }

    #[test]
    fn a_value_is_served_for_as_long_after_the_question_as_is_allowed() {
        let (mirrors, mut fetches) = mirrors(1);
        mirrors.read(TENANT, b"a", 0);
        let fetch = fetches.try_recv().unwrap();
        // The answer took 60 ms, of which nobody knows when the owner looked.
        mirrors.fetched(&fetch, 0, Some(value("old")));
        assert_eq!(mirrors.len(61), 1);
        assert_eq!(
            mirrors.read(TENANT, b"a", 61),
            Some(Some(Bytes::from_static(b"old")))
        );
        assert_eq!(
            mirrors.read(TENANT, b"a", 99),
            Some(Some(Bytes::from_static(b"old")))
        );
        assert_eq!(mirrors.read(TENANT, b"a", 100), None);
        assert_eq!(mirrors.len(100), 0);
        let again = fetches.try_recv().unwrap();
        mirrors.fetched(&again, 61, Some((None, None)));
        assert_eq!(mirrors.read(TENANT, b"a", 160), Some(None), "the owner has none");
        assert_eq!(mirrors.read(TenantId(8), b"a", 160), None, "another tenant's");
        assert_eq!((mirrors.served.get(), mirrors.fetched.get()), (3, 2));
    }

    #[test]
    fn a_value_is_fetched_anew_before_its_time_is_over() {
        let (mirrors, mut fetches) = mirrors(1);
        mirrors.read(TENANT, b"a", 0);
        mirrors.fetched(&fetches.try_recv().unwrap(), 0, Some(value("old")));
        mirrors.read(TENANT, b"a", 49);
        assert!(fetches.try_recv().is_err());
        mirrors.read(TENANT, b"a", 50);
        mirrors.read(TENANT, b"a", 51);
        let fetch = fetches.try_recv().unwrap();
        assert!(fetches.try_recv().is_err());
        // It couldn't be asked, or the value is too long: what there is serves its time.
        mirrors.fetched(&fetch, 50, None);
        assert!(mirrors.read(TENANT, b"a", 99).is_some());
        mirrors.fetched(
            &fetch,
            52,
            Some((Some(Bytes::from(vec![0; VALUE_BYTES_MAX + 1])), None)),
        );
        assert_eq!(mirrors.read(TENANT, b"a", 101), None);
    }

    #[test]
    fn a_value_that_expires_is_served_no_longer() {
        let (mirrors, mut fetches) = mirrors(1);
        mirrors.read(TENANT, b"a", 0);
        let soon = Some((Some(Bytes::from_static(b"x")), Some(30)));
        mirrors.fetched(&fetches.try_recv().unwrap(), 0, soon);
        assert!(mirrors.read(TENANT, b"a", 29).is_some());
        assert!(mirrors.read(TENANT, b"a", 30).is_none());
    }

    #[test]
    fn what_is_asked_for_seldom_is_not_mirrored_and_off_is_off() {
        let (mirrors, mut fetches) = mirrors(10);
        for second in 0..100 {
            for tenth in 0..9 {
                mirrors.read(TENANT, b"a", second * 1000 + tenth * 100);
            }
        }
        assert!(fetches.try_recv().is_err());
        mirrors.follow(RingSettings::default());
        assert!(!mirrors.are_on());
        for now_ms in 0..100 {
            assert_eq!(mirrors.read(TENANT, b"a", now_ms), None);
        }
        assert!(fetches.try_recv().is_err());
    }
}

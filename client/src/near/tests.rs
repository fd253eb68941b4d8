use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::source::CheckAnswer;

fn cache() -> Arc<NearCache> {
    Arc::new(NearCache::new(1 << 20))
}

fn checked(lease_ns: u64) -> Arc<Source> {
    let source = Arc::new(Source::new(lease_ns));
    let answer = CheckAnswer {
        invalidations: Some(0),
        leases: true,
    };
    source.check(0, answer);
    source
}

fn bytes(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn what_was_read_is_there_until_it_is_not() {
    let (cache, source) = (cache(), checked(1000));
    assert_eq!(cache.look_up(b"k", 0), Lookup::Miss);
    cache.begin_read(bytes("k")).keep(Some(bytes("v")), &source, 500);
    cache.begin_read(bytes("none")).keep(None, &source, 5000);
    assert_eq!(cache.look_up(b"k", 499), Lookup::Hit(Some(bytes("v"))));
    assert_eq!(cache.look_up(b"k", 500), Lookup::Miss, "its own time is over");
    assert_eq!(cache.look_up(b"none", 999), Lookup::Hit(None));
    assert_eq!(cache.look_up(b"none", 1000), Lookup::Unchecked);
    cache.invalidate(b"none");
    assert_eq!(cache.look_up(b"none", 0), Lookup::Miss);
    let counts = cache.counts();
    assert_eq!(
        (
            counts.hits,
            counts.misses,
            counts.unchecked,
            counts.entries,
            counts.bytes
        ),
        (2, 3, 1, 0, 0)
    );
}

#[test]
fn a_read_that_an_own_write_overtakes_is_not_kept() {
    let (cache, source) = (cache(), checked(1000));
    let early = cache.begin_read(bytes("k"));
    cache.overtake(b"k");
    let late = cache.begin_read(bytes("k"));
    early.keep(Some(bytes("old")), &source, 1000);
    assert_eq!(cache.look_up(b"k", 0), Lookup::Miss);
    late.keep(Some(bytes("new")), &source, 1000);
    assert_eq!(cache.look_up(b"k", 0), Lookup::Hit(Some(bytes("new"))));
    cache.overtake(b"k");
    assert_eq!(cache.look_up(b"k", 0), Lookup::Miss);
    assert_eq!(cache.counts().overtaken, 1);
    // Reads that come to nothing leave nothing behind.
    drop(cache.begin_read(bytes("k")));
    assert!(cache.shards.iter().all(|shard| shard.lock().pending.is_empty()));
}

#[test]
fn it_keeps_to_its_size() {
    let (cache, source) = (Arc::new(NearCache::new(SHARDS * 1000)), checked(u64::MAX));
    for number in 0..10_000 {
        let name = Bytes::from(format!("k{number}"));
        let text = Some(Bytes::from(vec![b'v'; number % 300]));
        cache.begin_read(name).keep(text, &source, u64::MAX);
    }
    let counts = cache.counts();
    assert!(counts.bytes <= SHARDS as u64 * 1000, "{counts:?}");
    assert_eq!(counts.entries + counts.evictions, 10_000);
    cache
        .begin_read(bytes("large"))
        .keep(Some(Bytes::from(vec![0; 2000])), &source, u64::MAX);
    assert_eq!(cache.look_up(b"large", 0), Lookup::Miss);
}

const KEYS: usize = 2;
const LEASE_NS: u64 = 100;
const NAMES: [&[u8]; KEYS] = [b"a", b"b"];

/// What a model of client, network and node does next.
#[derive(Debug, Clone)]
enum Step {
    /// Another client writes, and is told so.
    Write(usize),
    BeginRead(usize),
    BeginCheck,
    /// The node takes the next request.
    Serve,
    /// The client takes the next message.
    Receive,
    /// Everything arrives where it is sent.
    Settle,
    /// The first invalidation on its way is lost.
    Lose,
    /// The connection breaks, and there is a new one.
    Reconnect,
    /// Somebody else takes the node's place: writes go there, and it knows that it doesn't know.
    Replace,
    BeginOwnWrite(usize),
    ServeOwnWrite,
    EndOwnWrite,
    Pass(u64),
    Look(usize),
}

/// A step by what and about which key; from small numbers, since there are many steps.
fn step() -> impl Strategy<Value = Step> {
    (0..40_u8, 0..KEYS, 1..40_u64).prop_map(|(what, key, ns)| match what {
        0..3 => Step::Write(key),
        3..7 => Step::BeginRead(key),
        7..11 => Step::BeginCheck,
        11..15 => Step::Serve,
        15..19 => Step::Receive,
        19..22 => Step::Settle,
        22..24 => Step::Lose,
        24 if ns % 4 == 0 => Step::Replace,
        24 if ns % 2 == 0 => Step::Reconnect,
        26..28 => Step::BeginOwnWrite(key),
        28..30 => Step::ServeOwnWrite,
        30..32 => Step::EndOwnWrite,
        24..26 | 32..35 => Step::Pass(ns),
        _ => Step::Look(key),
    })
}

enum Up {
    Read(Reading, usize, u64),
    Check(u64),
}

enum Down {
    Invalidate(usize),
    Value(Reading, u64, u64),
    Checked(u64, CheckAnswer),
}

struct Model {
    cache: Arc<NearCache>,
    source: Arc<Source>,
    now_ns: u64,
    /// By key: when each version was acknowledged; the place is the version.
    acked: Vec<Vec<u64>>,
    /// By key: what the node has, which lags behind once it was replaced.
    has: [usize; KEYS],
    tracked: [bool; KEYS],
    sent: u64,
    replaced: bool,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    own: Option<(usize, bool)>,
    own_min: [usize; KEYS],
}

impl Model {
    fn new() -> Self {
        Self {
            cache: cache(),
            source: Arc::new(Source::new(LEASE_NS)),
            now_ns: 1000,
            acked: vec![vec![0]; KEYS],
            has: [0; KEYS],
            tracked: [false; KEYS],
            sent: 0,
            replaced: false,
            up: VecDeque::new(),
            down: VecDeque::new(),
            own: None,
            own_min: [0; KEYS],
        }
    }

    fn write(&mut self, key: usize) {
        self.acked[key].push(self.now_ns);
        if self.replaced {
            return;
        }
        self.has[key] += 1;
        if std::mem::take(&mut self.tracked[key]) {
            self.sent += 1;
            self.down.push_back(Down::Invalidate(key));
        }
    }

    fn serve(&mut self) {
        match self.up.pop_front() {
            // It doesn't answer for what others may have changed.
            Some(Up::Read(..)) if self.replaced => {}
            Some(Up::Read(reading, key, sent_ns)) => {
                self.tracked[key] = true;
                self.down
                    .push_back(Down::Value(reading, self.has[key] as u64, sent_ns));
            }
            Some(Up::Check(sent_ns)) => {
                let answer = CheckAnswer {
                    invalidations: Some(self.sent),
                    leases: !self.replaced,
                };
                self.down.push_back(Down::Checked(sent_ns, answer));
            }
            None => {}
        }
    }

    fn receive(&mut self) {
        match self.down.pop_front() {
            Some(Down::Invalidate(key)) => {
                self.source.count_invalidation();
                self.cache.invalidate(NAMES[key]);
            }
            Some(Down::Value(reading, version, sent_ns)) => {
                let value = Some(Bytes::copy_from_slice(&version.to_le_bytes()));
                reading.keep(value, &self.source, sent_ns + 10_000);
            }
            Some(Down::Checked(sent_ns, answer)) => {
                self.source.check(sent_ns, answer);
            }
            None => {}
        }
    }

    fn reconnect(&mut self) {
        self.source.end();
        self.source = Arc::new(Source::new(LEASE_NS));
        self.up.clear();
        self.down.clear();
        self.tracked = [false; KEYS];
        self.sent = 0;
        // To whoever serves now.
        self.replaced = false;
        self.has = std::array::from_fn(|key| self.acked[key].len() - 1);
    }

    fn own_write(&mut self, step: &Step) {
        match (step, self.own) {
            (Step::BeginOwnWrite(key), None) => {
                self.cache.overtake(NAMES[*key]);
                self.own = Some((*key, false));
            }
            (Step::ServeOwnWrite, Some((key, false))) => {
                self.write(key);
                self.own = Some((key, true));
            }
            (Step::EndOwnWrite, Some((key, true))) => {
                self.cache.overtake(NAMES[key]);
                self.own_min[key] = self.acked[key].len() - 1;
                self.own = None;
            }
            _ => {}
        }
    }

    fn look(&self, key: usize) -> Result<(), TestCaseError> {
        let Lookup::Hit(found) = self.cache.look_up(NAMES[key], self.now_ns) else {
            return Ok(());
        };
        let version = found.and_then(|bytes| Some(u64::from_le_bytes(bytes[..].try_into().ok()?)));
        let version = usize::try_from(version.unwrap()).unwrap();
        if let Some(&next) = self.acked[key].get(version + 1) {
            let age_ns = self.now_ns - next;
            prop_assert!(
                age_ns <= LEASE_NS,
                "version {version} of key {key} was replaced {age_ns} ns ago"
            );
        }
        prop_assert!(
            self.replaced || version >= self.own_min[key],
            "the client's own write isn't seen"
        );
        Ok(())
    }

    fn play(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Write(key) => self.write(key),
            Step::BeginRead(key) => {
                let reading = self.cache.begin_read(Bytes::from_static(NAMES[key]));
                self.up.push_back(Up::Read(reading, key, self.now_ns));
            }
            Step::BeginCheck => self.up.push_back(Up::Check(self.now_ns)),
            Step::Serve => self.serve(),
            Step::Receive => self.receive(),
            Step::Settle => {
                while !(self.up.is_empty() && self.down.is_empty()) {
                    self.serve();
                    self.receive();
                }
            }
            Step::Lose => {
                let is_one = |message: &Down| matches!(message, Down::Invalidate(_));
                if let Some(place) = self.down.iter().position(is_one) {
                    self.down.remove(place);
                }
            }
            Step::Reconnect => self.reconnect(),
            Step::Replace => self.replaced = true,
            Step::BeginOwnWrite(_) | Step::ServeOwnWrite | Step::EndOwnWrite => self.own_write(step),
            Step::Pass(ns) => self.now_ns += ns,
            Step::Look(key) => self.look(key)?,
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Whatever is delayed, lost or replaced, and in whatever order: nothing is served that was replaced longer than a lease
    /// ago, and nothing that the client itself has replaced.
    #[test]
    fn no_answer_is_older_than_the_lease(steps in prop::collection::vec(step(), 1..400)) {
        let mut model = Model::new();
        for step in &steps {
            model.play(step)?;
        }
    }
}

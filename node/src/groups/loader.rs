//! Does the loads, on a thread of its own: an origin that is slow, and the TLS to it, keep nobody else waiting.
//!
//! Groups share the thread and nothing else: each has its requests, its waiting loads and its look-ups of names, all in its
//! [lane](super::lane). What is long is stored elsewhere.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use http_body_util::BodyExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::breaker::Breaker;
use super::filter::ReadKeys;
use super::load::Loaded;
use super::origin::Fetched;
use super::remembered::Why;
use super::{Group, Job};
use crate::charge::Charge;
use crate::clock;
use crate::node::Node;
use crate::routing::Access;
use crate::stats::ThreadStats;
use crate::store::EvictionPolicy;
use crate::store::limits::Limits;

/// A load waits at least so long for other loads of its group, if there are as many as may be at a time.
const TURN_TIMEOUT_MIN: Duration = Duration::from_secs(5);

/// How often it is looked whether the ring has changed, and whether a list of keys is to be read.
const CHECK: Duration = Duration::from_millis(500);

/// A list of keys that couldn't be read is asked for again after so long at most.
const FILTER_AGAIN_MS: u64 = 10_000;

/// A list of keys that takes longer than that is given up.
const FILTER_TIMEOUT: Duration = Duration::from_mins(5);

/// Of the budget, a list of keys may take this part while it is read.
const FILTER_PART: u64 = 8;

/// To copy a longer value takes a while, in which the thread has others to look after.
const LONG_BYTES: usize = 1 << 20;

/// No key of a list is longer.
const LISTED_BYTES_MAX: usize = 4096;

/// Starts the thread; it ends by `stop`, and loads that are under way with it.
pub fn start(node: Arc<Node>, stop: CancellationToken) -> std::io::Result<()> {
    let Some(jobs) = node.groups.jobs_to_do.lock().take() else {
        return Ok(());
    };
    let runtime = super::lane::runtime()?;
    let thread = std::thread::Builder::new().name("origins".to_owned());
    thread.spawn(move || {
        runtime.block_on(work(node, jobs, stop));
        runtime.shutdown_background();
    })?;
    Ok(())
}

async fn work(node: Arc<Node>, mut jobs: UnboundedReceiver<Job>, stop: CancellationToken) {
    let stats = node.stats.register_thread();
    let mut gains = node.routing.gains();
    let mut checks = tokio::time::interval(CHECK);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            job = jobs.recv() => {
                let Some(job) = job else { return };
                let group = Arc::clone(&job.group);
                let lane = group.origin.lane();
                lane.spawn(load(Arc::clone(&node), Arc::clone(&stats), job));
            }
            _ = checks.tick() => {
                note_gains(&node, &mut gains);
                read_lists(&node, &stats);
            }
        }
    }
}

async fn load(node: Arc<Node>, stats: Arc<ThreadStats>, job: Job) {
    let began = clock::monotonic();
    let loaded = bring(&node, &stats, &job).await;
    let counters = job.group.counters();
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    counters.load_ms.add(took_ms);
    match &loaded {
        Loaded::Value(value) => {
            counters.loaded.add(1);
            counters.received_bytes.add(value.len() as u64);
        }
        Loaded::Absent => {
            counters.loaded_absent.add(1);
            if job.group.state.filter.is_there() {
                counters.false_positives.add(1);
            }
        }
        Loaded::Failed(_) => counters.loads_failed.add(1),
    }
    let is_long = matches!(&loaded, Loaded::Value(value) if value.len() > LONG_BYTES);
    let evicted = if is_long {
        let kept = tokio::task::spawn_blocking(move || {
            let evicted = keep(&node, &job, &loaded);
            job.load.finish(loaded);
            evicted
        });
        // If it ended early, the job has said so.
        kept.await.unwrap_or_default()
    } else {
        let evicted = keep(&node, &job, &loaded);
        job.load.finish(loaded);
        evicted
    };
    stats.evicted_keys.add(evicted);
}

/// Asks the origin, as often as it may be asked.
async fn bring(node: &Arc<Node>, thread: &ThreadStats, job: &Job) -> Loaded {
    let (group, state) = (&job.group, &job.group.state);
    let origin = &group.described.origin;
    let failed = |reason: String| Loaded::Failed(reason.into());
    let url = match group.url(&job.key) {
        Ok(url) => url,
        Err(error) => return failed(error.to_string()),
    };
    state.allow_requests(group.requests_max(node.store.slots()));
    let tries = u64::from(origin.retries) + 1;
    let patience = Duration::from_millis(origin.timeout_ms.saturating_mul(tries)).max(TURN_TIMEOUT_MIN);
    let Ok(Ok(_turn)) = timeout(patience, state.requests.acquire()).await else {
        job.give_up_probe();
        return failed(format!(
            "{} requests to its origin were under way for more than {} ms: raise maxConcurrent, or make the origin faster",
            group.requests_max(node.store.slots()),
            patience.as_millis()
        ));
    };
    let mut retry = 0;
    loop {
        group.counters().requests.add(1);
        let charge = Charge::new(Arc::clone(node), &group.keyspace);
        let fetched = group
            .origin
            .fetch(url.clone(), value_bytes_max(group), charge, thread);
        let fetched = fetched.await;
        let (reason, is_transient) = match fetched {
            Fetched::Failed { reason, is_transient } => (reason, is_transient),
            Fetched::Value(value) => {
                group.tell_breaker(Breaker::succeeded);
                return Loaded::Value(value);
            }
            Fetched::Absent => {
                group.tell_breaker(Breaker::succeeded);
                return Loaded::Absent;
            }
        };
        let clock_ms = node.store.journal.clock().now_ms();
        let may_go_on = if is_transient {
            let rules = group.rules();
            let told = group.tell_breaker(|breaker| {
                let was_allowed = breaker.allows(rules, clock_ms);
                breaker.failed(rules, clock_ms);
                (was_allowed, breaker.allows(rules, clock_ms))
            });
            if told == Some((true, false)) {
                group.counters().breaker_opened.add(1);
                warn!(group = group.label(), reason, "an origin is left in peace");
            }
            told.is_none_or(|(_, is_allowed)| is_allowed)
        } else {
            // It has answered: what is wrong is this key, or the group.
            group.tell_breaker(Breaker::succeeded);
            false
        };
        if !may_go_on || retry >= origin.retries {
            return failed(format!("the origin {reason}"));
        }
        let delay_ms = backoff_ms(
            (origin.backoff_ms, origin.backoff_max_ms),
            retry,
            node.store.random(),
        );
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        retry += 1;
        group.counters().retries.add(1);
    }
}

/// How long to wait before a retry: twice as long as before the last one, drawn from the upper half so that nodes and keys
/// don't come back together.
fn backoff_ms((first_ms, max_ms): (u64, u64), retry: u32, random: u64) -> u64 {
    let whole_ms = first_ms
        .saturating_mul(1 << retry.min(30))
        .min(max_ms.max(first_ms));
    whole_ms / 2 + random % (whole_ms / 2 + 1)
}

fn value_bytes_max(group: &Group) -> usize {
    let limits = group.keyspace.tenant().map(|space| &space.limits);
    let quota_bytes = limits.map_or(u64::MAX, Limits::value_bytes_max);
    let bytes_max = group.described.value_bytes_max.min(quota_bytes);
    usize::try_from(bytes_max).unwrap_or(usize::MAX)
}

/// Stores what was brought, and remembers what wasn't there, unless the key was written since or is served elsewhere. Says how
/// many entries made room.
fn keep(node: &Node, job: &Job, loaded: &Loaded) -> u64 {
    let (group, store) = (&job.group, &node.store);
    let now_ms = clock::now_ms();
    let mut evicted = 0;
    if let Loaded::Value(value) = loaded {
        let bytes = (value.len() + job.key.len()) as u64;
        evicted += store.evict_tenant(&group.keyspace, bytes, now_ms);
    }
    let mut guard = store.lock_slot_of(job.slot, &group.keyspace);
    let is_here = node.routing.access(job.slot) == Access::ReadWrite
        && node.routing.tenure(job.slot) == job.load.tenure();
    let may_write = is_here && !job.load.is_superseded() && store.journal.may_write(job.slot);
    let described = &group.described;
    let mut lesson = None;
    let is_kept = match loaded {
        Loaded::Value(value) => {
            let has_room =
                store.eviction() != EvictionPolicy::NoEviction || has_room(node, group, value.len());
            let expires_at_ms = now_ms.saturating_add(group.life(&job.key).kept_ms);
            may_write
                && has_room
                && guard
                    .set_string(&job.key, value, Some(expires_at_ms), now_ms)
                    .is_ok()
        }
        Loaded::Absent => {
            if may_write {
                guard.remove(&job.key, now_ms);
            }
            lesson = Some((Why::Absent, described.negative_ttl_ms));
            may_write
        }
        Loaded::Failed(reason) => {
            lesson = Some((Why::Failed(Arc::clone(reason)), described.failure_ttl_ms));
            true
        }
    };
    if !is_kept {
        group.counters().not_kept.add(1);
    }
    let lesson = lesson.filter(|(_, ttl_ms)| *ttl_ms > 0 && is_here);
    let clock_ms = store.journal.clock().now_ms();
    let lesson = lesson.map(|(why, ttl_ms)| (why, clock_ms.saturating_add(ttl_ms)));
    group.settle(&job.key, &job.load, lesson);
    drop(guard);
    if store.is_over_budget() {
        evicted += store.evict(now_ms);
    }
    evicted
}

/// Whether there is room for one more value where nothing is evicted.
fn has_room(node: &Node, group: &Group, bytes: usize) -> bool {
    let (store, tenant) = (&node.store, group.keyspace.tenant());
    !store.is_over_budget() && !tenant.is_some_and(|space| store.is_over_limits(space, bytes as u64))
}

/// Tells the groups when slots have come here since it was last looked.
fn note_gains(node: &Node, gains: &mut u64) {
    let now = node.routing.gains();
    if now != *gains {
        node.groups.note_gains();
    }
    *gains = now;
}

/// Begins to read the lists of keys that are due.
fn read_lists(node: &Arc<Node>, stats: &Arc<ThreadStats>) {
    if !node.groups.is_on() {
        return;
    }
    let clock_ms = node.store.journal.clock().now_ms();
    for group in node.groups.all() {
        let is_due = group.state.filter_due_ms.load(Ordering::Relaxed) <= clock_ms;
        if group.described.filter.is_some() && is_due {
            group.state.filter_due_ms.store(u64::MAX, Ordering::Relaxed);
            let lane = group.origin.lane().clone();
            lane.spawn(read_list(Arc::clone(node), Arc::clone(stats), group));
        }
    }
}

async fn read_list(node: Arc<Node>, thread: Arc<ThreadStats>, group: Arc<Group>) {
    let Some(filter) = &group.described.filter else {
        return;
    };
    let state = &group.state;
    let generation = state.filter.begin();
    // While it is read, a key takes up to two hashes.
    let keys_max = filter.keys_max.min(node.store.budget_bytes() / FILTER_PART / 16);
    // As long as the list is there.
    let mut charge = Charge::new(Arc::clone(&node), &group.keyspace);
    let mut has_room = |bytes| charge.set(bytes, &thread);
    let listed = listed_keys(&group, &filter.keys_url, keys_max, &mut has_room);
    let read = timeout(FILTER_TIMEOUT, listed);
    let read = read.await.unwrap_or_else(|_| Err("it took too long".to_owned()));
    let now_ms = clock::now_ms();
    let again_ms = match read {
        Ok(keys) => {
            let (count, per_million) = (keys.len(), filter.false_positives_per_million);
            // It may take a while, in which other loads go on.
            let of = Arc::clone(&group);
            let replace = move || of.state.filter.replace(generation, &keys, per_million, now_ms);
            let is_taken = tokio::task::spawn_blocking(replace).await;
            if is_taken.unwrap_or(false) {
                info!(group = group.label(), keys = count, "read the list of keys");
                filter.refresh_ms
            } else {
                warn!(
                    group = group.label(),
                    "the list of keys is of no use: too many writes meanwhile, or another one is wanted"
                );
                filter.refresh_ms.min(FILTER_AGAIN_MS)
            }
        }
        Err(reason) => {
            warn!(
                group = group.label(),
                reason, "the list of keys can't be read: the last one holds"
            );
            filter.refresh_ms.min(FILTER_AGAIN_MS)
        }
    };
    let due_ms = node.store.journal.clock().now_ms().saturating_add(again_ms);
    // Who described the group anew meanwhile wants it sooner.
    let stored = state
        .filter_due_ms
        .compare_exchange(u64::MAX, due_ms, Ordering::Relaxed, Ordering::Relaxed);
    stored.map(drop).unwrap_or_default();
}

/// The keys of a list, one a line, with the group's prefix.
async fn listed_keys(
    group: &Group,
    url: &str,
    keys_max: u64,
    has_room: &mut (dyn FnMut(usize) -> bool + Send),
) -> Result<ReadKeys, String> {
    let url = url.parse().map_err(|_| "keysURL is no URL".to_owned())?;
    let mut body = group.origin.open(url).await.map_err(|failed| match failed {
        Fetched::Failed { reason, .. } => reason,
        Fetched::Value(_) | Fetched::Absent => "there is no list".to_owned(),
    })?;
    let (mut keys, mut rest) = (ReadKeys::default(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("it ended half-way: {error}"))?;
        let Ok(data) = frame.into_data() else { continue };
        rest.extend_from_slice(&data);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest.split_to(end + 1);
            push(&mut keys, group, &line, keys_max)?;
        }
        if !has_room(keys.bytes() + rest.capacity()) {
            return Err("there is no memory for its keys now".to_owned());
        }
        if rest.len() > LISTED_BYTES_MAX {
            return Err(format!("a line is longer than {LISTED_BYTES_MAX} bytes"));
        }
    }
    push(&mut keys, group, &rest, keys_max)?;
    if keys.len() == 0 {
        return Err("it is empty: nothing would be asked for any more".to_owned());
    }
    Ok(keys)
}

fn push(keys: &mut ReadKeys, group: &Group, line: &[u8], keys_max: u64) -> Result<(), String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Ok(());
    }
    if keys.len() as u64 >= keys_max {
        return Err(format!(
            "it has more than {keys_max} keys, as many as maxKeys and the memory of this node allow"
        ));
    }
    keys.push(&[group.prefix().as_bytes(), line].concat());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_wait_twice_as_long_each_time() {
        for (retry, whole_ms) in [(0, 100), (1, 200), (2, 400), (3, 500), (40, 500)] {
            for random in [0, 7, 12_345, u64::MAX] {
                let delay_ms = backoff_ms((100, 500), retry, random);
                assert!(
                    (whole_ms / 2..=whole_ms).contains(&delay_ms),
                    "{retry}: {delay_ms}"
                );
            }
        }
        assert_eq!(backoff_ms((0, 0), 3, 99), 0);
    }
}

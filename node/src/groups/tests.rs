use annulus_proto::groups::{Group as Described, Origin};
use annulus_ring::Slot;

use super::*;
use crate::store::{EvictionPolicy, StoreOptions};

/// A group of the cluster's own keyspace.
pub(super) fn described(prefix: &str) -> Described {
    Described {
        tenant: TenantId::CLUSTER,
        namespace: "shop".to_owned(),
        name: format!("of-{}", prefix.len()),
        key_prefix: prefix.to_owned(),
        origin: Origin {
            url_template: "http://users.shop.svc/{key}".to_owned(),
            headers: Vec::new(),
            ca_pem: None,
            may_be_local: false,
            timeout_ms: 1000,
            retries: 0,
            backoff_ms: 10,
            backoff_max_ms: 100,
            concurrent_max: 32,
            breaker_failures: 3,
            breaker_open_ms: 1000,
        },
        soft_ttl_ms: 60_000,
        hard_ttl_ms: 600_000,
        jitter_percent: 0,
        negative_ttl_ms: 1000,
        failure_ttl_ms: 1000,
        stale_ms: 0,
        value_bytes_max: 1 << 20,
        filter: None,
    }
}

fn store() -> Store {
    Store::new(StoreOptions {
        budget_bytes: 64 << 20,
        eviction: EvictionPolicy::TinyLfu,
    })
}

fn read(groups: &Groups, key: &[u8], now_ms: u64) -> (Verdict, Option<Arc<Load>>) {
    read_in(Tenure(0), groups, key, now_ms)
}

fn read_in(tenure: Tenure, groups: &Groups, key: &[u8], now_ms: u64) -> (Verdict, Option<Arc<Load>>) {
    let group = groups.of(TenantId::CLUSTER, key).unwrap();
    let slot = Slot::for_key(key);
    group.decide(HeldKey { slot, tenure, key }, None, groups, (now_ms, 16384))
}

fn write(groups: &Groups, key: &[u8]) {
    groups.note_write(TenantId::CLUSTER, key, Tenure(0));
}

#[test]
fn a_key_is_in_the_group_whose_prefix_it_begins_with() {
    let (groups, store) = (Groups::default(), store());
    assert!(!groups.is_on());
    groups.follow(1, ["b", "user:", "order:"].map(described).to_vec(), &store);
    assert!(groups.is_on());
    for (key, expected) in [
        ("user:1", Some("user:")),
        ("user:", None),
        ("user", None),
        ("b1", Some("b")),
        ("order:\u{7f}", Some("order:")),
        ("a", None),
        ("z", None),
    ] {
        let found = groups.of(TenantId::CLUSTER, key.as_bytes());
        assert_eq!(found.as_ref().map(|group| group.prefix()), expected, "{key}");
    }
    assert!(groups.of(TenantId(1), b"user:1").is_none());
    groups.follow(1, Vec::new(), &store);
    assert!(groups.is_on(), "the same version says nothing new");
    groups.follow(2, Vec::new(), &store);
    assert!(!groups.is_on());
}

#[test]
fn all_reads_of_a_key_wait_for_one_load() {
    let (groups, store) = (Groups::default(), store());
    groups.follow(1, vec![described("user:")], &store);
    let (verdict, first) = read(&groups, b"user:1", 0);
    assert_eq!(verdict, Verdict::Load);
    for _ in 0..10 {
        let (verdict, joined) = read(&groups, b"user:1", 0);
        assert_eq!(verdict, Verdict::Load);
        assert!(Arc::ptr_eq(first.as_ref().unwrap(), &joined.unwrap()));
    }
    let counters = groups.all()[0].state.counters.began.get();
    assert_eq!(counters, 1);
    let mut jobs = groups.jobs_to_do.lock().take().unwrap();
    assert_eq!(*jobs.try_recv().unwrap().key, *b"user:1");
    assert!(jobs.try_recv().is_err());
}

#[test]
fn a_write_makes_the_next_read_load_anew() {
    let (groups, store) = (Groups::default(), store());
    groups.follow(1, vec![described("user:")], &store);
    let group = Arc::clone(&groups.all()[0]);
    let (_, first) = read(&groups, b"user:1", 0);
    write(&groups, b"user:1");
    assert!(first.as_ref().unwrap().is_superseded());
    let (_, second) = read(&groups, b"user:1", 0);
    assert!(!second.as_ref().unwrap().is_superseded());
    // The end of the first is not the end of the second, and tells nothing about the key.
    let absent = Some((Why::Absent, 1000));
    group.settle(b"user:1", &first.unwrap(), absent.clone());
    assert_eq!(read(&groups, b"user:1", 0).0, Verdict::Load);
    group.settle(b"user:1", &second.unwrap(), absent);
    assert_eq!(read(&groups, b"user:1", 0).0, Verdict::Absent);
    write(&groups, b"user:1");
    assert_eq!(read(&groups, b"user:1", 0).0, Verdict::Load);
    groups.note_flush(TenantId::CLUSTER);
    assert_eq!(group.sizes(), (0, 0));
}

#[test]
fn nothing_is_learned_for_the_time_after_somebody_else_had_the_slot() {
    let (groups, store) = (Groups::default(), store());
    groups.follow(1, vec![described("user:")], &store);
    let group = Arc::clone(&groups.all()[0]);
    let (_, former) = read(&groups, b"user:1", 0);
    let (_, other) = read(&groups, b"user:2", 0);
    group.settle(b"user:2", &other.unwrap(), Some((Why::Absent, 1000)));
    assert_eq!(read(&groups, b"user:2", 0).0, Verdict::Absent);
    // The slots went and came back.
    assert_eq!(read_in(Tenure(1), &groups, b"user:2", 0).0, Verdict::Load);
    let (verdict, next) = read_in(Tenure(1), &groups, b"user:1", 0);
    assert_eq!(verdict, Verdict::Load);
    assert!(
        !Arc::ptr_eq(former.as_ref().unwrap(), next.as_ref().unwrap()),
        "what it brings may be older than a write"
    );
    group.settle(b"user:1", &former.unwrap(), Some((Why::Absent, 1000)));
    let (_, joined) = read_in(Tenure(1), &groups, b"user:1", 0);
    assert!(Arc::ptr_eq(&next.unwrap(), &joined.unwrap()));
}

#[test]
fn what_was_learned_outlives_new_times_but_not_a_new_origin() {
    let (groups, store) = (Groups::default(), store());
    groups.follow(1, vec![described("user:")], &store);
    let (_, load) = read(&groups, b"user:1", 0);
    groups.all()[0].settle(b"user:1", &load.unwrap(), Some((Why::Absent, 1000)));
    let mut changed = described("user:");
    changed.soft_ttl_ms = 1;
    groups.follow(2, vec![changed.clone()], &store);
    assert_eq!(read(&groups, b"user:1", 0).0, Verdict::Absent);
    let (_, running) = read(&groups, b"user:2", 0);
    changed.origin.url_template = "http://other.shop.svc/{key}".to_owned();
    groups.follow(3, vec![changed], &store);
    assert!(running.unwrap().is_superseded(), "it asks the former origin");
    assert_eq!(read(&groups, b"user:1", 0).0, Verdict::Load);
}

#[test]
fn a_key_without_a_url_is_no_probe() {
    let (groups, store) = (Groups::default(), store());
    groups.follow(1, vec![described("user:")], &store);
    let state = Arc::clone(&groups.all()[0].state);
    state.keys.lock().breaker = Breaker::Open { until_ms: 1000 };
    assert_eq!(read(&groups, b"user:1", 999).0, Verdict::Refused);
    assert_eq!(read(&groups, b"user:a/../b", 1000).0, Verdict::Load);
    assert_eq!(read(&groups, b"user:1", 1000).0, Verdict::Load);
    assert_eq!(
        read(&groups, b"user:2", 1000).0,
        Verdict::Refused,
        "a probe is under way"
    );
    // A probe that ends without having asked makes place for another.
    let mut jobs = groups.jobs_to_do.lock().take().unwrap();
    while let Ok(job) = jobs.try_recv() {
        drop(job);
    }
    assert_eq!(read(&groups, b"user:2", 1000).0, Verdict::Load);
}

#[test]
fn what_was_learned_by_other_headers_is_forgotten() {
    let (groups, store) = (Groups::default(), store());
    groups.follow(1, vec![described("user:")], &store);
    let before = Arc::clone(&groups.all()[0]);
    for (key, lesson) in [
        (&b"user:absent"[..], Some((Why::Absent, 1000))),
        (b"user:failed", Some((Why::Failed("401".into()), 1000))),
    ] {
        let (_, load) = read(&groups, key, 0);
        before.settle(key, &load.unwrap(), lesson);
    }
    write(&groups, b"user:written");
    let (_, running) = read(&groups, b"user:1", 0);
    before.state.keys.lock().breaker = Breaker::Open { until_ms: 1000 };
    let mut changed = described("user:");
    changed.origin.headers = vec![("authorization".to_owned(), "Bearer new".to_owned())];
    groups.follow(2, vec![changed.clone()], &store);
    assert!(running.unwrap().is_superseded(), "it was asked by the former");
    for key in [&b"user:absent"[..], b"user:failed", b"user:1"] {
        assert_eq!(read(&groups, key, 0).0, Verdict::Load);
    }
    let group = Arc::clone(&groups.all()[0]);
    // What a client said isn't the origin's.
    let written = group
        .state
        .keys
        .lock()
        .remembered
        .of((Tenure(0), b"user:written"), 0)
        .cloned();
    assert_eq!(written, Some(Why::Written));
    // Requests by the former headers still fail.
    for _ in 0..10 {
        before.tell_breaker(|breaker| breaker.failed(before.rules(), 0));
    }
    assert_eq!(group.breaker(), 0);
    // And one that was begun under a shorter timeout.
    let (_, load) = read(&groups, b"user:late", 0);
    changed.origin.timeout_ms += 1;
    groups.follow(3, vec![changed], &store);
    group.settle(
        b"user:late",
        &load.unwrap(),
        Some((Why::Failed("late".into()), 1000)),
    );
    assert_eq!(read(&groups, b"user:late", 0).0, Verdict::Load);
}

#[test]
fn each_node_asks_by_its_share_of_the_slots() {
    let (groups, store) = (Groups::default(), store());
    groups.follow(1, vec![described("user:")], &store);
    let group = &groups.all()[0];
    for (slots, expected) in [(16384, 32), (8192, 16), (5461, 10), (100, 1), (0, 1)] {
        assert_eq!(group.requests_max(slots), expected, "{slots}");
    }
    for max in [4, 1, 3] {
        group.state.allow_requests(max);
        assert_eq!(group.state.requests.available_permits(), max);
    }
}

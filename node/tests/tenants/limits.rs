//! What tenants may use: memory, keys, rates, sizes, times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use annulus_node::store::{EvictionPolicy, Space};
use annulus_proto::tenants::{OverRate, Quota, Tenant, TenantId, TtlBounds};

use crate::support::{Client, Options, TestServer, encode};
use crate::world::{adopt, log_in, options, root, start, tenant, wait_for};

fn with_quota(id: u32, name: &str, quota: Quota) -> Tenant {
    Tenant {
        quota,
        ..tenant(id, name)
    }
}

fn space(server: &TestServer, id: u32) -> Arc<Space> {
    server.node.store.find_space(TenantId(id)).unwrap()
}

/// Writes keys of that many bytes, some of them large, and reads the replies.
fn churn(client: &mut Client, round: usize, value_bytes: usize) {
    let mut commands = Vec::new();
    for number in 0..50 {
        let key = format!("key{}", (round * 50 + number) * 7919 % 20_011);
        let value = vec![
            b'v';
            if number % 10 == 0 {
                value_bytes
            } else {
                value_bytes / 100
            }
        ];
        commands.extend(encode(&[b"SET", key.as_bytes(), &value]));
        commands.extend(encode(&[
            b"RPUSH",
            format!("list{}", number % 7).as_bytes(),
            &value[..value.len() / 50],
        ]));
        commands.extend(encode(&[b"DEL", format!("key{number}").as_bytes()]));
    }
    client.send(&commands);
    for _ in 0..150 {
        client.reply();
    }
}

/// Two tenants and the cluster's own clients write without end, on four threads: no tenant is ever more than a hundredth
/// above its quota, and what was counted is counted back when everything is gone.
#[test]
fn no_tenant_has_more_than_its_quota_under_churn() {
    const QUOTAS: [u64; 2] = [4 << 20, 8 << 20];
    for eviction in [
        EvictionPolicy::TinyLfu,
        EvictionPolicy::S3Fifo,
        EvictionPolicy::Lru,
    ] {
        let quota = |memory_bytes| Quota {
            memory_bytes: Some(memory_bytes),
            ..Quota::default()
        };
        let options = Options {
            threads: 4,
            eviction,
            budget_bytes: 64 << 20,
            ..options()
        };
        let tenants = vec![
            with_quota(1, "a", quota(QUOTAS[0])),
            with_quota(2, "b", quota(QUOTAS[1])),
        ];
        let server = start(&options, tenants);
        let ends = AtomicBool::new(false);
        let mut highest = [0; 2];
        std::thread::scope(|scope| {
            for (name, value_bytes) in [
                ("a", 30_000),
                ("a", 3000),
                ("b", 60_000),
                ("b", 500),
                ("default", 9000),
            ] {
                let mut client = match name {
                    "default" => root(&server),
                    name => log_in(&server, name),
                };
                let ends = &ends;
                scope.spawn(move || {
                    for round in 0.. {
                        if ends.load(Ordering::Relaxed) {
                            break;
                        }
                        churn(&mut client, round, value_bytes);
                    }
                });
            }
            let began = Instant::now();
            let has_evicted = |id| space(&server, id).counters.evictions.get() > 1000;
            while began.elapsed() < Duration::from_secs(2)
                || !(has_evicted(1) && has_evicted(2)) && began.elapsed() < Duration::from_mins(1)
            {
                for (place, id) in [1, 2].into_iter().enumerate() {
                    let used = server.node.store.own_bytes_of(&space(&server, id));
                    highest[place] = highest[place].max(used);
                }
                std::thread::sleep(Duration::from_micros(300));
            }
            ends.store(true, Ordering::Relaxed);
        });
        for (used, quota) in highest.into_iter().zip(QUOTAS) {
            assert!(used <= quota + quota / 100, "{eviction:?}: {used} of {quota}");
            assert!(
                used > quota * 9 / 10,
                "{eviction:?}: the quota was used: {used} of {quota}"
            );
        }
        let mut own = 0;
        for id in [1, 2] {
            let space = space(&server, id);
            assert!(space.counters.evictions.get() > 0);
            own += server.node.store.own_bytes_of(&space);
        }
        assert!(own < server.node.store.used_bytes());
        for mut client in [log_in(&server, "a"), log_in(&server, "b"), root(&server)] {
            client.check("FLUSHALL", "+OK\r\n");
        }
        for id in [1, 2] {
            assert_eq!(
                server.node.store.own_bytes_of(&space(&server, id)),
                0,
                "{eviction:?}"
            );
        }
        assert_eq!(server.node.store.all_keys(), 0);
    }
}

#[test]
fn a_noisy_tenant_evicts_nothing_of_a_guaranteed_one() {
    let guaranteed = |guaranteed_bytes| Quota {
        guaranteed_bytes,
        ..Quota::default()
    };
    let options = Options {
        budget_bytes: 8 << 20,
        eviction: EvictionPolicy::Lru,
        ..options()
    };
    let tenants = vec![
        with_quota(1, "quiet", guaranteed(3 << 20)),
        with_quota(2, "noisy", guaranteed(1 << 20)),
        with_quota(3, "guest", Quota::default()),
    ];
    let server = start(&options, tenants);
    let (mut quiet, mut noisy, mut guest) = (
        log_in(&server, "quiet"),
        log_in(&server, "noisy"),
        log_in(&server, "guest"),
    );
    let write = |client: &mut Client, keys: usize| {
        for number in 0..keys {
            client.send(encode(&[b"SET", format!("k{number}").as_bytes(), &[b'v'; 1000]]));
            client.expect("+OK\r\n");
        }
    };
    write(&mut quiet, 2500);
    // Lent as long as there is room.
    write(&mut guest, 3000);
    assert_eq!(space(&server, 3).counters.evictions.get(), 0);
    write(&mut noisy, 20_000);
    let evictions = [1, 2, 3].map(|id| space(&server, id).counters.evictions.get());
    assert_eq!(evictions[0], 0, "{evictions:?}");
    assert!(evictions[1] > 0 && evictions[2] > 1000, "{evictions:?}");
    quiet.check("DBSIZE", ":2500\r\n");
    let used = server.node.store.own_bytes_of(&space(&server, 2));
    assert!(
        used > 3 << 20,
        "whatever nobody else is guaranteed may be used: {used}"
    );
}

#[test]
fn a_tenant_has_so_many_keys_and_its_part_of_them_on_a_node() {
    let quota = Quota {
        keys: Some(1000),
        ..Quota::default()
    };
    let server = start(&options(), vec![with_quota(1, "shop", quota)]);
    let mut client = log_in(&server, "shop");
    let write = |client: &mut Client| {
        for number in 0..3000 {
            client.check(&format!("SET k{number} 1"), "+OK\r\n");
        }
    };
    write(&mut client);
    client.check("DBSIZE", ":1000\r\n");
    server.node.store.set_slots(16_384 / 4);
    write(&mut client);
    client.check("DBSIZE", ":250\r\n");
}

#[test]
fn without_eviction_a_full_tenant_is_refused_and_nobody_else() {
    let quota = Quota {
        memory_bytes: Some(1 << 20),
        ..Quota::default()
    };
    let options = Options {
        eviction: EvictionPolicy::NoEviction,
        ..options()
    };
    let server = start(&options, vec![with_quota(1, "full", quota), tenant(2, "other")]);
    let (mut full, mut other) = (log_in(&server, "full"), log_in(&server, "other"));
    let refused = (0..5000).find(|number| {
        full.send(encode(&[b"SET", format!("k{number}").as_bytes(), &[b'v'; 1000]]));
        full.reply().starts_with(b"-OOM")
    });
    assert!(refused.is_some_and(|number| number > 800), "{refused:?}");
    other.check("SET k 1", "+OK\r\n");
    full.check("DEL k1", ":1\r\n");
    full.check("GET k2", format!("$1000\r\n{}\r\n", "v".repeat(1000)));
}

#[test]
fn values_are_no_longer_than_they_may_be() {
    let quota = Quota {
        value_bytes_max: Some(1000),
        memory_bytes: Some(64 << 10),
        ..Quota::default()
    };
    let server = start(&options(), vec![with_quota(1, "shop", quota), tenant(2, "other")]);
    let (mut shop, mut other) = (log_in(&server, "shop"), log_in(&server, "other"));
    let (fits, long) = (vec![b'v'; 1000], vec![b'v'; 1001]);
    shop.send(encode(&[b"SET", b"k", &fits]));
    shop.expect("+OK\r\n");
    for command in [
        &[b"SET".as_slice(), b"k", &long] as &[&[u8]],
        &[b"HSET", b"h", b"f", &long],
    ] {
        shop.send(encode(command));
        let reply = String::from_utf8(shop.reply()).unwrap();
        assert!(
            reply.contains("may have 1000 bytes at most, by its quota"),
            "{reply}"
        );
        other.send(encode(command));
        assert!(!other.reply().starts_with(b"-"));
    }
    shop.check(
        "APPEND k v",
        "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
    );
    shop.send(encode(&[
        b"EVAL",
        b"return redis.pcall('SET', KEYS[1], ARGV[1])",
        b"1",
        b"k",
        &long,
    ]));
    let reply = String::from_utf8(shop.reply()).unwrap();
    assert!(reply.contains("by its quota"), "{reply}");
    // Nor is anything kept that is larger than all that the tenant may have; and it drives nothing out.
    let mut words: Vec<&[u8]> = vec![b"RPUSH", b"list"];
    words.resize(82, &fits);
    shop.send(encode(&words));
    let reply = String::from_utf8(shop.reply()).unwrap();
    assert!(reply.contains("does not fit"), "{reply}");
    shop.check("DBSIZE", ":1\r\n");
}

#[test]
fn entries_live_as_long_as_they_may() {
    let shop = Tenant {
        ttl: TtlBounds {
            default_ms: Some(50_000),
            max_ms: Some(100_000),
        },
        ..tenant(1, "shop")
    };
    let server = start(&options(), vec![shop]);
    let mut client = log_in(&server, "shop");
    let seconds = |client: &mut Client, key: &str| {
        let reply = client.ask(&format!("TTL {key}"));
        reply[1..].trim_end().parse::<i64>().unwrap()
    };
    for (commands, at_most) in [
        ("SET k 1", 50),
        ("SET k 1 EX 1000000", 100),
        ("SET k 1 EX 10", 10),
        ("SET k 2 KEEPTTL", 10),
        ("EXPIRE k 1000000", 100),
        ("PERSIST k", 100),
        ("INCR n", 50),
        ("RPUSH k 1", 50),
        ("HSET k f v", 50),
    ] {
        if commands.starts_with("RPUSH") || commands.starts_with("HSET") {
            client.ask("DEL k");
        }
        let reply = client.ask(commands);
        assert!(!reply.starts_with('-'), "{commands}: {reply}");
        let key = if commands.starts_with("INCR") { "n" } else { "k" };
        let found = seconds(&mut client, key);
        assert!((at_most - 1..=at_most).contains(&found), "{commands}: {found}");
    }
    let mut root = root(&server);
    root.check("SET k 1", "+OK\r\n");
    root.check("TTL k", ":-1\r\n");
}

fn rated(over_rate: OverRate) -> Quota {
    Quota {
        ops_per_second: Some(1000),
        over_rate,
        ..Quota::default()
    }
}

#[test]
fn operations_beyond_the_rate_are_refused_or_wait() {
    let tenants = vec![
        with_quota(1, "refused", rated(OverRate::Reject)),
        with_quota(2, "waits", rated(OverRate::Delay)),
        tenant(3, "other"),
    ];
    let server = start(&options(), tenants);
    let mut refused = log_in(&server, "refused");
    refused.send("PING\r\n".repeat(1000));
    let replies: Vec<String> = (0..1000)
        .map(|_| String::from_utf8(refused.reply()).unwrap())
        .collect();
    let done = replies.iter().filter(|reply| *reply == "+PONG\r\n").count();
    assert!((100..900).contains(&done), "{done} at once");
    let throttled = replies.iter().find(|reply| *reply != "+PONG\r\n").unwrap();
    let expected =
        "-THROTTLED tenant secret-namespace-of-refused/refused may run 1000 operations a second on this node";
    assert!(throttled.starts_with(expected), "{throttled}");
    assert!(space(&server, 1).counters.throttled.get() >= 100);

    let mut waits = log_in(&server, "waits");
    let began = Instant::now();
    waits.send("PING\r\n".repeat(600));
    // The thread serves others meanwhile.
    let mut other = log_in(&server, "other");
    let asked = Instant::now();
    other.check("PING", "+PONG\r\n");
    assert!(asked.elapsed() < Duration::from_millis(300));
    waits.expect("+PONG\r\n".repeat(600));
    let took = began.elapsed();
    assert!(
        (Duration::from_millis(400)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    assert!(space(&server, 2).counters.throttled.get() > 0);
    // Limits change live.
    adopt(
        &server,
        2,
        vec![tenant(1, "refused"), tenant(2, "waits"), tenant(3, "other")],
    );
    for client in [&mut refused, &mut waits] {
        client.send("PING\r\n".repeat(3000));
        client.expect("+PONG\r\n".repeat(3000));
    }
}

fn metered(over_rate: OverRate) -> Quota {
    Quota {
        bytes_per_second: Some(1 << 20),
        over_rate,
        ..Quota::default()
    }
}

#[test]
fn bytes_beyond_the_rate_are_paid_back_before_the_next_command() {
    let tenants = vec![
        with_quota(1, "refused", metered(OverRate::Reject)),
        with_quota(2, "waits", metered(OverRate::Delay)),
        with_quota(3, "listens", metered(OverRate::Reject)),
        tenant(4, "other"),
    ];
    let server = start(&options(), tenants);
    let large = vec![b'v'; 4 << 20];
    let set = encode(&[b"SET", b"k", &large]);

    // One command may be larger than a second's bytes, as a request and as a reply. It is what comes behind it that pays.
    let mut refused = log_in(&server, "refused");
    refused.send(&set);
    refused.expect("+OK\r\n");
    let expected = "-THROTTLED tenant secret-namespace-of-refused/refused may send and receive 1048576 bytes a second on this node";
    let reply = refused.ask("GET k");
    assert!(reply.starts_with(expected), "{reply}");
    // So do all of its connections, which can log in all the same.
    let reply = log_in(&server, "refused").ask("PING");
    assert!(reply.starts_with(expected), "{reply}");
    assert!(space(&server, 1).counters.throttled.get() >= 2);
    // Refused requests cost nothing: whoever tries again gets through.
    let until_taken = |refused: &mut Client, command: &[u8]| {
        let began = Instant::now();
        loop {
            refused.send(command);
            let reply = refused.reply();
            if !reply.starts_with(b"-THROTTLED") {
                return reply;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "four seconds are owed");
        }
    };
    assert_eq!(until_taken(&mut refused, &set), b"+OK\r\n");
    assert!(until_taken(&mut refused, b"GET k\r\n").len() > large.len());
    let reply = refused.ask("PING");
    assert!(reply.starts_with(expected), "the reply was paid for: {reply}");

    let mut waits = log_in(&server, "waits");
    let began = Instant::now();
    waits.send(encode(&[b"SET", b"k", &vec![b'v'; 1 << 20]]));
    waits.send("PING\r\n");
    let mut other = log_in(&server, "other");
    other.check("PING", "+PONG\r\n");
    waits.expect("+OK\r\n+PONG\r\n");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(800), "{took:?}");
    assert_eq!(space(&server, 2).counters.throttled.get(), 1);

    // Messages count for who hears them, as often as they are heard.
    let (mut listens, mut speaks) = (log_in(&server, "listens"), log_in(&server, "listens"));
    listens.ask("SUBSCRIBE news");
    speaks.send(encode(&[b"PUBLISH", b"news", &vec![b'v'; 90 << 10]]));
    speaks.expect(":1\r\n");
    assert!(listens.reply().len() > 90 << 10);
    let reply = speaks.ask("PING");
    assert!(reply.starts_with("-THROTTLED"), "{reply}");

    // Limits change live.
    let free = ["refused", "waits", "listens", "other"];
    let free = (1..).zip(free).map(|(id, name)| tenant(id, name)).collect();
    adopt(&server, 2, free);
    for client in [&mut refused, &mut waits] {
        client.send(&set);
        client.send("PING\r\n");
        client.expect("+OK\r\n+PONG\r\n");
    }
}

/// Many connections of one tenant keep a thread busy: another tenant's command waits for turns, not for all of them.
#[test]
fn another_tenants_command_waits_for_one_turn() {
    let server = start(&options(), vec![tenant(1, "noisy"), tenant(2, "quiet")]);
    let ends = AtomicBool::new(false);
    let mut quiet = log_in(&server, "quiet");
    let mut noisy: Vec<Client> = (0..20).map(|_| log_in(&server, "noisy")).collect();
    // Commands of some ten milliseconds each.
    let script: &[u8] = b"local n = 0 for i = 1, 3e5 do n = n + i end return n";
    let pipeline = encode(&[b"EVAL", script, b"0"]).repeat(20);
    let mut longest = Duration::ZERO;
    std::thread::scope(|scope| {
        for client in &mut noisy {
            let (ends, pipeline) = (&ends, &pipeline);
            scope.spawn(move || {
                while !ends.load(Ordering::Relaxed) {
                    client.send(pipeline);
                    for _ in 0..20 {
                        client.reply();
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(200));
        for _ in 0..20 {
            let asked = Instant::now();
            quiet.check("PING", "+PONG\r\n");
            longest = longest.max(asked.elapsed());
        }
        ends.store(true, Ordering::Relaxed);
    });
    // All of the others' pipelines together are some seconds of work; so is each round of turns of all connections.
    assert!(longest < Duration::from_millis(400), "{longest:?}");
}

/// Whoever logs in and works in one breath waits like everybody.
#[test]
fn a_login_in_front_of_a_batch_is_no_way_around_the_rate() {
    let mut slow = tenant(1, "slow");
    slow.quota = Quota {
        ops_per_second: Some(1),
        over_rate: OverRate::Delay,
        ..Quota::default()
    };
    let server = start(&options(), vec![slow]);
    let mut client = server.connect();
    client.send("AUTH slow secret-slow\r\n".to_owned() + &"PING\r\n".repeat(100));
    client.expect("+OK\r\n");
    wait_for("the batch waits", || {
        space(&server, 1).counters.throttled.get() == 1
    });
}

#[test]
fn a_transaction_holds_its_slot_for_a_while_only() {
    let server = start(&options(), vec![tenant(1, "noisy")]);
    let mut noisy = log_in(&server, "noisy");
    noisy.check("MULTI", "+OK\r\n");
    let script: &[u8] = b"local n = 0 for i = 1, 3e5 do n = n + i end return n";
    for _ in 0..100 {
        noisy.send(encode(&[b"EVAL", script, b"1", b"key"]));
        noisy.expect("+QUEUED\r\n");
    }
    let reply = noisy.ask("EXEC");
    let (done, refused) = (
        reply.matches(":45000150000\r\n").count(),
        reply.matches("-ERR not executed").count(),
    );
    assert!(
        done > 0 && refused > 0 && done + refused == 100,
        "{done} and {refused}: {reply}"
    );
    noisy.check("GET key", "$-1\r\n");
}

use std::sync::Arc;

use annulus_node::clock;
use annulus_node::connection::Pipeline;

use crate::origin::Mode;
use crate::support::Client;
use crate::world::{World, bulk, wait_for};

#[test]
fn a_plain_get_loads_a_value_and_keeps_it() {
    let world = World::start(|group| {
        group.origin.headers = vec![("authorization".to_owned(), "Bearer s3cret".to_owned())];
    });
    let mut client = world.connect();
    client.check("GET user:42", bulk("value-of-/u/42-1"));
    client.check("GET user:42", bulk("value-of-/u/42-1"));
    assert_eq!(world.origin.asked("/u/42"), 1);
    assert_eq!(
        world.origin.header("authorization").as_deref(),
        Some("Bearer s3cret")
    );
    client.check("STRLEN user:42", ":16\r\n");
    client.check("GET other:42", "$-1\r\n");
    client.check("GET user:", "$-1\r\n");
    assert_eq!(world.origin.asked_in_all(), 1);
    let counters = world.group();
    let counters = counters.counters();
    assert_eq!(
        (counters.began.get(), counters.fresh.get(), counters.loaded.get()),
        (1, 1, 1)
    );
}

#[test]
fn commands_that_are_no_plain_reads_load_nothing() {
    let world = World::start(|_| {});
    let mut client = world.connect();
    client.check("EXISTS user:1", ":0\r\n");
    client.check("MULTI", "+OK\r\n");
    client.check("GET user:1", "+QUEUED\r\n");
    client.check("EXEC", "*1\r\n$-1\r\n");
    client.send(crate::support::encode(&[
        b"EVAL",
        b"return redis.call('GET',KEYS[1])",
        b"1",
        b"user:1",
    ]));
    client.expect("$-1\r\n");
    client.check("GETDEL user:1", "$-1\r\n");
    assert_eq!(world.origin.asked_in_all(), 0);
}

#[test]
fn many_readers_cause_one_request() {
    let world = World::start(|_| {});
    world.origin.set(Mode::Wait);
    let mut clients: Vec<Client> = (0..200).map(|_| world.connect()).collect();
    for client in &mut clients {
        client.command("GET user:1");
    }
    let group = world.group();
    wait_for("all wait", || group.counters().joined.get() == 199);
    // Whoever asked first goes; the load goes on.
    drop(clients.remove(0));
    world.origin.let_go();
    for client in &mut clients {
        client.expect(bulk("value-of-/u/1-1"));
    }
    assert_eq!(world.origin.asked_in_all(), 1);
}

#[test]
fn replies_keep_their_order_and_several_keys_are_loaded_at_once() {
    let world = World::start(|_| {});
    let mut client = world.connect();
    client.check("SET user:{a}set x", "+OK\r\n");
    client.send("PING\r\nGET user:7\r\nPING\r\nMGET user:{a}1 other{a} user:{a}set user:{a}2\r\nPING\r\n");
    client.expect("+PONG\r\n");
    client.expect(bulk("value-of-/u/7-1"));
    client.expect("+PONG\r\n*4\r\n");
    client.expect(bulk("value-of-/u/%7Ba%7D1-1"));
    client.expect("$-1\r\n$1\r\nx\r\n");
    client.expect(bulk("value-of-/u/%7Ba%7D2-1"));
    client.expect("+PONG\r\n");
    assert_eq!(world.origin.asked_in_all(), 3);
}

#[test]
fn that_there_is_nothing_is_remembered_until_somebody_writes() {
    let world = World::start(|_| {});
    let mut client = world.connect();
    for status in [404, 410] {
        world.origin.set(Mode::Status(status));
        let key = format!("GET user:{status}");
        for _ in 0..3 {
            client.check(&key, "$-1\r\n");
        }
        assert_eq!(world.origin.asked(&format!("/u/{status}")), 1);
    }
    client.check("DEL user:404", ":0\r\n");
    world.origin.set(Mode::Answer);
    client.check("GET user:404", bulk("value-of-/u/404-2"));
    client.check("GET user:410", "$-1\r\n");
    client.check("FLUSHALL", "+OK\r\n");
    client.check("GET user:410", bulk("value-of-/u/410-2"));
}

#[test]
fn what_fails_is_an_error_that_says_why() {
    let world = World::start(|group| {
        group.value_bytes_max = 100;
        group.origin.timeout_ms = 300;
    });
    let mut client = world.connect();
    for (number, (mode, reason)) in [
        (Mode::Status(500), "the origin answered 500"),
        (Mode::Status(302), "redirects are not followed"),
        (Mode::Status(403), "403"),
        (Mode::HalfWay, "half-way"),
        (Mode::Bytes(101), "maxValueBytes"),
        (Mode::Hang, "within 300 ms"),
    ]
    .into_iter()
    .enumerate()
    {
        world.origin.set(mode);
        for _ in 0..2 {
            let reply = client.ask(&format!("GET user:{number}"));
            assert!(
                reply.starts_with("-ORIGIN group shop/users: ") && reply.contains(reason),
                "{reply}"
            );
        }
        assert_eq!(world.origin.asked(&format!("/u/{number}")), 1, "it is remembered");
    }
    world.origin.set(Mode::Bytes(100));
    client.check("GET user:long", bulk(&"x".repeat(100)));
    let reply = client.ask("GET user:a/../b");
    assert!(reply.contains("path segment"), "{reply}");
    assert_eq!(world.group().counters().loads_failed.get(), 7);
}

#[test]
fn what_may_pass_is_tried_again() {
    let world = World::start(|group| group.origin.retries = 2);
    let mut client = world.connect();
    world.origin.set(Mode::Status(503));
    let reply = client.ask("GET user:1");
    assert!(reply.contains("503"), "{reply}");
    assert_eq!(world.origin.asked("/u/1"), 3);
    world.origin.set(Mode::Status(400));
    client.ask("GET user:2");
    assert_eq!(
        world.origin.asked("/u/2"),
        1,
        "it says that it will be so the next time"
    );
}

#[test]
fn a_failing_origin_is_left_in_peace() {
    let world = World::start(|group| {
        group.origin.breaker_failures = 3;
        group.failure_ttl_ms = 0;
    });
    let mut client = world.connect();
    world.origin.set(Mode::Status(500));
    for number in 0..10 {
        let reply = client.ask(&format!("GET user:{number}"));
        let expected = if number < 3 { "500" } else { "circuit breaker" };
        assert!(reply.contains(expected), "{number}: {reply}");
    }
    assert_eq!(world.origin.asked_in_all(), 3);
    assert_eq!(world.group().breaker(), 2);
    assert_eq!(world.group().counters().breaker_opened.get(), 1);
}

#[test]
fn a_probe_tells_that_the_origin_is_back() {
    let world = World::start(|group| {
        (group.origin.breaker_failures, group.origin.breaker_open_ms) = (1, 50);
        group.failure_ttl_ms = 0;
    });
    let mut client = world.connect();
    world.origin.set(Mode::Status(500));
    client.ask("GET user:1");
    world.origin.set(Mode::Answer);
    wait_for("it is tried again", || client.ask("GET user:2").contains("value"));
    assert_eq!(world.group().breaker(), 0);
}

#[test]
fn no_more_requests_are_open_than_may_be() {
    let world = World::start(|group| group.origin.concurrent_max = 5);
    world.origin.set(Mode::Wait);
    let mut clients: Vec<Client> = (0..50).map(|_| world.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.command(&format!("GET user:{number}"));
    }
    wait_for("five are asked for", || world.origin.asked_in_all() == 5);
    let group = world.group();
    wait_for("the others wait", || group.sizes().0 == 50);
    world.origin.let_go();
    for (number, client) in clients.iter_mut().enumerate() {
        client.expect(bulk(&format!("value-of-/u/{number}-1")));
    }
    assert_eq!(
        (world.origin.asked_in_all(), world.origin.under_way_max()),
        (50, 5)
    );
}

#[test]
fn what_is_remembered_doesnt_depend_on_a_clock_that_may_be_set() {
    let world = World::start(|group| group.origin.breaker_failures = 1);
    let mut client = world.connect();
    world.origin.set(Mode::Status(404));
    client.check("GET user:absent", "$-1\r\n");
    world.origin.set(Mode::Status(500));
    client.ask("GET user:failed");
    let node = &world.server.node;
    let now_ms = clock::now_ms();
    let client = node.clients.of_peer(now_ms);
    let mut pipeline = Pipeline::new(Arc::clone(node), node.stats.register_thread(), client);
    for wall_ms in [now_ms + 3_600_000, now_ms - 3_600_000] {
        for (key, expected) in [
            ("absent", "$-1\r\n"),
            ("failed", "-ORIGIN group shop/users: the origin answered 500"),
            ("other", "-ORIGIN group shop/users: its origin failed too often"),
        ] {
            pipeline.receive(format!("GET user:{key}\r\n").as_bytes());
            pipeline.process(wall_ms);
            let reply = String::from_utf8_lossy(pipeline.unsent()).into_owned();
            assert!(reply.starts_with(expected), "{key}: {reply}");
            pipeline.mark_sent(reply.len());
        }
    }
    assert_eq!(world.origin.asked_in_all(), 2);
}

#[test]
fn a_soft_value_is_served_and_loaded_anew_behind() {
    let world = World::start(|group| group.soft_ttl_ms = 1);
    let mut client = world.connect();
    client.check("GET user:1", bulk("value-of-/u/1-1"));
    world.origin.set(Mode::Wait);
    wait_for("it is soft", || {
        client.check("GET user:1", bulk("value-of-/u/1-1"));
        world.origin.asked("/u/1") == 2
    });
    // While that load is under way, and after one that fails.
    for _ in 0..10 {
        client.check("GET user:1", bulk("value-of-/u/1-1"));
    }
    assert_eq!(world.origin.asked("/u/1"), 2);
    world.origin.let_go();
    wait_for("the new value", || {
        client.ask("GET user:1") == bulk("value-of-/u/1-2")
    });
}

#[test]
fn a_failing_origin_makes_old_values_do() {
    let world = World::start(|group| {
        (group.soft_ttl_ms, group.hard_ttl_ms, group.stale_ms) = (1, 1, 600_000);
    });
    let mut client = world.connect();
    client.check("GET user:1", bulk("value-of-/u/1-1"));
    world.origin.set(Mode::Status(500));
    let group = world.group();
    wait_for("it is beyond its hard TTL", || {
        client.check("GET user:1", bulk("value-of-/u/1-1"));
        group.counters().stale.get() > 0
    });
    client.check("GET user:1", bulk("value-of-/u/1-1"));
    assert_eq!(world.origin.asked("/u/1"), 2, "the failure is remembered");
    // That it is gone is no failure.
    client.check("DEL user:1", ":1\r\n");
    world.origin.set(Mode::Status(404));
    client.check("GET user:1", "$-1\r\n");
}

#[test]
fn what_a_client_writes_wins_over_a_load() {
    let world = World::start(|_| {});
    let (mut reader, mut writer) = (world.connect(), world.connect());
    let group = world.group();
    for (write, then) in [("SET user:1 mine", "mine"), ("DEL user:1", "value-of-/u/1-3")] {
        writer.check("DEL user:1", if then == "mine" { ":0\r\n" } else { ":1\r\n" });
        world.origin.set(Mode::Wait);
        reader.command("GET user:1");
        wait_for("a load", || group.sizes().0 == 1);
        writer.command(write);
        writer.reply();
        world.origin.let_go();
        reader.reply();
        reader.check("GET user:1", bulk(then));
    }
}

#[test]
fn what_changes_nothing_takes_nothing_from_a_load() {
    let world = World::start(|_| {});
    let (mut reader, mut writer) = (world.connect(), world.connect());
    let group = world.group();
    world.origin.set(Mode::Wait);
    reader.command("GET user:1");
    wait_for("a load", || group.sizes().0 == 1);
    for (command, reply) in [
        ("EXPIRE user:1 60", ":0\r\n"),
        ("PERSIST user:1", ":0\r\n"),
        ("SET user:1 mine XX", "$-1\r\n"),
        ("HDEL user:1 field", ":0\r\n"),
        ("MULTI", "+OK\r\n"),
        ("EXPIRE user:1 60", "+QUEUED\r\n"),
        ("EXEC", "*1\r\n:0\r\n"),
    ] {
        writer.check(command, reply);
    }
    assert_eq!(group.sizes().0, 1, "it is under way still");
    world.origin.let_go();
    reader.expect(bulk("value-of-/u/1-1"));
    // It was kept; and one that is there isn't set.
    writer.check("SET user:1 mine NX", "$-1\r\n");
    reader.check("GET user:1", bulk("value-of-/u/1-1"));
    assert_eq!(world.origin.asked_in_all(), 1);
    // What changes something in a transaction does.
    world.origin.set(Mode::Wait);
    reader.command("GET user:2");
    wait_for("a load", || group.sizes().0 == 1);
    for (command, reply) in [
        ("MULTI", "+OK\r\n"),
        ("SET user:2 mine NX", "+QUEUED\r\n"),
        ("EXEC", "*1\r\n+OK\r\n"),
    ] {
        writer.check(command, reply);
    }
    world.origin.let_go();
    reader.reply();
    reader.check("GET user:2", bulk("mine"));
}

#[test]
fn a_hit_needs_no_origin() {
    let world = World::start(|_| {});
    let mut client = world.connect();
    client.check("SET user:1 mine", "+OK\r\n");
    client.check("HSET user:2 field value", ":1\r\n");
    client.check("GET user:1", bulk("mine"));
    let reply = client.ask("GET user:2");
    assert!(reply.starts_with("-WRONGTYPE"), "{reply}");
    client.check("MGET user:2", "*1\r\n$-1\r\n");
    assert_eq!(world.origin.asked_in_all(), 0);
}

#[test]
fn a_client_that_sends_no_more_is_answered_still() {
    let world = World::start(|_| {});
    let mut client = world.connect();
    world.origin.set(Mode::Wait);
    client.command("GET user:1");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    wait_for("a load", || world.origin.asked_in_all() == 1);
    world.origin.let_go();
    assert_eq!(String::from_utf8(client.rest()).unwrap(), bulk("value-of-/u/1-1"));
}

#[test]
fn metrics_tell_what_groups_do() {
    let world = World::start(|_| {});
    let mut client = world.connect();
    client.ask("GET user:1");
    client.ask("GET user:1");
    let sources = annulus_node::metrics::Sources {
        node: std::sync::Arc::clone(&world.server.node),
        tls: None,
        member: None,
    };
    let text = annulus_node::metrics::Metrics::new(sources).text().unwrap();
    for line in [
        "annulus_group_reads_total{group=\"shop/users\",outcome=\"fresh\"} 1",
        "annulus_group_reads_total{group=\"shop/users\",outcome=\"loading\"} 1",
        "annulus_group_loads_total{group=\"shop/users\",outcome=\"value\"} 1",
        "annulus_group_origin_requests_total{group=\"shop/users\"} 1",
        "annulus_group_origin_received_bytes_total{group=\"shop/users\"} 15",
        "annulus_group_breaker{group=\"shop/users\"} 0",
    ] {
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
}

#[test]
fn what_a_client_sets_lives_as_long_as_it_says() {
    let world = World::start(|group| {
        (group.soft_ttl_ms, group.hard_ttl_ms, group.stale_ms) = (1000, 600_000, 600_000);
    });
    let mut client = world.connect();
    // Shorter than the group keeps what it loads.
    client.check("SET user:1 mine EX 60", "+OK\r\n");
    for _ in 0..3 {
        client.check("GET user:1", bulk("mine"));
    }
    client.check("HSET user:2 field value", ":1\r\n");
    client.check("EXPIRE user:2 60", ":1\r\n");
    assert!(client.ask("GET user:2").starts_with("-WRONGTYPE"));
    assert_eq!(world.origin.asked_in_all(), 0);
    client.check("DEL user:1", ":1\r\n");
    client.check("GET user:1", bulk("value-of-/u/1-1"));
}

#[test]
fn many_keys_of_one_command_are_loaded_in_rounds() {
    let world = World::start(|_| {});
    let mut client = world.connect();
    let keys: Vec<String> = (0..600).map(|number| format!("user:{{a}}{number}")).collect();
    client.command(&format!("MGET {}", keys.join(" ")));
    client.expect("*600\r\n");
    for number in 0..600 {
        client.expect(bulk(&format!("value-of-/u/%7Ba%7D{number}-1")));
    }
    assert_eq!(world.origin.asked_in_all(), 600);
}

//! What users do with scripts.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Options, TestServer, encode};
use crate::{check, eval, short};

#[test]
fn a_rate_limiter_counts_and_expires() {
    const LIMITER: &str = "
        local count = redis.call('INCR', KEYS[1])
        if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
        if count > tonumber(ARGV[2]) then return {0, redis.call('PTTL', KEYS[1]) > 0} end
        return {1, count}";
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    for count in 1..=3 {
        let reply = eval(&mut client, LIMITER, &["rate:{u1}"], &["60000", "3"]);
        assert_eq!(short(&reply), format!("*2 :1 :{count}"));
    }
    assert_eq!(
        short(&eval(&mut client, LIMITER, &["rate:{u1}"], &["60000", "3"])),
        "*2 :0 :1"
    );
    assert!(client.ask("PTTL rate:{u1}").as_str() > ":1");
}

#[test]
fn a_lock_is_released_by_its_owner_only() {
    const RELEASE: &str =
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("SET lock token NX PX 30000", "+OK\r\n");
    assert_eq!(eval(&mut client, RELEASE, &["lock"], &["other"]), ":0\r\n");
    assert_eq!(eval(&mut client, RELEASE, &["lock"], &["token"]), ":1\r\n");
    assert_eq!(eval(&mut client, RELEASE, &["lock"], &["token"]), ":0\r\n");
}

#[test]
fn a_sliding_window_forgets() {
    const WINDOW: &str = "
        local now, window, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
        if redis.call('ZCARD', KEYS[1]) >= limit then return 0 end
        redis.call('ZADD', KEYS[1], now, now)
        redis.call('PEXPIRE', KEYS[1], window)
        return 1";
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    for (now, allowed) in [(1000, 1), (1100, 1), (1200, 0), (2050, 1), (2060, 0), (2200, 1)] {
        let reply = eval(&mut client, WINDOW, &["window"], &[&now.to_string(), "1000", "2"]);
        assert_eq!(reply, format!(":{allowed}\r\n"), "{now}");
    }
}

#[test]
fn json_is_read_and_written() {
    const PATCH: &str = "
        local user = cjson.decode(redis.call('GET', KEYS[1]) or '{}')
        for name, value in pairs(cjson.decode(ARGV[1])) do user[name] = value end
        redis.call('SET', KEYS[1], cjson.encode(user))
        return user.name";
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    let reply = eval(
        &mut client,
        PATCH,
        &["user"],
        &[r#"{"name":"Ada","tags":[1,2.5,null]}"#],
    );
    assert_eq!(reply, "$3\r\nAda\r\n");
    eval(&mut client, PATCH, &["user"], &[r#"{"name":"Bob"}"#]);
    let stored = client.ask("GET user");
    assert!(
        stored.contains(r#""name":"Bob""#) && stored.contains(r#""tags":[1,2.5,null]"#),
        "{stored}"
    );
}

#[test]
fn scripts_are_known_by_their_sha_1() {
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    let mut client = server.connect();
    let sha = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";
    client.check(
        &format!("EVALSHA {sha} 0"),
        "-NOSCRIPT No matching script. Please use EVAL.\r\n",
    );
    client.send(encode(&[b"SCRIPT", b"LOAD", b"return 1"]));
    client.expect(format!("$40\r\n{sha}\r\n"));
    // On whichever thread a connection is.
    for _ in 0..8 {
        let mut other = server.connect();
        other.check(&format!("EVALSHA {} 0", sha.to_uppercase()), ":1\r\n");
        other.check(&format!("EVALSHA_RO {sha} 0"), ":1\r\n");
    }
    client.check(&format!("SCRIPT EXISTS {sha} x"), "*2\r\n:1\r\n:0\r\n");
    assert!(
        client
            .ask("INFO memory")
            .contains("number_of_cached_scripts:1\r\n")
    );
    client.check(
        "SCRIPT FLUSH x",
        "-ERR SCRIPT FLUSH only support SYNC|ASYNC option\r\n",
    );
    client.check("SCRIPT FLUSH ASYNC", "+OK\r\n");
    client.check(&format!("SCRIPT EXISTS {sha}"), "*1\r\n:0\r\n");
    client.check(
        &format!("EVALSHA {sha} 0"),
        "-NOSCRIPT No matching script. Please use EVAL.\r\n",
    );
    assert_eq!(eval(&mut client, "return 1", &[], &[]), ":1\r\n");
    client.check(&format!("EVALSHA {sha} 0"), ":1\r\n");
    // What can't be compiled is not known.
    check(
        &mut client,
        "return (",
        "-ERR Error compiling script (new function): user_script:1: unexpected symbol near '<eof>'",
    );
    assert!(
        client
            .ask("INFO memory")
            .contains("number_of_cached_scripts:1\r\n")
    );
}

#[test]
fn errors_can_be_caught() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("SET {t}s text", "+OK\r\n");
    for (script, expected) in [
        (
            "return redis.pcall('incr', '{t}s').err",
            "$43 ERR value is not an integer or out of range",
        ),
        (
            "local ok, e = pcall(redis.call, 'incr', '{t}s') return {tostring(ok), e}",
            "*2 $5 false $43 ERR value is not an integer or out of range",
        ),
        (
            "local ok, e = pcall(cjson.decode, '[') return e",
            "$45 Expected value but found T_END at character 2",
        ),
        (
            "local ok, e = pcall(function() error('x') end) return e",
            "$16 user_script:1: x",
        ),
        (
            "local _, e = xpcall(function() redis.call('nosuch') end, function(e) return e.err .. '!' end) return e",
            "$45 ERR Unknown Redis command called from script!",
        ),
        (
            "local co = coroutine.create(function() redis.call('nosuch') end)
             local _, e = coroutine.resume(co) return e.err",
            "$44 ERR Unknown Redis command called from script",
        ),
        (
            "redis.call('set', '{t}a', 1) return redis.call('lpush', '{t}s', 1)",
            "-WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
    ] {
        check(&mut client, script, expected);
    }
    // What was written before an error stays, as in Redis.
    client.check("GET {t}a", "$1\r\n1\r\n");
}

#[test]
fn scripts_run_in_transactions() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("MULTI", "+OK\r\n");
    client.check("SET {t}a 1", "+QUEUED\r\n");
    for (script, keys) in [
        ("return redis.call('incrby', KEYS[1], 10)", &["{t}a"][..]),
        ("return redis.call('get', '{t}a')", &[]),
        ("return redis.call('get', 'elsewhere')", &[]),
        ("return redis.call('keys', '*')", &[]),
    ] {
        assert_eq!(eval(&mut client, script, keys, &[]), "+QUEUED\r\n");
    }
    let reply = client.ask("EXEC");
    let mut lines = reply.split("\r\n");
    for expected in [
        "*5",
        "+OK",
        ":11",
        "$2",
        "11",
        "-ERR Script attempted to access keys that do not hash to the same slot",
        "-ERR a command that looks at many slots can't run while one is locked",
    ] {
        let line = lines.next().unwrap();
        assert_eq!(short(line), expected, "{reply}");
    }
    // A slot that a script has taken is kept to the end, and then nothing else may look at others.
    client.check("MULTI", "+OK\r\n");
    eval(&mut client, "return redis.call('get', '{t}a')", &[], &[]);
    client.check("KEYS *", "+QUEUED\r\n");
    assert!(
        client
            .ask("EXEC")
            .contains("-ERR a command that looks at many slots")
    );
    client.check("MULTI", "+OK\r\n");
    assert!(eval(&mut client, "return 1", &["a", "b"], &[]).starts_with("-CROSSSLOT"));
    client.check(
        "EXEC",
        "-EXECABORT Transaction discarded because of previous errors.\r\n",
    );
}

#[test]
fn scripts_are_atomic() {
    const ROUNDS: usize = 200;
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    for _ in 0..ROUNDS {
                        // Once with its keys, once without.
                        let script = "redis.call('incr', '{t}x') return redis.call('incr', '{t}y')";
                        eval(&mut client, script, &["{t}x", "{t}y"], &[]);
                        eval(&mut client, script, &[], &[]);
                    }
                })
            })
            .collect();
        let reader = scope.spawn(|| {
            let mut client = server.connect();
            while !done.load(Ordering::Relaxed) {
                let both = client.ask("MGET {t}x {t}y");
                let values: Vec<&str> = both
                    .split("\r\n")
                    .filter(|line| !line.starts_with(['*', '$']))
                    .collect();
                assert!(values.len() < 2 || values[0] == values[1], "{both:?}");
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
    server.connect().check("GET {t}x", "$4\r\n1200\r\n");
}

#[test]
fn commands_of_scripts_are_counted() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    check(
        &mut client,
        "redis.call('set', 'a', 'x') redis.pcall('incr', 'a') redis.pcall('nosuch') return redis.call('get', 'a')",
        "$1 x",
    );
    let stats = client.ask("INFO commandstats");
    for line in [
        "cmdstat_set:calls=1,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=0",
        "cmdstat_incr:calls=1,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=1",
        "cmdstat_get:calls=1,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=0",
        "cmdstat_eval:calls=1,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=0",
    ] {
        assert!(stats.contains(line), "{line} is not in {stats}");
    }
    let memory = client.ask("INFO memory");
    let lua = memory
        .lines()
        .find_map(|line| line.strip_prefix("used_memory_lua:"))
        .unwrap();
    assert!(lua.parse::<u64>().unwrap() > 10_000, "{lua}");
}

#[test]
fn a_script_publishes() {
    let server = TestServer::start(&Options::default());
    let (mut client, mut listener) = (server.connect(), server.connect());
    listener.check("SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    let publish = "redis.call('SET', KEYS[1], 1) return redis.call('PUBLISH', 'news', 'hi')";
    assert_eq!(eval(&mut client, publish, &["k"], &[]), ":1\r\n");
    listener.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
    let read_only = "EVAL_RO return(redis.call('publish','news','hi')) 0";
    assert!(
        client
            .ask(read_only)
            .starts_with("-ERR Write commands are not allowed from read-only scripts.")
    );
    // In RESP2 a reply could not be told from a message.
    assert!(
        listener
            .ask("EVAL return(1) 0")
            .starts_with("-ERR Can't execute 'eval'")
    );
}

#[test]
fn valkeys_names_are_known() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    assert_eq!(
        eval(&mut client, "return server.call('PING').ok", &[], &[]),
        "$4\r\nPONG\r\n"
    );
    let id = client.ask("SCRIPT LOAD return(1)");
    let id = id.lines().nth(1).unwrap();
    client.check(&format!("SCRIPT SHOW {id}"), "$9\r\nreturn(1)\r\n");
    client.check(
        "SCRIPT SHOW 0",
        "-NOSCRIPT No matching script. Please use EVAL.\r\n",
    );
}

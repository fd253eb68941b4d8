//! Scripts that want more than they may have.

use annulus_node::store::EvictionPolicy;

use crate::support::{Client, Options, TestServer, encode};
use crate::{check, eval};

#[test]
fn nothing_is_left_for_the_next_script() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    for mess in [
        "table.insert(string, 'x') table.insert(_G, 1) return 1",
        "rawset(getmetatable({}) or {}, 'x', 1) return 1",
        "redis.setresp(3) math.randomseed(1) collectgarbage('stop') KEYS[1] = 'x' ARGV.x = 1 return 1",
        "pcall(function() string.format = nil end) return 1",
    ] {
        check(&mut client, mess, ":1");
        check(
            &mut client,
            "return {tostring(string[1]), tostring(rawget(_G, 1)), #KEYS, tostring(ARGV.x), string.format('%d', 3)}",
            "*5 $3 nil $3 nil :0 $3 nil $1 3",
        );
        check(&mut client, "return false", "$-1");
    }
}

/// Scripts that want all of a thread's memory or time, and how they end.
#[test]
fn scripts_that_mean_harm_are_ended() {
    const LATE: &str = "-ERR the script ran for more than 300 ms";
    const MEMORY: &str = "-ERR not enough memory";
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("CONFIG SET busy-reply-threshold 300", "+OK\r\n");
    client.check(
        "CONFIG GET lua-time-limit",
        "*2\r\n$14\r\nlua-time-limit\r\n$3\r\n300\r\n",
    );
    let table = [
        ("local t = {} while true do t[#t + 1] = #t end", MEMORY),
        ("return #string.rep('x', 1e9)", MEMORY),
        ("local s = 'x' while true do s = s .. s end", MEMORY),
        (
            "return #string.gsub(string.rep('a', 10000), '', string.rep('x', 10000))",
            MEMORY,
        ),
        (
            "local t = {} for i = 1, 40 do t = {t, t} end return #cjson.encode(t)",
            "-ERR",
        ),
        ("while true do end", LATE),
        ("while true do pcall(function() while true do end end) end", LATE),
        (
            "while true do xpcall(function() while true do end end, function(e) return e end) end",
            LATE,
        ),
        (
            "while true do coroutine.resume(coroutine.create(function() while true do end end)) end",
            LATE,
        ),
        (
            "while true do pcall(coroutine.wrap(function() while true do end end)) end",
            LATE,
        ),
        ("while true do redis.pcall('nosuch') end", LATE),
        ("while true do string.rep('x', 1e6) end", LATE),
        ("return string.find(string.rep('a', 30000), '.-.-.-.-b')", LATE),
        (
            "for w in string.gmatch(string.rep('a', 30000), '.-.-.-b') do end",
            LATE,
        ),
        (
            "table.insert({}, -2^31, 1)",
            "-ERR user_script:1: bad argument #2",
        ),
        ("return string.rep('', 2^31 - 1)", "$0"),
        (
            "local function f(n) return 1 + f(n + 1) end return f(1)",
            "-ERR user_script:1: stack overflow",
        ),
        ("local function f() return pcall(f) end return f()", ":1"),
        (
            "local function f() return (string.gsub('a', 'a', f)) end return f()",
            "-ERR",
        ),
        (
            "local function f() return coroutine.wrap(f)() end return f()",
            "-ERR",
        ),
        (
            "local t = {} t.t = t return cjson.encode(t)",
            "-ERR user_script:1: Cannot serialise, excessive nesting",
        ),
        (
            "local _, e = loadstring('return ' .. string.rep('{', 10000)) return e",
            "$",
        ),
        (
            "return unpack({}, -2147483648, 2147483647)",
            "-ERR user_script:1: too many results to unpack",
        ),
        (
            "return string.find(string.rep('a', 1000), string.rep('a?', 1000))",
            "-ERR user_script:1: pattern too complex",
        ),
        (
            "local t = {} for i = 1, 1000 do t[i] = i end table.sort(t, function() return true end) return 1",
            "-ERR",
        ),
    ];
    for (script, expected) in table {
        let found = eval(&mut client, script, &[], &[]);
        assert!(found.starts_with(expected), "{script}: {found}");
        check(&mut client, "return 1", ":1");
    }
    // A table that is in itself ends in an error inside of the reply.
    assert!(
        eval(&mut client, "local t = {} t[1] = t return t", &[], &[])
            .ends_with("-ERR reached lua stack limit\r\n")
    );
    let dag = eval(
        &mut client,
        "local t = {} for i = 1, 40 do t = {t, t} end return t",
        &[],
        &[],
    );
    assert!(dag.starts_with("-ERR the script"), "{}", &dag[..60]);
    client.check("PING", "+PONG\r\n");
}

/// A script that holds one thread is ended by a client of another, unless it has written.
#[test]
fn a_script_is_killed_from_another_thread() {
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    let kill = |expected: &str| {
        // A client of the busy thread would wait, and so many are tried until one is answered.
        let mut clients: Vec<Client> = (0..16).map(|_| server.connect()).collect();
        loop {
            for client in &mut clients {
                client
                    .stream
                    .set_read_timeout(Some(std::time::Duration::from_millis(50)))
                    .unwrap();
                client.send(encode(&[b"SCRIPT", b"KILL"]));
                let mut reply = [0; 64];
                if let Ok(len @ 1..) = std::io::Read::read(&mut client.stream, &mut reply)
                    && reply[..len].starts_with(expected.as_bytes())
                {
                    return;
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let mut client = server.connect();
        let busy = scope.spawn(move || eval(&mut client, "while true do end", &[], &[]));
        kill("+OK");
        assert!(
            busy.join()
                .unwrap()
                .starts_with("-ERR Script killed by user with SCRIPT KILL")
        );
        let mut client = server.connect();
        client.check("CONFIG SET busy-reply-threshold 2000", "+OK\r\n");
        let script = "redis.call('set', KEYS[1], 1) while true do end";
        let busy = scope.spawn(move || eval(&mut client, script, &["a"], &[]));
        kill("-UNKILLABLE");
        assert!(
            busy.join()
                .unwrap()
                .starts_with("-ERR the script ran for more than 2000 ms")
        );
    });
    server.connect().check("GET a", "$1\r\n1\r\n");
}

#[test]
fn the_budget_holds_in_scripts() {
    let server = TestServer::start(&Options {
        budget_bytes: 1 << 20,
        eviction: EvictionPolicy::NoEviction,
        ..Options::default()
    });
    let mut client = server.connect();
    let fill = "for i = 1, 1e5 do redis.call('set', '{t}' .. i, string.rep('x', 1000)) end";
    check(
        &mut client,
        fill,
        "-OOM command not allowed when used memory > 'maxmemory'.",
    );
    check(&mut client, "return redis.call('del', '{t}1')", ":1");
    let server = TestServer::start(&Options {
        budget_bytes: 1 << 20,
        ..Options::default()
    });
    let mut client = server.connect();
    check(&mut client, &fill.replace("1e5", "5000"), "$-1");
    assert!(!server.node.store.is_over_budget());
    assert!(server.node.stats.totals().evicted_keys > 0);
}

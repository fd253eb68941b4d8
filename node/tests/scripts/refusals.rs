//! What scripts can't do, and in which words they are told so.

use crate::support::{Options, TestServer, encode};
use crate::{check, eval, short};

#[test]
fn what_a_script_may_not_do() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    for (script, expected) in [
        (
            "return redis.call('nosuch')",
            "-ERR Unknown Redis command called from script",
        ),
        (
            "return redis.call('get')",
            "-ERR Wrong number of args calling Redis command from script",
        ),
        (
            "return redis.call()",
            "-ERR Please specify at least one argument for this redis lib call",
        ),
        (
            "return redis.call('get', {})",
            "-ERR Lua redis lib command arguments must be strings or integers",
        ),
        (
            "return redis.call('mget', 'a', 'b')",
            "-ERR Script attempted to access a non local key in a cluster node",
        ),
        (
            "redis.call('get', 'a') return redis.call('get', 'b')",
            "-ERR Script attempted to access keys that do not hash to the same slot",
        ),
        (
            "redis.call('get', 'a') return redis.call('keys', '*')",
            "-ERR a command that looks at many slots can't run while one is locked",
        ),
        (
            "return x",
            "-ERR user_script:1: Script attempted to access nonexistent global variable 'x'",
        ),
        ("x = 1", "-ERR user_script:1: Attempt to modify a readonly table"),
        (
            "string.len = 1",
            "-ERR user_script:1: Attempt to modify a readonly table",
        ),
        (
            "redis.call = 1",
            "-ERR user_script:1: Attempt to modify a readonly table",
        ),
        ("rawset(_G, 'x', 1)", "-ERR Attempt to modify a readonly table"),
        (
            "setmetatable(string, {})",
            "-ERR Attempt to modify a readonly table",
        ),
        (
            "getmetatable('').__index = 1",
            "-ERR user_script:1: Attempt to modify a readonly table",
        ),
        (
            "return cmsgpack.pack(1)",
            "-ERR user_script:1: the library 'cmsgpack' is not available here; cjson is",
        ),
        ("return loadstring('\\27Lua')", "$-1"),
    ] {
        check(&mut client, script, expected);
    }
}

#[test]
fn a_script_finds_neither_files_nor_connections() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    for global in [
        "io", "require", "package", "debug", "dofile", "loadfile", "print", "module", "getfenv", "setfenv",
        "newproxy",
    ] {
        let expected =
            format!("-ERR user_script:1: Script attempted to access nonexistent global variable '{global}'");
        check(&mut client, &format!("return {global}"), &expected);
    }
    for command in [
        "'auth', 'x'",
        "'multi'",
        "'exec'",
        "'watch', 'a'",
        "'eval', 'x', 0",
        "'script', 'flush'",
        "'client', 'id'",
        "'config', 'get', 'x'",
        "'hello'",
        "'reset'",
        "'quit'",
        "'wait', 0, 0",
    ] {
        let expected = "-ERR This Redis command is not allowed from script";
        check(&mut client, &format!("return redis.call({command})"), expected);
    }
}

#[test]
fn calls_of_scripts_are_checked() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    assert_eq!(
        short(&eval(&mut client, "return 1", &["a", "b"], &[])),
        "-CROSSSLOT Keys in request don't hash to the same slot"
    );
    for (command, expected) in [
        ("EVAL x y", "-ERR value is not an integer or out of range\r\n"),
        ("EVAL x -1", "-ERR Number of keys can't be negative\r\n"),
        (
            "EVAL x 1",
            "-ERR Number of keys can't be greater than number of args\r\n",
        ),
        ("SCRIPT KILL", "-NOTBUSY No scripts in execution right now.\r\n"),
        ("SCRIPT DEBUG YES", "-ERR scripts can't be debugged here\r\n"),
        (
            "FCALL f 0",
            "-ERR unknown command 'FCALL', with args beginning with: 'f' '0' \r\n",
        ),
    ] {
        client.check(command, expected);
    }
}

#[test]
fn read_only_scripts_do_not_write() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("SET a 1", "+OK\r\n");
    let refused = "-ERR Write commands are not allowed from read-only scripts.";
    client.send(encode(&[
        b"EVAL_RO",
        b"return redis.call('set', KEYS[1], 2)",
        b"1",
        b"a",
    ]));
    assert_eq!(short(&String::from_utf8(client.reply()).unwrap()), refused);
    client.send(encode(&[
        b"EVAL_RO",
        b"return redis.call('get', KEYS[1])",
        b"1",
        b"a",
    ]));
    client.expect("$1\r\n1\r\n");
    check(
        &mut client,
        "#!lua flags=no-writes\nreturn redis.call('del', 'a')",
        refused,
    );
    check(&mut client, "#!lua\nreturn redis.call('del', 'a')", ":1");
}

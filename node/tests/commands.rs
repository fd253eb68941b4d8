//! Every command's replies, and its errors in the words of Redis 7.0. The expected bytes were compared with those of
//! a Redis 7.0 in cluster mode.

mod support;

use support::{Options, TestServer};

/// Runs `command => reply` lines on one connection; in replies a blank stands for the line end.
#[track_caller]
fn transcript(lines: &str) {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, expected) = line
            .split_once(" => ")
            .unwrap_or_else(|| panic!("no reply in {line:?}"));
        let found = client.ask(command);
        let found = found.trim_end().replace("\r\n", " ");
        assert_eq!(found, expected, "{command}");
    }
}

#[test]
fn setting() {
    transcript(
        "
        SET a 1 => +OK
        SET a => -ERR wrong number of arguments for 'set' command
        SET a 1 EX => -ERR syntax error
        SET a 1 EX 0 => -ERR invalid expire time in 'set' command
        SET a 1 EX abc => -ERR value is not an integer or out of range
        SET a 1 EX 10 PX 10 => -ERR syntax error
        SET a 1 EX 10 KEEPTTL => -ERR syntax error
        SET a 1 NX XX => -ERR syntax error
        SET a 1 IFEQ => -ERR syntax error
        SET a 1 IFEQ b NX => -ERR syntax error
        SET a 1 IFEQ b => $-1
        SET e one => +OK
        SET e two IFEQ other => $-1
        SET e two IFEQ one => +OK
        SET e 3 IFEQ two GET => $3 two
        SET e 4 IFEQ 3 EX 100 => +OK
        TTL e => :100
        SET e 5 IFEQ 3 GET => $1 4
        DELIFEQ e 3 => :0
        DELIFEQ e 4 => :1
        DELIFEQ e 4 => :0
        LPUSH {e}l x => :1
        SET {e}l 1 IFEQ x => -WRONGTYPE Operation against a key holding the wrong kind of value
        DELIFEQ {e}l x => -WRONGTYPE Operation against a key holding the wrong kind of value
        SET a 1 EX 9223372036854775807 => -ERR invalid expire time in 'set' command
        SET a 1 EXAT 1 => +OK
        GET a => $-1
        SET a 2 XX => $-1
        SET a 2 NX => +OK
        SET a 5 NX GET => $1 2
        SET a 6 GET => $1 2
        SET a v EX 100 GET => $1 6
        TTL a => :100
        SET a v KEEPTTL => +OK
        TTL a => :100
        SET a v => +OK
        TTL a => :-1
        SETNX a x => :0
        SETNX b x => :1
        SETEX b 10 v => +OK
        SETEX b 0 v => -ERR invalid expire time in 'setex' command
        PSETEX b 10000 v => +OK
        GETSET b w => $1 v
        TTL b => :-1
        GETDEL b => $1 w
        GETDEL b => $-1
        GETEX a EX 100 => $1 v
        TTL a => :100
        GETEX a PERSIST => $1 v
        TTL a => :-1
        GETEX a EX 100 PERSIST => -ERR syntax error
        GETEX a PXAT 1 => $1 v
        EXISTS a => :0
        MSET {t}a 1 {t}b 2 => +OK
        MSET {t}a 1 {t}b => -ERR wrong number of arguments for 'mset' command
        MSET a 1 b 2 => -CROSSSLOT Keys in request don't hash to the same slot
        MGET {t}a {t}b {t}c => *3 $1 1 $1 2 $-1
        MSETNX {t}a 1 {t}z 2 => :0
        MSETNX {t}y 1 {t}z 2 => :1
        ",
    );
}

#[test]
fn counting() {
    transcript(
        "
        INCR n => :1
        DECRBY n 11 => :-10
        INCRBY n abc => -ERR value is not an integer or out of range
        DECRBY n -9223372036854775808 => -ERR decrement would overflow
        SET n 9223372036854775807 => +OK
        INCR n => -ERR increment or decrement would overflow
        SET n abc => +OK
        INCR n => -ERR value is not an integer or out of range
        INCRBYFLOAT n 1 => -ERR value is not a valid float
        SET n 10.50 => +OK
        INCRBYFLOAT n 0.1 => $4 10.6
        INCRBYFLOAT n -5 => $3 5.6
        INCRBYFLOAT n abc => -ERR value is not a valid float
        INCRBYFLOAT n inf => -ERR increment would produce NaN or Infinity
        SET n 01 => +OK
        INCR n => -ERR value is not an integer or out of range
        GET n => $2 01
        ",
    );
}

#[test]
fn parts_of_strings() {
    transcript(
        "
        APPEND s foo => :3
        APPEND s bar => :6
        GETRANGE s 1 2 => $2 oo
        SUBSTR s -3 -1 => $3 bar
        GETRANGE none 0 -1 => $0
        SETRANGE s 3 XYZW => :7
        GET s => $7 fooXYZW
        SETRANGE s -1 x => -ERR offset is out of range
        SETRANGE s 536870912 x => -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE z 2 x => :3
        SETRANGE e 5 => -ERR wrong number of arguments for 'setrange' command
        STRLEN z => :3
        APPEND n 12 => :2
        APPEND n 3 => :3
        INCR n => :124
        STRLEN n => :3
        GETRANGE n 0 1 => $2 12
        ",
    );
}

#[test]
fn keys() {
    transcript(
        "
        SET {r}a 1 EX 1000 => +OK
        RENAME {r}a {r}b => +OK
        TTL {r}b => :1000
        RENAME {r}x {r}b => -ERR no such key
        RENAMENX {r}b {r}b => :0
        RENAMENX {r}b {r}c => :1
        COPY {r}c {r}d => :1
        COPY {r}c {r}d => :0
        COPY {r}c {r}d REPLACE => :1
        COPY {r}c {r}d DB 1 => -ERR Copying to another database is not allowed in cluster mode
        COPY {r}c {r}c => -ERR source and destination objects are the same
        TTL {r}d => :1000
        EXISTS {r}c {r}c {r}x => :2
        TOUCH {r}c {r}x => :1
        TYPE {r}c => +string
        TYPE {r}x => +none
        OBJECT ENCODING {r}c => $3 int
        OBJECT REFCOUNT {r}c => :1
        OBJECT IDLETIME {r}c => :0
        OBJECT FREQ {r}none => $-1
        OBJECT FREQ {r}c => -ERR An LFU maxmemory policy is not selected, access frequency not tracked. The eviction policy tinylfu counts it.
        OBJECT FOO {r}c => -ERR unknown subcommand 'FOO'. Try OBJECT HELP.
        MEMORY USAGE {r}c => :48
        UNLINK {r}c {r}d {r}x => :2
        RENAME a b => -CROSSSLOT Keys in request don't hash to the same slot
        ",
    );
}

#[test]
fn expiring() {
    transcript(
        "
        SET k v => +OK
        EXPIRE none 10 => :0
        EXPIRE k 10 => :1
        TTL k => :10
        EXPIRE k 100 NX => :0
        EXPIRE k 100 XX => :1
        EXPIRE k 50 GT => :0
        EXPIRE k 500 GT => :1
        EXPIRE k 1000 LT => :0
        EXPIRE k 10 LT => :1
        EXPIRE k 10 NX XX => -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE k 10 GT LT => -ERR GT and LT options at the same time are not compatible
        EXPIRE k 10 FOO => -ERR Unsupported option FOO
        EXPIRE k 9223372036854775807 => -ERR invalid expire time in 'expire' command
        PERSIST k => :1
        PERSIST k => :0
        PTTL none => :-2
        PTTL k => :-1
        EXPIREAT k 33177117420 => :1
        EXPIRETIME k => :33177117420
        PEXPIRETIME k => :33177117420000
        EXPIRE k -1 => :1
        EXISTS k => :0
        ",
    );
}

#[test]
fn the_node() {
    transcript(
        "
        FOO bar => -ERR unknown command 'FOO', with args beginning with: 'bar'
        CLIENT FOO => -ERR unknown subcommand 'FOO'. Try CLIENT HELP.
        CLIENT => -ERR wrong number of arguments for 'client' command
        CLIENT GETNAME x => -ERR wrong number of arguments for 'client|getname' command
        AUTH foo => -ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?
        SELECT 0 => +OK
        SELECT 1 => -ERR SELECT is not allowed in cluster mode
        READONLY => +OK
        ASKING => +OK
        ROLE => *3 $6 master :0 *0
        WAIT 0 0 => :0
        CLUSTER KEYSLOT a{b}c => :3300
        CLUSTER COUNTKEYSINSLOT 16384 => -ERR Invalid slot
        CLUSTER LINKS => *0
        CONFIG GET databases => *2 $9 databases $1 1
        CONFIG GET save => *2 $4 save $0
        CONFIG SET timeout 10 => +OK
        CONFIG GET TIMEOUT => *2 $7 timeout $2 10
        CONFIG SET foo bar => -ERR Unknown option or number of arguments for CONFIG SET - 'foo'
        CONFIG SET databases 4 => -ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config
        COMMAND GETKEYS MSET a 1 b 2 => *2 $1 a $1 b
        COMMAND INFO get => *1 *10 $3 get :2 *2 +readonly +fast :1 :1 :1 *3 +@read +@string +@fast *0 *1 *6 $5 flags *2 +RO +access $12 begin_search *4 $4 type $5 index $4 spec *2 $5 index :1 $9 find_keys *4 $4 type $5 range $4 spec *6 $7 lastkey :0 $7 keystep :1 $5 limit :0 *0
        COMMAND INFO foo => *1 $-1
        SCAN abc => -ERR invalid cursor
        SCAN 0 COUNT 0 => -ERR syntax error
        DBSIZE => :0
        RANDOMKEY => $-1
        SET k v => +OK
        KEYS * => *1 $1 k
        RANDOMKEY => $1 k
        SCAN 0 => *2 $1 0 *1 $1 k
        SCAN 0 TYPE hash => *2 $1 0 *0
        SCAN 0 MATCH x* => *2 $1 0 *0
        FLUSHALL FOO => -ERR syntax error
        FLUSHALL ASYNC => +OK
        DBSIZE => :0
        ",
    );
}

#[test]
fn wrong_types() {
    const WRONG: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    for (fill, key) in [
        ("SET {t}string v", "{t}string"),
        ("HSET {t}hash f v", "{t}hash"),
        ("RPUSH {t}list a b", "{t}list"),
        ("SADD {t}set a b", "{t}set"),
        ("ZADD {t}zset 1 a 2 b", "{t}zset"),
    ] {
        client.ask(fill);
        let kind = &key["{t}".len()..];
        client.check(&format!("TYPE {key}"), format!("+{kind}\r\n"));
        client.check(
            &format!("SCAN 0 TYPE {kind}"),
            format!("*2\r\n$1\r\n0\r\n*1\r\n${}\r\n{key}\r\n", key.len()),
        );
    }
    let table = [
        (
            "string",
            "GET k|STRLEN k|APPEND k x|INCR k|INCRBYFLOAT k 1|GETRANGE k 0 1|SETRANGE k 0 x|GETSET k v|GETDEL k|GETEX k|SET k v GET",
        ),
        (
            "hash",
            "HGET k f|HSET k f v|HSETNX k f v|HDEL k f|HLEN k|HGETALL k|HINCRBY k f 1|HINCRBYFLOAT k f 1|HRANDFIELD k|HSCAN k 0|HMGET k f",
        ),
        (
            "list",
            "LPUSH k a|LPUSHX k a|LPOP k|LLEN k|LRANGE k 0 1|LINDEX k 0|LSET k 0 a|LINSERT k BEFORE a b|LREM k 0 a|LTRIM k 0 1|LPOS k a|LMPOP 1 k LEFT|LMOVE k {t}x LEFT LEFT|LMOVE {t}list k LEFT LEFT",
        ),
        (
            "set",
            "SADD k a|SREM k a|SISMEMBER k a|SCARD k|SMEMBERS k|SPOP k|SRANDMEMBER k|SMOVE k {t}x a|SMOVE {t}set k a|SINTER {t}none k|SUNION k|SDIFF {t}set k|SUNIONSTORE {t}x k|SINTERCARD 1 k|SSCAN k 0",
        ),
        (
            "zset",
            "ZADD k 1 a|ZINCRBY k 1 a|ZREM k a|ZSCORE k a|ZCARD k|ZRANGE k 0 1|ZRANK k a|ZPOPMIN k|ZCOUNT k 0 1|ZMPOP 1 k MIN|ZRANGESTORE {t}x k 0 1|ZREMRANGEBYRANK k 0 1|ZSCAN k 0",
        ),
    ];
    for (kind, commands) in table {
        for other in ["string", "hash", "list", "set", "zset"] {
            for command in commands.split('|').filter(|_| other != kind) {
                let command = command.replace(" k", &format!(" {{t}}{other}"));
                client.check(&command, format!("{WRONG}\r\n"));
            }
        }
    }
    client.check("MGET {t}hash {t}string", "*2\r\n$-1\r\n$1\r\nv\r\n");
    client.check("ZUNION 2 {t}set {t}hash", format!("{WRONG}\r\n"));
    client.check("SUNIONSTORE {t}zset {t}set", ":2\r\n");
    client.check("TYPE {t}zset", "+set\r\n");
    client.check("SET {t}set v", "+OK\r\n");
    client.check("TYPE {t}set", "+string\r\n");
}

#[test]
fn collections() {
    transcript(
        "
        HSET h f => -ERR wrong number of arguments for 'hset' command
        HMSET h f v g => -ERR wrong number of arguments for 'hmset' command
        HSET h f v g 1 => :2
        HINCRBY h f 1 => -ERR hash value is not an integer
        HINCRBYFLOAT h f 1 => -ERR hash value is not a float
        HINCRBYFLOAT h g inf => -ERR value is NaN or Infinity
        HINCRBY h g 9223372036854775807 => -ERR increment or decrement would overflow
        HRANDFIELD h 1 FOO => -ERR syntax error
        HRANDFIELD h -9223372036854775808 => -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807
        HRANDFIELD h 9223372036854775807 WITHVALUES => -ERR value is out of range
        HSCAN h x => -ERR invalid cursor
        OBJECT ENCODING h => $8 listpack
        HDEL h f g => :2
        EXISTS h => :0
        SADD s 1 2 3 => :3
        OBJECT ENCODING s => $6 intset
        SPOP s -1 => -ERR value is out of range, must be positive
        SPOP s 1 1 => -ERR syntax error
        SINTERCARD 0 s => -ERR numkeys should be greater than 0
        SINTERCARD 2 s => -ERR Number of keys can't be greater than number of args
        SINTERCARD 1 s LIMIT -1 => -ERR LIMIT can't be negative
        SADD s a => :1
        OBJECT ENCODING s => $9 hashtable
        SINTER a b => -CROSSSLOT Keys in request don't hash to the same slot
        RPUSH l a b c b => :4
        OBJECT ENCODING l => $9 quicklist
        LPOP l 1 1 => -ERR wrong number of arguments for 'lpop' command
        LPOP l -1 => -ERR value is out of range, must be positive
        LSET l 9 x => -ERR index out of range
        LSET none 0 x => -ERR no such key
        LINSERT l FOO a b => -ERR syntax error
        LPOS l b RANK 0 => -ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list
        LPOS l b COUNT -1 => -ERR COUNT can't be negative
        LPOS l b MAXLEN -1 => -ERR MAXLEN can't be negative
        LPOS l b RANK -1 => :3
        LMPOP 1 l LEFT COUNT 0 => -ERR count should be greater than 0
        LMPOP 9 l LEFT => -ERR syntax error
        LMPOP 1 l RIGHT COUNT 2 => *2 $1 l *2 $1 b $1 c
        LTRIM l 5 9 => +OK
        EXISTS l => :0
        ZADD z NX XX 1 a => -ERR XX and NX options at the same time are not compatible
        ZADD z GT LT 1 a => -ERR GT, LT, and/or NX options at the same time are not compatible
        ZADD z INCR 1 a 2 b => -ERR INCR option supports a single increment-element pair
        ZADD z 1 => -ERR wrong number of arguments for 'zadd' command
        ZADD z CH 1 a 2 => -ERR syntax error
        ZADD z nan a => -ERR value is not a valid float
        ZADD z 0.1 a 2 b inf c => :3
        OBJECT ENCODING z => $8 listpack
        ZINCRBY z -inf c => -ERR resulting score is not a number (NaN)
        ZSCORE z a => $19 0.10000000000000001
        ZCOUNT z a 1 => -ERR min or max is not a float
        ZRANGEBYLEX z a b => -ERR min or max not valid string range item
        ZRANGE z 0 1 LIMIT 0 1 => -ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX
        ZRANGE z - + BYLEX WITHSCORES => -ERR syntax error, WITHSCORES not supported in combination with BYLEX
        ZRANGE z 1 (inf BYSCORE WITHSCORES => *2 $1 b $1 2
        ZUNION 0 z => -ERR at least 1 input key is needed for 'zunion' command
        ZUNION x z => -ERR value is not an integer or out of range
        ZUNIONSTORE d 0 z => -ERR at least 1 input key is needed for 'zunionstore' command
        ZUNION 1 z WEIGHTS x => -ERR weight value is not a float
        ZUNION 2 a b => -CROSSSLOT Keys in request don't hash to the same slot
        ZREMRANGEBYRANK z 0 -1 => :3
        EXISTS z => :0
        COMMAND GETKEYS ZUNIONSTORE d 2 a b WEIGHTS 1 2 => *3 $1 d $1 a $1 b
        COMMAND GETKEYS LMPOP 2 a b LEFT => *2 $1 a $1 b
        COMMAND GETKEYS LMPOP 3 a b => -ERR Invalid arguments specified for command
        COMMAND GETKEYSANDFLAGS ZUNIONSTORE d 1 a => *2 *2 $1 d *2 +OW +update *2 $1 a *2 +RO +access
        ",
    );
}

#[test]
fn an_element_scan_returns_every_element_that_stays() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    for (add, remove, scan) in [
        ("HSET k % 1", "HDEL k %", "HSCAN"),
        ("SADD k %", "SREM k %", "SSCAN"),
        ("ZADD k 1 %", "ZREM k %", "ZSCAN"),
    ] {
        let mut stays = std::collections::BTreeSet::new();
        for number in 0..500 {
            client.ask(&add.replace('%', &format!("stays-{number}")));
            client.ask(&add.replace('%', &format!("goes-{number}")));
            stays.insert(format!("stays-{number}"));
        }
        let (mut cursor, mut steps) = ("0".to_owned(), 0);
        loop {
            let reply = client.ask(&format!("{scan} k {cursor} COUNT 20 MATCH stays-*"));
            let words: Vec<&str> = reply.split("\r\n").collect();
            cursor = words[2].to_owned();
            for element in words[4..].iter().filter(|word| word.starts_with("stays-")) {
                stays.remove(*element);
            }
            client.ask(&remove.replace('%', &format!("goes-{steps}")));
            client.ask(&remove.replace('%', &format!("goes-{}", 499 - steps)));
            client.ask(&add.replace('%', &format!("comes-{steps}")));
            steps += 1;
            if cursor == "0" {
                break;
            }
        }
        assert!(stays.is_empty(), "{scan}: {stays:?} never came");
        assert!(steps > 20, "{scan}: {steps} steps");
        client.ask("DEL k");
    }
}

#[test]
fn a_collection_larger_than_the_budget_is_refused() {
    let server = TestServer::start(&Options {
        budget_bytes: 1 << 20,
        ..Options::default()
    });
    let mut client = server.connect();
    let element = "x".repeat(300 << 10);
    for command in ["RPUSH k %", "SADD k 1% 2%", "HSET k 1 % 2 %", "ZADD k 1 1% 2 2%"] {
        let fits = client.ask(&command.replace('%', &element));
        assert!(fits.starts_with(':'), "{fits}");
        let four = command.replace('%', &element.repeat(4));
        let refused = client.ask(&four);
        assert!(refused.starts_with("-ERR an entry of "), "{refused}");
        assert!(server.node.store.used_bytes() <= 1 << 20);
        client.check("DEL k", ":1\r\n");
    }
    // One by one, up to the limit.
    let refused = (0..10).find(|_| client.ask(&format!("RPUSH k {element}")).starts_with('-'));
    assert_eq!(refused, Some(3));
}

#[test]
fn a_scan_returns_every_key_that_stays() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    let mut stays = std::collections::BTreeSet::new();
    for number in 0..500 {
        client.check(&format!("SET stays-{number} v"), "+OK\r\n");
        stays.insert(format!("stays-{number}"));
    }
    let (mut cursor, mut steps) = ("0".to_owned(), 0);
    loop {
        let reply = client.ask(&format!("SCAN {cursor} COUNT 7 MATCH stays-*"));
        let words: Vec<&str> = reply.split("\r\n").collect();
        cursor = words[2].to_owned();
        for key in words[4..].iter().filter(|word| word.starts_with("stays-")) {
            assert!(stays.remove(*key), "{key} came twice");
        }
        steps += 1;
        // Others come and go meanwhile.
        client.check(&format!("SET comes-{steps} v"), "+OK\r\n");
        client.ask(&format!("DEL comes-{}", steps / 2));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(stays.len(), 0, "{stays:?} never came");
    assert!(steps > 20, "{steps} steps");
}

#[test]
fn noeviction_refuses_what_may_need_memory() {
    use annulus_node::store::EvictionPolicy;
    let server = TestServer::start(&Options {
        budget_bytes: 4096,
        eviction: EvictionPolicy::NoEviction,
        ..Options::default()
    });
    let mut client = server.connect();
    let refused = (0..100).find(|number| client.ask(&format!("SET key-{number} value")).starts_with('-'));
    let refused = refused.expect("the budget is small");
    assert!(refused > 3);
    client.check(
        "SET other v",
        "-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    );
    client.check("GET key-0", "$5\r\nvalue\r\n");
    client.check("DEL key-0", ":1\r\n");
    client.check("DEL key-1", ":1\r\n");
    client.check("SET other v", "+OK\r\n");
}

#[test]
fn writes_over_the_budget_evict_and_never_fail() {
    let server = TestServer::start(&Options {
        budget_bytes: 1 << 20,
        ..Options::default()
    });
    let mut client = server.connect();
    for number in 0..5000 {
        client.check(&format!("SET key-{number} {}", "x".repeat(200)), "+OK\r\n");
        assert!(server.node.store.used_bytes() <= 1 << 20);
    }
    assert!(server.node.stats.totals().evicted_keys > 1000);
    assert_eq!(client.ask("GET key-4999").len(), "$200\r\n".len() + 202);
    let refused = client.ask(&format!("SET key {}", "x".repeat(2 << 20)));
    assert!(refused.starts_with("-ERR an entry of "), "{refused}");
}

#[test]
fn info_has_what_exporters_read() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("SET key value EX 100", "+OK\r\n");
    client.check("GET key", "$5\r\nvalue\r\n");
    client.check("GET none", "$-1\r\n");
    let info = client.ask("INFO everything");
    for field in [
        "redis_version:7.4.0",
        "redis_mode:cluster",
        "role:master",
        "cluster_enabled:1",
        "connected_clients:1",
        "keyspace_hits:1",
        "keyspace_misses:1",
        "maxmemory:67108864",
        "maxmemory_policy:allkeys-lru",
        "db0:keys=1,expires=1,avg_ttl=0",
        "cmdstat_get:calls=2,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=0",
        "lazyfree_pending_objects:0",
        "mem_not_counted_for_evict:0",
    ] {
        assert!(info.contains(&format!("{field}\r\n")), "{field} in {info}");
    }
    client.check("CONFIG RESETSTAT", "+OK\r\n");
    assert!(client.ask("INFO stats").contains("keyspace_hits:0\r\n"));
    assert!(!client.ask("INFO stats").contains("redis_version"));
}

#[test]
fn errors_are_counted_by_their_codes() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("SET s 1", "+OK\r\n");
    for (command, code) in [
        ("LPUSH s 1", "WRONGTYPE"),
        ("NONSENSE", "ERR"),
        ("SET s", "ERR"),
        ("EVALSHA 0 0", "NOSCRIPT"),
        ("MGET a b", "CROSSSLOT"),
    ] {
        assert!(client.ask(command).starts_with(&format!("-{code} ")), "{command}");
    }
    let info = client.ask("INFO errorstats");
    for line in [
        "CROSSSLOT:count=1",
        "ERR:count=2",
        "NOSCRIPT:count=1",
        "WRONGTYPE:count=1",
    ] {
        assert!(
            info.contains(&format!("errorstat_{line}\r\n")),
            "{line} in {info}"
        );
    }
    client.check("CONFIG RESETSTAT", "+OK\r\n");
    assert!(!client.ask("INFO errorstats").contains("errorstat_"));
}

#[test]
fn the_slow_log_has_the_latest_commands_and_no_password() {
    let server = TestServer::start(&Options {
        password: Some("secret"),
        ..Options::default()
    });
    let mut client = server.connect();
    client.check("AUTH secret", "+OK\r\n");
    client.check("CLIENT SETNAME me", "+OK\r\n");
    client.check("CONFIG SET slowlog-log-slower-than 0", "+OK\r\n");
    client.check("SLOWLOG RESET", "+OK\r\n");
    client.check("AUTH secret", "+OK\r\n");
    client.check("MULTI", "+OK\r\n");
    client.check("SET k v", "+QUEUED\r\n");
    client.check("EXEC", "*1\r\n+OK\r\n");
    client.check("EVAL return(redis.call('ping').ok) 0", "$4\r\nPONG\r\n");
    client.check("CONFIG SET slowlog-log-slower-than -1", "+OK\r\n");
    let log = client.ask("SLOWLOG GET 20");
    let commands: Vec<&str> = ["CONFIG", "EVAL", "ping", "SET", "MULTI", "AUTH", "SLOWLOG"]
        .into_iter()
        .filter(|name| log.contains(&format!("\r\n{name}\r\n")))
        .collect();
    assert_eq!(
        commands,
        ["EVAL", "ping", "SET", "MULTI", "AUTH", "SLOWLOG"],
        "{log}"
    );
    assert!(
        !log.contains("secret") && !log.contains("EXEC") && log.contains("\r\n$2\r\nme\r\n"),
        "{log}"
    );
    client.check("SLOWLOG LEN", ":6\r\n");
}

#[test]
fn times_are_counted_while_they_are_tracked() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("GET k", "$-1\r\n");
    client.check("LATENCY HISTOGRAM", "*0\r\n");
    client.check("CONFIG SET latency-tracking yes", "+OK\r\n");
    client.check("CONFIG RESETSTAT", "+OK\r\n");
    client.check("GET k", "$-1\r\n");
    client.check("GET k", "$-1\r\n");
    client.check("CLIENT GETNAME", "$-1\r\n");
    let histogram = client.ask("LATENCY HISTOGRAM get nonsense");
    assert!(
        histogram.starts_with("*2\r\n$3\r\nget\r\n*4\r\n$5\r\ncalls\r\n:2\r\n$14\r\nhistogram_usec\r\n*"),
        "{histogram}"
    );
    let histogram = client.ask("LATENCY HISTOGRAM client");
    assert!(
        histogram.starts_with("*2\r\n$14\r\nclient|getname\r\n"),
        "{histogram}"
    );
    assert!(client.ask("LATENCY DOCTOR").contains("latency-monitor-threshold"));
    client.check("CONFIG SET latency-monitor-threshold 1", "+OK\r\n");
    // A script that runs for some milliseconds of the processor's time.
    let busy = "while(os.clock()<tonumber(ARGV[1]))do(tostring)(1)end";
    let now = client.ask("EVAL return(tostring(os.clock())) 0");
    let now: f64 = now.lines().nth(1).unwrap().parse().unwrap();
    client.check(&format!("EVAL {busy} 0 {}", now + 0.02), "$-1\r\n");
    let latest = client.ask("LATENCY LATEST");
    assert!(latest.starts_with("*1\r\n*4\r\n$7\r\ncommand\r\n:"), "{latest}");
    assert!(client.ask("LATENCY HISTORY command").starts_with("*1\r\n*2\r\n:"));
    client.check("LATENCY RESET command", ":1\r\n");
    client.check("LATENCY LATEST", "*0\r\n");
}

#[test]
fn what_takes_memory_is_shown() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("SET k v", "+OK\r\n");
    let stats = client.ask("MEMORY STATS");
    assert!(stats.contains("$10\r\nkeys.count\r\n:1\r\n"), "{stats}");
    assert!(client.ask("MEMORY DOCTOR").starts_with('$'));
    client.check("MEMORY PURGE", "+OK\r\n");
    assert!(client.ask("MEMORY MALLOC-STATS").starts_with('$'));
}

/// Options that came after Redis 7.0, in the words of those that have them.
#[test]
fn newer_options() {
    transcript(
        "
        HSET h a 1 b 2 => :2
        HSCAN h 0 NOVALUES => *2 $1 0 *2 $1 a $1 b
        HSCAN h 0 MATCH b NOVALUES COUNT 5 => *2 $1 0 *1 $1 b
        HSCAN h 0 NOSCORES => -ERR syntax error
        ZADD z 1 a 2.5 b => :2
        ZSCAN z 0 NOSCORES => *2 $1 0 *2 $1 a $1 b
        SADD s a => :1
        SSCAN s 0 NOVALUES => -ERR syntax error
        ZRANK z b WITHSCORE => *2 :1 $3 2.5
        ZREVRANK z b WITHSCORE => *2 :0 $3 2.5
        ZRANK z c WITHSCORE => *-1
        ZRANK none c WITHSCORE => *-1
        ZRANK z c => $-1
        ZRANK z b WITHSCORES => -ERR syntax error
        ZRANK z b WITHSCORE x => -ERR wrong number of arguments for 'zrank' command
        LPOS l a RANK -9223372036854775808 => -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807
        CLIENT KILL MAXAGE x => -ERR maxage is not an integer or out of range
        CLIENT KILL MAXAGE 0 => -ERR maxage should be greater than 0
        CLIENT KILL MAXAGE 1000 => :0
        ",
    );
}

#[test]
fn a_connection_shows_what_it_has_queued_and_watches() {
    let server = TestServer::start(&Options::default());
    let (mut looker, mut client) = (server.connect(), server.connect());
    let id = client.ask("CLIENT ID");
    let list = format!("CLIENT LIST ID {}", id.trim_start_matches(':').trim_end());
    assert!(looker.ask(&list).contains(" multi=-1 watch=0 "));
    client.check("WATCH {t}a {t}b", "+OK\r\n");
    client.check("MULTI", "+OK\r\n");
    client.check("SET {t}a 1", "+QUEUED\r\n");
    let line = looker.ask(&list);
    assert!(line.contains(" multi=1 watch=2 "), "{line}");
    assert!(line.contains(" tot-cmds=4"), "{line}");
    let figure = |name: &str| -> u64 {
        let (_, rest) = line.split_once(&format!(" {name}=")).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(figure("multi-mem") > 0 && figure("tot-net-in") > 50 && figure("tot-net-out") > 10);
    client.check("DISCARD", "+OK\r\n");
    assert!(looker.ask(&list).contains(" multi=-1 watch=0 "));
}

#[test]
fn hot_keys_are_those_that_are_used_most() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.check("HOTKEYS", "*0\r\n");
    client.check("HOTKEYS COUNT", "-ERR syntax error\r\n");
    // For as long as it takes until a whole window was busy.
    let found = (0..10_000).find_map(|_| {
        for _ in 0..50 {
            client.ask("GET hot");
        }
        client.ask("SET cold x");
        let reply = client.ask("HOTKEYS COUNT 1");
        reply.starts_with("*1\r\n").then_some(reply)
    });
    let found = found.unwrap();
    assert!(
        found.starts_with("*1\r\n*10\r\n$3\r\nkey\r\n$3\r\nhot\r\n$4\r\nslot\r\n:6093\r\n"),
        "{found}"
    );
}

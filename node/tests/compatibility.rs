//! docs/compatibility.md says what the command table has. `UPDATE_DOCS=1 cargo test -p annulus-node --test compatibility`
//! (or `make generate`) writes it.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use annulus_node::command::{Flags, Run, table};

/// Commands of Redis 7.0 that are not there, and why.
const MISSING: &[(&str, &str)] = &[
    (
        "BLPOP BRPOP BLMOVE BLMPOP BRPOPLPUSH BZPOPMIN BZPOPMAX BZMPOP",
        "a cache is no queue: use the forms that don't block, on queues of small size",
    ),
    (
        "BITCOUNT BITFIELD BITFIELD_RO BITOP BITPOS GETBIT SETBIT PFADD PFCOUNT PFMERGE GEOADD GEODIST GEOHASH GEOPOS \
         GEORADIUS GEORADIUS_RO GEORADIUSBYMEMBER GEORADIUSBYMEMBER_RO GEOSEARCH GEOSEARCHSTORE",
        "not planned before caches turn out to need them",
    ),
    (
        "XACK XADD XAUTOCLAIM XCLAIM XDEL XGROUP XINFO XLEN XPENDING XRANGE XREAD XREADGROUP XREVRANGE XSETID XTRIM",
        "a cache is no log: entries may be evicted",
    ),
    (
        "DUMP RESTORE MIGRATE SORT SORT_RO LCS",
        "not planned: values move by the ring's own handoff, and computing is the application's",
    ),
    (
        "FCALL FCALL_RO FUNCTION MODULE",
        "not planned: nothing is installed into a node at run time",
    ),
    (
        "SAVE BGSAVE BGREWRITEAOF LASTSAVE SHUTDOWN REPLICAOF SLAVEOF FAILOVER SYNC PSYNC REPLCONF MOVE SWAPDB DEBUG MONITOR",
        "the operator's work, or of a server with one machine and several databases",
    ),
];

fn markdown() -> String {
    let mut groups: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for entry in table().commands() {
        let command = entry.command;
        let mut name = format!("`{}`", command.name.to_uppercase());
        if let Run::Container(_) = command.run {
            let subcommands = entry
                .subcommands
                .iter()
                .map(|subcommand| subcommand.command.name.to_uppercase());
            let subcommands: Vec<String> = subcommands.collect();
            name = format!("`{}` ({})", command.name.to_uppercase(), subcommands.join(", "));
        }
        let kind = match (command.flags.has(Flags::WRITE), command.flags.has(Flags::READ)) {
            (true, _) => "writes",
            (false, true) => "reads",
            (false, false) => "",
        };
        let row = format!("| {name} | {kind} | {} |", command.summary);
        groups.entry(command.group.name()).or_default().push(row);
    }
    let mut text = String::from(
        "# Which commands there are\n\n\
         The node speaks RESP2 and RESP3 as a Redis Cluster does; replies and errors are those of Redis 7.0, and tests compare \
         them with a real one. All keys of a command, and of a transaction, must be in one slot (use hash tags). This page \
         is generated from the command table. [Valkey's own tests](compatibility-tests.md) are run against the node, too.\n",
    );
    for (group, mut rows) in groups {
        rows.sort();
        write!(
            text,
            "\n## {group}\n\n| command | | what it does |\n| --- | --- | --- |\n{}\n",
            rows.join("\n")
        )
        .unwrap();
    }
    text.push_str(
        "\n## Left out\n\nThey answer `ERR unknown command`.\n\n| commands | why |\n| --- | --- |\n",
    );
    for (commands, why) in MISSING {
        writeln!(text, "| {commands} | {why} |").unwrap();
    }
    text.push_str(
        "\n## What differs\n\n\
         - There is one database, 0.\n\
         - `WATCH` also takes a write that changed nothing, such as `SADD` of a member that is there, for a change; keys \
         that expire in another slot than the transaction's are noticed once they are removed.\n\
         - A transaction may queue 64 MiB and let its slot grow by 64 MiB, a connection may watch 10000 keys, and commands that \
         look at many slots (`KEYS`, `SCAN`, `FLUSHALL`, `INFO` …) are refused beside commands on keys.\n\
         - A message of `PUBLISH` and its channel may have 3 MiB together; `SPUBLISH`, which stays on its node, has no such \
         limit. A connection may have 100000 subscriptions.\n\
         - Messages that a connection in RESP3 publishes to itself between `MULTI` and `EXEC` come behind the reply of \
         `EXEC`, not inside it.\n\
         - Client-side caching: what `WATCH` takes for a change is one here too; a connection with `BCAST` is told to \
         forget everything when a slot leaves the node.\n\
         - `ACL` shows; users are made by [tenants](tenants.md).\n\
         - `CLIENT PAUSE` stops neither expiry nor eviction.\n\
         - [Scripts](scripts.md) are ended after `busy-reply-threshold` milliseconds and keep to one slot.\n\
         - `slowlog-log-slower-than` of a millisecond or more, its default among them, doesn't time commands that take about \
         the same time always (`COMMAND` calls them fast) or that work on one string. `latency-tracking` is off until \
         `CONFIG SET` turns it on; without it `LATENCY HISTOGRAM` is empty and the times in `INFO commandstats` are 0.\n\
         - A `MULTI` inside of `MULTI` spoils the transaction, as in Valkey 8.\n\
         - Hexadecimal scores in `ZADD` are refused.\n\
         - `INCRBYFLOAT` and `HINCRBYFLOAT` are exact where Redis rounds.\n\
         - While a slot changes hands, commands that write it wait for some milliseconds; after a second they are answered with \
         `TRYAGAIN`.\n",
    );
    text
}

#[test]
fn the_page_is_fresh() {
    for (names, _) in MISSING {
        for name in names.split_whitespace() {
            assert!(
                table().find(name.as_bytes()).is_none(),
                "{name} is said to be left out"
            );
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let text = markdown();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/compatibility.md is stale, run make generate"
    );
}

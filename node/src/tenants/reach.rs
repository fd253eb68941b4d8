//! How far a tenant's commands reach: to what is its own, whatever the rules of its user say.
//!
//! Commands on keys work in the tenant's keyspace, and scripts run such commands. Of all others every one is listed here
//! that shows and changes nothing but the connection and what the tenant has; what is not listed is not for tenants. So a
//! command that comes to the table later is refused to them until somebody has thought of it.

use crate::command::{Entry, Run};

/// Commands without keys that tenants may use.
const OWN: &[&str] = &[
    // The connection.
    "asking",
    "auth",
    "discard",
    "echo",
    "exec",
    "hello",
    "multi",
    "ping",
    "quit",
    "readonly",
    "readwrite",
    "reset",
    "select",
    "unwatch",
    "watch",
    // The tenant's keyspace as a whole.
    "dbsize",
    "flushall",
    "flushdb",
    "hotkeys",
    "keys",
    "randomkey",
    "scan",
    "wait",
    // Its channels.
    "psubscribe",
    "publish",
    "punsubscribe",
    "spublish",
    "ssubscribe",
    "subscribe",
    "sunsubscribe",
    "unsubscribe",
    "pubsub",
    "pubsub|channels",
    "pubsub|numpat",
    "pubsub|numsub",
    "pubsub|shardchannels",
    "pubsub|shardnumsub",
    // Its scripts.
    "script",
    "script|debug",
    "script|exists",
    "script|flush",
    "script|kill",
    "script|load",
    "script|show",
    // Its users, connections, figures and slow commands; nobody else's.
    "acl",
    "acl|cat",
    "acl|getuser",
    "acl|whoami",
    "info",
    "role",
    "slowlog",
    "slowlog|get",
    "slowlog|len",
    "slowlog|reset",
    "client",
    "client|caching",
    "client|getname",
    "client|getredir",
    "client|id",
    "client|info",
    "client|kill",
    "client|list",
    "client|no-evict",
    "client|no-touch",
    "client|reply",
    "client|setinfo",
    "client|setname",
    "client|tracking",
    "client|trackinginfo",
    "memory",
    "memory|doctor",
    "memory|malloc-stats",
    "memory|purge",
    "memory|stats",
    "object",
    // The ring, which every client has to know; its entries only as far as they are the tenant's.
    "cluster",
    "cluster|countkeysinslot",
    "cluster|getkeysinslot",
    "cluster|info",
    "cluster|keyslot",
    "cluster|links",
    "cluster|myid",
    "cluster|myshardid",
    "cluster|nodes",
    "cluster|replicas",
    "cluster|shards",
    "cluster|slaves",
    "cluster|slots",
    // What is the same for everybody.
    "command",
    "command|count",
    "command|docs",
    "command|getkeys",
    "command|getkeysandflags",
    "command|info",
    "command|list",
    "time",
];

/// Whether tenants may use the command, if the rules of their users say so, too.
pub(super) fn may_tenants(entry: &Entry) -> bool {
    match entry.command.run {
        Run::Keyed(_) | Run::Script(_) => true,
        Run::Plain(_) | Run::Container(_) => {
            entry.command.name == "help" || OWN.contains(&entry.full_name.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    /// What is about the cluster and not about a tenant. A new command must be put into one of the two lists.
    const NEVER: &[&str] = &[
        "client|pause",
        "client|unpause",
        "config",
        "config|get",
        "config|resetstat",
        "config|set",
        "latency",
        "latency|doctor",
        "latency|histogram",
        "latency|history",
        "latency|latest",
        "latency|reset",
    ];

    #[test]
    fn every_command_was_thought_of() {
        let all: Vec<&Entry> = table()
            .commands()
            .iter()
            .flat_map(|entry| std::iter::once(entry).chain(&entry.subcommands))
            .collect();
        for entry in &all {
            let is_never = NEVER.contains(&entry.full_name.as_str());
            assert_ne!(
                may_tenants(entry),
                is_never,
                "{} is in no list, or in both",
                entry.full_name
            );
        }
        for name in OWN.iter().chain(NEVER) {
            assert!(
                all.iter().any(|entry| entry.full_name == *name),
                "{name} is no command"
            );
        }
    }
}

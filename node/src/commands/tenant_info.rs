//! `INFO` as a tenant sees it: its own figures in the fields where others find the node's, and nothing that tells of others.

use std::fmt::Write as _;

use super::info::{Section, cluster, fields, human, server};
use crate::execute::Context;
use crate::store::Space;

/// As the table of [`super::info`].
pub(super) const SECTIONS: [(&str, &str, bool, Section); 7] = [
    ("server", "Server", true, server),
    ("clients", "Clients", true, clients),
    ("memory", "Memory", true, memory),
    ("stats", "Stats", true, stats),
    ("replication", "Replication", true, replication),
    ("cluster", "Cluster", true, cluster),
    ("keyspace", "Keyspace", true, keyspace),
];

/// What a tenant's entries cost here, and what they may cost.
pub(super) fn memory_of(context: &Context<'_>, space: &Space) -> (u64, u64) {
    let store = &context.node.store;
    let limit = space.limits.memory_bytes(store.slots());
    (store.own_bytes_of(space), limit.unwrap_or(store.budget_bytes()))
}

fn clients(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let Some(login) = &context.session.login else {
        return Ok(());
    };
    let connections_max = login.tenant().space().limits.connections();
    let clients_max = context.node.settings.clients_max();
    fields!(text,
        connected_clients: login.tenant().connections(),
        maxclients: clients_max.min(usize::try_from(connections_max).unwrap_or(usize::MAX)),
        blocked_clients: 0,
        tracking_clients: context.space().tracking.clients(),
    )
}

fn memory(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let space = context.space();
    let (dataset, limit) = memory_of(context, space);
    let (cached_scripts, source_bytes) = space.cached_scripts();
    let used = dataset + space.connection_bytes();
    fields!(text,
        used_memory: used,
        used_memory_human: human(used),
        used_memory_dataset: dataset,
        mem_clients_normal: space.connection_bytes(),
        used_memory_scripts_eval: source_bytes,
        number_of_cached_scripts: cached_scripts,
        maxmemory: limit,
        maxmemory_human: human(limit),
        maxmemory_policy: context.node.store.eviction().redis_name(),
    )
}

fn stats(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let space = context.space();
    let counters = &space.counters;
    fields!(text,
        total_commands_processed: counters.commands.get(),
        rejected_connections: counters.connections_refused.get(),
        throttled_commands: counters.throttled.get(),
        expired_keys: counters.expirations.get(),
        evicted_keys: counters.evictions.get(),
        keyspace_hits: counters.hits.get(),
        keyspace_misses: counters.misses.get(),
        pubsub_channels: space.pubsub.channels.len(),
        pubsub_patterns: space.pubsub.patterns(),
        pubsubshard_channels: space.pubsub.shards.len(),
        tracking_total_keys: space.tracking.keys(),
        tracking_total_items: space.tracking.items(),
        tracking_total_prefixes: space.tracking.prefixes(),
    )
}

/// How much is replicated tells of what others write.
fn replication(_: &Context<'_>, text: &mut String) -> std::fmt::Result {
    fields!(text, role: "master", connected_slaves: 0)
}

fn keyspace(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let space = context.space();
    match space.keys() {
        0 => Ok(()),
        keys => write!(
            text,
            "db0:keys={keys},expires={},avg_ttl=0\r\n",
            context.node.store.volatile_keys_of(space)
        ),
    }
}

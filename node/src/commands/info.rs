//! The text of `INFO`: the fields that clients, exporters and people look for, and only true ones.

use std::fmt::Write as _;

use crate::command::table;
use crate::execute::Context;

use super::server::{ANNULUS_VERSION, REDIS_VERSION};
use super::tenant_info;

pub(super) type Section = fn(&Context<'_>, &mut String) -> std::fmt::Result;

macro_rules! fields {
    ($text:expr, $($name:ident: $value:expr),+ $(,)?) => {{
        $(write!($text, concat!(stringify!($name), ":{}\r\n"), $value)?;)+
        Ok(())
    }};
}
pub(super) use fields;

/// Name, title, whether `INFO` without arguments has it, and what writes it.
const SECTIONS: [(&str, &str, bool, Section); 10] = [
    ("server", "Server", true, server),
    ("clients", "Clients", true, clients),
    ("memory", "Memory", true, memory),
    ("stats", "Stats", true, stats),
    ("replication", "Replication", true, replication),
    ("cpu", "CPU", true, cpu),
    ("commandstats", "Commandstats", false, command_stats),
    ("errorstats", "Errorstats", true, error_stats),
    ("cluster", "Cluster", true, cluster),
    ("keyspace", "Keyspace", true, keyspace),
];

/// The sections that are wanted, by name and by whether they are shown by default.
pub fn render(context: &Context<'_>, is_wanted: impl Fn(&str, bool) -> bool) -> String {
    let mut text = String::new();
    let sections: &[_] = if context.session.login.is_some() {
        &tenant_info::SECTIONS
    } else {
        &SECTIONS
    };
    for &(name, title, is_default, write) in sections {
        if is_wanted(name, is_default) {
            let separator = if text.is_empty() { "" } else { "\r\n" };
            // Writing to a String can't fail.
            write!(text, "{separator}# {title}\r\n").unwrap_or_default();
            write(context, &mut text).unwrap_or_default();
        }
    }
    text
}

pub(super) fn server(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let node = context.node;
    let uptime_s = context.now_ms.saturating_sub(node.started_at_ms) / 1000;
    fields!(text,
        redis_version: REDIS_VERSION,
        annulus_version: ANNULUS_VERSION,
        redis_mode: "cluster",
        os: std::env::consts::OS,
        arch_bits: usize::BITS,
        process_id: std::process::id(),
        run_id: format_args!("{:040x}", node.run_id),
        tcp_port: context.session.client.local.port(),
        server_time_usec: context.now_ms * 1000,
        uptime_in_seconds: uptime_s,
        uptime_in_days: uptime_s / 86_400,
        io_threads_active: node.threads,
    )
}

fn clients(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    fields!(text,
        connected_clients: context.node.clients.len(),
        cluster_connections: 0,
        maxclients: context.node.settings.clients_max(),
        blocked_clients: context.node.pause.waiting(),
        tracking_clients: context.space().tracking.clients(),
    )
}

pub(super) fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "K", "M", "G", "T"];
    #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes}B")
    } else {
        format!("{amount:.2}{}", UNITS[unit])
    }
}

fn memory(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let store = &context.node.store;
    let (used, budget, resident) = (
        store.used_bytes(),
        store.budget_bytes(),
        crate::heap::resident_bytes().unwrap_or(0),
    );
    let connections = store.connection_bytes();
    let (cached_scripts, source_bytes) = context.space().cached_scripts();
    let state_bytes = context.node.scripts.state_bytes();
    fields!(text,
        used_memory: used + connections,
        used_memory_human: human(used + connections),
        used_memory_dataset: used,
        mem_clients_normal: connections,
        mem_not_counted_for_evict: 0,
        used_memory_rss: resident,
        used_memory_rss_human: human(resident),
        used_memory_lua: state_bytes,
        used_memory_vm_eval: state_bytes,
        used_memory_scripts_eval: source_bytes,
        number_of_cached_scripts: cached_scripts,
        used_memory_scripts: state_bytes + source_bytes,
        maxmemory: budget,
        maxmemory_human: human(budget),
        maxmemory_withheld: store.withheld_bytes(),
        maxmemory_policy: store.eviction().redis_name(),
        mem_allocator: "libc",
        lazyfree_pending_objects: 0,
    )
}

fn stats(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let totals = context.node.stats.totals_since_reset();
    let relay = &context.node.relay.counters;
    fields!(text,
        total_connections_received: totals.connections_accepted,
        total_commands_processed: totals.commands_processed,
        total_net_input_bytes: totals.net_input_bytes,
        total_net_output_bytes: totals.net_output_bytes,
        rejected_connections: totals.connections_rejected,
        expired_keys: totals.expired_keys,
        evicted_keys: totals.evicted_keys,
        evicted_clients: totals.clients_evicted,
        keyspace_hits: totals.keyspace_hits,
        keyspace_misses: totals.keyspace_misses,
        pubsub_channels: context.space().pubsub.channels.len(),
        pubsub_patterns: context.space().pubsub.patterns(),
        pubsubshard_channels: context.space().pubsub.shards.len(),
        tracking_total_keys: context.space().tracking.keys(),
        tracking_total_items: context.space().tracking.items(),
        tracking_total_prefixes: context.space().tracking.prefixes(),
        pubsub_forwards_sent: relay.sent.get(),
        pubsub_forwards_dropped: relay.dropped.get(),
        pubsub_forwards_received: relay.received.get(),
        client_output_buffer_limit_disconnections: totals.slow_clients_closed,
        total_error_replies: totals.error_replies,
        protocol_errors: totals.protocol_errors,
        moved_replies: totals.moved_replies,
    )
}

fn replication(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let store = &context.node.store;
    let (journal, now_ms) = (&store.journal, store.journal.clock().now_ms());
    let links = journal.links();
    let heard = links
        .iter()
        .filter(|link| link.leased_until_ms() > now_ms)
        .count();
    fields!(
        text,
        role: "master",
        connected_slaves: heard,
        min_slaves_good_slaves: heard,
        acks: journal.acks(),
        master_repl_offset: journal.last_lsn(),
        copied_keys: store.copied_keys(),
        copied_bytes: store.copied_bytes(),
        copy_reads: context.node.stats.totals_since_reset().copy_reads,
    )
}

/// The processor time that the process has used, in kernel and in user mode; zeros where it can't be read.
fn cpu_seconds() -> (f64, f64) {
    // Linux reports in hundredths of a second, on every architecture and kernel.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name may have spaces in it; fields are counted behind its closing parenthesis.
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut ticks = behind_name
        .split_whitespace()
        .skip(11)
        .map(|field| field.parse::<u32>().unwrap_or(0));
    let mut next = || f64::from(ticks.next().unwrap_or(0)) / TICKS_PER_SECOND;
    let user = next();
    (next(), user)
}

fn cpu(_: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let (system, user) = cpu_seconds();
    fields!(text, used_cpu_sys: format_args!("{system:.6}"), used_cpu_user: format_args!("{user:.6}"))
}

/// Commands are timed one by one only with `latency-tracking`: otherwise their times are 0.
fn command_stats(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let totals = context.node.stats.command_totals_since_reset();
    for (index, (name, totals)) in table().names().iter().zip(totals).enumerate() {
        if totals.calls + totals.rejected == 0 {
            continue;
        }
        let timed = context.node.timing.histograms.of(index);
        let (sum_us, calls) = timed.map_or((0, 1), |timed| (timed.sum_us(), timed.calls()));
        #[expect(clippy::cast_precision_loss, reason = "two decimals are shown")]
        let mean_us = sum_us as f64 / calls as f64;
        write!(
            text,
            "cmdstat_{name}:calls={},usec={sum_us},usec_per_call={mean_us:.2},rejected_calls={},failed_calls={}\r\n",
            totals.calls, totals.rejected, totals.failed
        )?;
    }
    Ok(())
}

fn error_stats(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    for (code, count) in context.node.stats.errors_since_reset() {
        write!(text, "errorstat_{code}:count={count}\r\n")?;
    }
    Ok(())
}

pub(super) fn cluster(_: &Context<'_>, text: &mut String) -> std::fmt::Result {
    fields!(text, cluster_enabled: 1)
}

fn keyspace(context: &Context<'_>, text: &mut String) -> std::fmt::Result {
    let store = &context.node.store;
    match store.keys() {
        0 => Ok(()),
        keys => write!(
            text,
            "db0:keys={keys},expires={},avg_ttl=0\r\n",
            store.volatile_keys()
        ),
    }
}

//! `CONFIG …`: what the node was started with, in the names that Redis has for it, and what can be changed
//! while it runs.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::sync::atomic::Ordering;

use crate::commands::{is_word, matches_pattern, text};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::node::Node;
use crate::resp::{Args, Reply, number};

type Get = fn(&Context<'_>) -> String;
type Set<T> = fn(&Node, T);

/// What a parameter is set to.
enum Setter {
    /// Nothing: it is given when the node starts, and stays.
    Fixed,
    /// A number.
    Number(Set<i64>, RangeInclusive<i64>),
    /// A number of bytes, which may have a unit.
    Bytes(Set<u64>, RangeInclusive<u64>),
    /// Yes or no.
    Switch(Set<bool>),
}

/// A value for a parameter, checked.
enum Change {
    Number(Set<i64>, i64),
    Bytes(Set<u64>, u64),
    Switch(Set<bool>, bool),
}

struct Parameter {
    name: &'static str,
    get: Get,
    set: Setter,
}

const fn fixed(name: &'static str, get: Get) -> Parameter {
    let set = Setter::Fixed;
    Parameter { name, get, set }
}

const fn live(name: &'static str, get: Get, set: Set<i64>, range: RangeInclusive<i64>) -> Parameter {
    let set = Setter::Number(set, range);
    Parameter { name, get, set }
}

/// How long a script may run; the time that other clients of its slot may have to wait is bounded by it.
const fn script_time(name: &'static str) -> Parameter {
    live(
        name,
        |context| context.node.settings.script_ms_max().to_string(),
        |node, value| node.settings.set_script_ms_max(value.unsigned_abs()),
        1..=600_000,
    )
}

fn saturated(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn yes_or_no(is_on: bool) -> String {
    if is_on { "yes" } else { "no" }.to_owned()
}

/// The shortest `proto-max-bulk-len` that may be set, as in Redis, and the longest that lengths are counted with.
const BULK_BYTES_RANGE: RangeInclusive<u64> = 1 << 20..=1 << 29;

/// So many slow commands may be kept: with their arguments they take 50 MB at most.
const SLOW_LOG_LEN_MAX: i64 = 10_000;

const PARAMETERS: [Parameter; 22] = [
    fixed("appendonly", |_| "no".to_owned()),
    fixed("bind", |context| {
        context.session.client.local.ip().to_canonical().to_string()
    }),
    script_time("busy-reply-threshold"),
    fixed("cluster-enabled", |_| "yes".to_owned()),
    fixed("databases", |_| "1".to_owned()),
    fixed("dir", |_| String::new()),
    fixed("io-threads", |context| context.node.threads.to_string()),
    live(
        "latency-monitor-threshold",
        |context| context.node.timing.monitor_ms().to_string(),
        |node, value| node.timing.set_monitor_ms(value.unsigned_abs()),
        0..=i64::MAX,
    ),
    Parameter {
        name: "latency-tracking",
        get: |context| yes_or_no(context.node.timing.tracks()),
        set: Setter::Switch(|node, value| node.timing.set_tracks(value)),
    },
    script_time("lua-time-limit"),
    live(
        "maxclients",
        |context| context.node.settings.clients_max().to_string(),
        |node, value| node.settings.set_clients_max(saturated(value.unsigned_abs())),
        1..=1_000_000,
    ),
    fixed("maxmemory", |context| {
        context.node.store.budget_bytes().to_string()
    }),
    fixed("maxmemory-policy", |context| {
        context.node.store.eviction().redis_name().to_owned()
    }),
    fixed("port", |context| port(context, false)),
    Parameter {
        name: "proto-max-bulk-len",
        get: |context| context.node.settings.bulk_bytes_max().to_string(),
        set: Setter::Bytes(
            |node, value| node.settings.set_bulk_bytes_max(saturated(value)),
            BULK_BYTES_RANGE,
        ),
    },
    fixed("save", |_| String::new()),
    live(
        "slowlog-log-slower-than",
        |context| context.node.timing.slower_than_us().to_string(),
        |node, value| node.timing.set_slower_than_us(value),
        -1..=i64::MAX,
    ),
    live(
        "slowlog-max-len",
        |context| context.node.timing.slow_log_len_max().to_string(),
        |node, value| node.timing.set_slow_log_len_max(saturated(value.unsigned_abs())),
        0..=SLOW_LOG_LEN_MAX,
    ),
    live(
        "tcp-keepalive",
        |context| context.node.settings.keepalive_s().to_string(),
        |node, value| node.settings.set_keepalive_s(value.unsigned_abs()),
        0..=86_400,
    ),
    live(
        "timeout",
        |context| context.node.settings.idle_timeout_s().to_string(),
        |node, value| node.settings.set_idle_timeout_s(value.unsigned_abs()),
        0..=1_000_000_000,
    ),
    fixed("tls-port", |context| port(context, true)),
    live(
        "tracking-table-max-keys",
        |context| context.node.settings.tracking_keys_max().to_string(),
        |node, value| {
            let keys_max = saturated(value.unsigned_abs());
            node.settings.set_tracking_keys_max(keys_max);
            // Tenants' are shrunk by their next reads.
            node.store.own.tracking.shrink(keys_max);
        },
        0..=1 << 62,
    ),
];

/// `CONFIG GET pattern [pattern …]`
pub fn get(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let is_wanted = |name: &str| {
        args.from(2)
            .any(|pattern| matches_pattern(&pattern.to_ascii_lowercase(), name.as_bytes()))
    };
    let wanted: Vec<_> = PARAMETERS
        .iter()
        .filter(|parameter| is_wanted(parameter.name))
        .collect();
    reply.map(wanted.len());
    for parameter in wanted {
        reply.bulk(parameter.name.as_bytes());
        reply.bulk((parameter.get)(context).as_bytes());
    }
    Ok(())
}

/// The change that a value asks for, or what is wrong with it.
fn change(set: &Setter, value: &[u8]) -> Result<Change, String> {
    fn within<T: PartialOrd + Display>(value: T, range: &RangeInclusive<T>) -> Result<T, String> {
        if range.contains(&value) {
            return Ok(value);
        }
        let (start, end) = (range.start(), range.end());
        Err(format!("argument must be between {start} and {end} inclusive"))
    }
    match set {
        Setter::Fixed => Err("can't set immutable config".to_owned()),
        Setter::Number(set, range) => {
            let value = number::parse_i64(value).ok_or("argument couldn't be parsed into an integer")?;
            Ok(Change::Number(*set, within(value, range)?))
        }
        Setter::Bytes(set, range) => {
            let value = bytes_with_unit(value).ok_or("argument must be a memory value")?;
            Ok(Change::Bytes(*set, within(value, range)?))
        }
        Setter::Switch(set) if is_word(value, "yes") => Ok(Change::Switch(*set, true)),
        Setter::Switch(set) if is_word(value, "no") => Ok(Change::Switch(*set, false)),
        Setter::Switch(_) => Err("argument must be 'yes' or 'no'".to_owned()),
    }
}

/// A number of bytes as Redis reads it: `1024`, `1kb` for 1024, `1k` for 1000.
fn bytes_with_unit(value: &[u8]) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("", 1),
        ("b", 1),
        ("k", 1000),
        ("kb", 1 << 10),
        ("m", 1_000_000),
        ("mb", 1 << 20),
        ("g", 1_000_000_000),
        ("gb", 1 << 30),
    ];
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, unit) = value.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| is_word(unit, name))?;
    number::parse_u64(digits)?.checked_mul(*factor)
}

/// `CONFIG SET parameter value [parameter value …]`: all of them, or none.
pub fn set(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Arity("config|set".to_owned()));
    }
    let mut changes: Vec<(&str, Change)> = Vec::new();
    for (name, value) in args.from(2).step_by(2).zip(args.from(3).step_by(2)) {
        let parameter = PARAMETERS
            .iter()
            .find(|parameter| name.eq_ignore_ascii_case(parameter.name.as_bytes()));
        let Some(Parameter { name, set, .. }) = parameter else {
            let message = format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
                text(name)
            );
            return Err(CommandError::Other(message));
        };
        let change = if changes.iter().any(|(other, _)| other == name) {
            Err("duplicate parameter".to_owned())
        } else {
            change(set, value)
        };
        let change = change.map_err(|why| {
            CommandError::Other(format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
            ))
        })?;
        changes.push((name, change));
    }
    for (_, change) in changes {
        match change {
            Change::Number(set, value) => set(context.node, value),
            Change::Bytes(set, value) => set(context.node, value),
            Change::Switch(set, value) => set(context.node, value),
        }
    }
    reply.ok();
    Ok(())
}

/// `CONFIG RESETSTAT`
pub fn reset_stat(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    context.node.stats.reset();
    context.node.timing.histograms.clear();
    reply.ok();
    Ok(())
}

/// The node's own port with TLS or without, as far as clients are told of it, or this one has come by it; 0 for none.
fn port(context: &Context<'_>, secure: bool) -> String {
    let client = &context.session.client;
    let view = context.node.routing.view();
    let told = view.own().and_then(|own| own.address.as_ref());
    let port = if client.secure.load(Ordering::Relaxed) == secure {
        client.local.port()
    } else if secure {
        told.and_then(|address| address.client_tls_port)
            .unwrap_or_default()
    } else {
        told.map_or(0, |address| address.client_port)
    };
    port.to_string()
}

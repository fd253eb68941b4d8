//! `CONFIG …`: what the node was started with, in the names that Redis has for it, and what can be changed
//! while it runs.

use crate::commands::{matches_pattern, text};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::node::Settings;
use crate::resp::{Args, Reply, number};

type Get = fn(&Context<'_>) -> String;
type Set = fn(&Settings, u64);

/// A parameter. Those without `set` are given when the node starts, and stay.
struct Parameter {
    name: &'static str,
    get: Get,
    set: Option<(Set, std::ops::RangeInclusive<u64>)>,
}

const fn fixed(name: &'static str, get: Get) -> Parameter {
    Parameter { name, get, set: None }
}

const fn live(name: &'static str, get: Get, set: Set, range: std::ops::RangeInclusive<u64>) -> Parameter {
    Parameter {
        name,
        get,
        set: Some((set, range)),
    }
}

/// How long a script may run; the time that other clients of its slot may have to wait is bounded by it.
const fn script_time(name: &'static str) -> Parameter {
    live(
        name,
        |context| context.node.settings.script_ms_max().to_string(),
        Settings::set_script_ms_max,
        1..=600_000,
    )
}

fn saturated(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The shortest `proto-max-bulk-len` that may be set, as in Redis, and the longest that lengths are counted with.
const BULK_BYTES_RANGE: std::ops::RangeInclusive<u64> = 1 << 20..=1 << 29;

const PARAMETERS: [Parameter; 20] = [
    fixed("appendonly", |_| "no".to_owned()),
    fixed("bind", |context| {
        context.session.client.local.ip().to_canonical().to_string()
    }),
    script_time("busy-reply-threshold"),
    fixed("cluster-enabled", |_| "yes".to_owned()),
    fixed("databases", |_| "1".to_owned()),
    fixed("dir", |_| String::new()),
    fixed("io-threads", |context| context.node.threads.to_string()),
    script_time("lua-time-limit"),
    live(
        "maxclients",
        |context| context.node.settings.clients_max().to_string(),
        |settings, value| settings.set_clients_max(saturated(value)),
        1..=1_000_000,
    ),
    fixed("maxmemory", |context| {
        context.node.store.budget_bytes().to_string()
    }),
    fixed("maxmemory-policy", |context| {
        context.node.store.eviction().redis_name().to_owned()
    }),
    fixed("port", |context| context.session.client.local.port().to_string()),
    live(
        "proto-max-bulk-len",
        |context| context.node.settings.bulk_bytes_max().to_string(),
        |settings, value| settings.set_bulk_bytes_max(saturated(value)),
        BULK_BYTES_RANGE,
    ),
    fixed("save", |_| String::new()),
    fixed("slowlog-log-slower-than", |_| "-1".to_owned()),
    fixed("slowlog-max-len", |_| "0".to_owned()),
    live(
        "tcp-keepalive",
        |context| context.node.settings.keepalive_s().to_string(),
        Settings::set_keepalive_s,
        0..=86_400,
    ),
    live(
        "timeout",
        |context| context.node.settings.idle_timeout_s().to_string(),
        Settings::set_idle_timeout_s,
        0..=1_000_000_000,
    ),
    fixed("tls-port", |_| "0".to_owned()),
    live(
        "tracking-table-max-keys",
        |context| context.node.settings.tracking_keys_max().to_string(),
        |settings, value| settings.set_tracking_keys_max(saturated(value)),
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

/// `CONFIG SET parameter value [parameter value …]`: all of them, or none.
pub fn set(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::Arity("config|set".to_owned()));
    }
    let mut changes: Vec<(Set, u64)> = Vec::new();
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
        let failed = |why: String| {
            CommandError::Other(format!(
                "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"
            ))
        };
        let (set, range) = set
            .as_ref()
            .ok_or_else(|| failed("can't set immutable config".to_owned()))?;
        let value = number::parse_u64(value)
            .ok_or_else(|| failed("argument couldn't be parsed into an integer".to_owned()))?;
        if !range.contains(&value) {
            let why = format!(
                "argument must be between {} and {} inclusive",
                range.start(),
                range.end()
            );
            return Err(failed(why));
        }
        changes.push((*set, value));
    }
    for (set, value) in changes {
        set(&context.node.settings, value);
    }
    reply.ok();
    Ok(())
}

/// `CONFIG RESETSTAT`
pub fn reset_stat(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    context.node.stats.reset();
    reply.ok();
    Ok(())
}

//! `MEMORY …`: what entries, connections and scripts take.

use super::tenant_info::memory_of;
use crate::commands::{integer, is_word};
use crate::error::{CommandError, Outcome};
use crate::execute::{Context, Keyed};
use crate::resp::{Args, Reply};

/// `MEMORY USAGE key [SAMPLES count]`: what the budget counts for the entry.
pub fn usage(call: &mut Keyed<'_, '_>) -> Outcome {
    let key = call.args.at(2);
    match (call.args.get(3), call.args.get(4), call.args.len()) {
        (None, None, 3) => {}
        (Some(word), Some(count), 5) if is_word(word, "SAMPLES") => {
            if integer(count)? < 0 {
                return Err(CommandError::Syntax);
            }
        }
        _ => return Err(CommandError::Syntax),
    }
    match call.slot.peek(key, call.now_ms) {
        Some(stored) => {
            call.reply
                .integer(i64::try_from(stored.cost()).unwrap_or(i64::MAX));
        }
        None => call.reply.null(),
    }
    Ok(())
}

/// `MEMORY STATS`: what `INFO memory` says, as a map.
pub fn stats(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let (store, space) = (&context.node.store, context.space());
    let source_bytes = space.cached_scripts().1 as u64;
    let (dataset, connections, scripts, budget) = if context.session.login.is_some() {
        let (dataset, limit) = memory_of(context, space);
        (dataset, space.connection_bytes(), source_bytes, limit)
    } else {
        let scripts = context.node.scripts.state_bytes() as u64 + source_bytes;
        let connections = store.connection_bytes();
        (store.used_bytes(), connections, scripts, store.budget_bytes())
    };
    let keys = space.keys();
    let figures = [
        ("total.allocated", dataset + connections + scripts),
        ("clients.normal", connections),
        ("lua.caches", scripts),
        ("keys.count", keys),
        ("keys.bytes-per-key", dataset.checked_div(keys).unwrap_or(0)),
        ("dataset.bytes", dataset),
        ("maxmemory", budget),
    ];
    reply.map(figures.len());
    for (name, figure) in figures {
        reply.bulk(name.as_bytes());
        reply.integer(i64::try_from(figure).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// `MEMORY DOCTOR`
pub fn doctor(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let (store, space) = (&context.node.store, context.space());
    let evicted = context.node.stats.totals_since_reset().evicted_keys;
    let is_tenant = context.session.login.is_some();
    let advice = if is_tenant && space.counters.evictions.get() > 0 {
        "Entries were evicted: the tenant has used up its memory. A larger quota raises the share of hits."
    } else if is_tenant {
        "Nothing stands out."
    } else if evicted > 0 {
        "Entries were evicted: the cache is full. More memory or more nodes raise the share of hits."
    } else if store.connection_bytes() > store.budget_bytes() / 10 {
        "Connections take more than a tenth of the memory: CLIENT LIST shows which (tot-mem)."
    } else {
        "Nothing stands out."
    };
    reply.verbatim(advice);
    Ok(())
}

/// `MEMORY PURGE`: what is freed goes back to the allocator at once; there is nothing to do.
pub fn purge(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.ok();
    Ok(())
}

/// `MEMORY MALLOC-STATS`
pub fn malloc_stats(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.verbatim("Stats not supported for the current allocator");
    Ok(())
}

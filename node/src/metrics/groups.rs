//! What read-through groups do, by group.

use std::fmt;
use std::sync::Arc;

use prometheus_client::registry::Unit;

use super::Page;
use crate::groups::{Group, GroupCounters};
use crate::node::Node;

const LABEL: &str = "group";

/// How reads of keys in groups ended, by outcome.
const READS: [(&str, Value<GroupCounters>); 8] = [
    ("fresh", |counters| counters.fresh.get()),
    ("soft", |counters| counters.soft.get()),
    ("stale", |counters| counters.stale.get()),
    ("loading", |counters| counters.began.get()),
    ("joined", |counters| counters.joined.get()),
    ("absent", |counters| counters.absent.get()),
    ("filtered", |counters| counters.filtered.get()),
    ("failed", |counters| counters.failed.get()),
];

/// How loads ended, by outcome.
const LOADS: [(&str, Value<GroupCounters>); 3] = [
    ("value", |counters| counters.loaded.get()),
    ("absent", |counters| counters.loaded_absent.get()),
    ("failed", |counters| counters.loads_failed.get()),
];

type Value<T> = fn(&T) -> u64;

const COUNTERS: [(&str, &str, Option<Unit>, Value<GroupCounters>); 6] = [
    (
        "annulus_group_origin_requests",
        "Requests to the origin of a group, retries included",
        None,
        |counters| counters.requests.get(),
    ),
    (
        "annulus_group_origin_retries",
        "Requests to the origin of a group that were retries",
        None,
        |counters| counters.retries.get(),
    ),
    (
        "annulus_group_origin_received",
        "Values that the origin of a group sent",
        Some(Unit::Bytes),
        |counters| counters.received_bytes.get(),
    ),
    (
        "annulus_group_not_kept",
        "Values that were loaded and not stored: the key was written meanwhile, its slot moved, or there was no room",
        None,
        |counters| counters.not_kept.get(),
    ),
    (
        "annulus_group_breaker_opened",
        "Times that the circuit breaker of a group opened",
        None,
        |counters| counters.breaker_opened.get(),
    ),
    (
        "annulus_group_filter_false_positives",
        "Keys that the filter let through and the origin didn't have",
        None,
        |counters| counters.false_positives.get(),
    ),
];

const GAUGES: [(&str, &str, Option<Unit>, Value<Group>); 5] = [
    (
        "annulus_group_loads_under_way",
        "Keys that are being loaded, or wait for their turn",
        None,
        |group| group.sizes().0 as u64,
    ),
    (
        "annulus_group_remembered_keys",
        "Keys without a value that are remembered",
        None,
        |group| group.sizes().1 as u64,
    ),
    (
        "annulus_group_breaker",
        "The circuit breaker of a group: 0 closed, 1 half open, 2 open",
        None,
        Group::breaker,
    ),
    (
        "annulus_group_filter_keys",
        "Keys that the filter of a group was made of; 0 without a filter",
        None,
        |group| group.filter_figures().map_or(0, |(keys, _)| keys),
    ),
    (
        "annulus_group_filter_memory",
        "What the filter of a group takes",
        Some(Unit::Bytes),
        |group| group.filter_figures().map_or(0, |(_, bytes)| bytes),
    ),
];

pub(super) fn encode(node: &Node, page: &mut Page<'_, '_>) -> fmt::Result {
    let groups = node.groups.all();
    if groups.is_empty() {
        return Ok(());
    }
    by_outcome(
        page,
        &groups,
        "annulus_group_reads",
        "Reads of keys in a group, by how they were answered: fresh, soft (beyond the soft TTL), stale (beyond the hard \
         TTL, since the origin failed), loading (began a load), joined (a load under way), absent (remembered), filtered \
         (by the filter), failed (an error)",
        &READS,
    )?;
    let help = "Loads from the origin of a group, by what they brought";
    by_outcome(page, &groups, "annulus_group_loads", help, &LOADS)?;
    for (name, help, unit, value) in &COUNTERS {
        let values = groups
            .iter()
            .map(|group| (group.label(), value(group.counters())));
        page.counters_in(name, help, unit.as_ref(), LABEL, values)?;
    }
    // A counter of seconds would be a float.
    let help = "How long loads took together, in milliseconds, waiting for their turn included";
    let values = groups
        .iter()
        .map(|group| (group.label(), group.counters().load_ms.get()));
    page.counters("annulus_group_load_milliseconds", help, LABEL, values)?;
    for (name, help, unit, value) in &GAUGES {
        let values = groups.iter().map(|group| (group.label(), value(group)));
        page.gauges_in(name, help, unit.as_ref(), LABEL, values)?;
    }
    Ok(())
}

fn by_outcome(
    page: &mut Page<'_, '_>,
    groups: &[Arc<Group>],
    name: &str,
    help: &str,
    outcomes: &[(&'static str, Value<GroupCounters>)],
) -> fmt::Result {
    let values = groups.iter().flat_map(|group| {
        let of_group = move |(outcome, value): &(&'static str, Value<GroupCounters>)| {
            let labels = [(LABEL, group.label()), ("outcome", *outcome)];
            (labels, value(group.counters()))
        };
        outcomes.iter().map(of_group)
    });
    page.counters_by_two(name, help, values)
}

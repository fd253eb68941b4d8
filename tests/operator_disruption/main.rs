//! End-to-end tests that disturb the operator, or count what it does, or need the next pod's IP address to
//! themselves: one at a time, with `--test-threads=1`. See tests/README.md for what each of them shows.

mod crash;
mod failover;
mod idle;
mod isolation;
mod leader;
mod many;
mod rights;
mod scale;
mod stand_ins;
mod webhook_away;

/// A spec of that many nodes, so small that many caches fit on a developer's machine.
fn small(nodes: u32, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!(
        "{{nodes: {nodes}, resources: {{requests: {{cpu: 1m, memory: 32Mi}}, limits: {{memory: 128Mi}}}}{comma}{more}}}"
    )
}

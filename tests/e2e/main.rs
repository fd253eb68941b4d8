//! End-to-end tests that share the operator and may run at the same time: `make cluster-up`, then
//! `tests/run-all e2e`. See tests/README.md for what each of them shows.

mod admission;
mod autoscaling;
mod bad_specs;
mod deletion;
mod fence;
mod groups;
mod healing;
mod hostile;
mod late_errors;
mod lives;
mod pools;
mod ready;
mod replication;
mod scaling;
mod tenants;

/// Resources so small that many caches fit on a developer's machine.
const SMALL: &str = "resources: {requests: {cpu: 10m, memory: 64Mi}, limits: {memory: 128Mi}}";

/// A spec of that many small nodes, with further fields in YAML's flow style.
fn small(nodes: u32, more: &str) -> String {
    format!(
        "{{nodes: {nodes}, {SMALL}{}{more}}}",
        if more.is_empty() { "" } else { ", " }
    )
}

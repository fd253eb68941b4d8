//! Nodes that are members of a ring: handoffs between them, who is refused, and the real program.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on ends"
)]

mod cluster;
mod copies;
mod copy_reads;
mod documents;
mod fake_source;
mod groups;
mod handoff;
mod http;
mod member;
mod messages;
mod mirrors;
mod moving_slots;
#[path = "../support/origin.rs"]
mod origin;
mod peers;
mod process;
mod processes;
mod secrets;
#[path = "../support/mod.rs"]
mod support;
mod tenants;

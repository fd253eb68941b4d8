//! TLS: for clients, with files that change, and between nodes.
#![expect(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod authority;
mod clients;
mod peers;
mod rotation;
#[path = "../support/mod.rs"]
mod support;

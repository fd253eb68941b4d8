//! Read-through groups: a node, an origin, and clients that only know Redis.
#![allow(
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests fail where they stand, and wait for what comes"
)]

mod filter;
mod memory;
#[path = "../support/origin.rs"]
mod origin;
mod reads;
mod tenants;
mod world;

#[path = "../support/mod.rs"]
mod support;

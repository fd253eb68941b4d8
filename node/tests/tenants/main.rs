//! Tenants over sockets: who gets in, what they see, and what they may use.
#![allow(
    clippy::allow_attributes,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "tests fail where they stand"
)]

mod access;
mod attempts;
mod hostile;
mod limits;
#[path = "../support/mod.rs"]
mod support;
mod world;

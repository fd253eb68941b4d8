//! The data over HTTP, as clients see it.
#![allow(
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "tests fail where they stand"
)]

mod bodies;
mod conditions;
mod requests;
#[path = "../support/mod.rs"]
mod support;
mod users;

//! A real cluster of processes, faults between it and a client, and a checker of what the client reads.
#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "shared by a test and an example, each of which uses a part"
)]

pub mod checker;
pub mod cluster;
pub mod proxy;
pub mod world;

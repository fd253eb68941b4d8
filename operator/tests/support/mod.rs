//! What the tests of the pipeline share: an API server and cache nodes that live in the test's own process.
#![expect(dead_code, reason = "each test binary uses a part of this")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests, outside of test functions"
)]

pub mod api;
pub mod groups;
pub mod node;
pub mod views;
pub mod world;

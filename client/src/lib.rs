//! A Redis Cluster client with a *near cache*: what was read is kept in the application's memory and answered from there in
//! about a microsecond, and no answer is older than a bound that you set, the *lease*.
//!
//! ```no_run
//! # async fn example() -> Result<(), annulus_client::Error> {
//! let client = annulus_client::Client::builder(["demo.shop.svc:6379"])
//!     .password("…")
//!     .lease(std::time::Duration::from_secs(1))
//!     .connect()
//!     .await?;
//! client.set("user:42", "Ada").await?;
//! let from_the_node = client.get("user:42").await?;
//! let from_memory = client.get("user:42").await?;
//! assert_eq!(from_memory.as_deref(), Some(&b"Ada"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! Nodes push invalidations (`CLIENT TRACKING`), so an answer is usually no older than a network round trip. The lease bounds it
//! when something breaks: a push that gets lost, a connection that stalls, a node that was replaced and doesn't know. Four times
//! a lease the client asks each node how many invalidations it has sent, and whether it still holds its slots. An entry is served
//! only while such a check, sent no longer than a lease ago, was answered well.
//!
//! The bound needs Annulus nodes. Redis and Valkey don't count: there the checks prove only that the connection works.

mod client;
mod near;
mod node;
mod settings;
mod slots;
mod source;
mod stats;
mod stream;

pub use bytes::Bytes;
pub use client::{Builder, Client, Error};
pub use redis;
pub use stats::Stats;

//! The cache node of Annulus.
//!
//! The data path is pure up to the sockets: [`resp`] reads commands and writes replies, the store holds a keyspace for each tenant.
//! The shell around it owns sockets, threads, clocks and files. Nothing here knows of Kubernetes.

pub mod api;
pub mod buffers;
mod charge;
pub mod clients;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod commands;
pub mod config;
pub mod connection;
pub mod copy_reads;
pub mod error;
pub mod exclusive;
pub mod execute;
pub mod fuzzing;
pub mod governor;
pub mod groups;
pub mod heap;
pub mod hot_keys;
pub mod http;
pub mod journal;
pub mod logging;
mod look_ahead;
pub mod mailbox;
pub mod metrics;
pub mod node;
pub mod pause;
pub mod peer;
pub mod pubsub;
pub mod resp;
pub mod routing;
pub mod run;
pub mod script;
pub mod secret;
pub mod server;
pub mod session;
pub mod stats;
pub mod store;
pub mod tenants;
pub mod timing;
pub mod tls;
pub mod tracking;
pub mod transaction;

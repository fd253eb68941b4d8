//! The operator: turns `CacheCluster`s into running cache nodes and hands them their ring.
//!
//! One controller, a one-way pipeline, one module a step: [`observe`] reads, [`validate`] checks and fills in
//! defaults, [`plan`] decides, [`build`] makes Kubernetes objects, [`apply`] writes what differs, [`execute`]
//! takes the ring's next step, [`status`] tells. `validate`, `plan`, `build`, `drift`, `suspect` and `status` are pure.
//!
//! Tenants have a controller of their own beside it, in [`tenants`]; what the API server asks before it stores an object is
//! answered in [`webhook`], by every replica.
//!
//! Refused here on purpose: finalizers (owner references do the clean-up), a cache of Secrets, any right for
//! the pods, and any write while nothing has changed.

pub mod apply;
pub mod build;
pub mod caches;
pub mod cli;
pub mod context;
pub mod controller;
pub mod drift;
pub mod events;
pub mod execute;
pub mod groups;
pub mod http;
pub mod key;
pub mod leader;
pub mod metrics;
pub mod node_client;
pub mod observe;
pub mod pki;
pub mod plan;
mod process;
pub mod reconcile;
pub mod service_paths;
pub mod status;
pub mod suspect;
pub mod tell;
pub mod tenants;
pub mod validate;
pub mod view;
pub mod webhook;

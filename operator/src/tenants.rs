//! Tenants: from the `CacheTenant`s that name a cluster to its tenants document, the bindings in their namespaces, and the
//! policy that admits them.
//!
//! A controller of its own, since a ring's next step must not wait for five hundred Secrets. One pass looks after all tenants
//! of a cluster, so that many changes are one document: [`observe`] reads, [`validate`] and [`admission`] check, [`plan`]
//! decides, [`store`] writes the document and [`bindings`] the Secrets, [`status`] and [`tell`] tell. `validate`, `admission`,
//! `plan`, `reach`, `status` and `usage` are pure.
//!
//! Invariants: an id is given once in a cluster's life. A password is in the document before it is in a binding, so that
//! whoever can read one gets in. Absence means deletion only where it could have been seen.
//!
//! Refused here on purpose: finalizers, a cache of Secrets, and figures in the status that change all the time.

pub mod admission;
pub mod bindings;
pub mod controller;
pub mod endpoint;
pub mod error;
pub mod ledger;
pub mod memory;
pub mod observe;
pub mod plan;
pub mod reach;
pub mod reconcile;
pub mod status;
pub mod store;
pub mod tell;
pub mod usage;
pub mod validate;

/// Annotation of a `CacheTenant`: any new value replaces its passwords.
pub const ROTATE_ANNOTATION: &str = "annulus.dev/rotate";

//! The harness of the end-to-end tests: a namespace for each test, waiting with deadlines, real clients.
//!
//! Nothing here waits for luck: whatever is waited for is a condition with a deadline, and the error says what was
//! seen last. Nothing here looks into the operator or a node either: tests see what a user sees (objects,
//! metrics, the Redis and the peer protocol) and break things from outside.

mod audit;
mod cache;
mod clients;
mod figures;
mod kubernetes;
mod ledger;
mod machine;
mod namespace;
mod operator;
mod peer;
mod wait;

pub use audit::{AuditLog, Mark, Request};
pub use cache::{Cache, NodeView, Owned, condition};
pub use clients::{CLIENTS, Client as ClientProgram, Load};
pub use figures::figure;
pub use kubernetes::{Answer, Kubernetes, repository};
pub use ledger::{Findings, Ledger};
pub use machine::{kill, next_pod_ip, processes, signal};
pub use namespace::{Test, TestNamespace, run};
pub use operator::{Choice, Operator, Usage, Victims, alone};
pub use peer::Peer;
pub use wait::{appeared, seconds, until};

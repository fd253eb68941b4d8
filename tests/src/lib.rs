//! The harness of the end-to-end tests: a namespace for each test, waiting with deadlines, real clients.
//!
//! Nothing here waits for luck: whatever is waited for is a condition with a deadline, and the error says what was
//! seen last. Nothing here looks into the operator or a node either: tests see what a user sees (objects,
//! metrics, the Redis and the peer protocol) and break things from outside.

mod audit;
mod bystander;
mod cache;
mod client_load;
mod clients;
mod copies;
mod figures;
mod findings;
mod kubernetes;
mod ledger;
mod machine;
mod namespace;
mod operator;
mod origin;
mod page;
mod peer;
pub mod report;
pub mod rights;
mod stand_ins;
mod tenant;
mod wait;
pub mod wire;

pub use audit::{AuditLog, Mark, Request};
pub use bystander::Bystander;
pub use cache::{Cache, NodeView, Owned, condition};
pub use client_load::LoadProgram;
pub use clients::{CLIENTS, Client as ClientProgram, Load};
pub use figures::figure;
pub use findings::Findings;
pub use kubernetes::{Answer, Kubernetes, repository, results_dir};
pub use ledger::Ledger;
pub use machine::{Plug, component, ended, kill, next_pod_ip, node_processes, plug, processes, signal};
pub use namespace::{Test, TestNamespace, run, try_run};
pub use operator::{Choice, NAMESPACE as OPERATOR_NAMESPACE, Operator, Usage, Victims, alone};
pub use origin::{Origin, OriginFigures};
pub use page::{Page, Section, env_number, exit_code};
pub use peer::Peer;
pub use stand_ins::{STAND_INS_SPEC, StandIns};
pub use tenant::{Binding, Tenant};
pub use wait::{appeared, seconds, until};

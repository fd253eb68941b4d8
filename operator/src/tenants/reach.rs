//! How far the nodes are with a tenant or a group. Pure.

use annulus_ring::NodeId;

use crate::node_client::Snapshot;

/// Node names in a message.
const NAMES_MAX: usize = 5;

/// How far the nodes are with a tenant or a group as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Every node that answers follows it.
    Everywhere,
    /// Some don't yet.
    Behind {
        /// How many do.
        following: usize,
        /// Of how many.
        nodes: usize,
        /// Who doesn't.
        late: String,
    },
    /// No node answers.
    Nowhere,
    /// The operator has only just begun to ask.
    Unknown,
}

impl Reach {
    /// With what is in the stored `version` of the document, and [changed](super::memory::Remembered::changed) in that one.
    pub fn of(snapshot: &Snapshot, version: u64, changed: Option<u64>, was_ready: bool) -> Self {
        // Of what an earlier leader stored it is not known when it changed.
        let since = changed.unwrap_or(if was_ready { 0 } else { version });
        let (nodes, late) = (snapshot.reports.len(), behind(snapshot, since));
        match (nodes, late.len()) {
            _ if snapshot.connecting => Self::Unknown,
            (0, _) => Self::Nowhere,
            (_, 0) => Self::Everywhere,
            (_, count) => Self::Behind {
                following: nodes - count,
                nodes,
                late: names(&late),
            },
        }
    }
}

/// The versions of the document that nodes tell.
pub fn versions(snapshot: &Snapshot) -> impl Iterator<Item = u64> + '_ {
    snapshot.reports.values().map(|report| report.tenants_version)
}

/// The nodes that don't have that version yet.
pub fn behind(snapshot: &Snapshot, version: u64) -> Vec<NodeId> {
    let reports = snapshot.reports.iter();
    let behind = reports.filter(|(_, report)| report.tenants_version < version);
    behind.map(|(id, _)| id.clone()).collect()
}

/// Some of their names, for a message.
fn names(nodes: &[NodeId]) -> String {
    let shown: Vec<_> = nodes.iter().take(NAMES_MAX).map(ToString::to_string).collect();
    match nodes.len().saturating_sub(NAMES_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

//! One replica leads, the others stand by.
//!
//! The lease's expiry is watched on the local clock and its renewals are fenced by resourceVersion
//! (`k8s_controller::LeaderElection`). A leader that loses it ends the process: nothing that it has started can
//! outlive the lease. Even two leaders at once could not both advance a ring, since the ring document is
//! written against its resourceVersion.

use std::time::Duration;

use k8s_controller::LeaderElection;
use kube::Client;

/// The Lease's name, in the operator's namespace.
pub const LEASE_NAME: &str = "annulus-operator";

/// Followers wait this long for a sign of the leader before one of them takes over.
/// Nobody replaces a dead node meanwhile.
const LEASE_DURATION: Duration = Duration::from_secs(5);
/// A leader that has not renewed for this long gives up. The rest of the lease is the margin in which its
/// process ends.
const RENEW_DEADLINE: Duration = Duration::from_millis(3500);
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// The election of this replica, called `identity`, in that namespace.
pub fn election(client: Client, namespace: &str, identity: &str) -> LeaderElection {
    LeaderElection::new(client, namespace, LEASE_NAME, identity)
        .with_lease_duration(LEASE_DURATION)
        .with_renew_deadline(RENEW_DEADLINE)
        .with_retry_period(RETRY_PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A follower polls with up to half a period of jitter, must see the lease unchanged for its duration, and
    /// then takes it at its next poll: a killed leader is replaced within 8 s.
    #[test]
    fn a_killed_leader_is_replaced_in_time() {
        let poll_max = RETRY_PERIOD.mul_f64(1.5);
        assert!(poll_max + LEASE_DURATION + poll_max <= Duration::from_secs(8));
        assert!(RETRY_PERIOD < RENEW_DEADLINE && RENEW_DEADLINE < LEASE_DURATION);
    }
}

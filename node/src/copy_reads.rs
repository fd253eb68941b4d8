//! Reads that this node answers from its copy of a slot that another node serves, for connections that said `READONLY`.
//!
//! Such an answer may be older than what the slot's owner would say, by as much as `replication.maxStalenessMs` allows, and it may
//! show a write that a failover takes back: nothing is waited for. It leaves no trace in the copy, which is the
//! owner's to change. Whoever wants to be told of changes, by `WATCH` or `CLIENT TRACKING`, is sent to the owner, since only the
//! owner tells.

use std::sync::atomic::Ordering;

use annulus_ring::Slot;

use crate::clients::Client;
use crate::execute::Context;
use crate::tracking::Mode;

/// Whether a copy that has everything up to that moment (0: nobody knows) may be read now. Without a bound, always.
fn is_fresh(copied_until_ms: u64, now_ms: u64, staleness_max_ms: Option<u64>) -> bool {
    staleness_max_ms
        .is_none_or(|max_ms| copied_until_ms > 0 && now_ms.saturating_sub(copied_until_ms) <= max_ms)
}

/// Whether a client takes values that may be a little old, and doesn't want to be told of changes.
pub fn are_wanted(client: &Client) -> bool {
    client.readonly.load(Ordering::Relaxed) && client.tracking.lock().mode == Mode::Off
}

/// Whether a command that only reads may be answered from a copy of the slot, which is not served here.
#[cold]
pub fn may_answer(context: &Context<'_>, slot: Slot) -> bool {
    if !are_wanted(&context.session.client) {
        return false;
    }
    let node = context.node;
    node.routing.copied_until_ms(slot).is_some_and(|copied_until_ms| {
        let journal = &node.store.journal;
        is_fresh(
            copied_until_ms,
            journal.clock().now_ms(),
            journal.copy_staleness_max_ms(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::is_fresh;

    #[test]
    fn a_copy_is_read_within_the_bound() {
        for (copied_until_ms, now_ms, staleness_max_ms, expected) in [
            // Without a bound nothing is asked.
            (0, 9_000, None, true),
            (1, 9_000, None, true),
            // Up to the bound, and not after it.
            (8_500, 9_000, Some(500), true),
            (8_499, 9_000, Some(500), false),
            (9_000, 9_000, Some(500), true),
            // The clock was read before the owner was heard again.
            (9_001, 9_000, Some(500), true),
            // The owner was never heard under this ring, however young the node is.
            (0, 9_000, Some(500), false),
            (0, 100, Some(500), false),
        ] {
            assert_eq!(
                is_fresh(copied_until_ms, now_ms, staleness_max_ms),
                expected,
                "{copied_until_ms} {now_ms} {staleness_max_ms:?}"
            );
        }
    }
}

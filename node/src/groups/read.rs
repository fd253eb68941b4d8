//! `GET` and `MGET` of keys that may be in groups.

use annulus_proto::tenants::TenantId;
use bytes::Bytes;

use super::age::Age;
use super::load::Loaded;
use super::remembered::Why;
use super::verdict::Verdict;
use super::{Group, GroupCounters, HeldKey};
use crate::error::CommandError;
use crate::execute::Context;
use crate::resp::Args;
use crate::store::SlotGuard;

/// What keys get instead of their entries: the place of each among the arguments, and its value, if it has one.
pub type Given = Vec<(usize, Option<Bytes>)>;

/// What a command on keys of groups does next.
pub enum Reading {
    /// It reads what is stored, but for some keys.
    Reads(Given),
    /// It waits for loads; the session has them.
    Waits,
    /// It goes to the slot's owner: this copy isn't fresh enough.
    Elsewhere,
}

/// A command waits for so many loads at a time; the rest of its keys come when those are over.
const ROUND_MAX: usize = 256;

/// Looks at every key of a reading command, whose slot is locked.
pub fn look(
    context: &mut Context<'_>,
    guard: &SlotGuard<'_>,
    is_copy: bool,
    args: Args<'_>,
) -> Result<Reading, CommandError> {
    let tenant: TenantId = context.session.keyspace.id();
    let groups = &context.node.groups;
    let (mut given, mut begun) = (Given::new(), 0);
    for (place, key) in (1..).zip(args.from(1)) {
        let Some(group) = groups.of(tenant, key) else {
            continue;
        };
        let counters = group.counters();
        let stored = guard.peek(key, context.now_ms);
        let age = stored.map(|stored| {
            // What is no string was never loaded.
            let expires_at_ms = stored.expires_at_ms().filter(|_| stored.value().is_string());
            group.life(key).age(expires_at_ms, context.now_ms)
        });
        if is_copy {
            if age == Some(Age::Fresh) {
                counters.fresh.add(1);
                continue;
            }
            return Ok(Reading::Elsewhere);
        }
        if let Some(loaded) = context.session.awaited.of(key) {
            match loaded {
                // A client may have set it since, or what was loaded is there, or had no room.
                Loaded::Value(value) if !is_served(age) => given.push((place, Some(value.clone()))),
                Loaded::Absent if !is_served(age) => given.push((place, None)),
                Loaded::Value(_) | Loaded::Absent => {}
                Loaded::Failed(reason) => fall_back(&group, age, || reason.to_string())?,
            }
            continue;
        }
        if age == Some(Age::Fresh) {
            counters.fresh.add(1);
            continue;
        }
        let store = &context.node.store;
        let slot = guard.slot();
        let held = HeldKey {
            slot,
            tenure: context.node.routing.tenure(slot),
            key,
        };
        let (clock_ms, slots) = (store.journal.clock().now_ms(), store.slots());
        let (verdict, load) = group.decide(held, age, groups, (clock_ms, slots));
        match verdict {
            Verdict::Serve | Verdict::ServeAndLoad => counters.soft.add(1),
            Verdict::ServeStale => counters.stale.add(1),
            Verdict::Absent => counters.absent.add(1),
            Verdict::Filtered => counters.filtered.add(1),
            Verdict::Fail(Why::Failed(reason)) => fall_back(&group, age, || reason.to_string())?,
            Verdict::Fail(Why::Absent | Why::Written) => {}
            Verdict::Refused => fall_back(&group, age, || {
                "its origin failed too often and is left in peace for a while (circuit breaker)".to_owned()
            })?,
            Verdict::Load => {
                let Some(load) = load else {
                    let reason = || "too many of its keys are being loaded already: try again".to_owned();
                    fall_back(&group, age, reason)?;
                    continue;
                };
                context.session.awaited.push(key, &load);
                begun += 1;
                if begun == ROUND_MAX {
                    break;
                }
            }
        }
    }
    if begun == 0 {
        return Ok(Reading::Reads(given));
    }
    Ok(Reading::Waits)
}

fn is_served(age: Option<Age>) -> bool {
    matches!(age, Some(Age::Fresh | Age::Soft))
}

/// The old value, if there is one, or an error.
fn fall_back(group: &Group, age: Option<Age>, reason: impl FnOnce() -> String) -> Result<(), CommandError> {
    let counters: &GroupCounters = group.counters();
    if age.is_some() {
        counters.stale.add(1);
        return Ok(());
    }
    counters.failed.add(1);
    Err(CommandError::Origin {
        group: group.label().to_owned(),
        reason: reason(),
    })
}

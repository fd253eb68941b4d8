//! How old a group's value is, told from when its entry expires.
//!
//! A loaded entry expires when its group has no use for it any more: after the hard TTL, and after the time for which it is
//! kept for a failing origin. Every key's TTLs are shortened by a share that depends on the key alone, so that keys loaded
//! together don't expire together, and any node can tell from the time of expiry when the entry was loaded: nothing is kept
//! beside it. What a client has set itself is treated as if it was loaded when it would expire like that; without a time of
//! expiry it is always fresh.

use foldhash::fast::FixedState;
use std::hash::BuildHasher;

use annulus_proto::groups::Group;

/// What to do with a value of that age.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// Serve it.
    Fresh,
    /// Serve it, and load it anew.
    Soft,
    /// Load it anew, and serve it only if that fails.
    Hard,
}

/// How long a key's value lives in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "the unit")]
pub struct Life {
    /// So long it is fresh.
    pub soft_ms: u64,
    /// So long it is served.
    pub hard_ms: u64,
    /// So long its entry is kept.
    pub kept_ms: u64,
}

impl Life {
    /// That of a key, in a keyspace that keeps nothing for longer than `ttl_max_ms`.
    pub fn of(group: &Group, key: &[u8], ttl_max_ms: Option<u64>) -> Self {
        let share = FixedState::default().hash_one(key) % 1_000_001;
        let shortened = |ttl_ms: u64| {
            let most = u128::from(ttl_ms) * u128::from(group.jitter_percent) / 100;
            let by = most * u128::from(share) / 1_000_000;
            (ttl_ms - u64::try_from(by).unwrap_or(0)).max(1)
        };
        let hard_ms = shortened(group.hard_ttl_ms);
        let kept_ms = hard_ms
            .saturating_add(group.stale_ms)
            .min(ttl_max_ms.unwrap_or(u64::MAX));
        Self {
            soft_ms: shortened(group.soft_ttl_ms).min(kept_ms),
            hard_ms: hard_ms.min(kept_ms),
            kept_ms,
        }
    }

    /// How old an entry is that expires then.
    pub fn age(self, expires_at_ms: Option<u64>, now_ms: u64) -> Age {
        let Some(expires_at_ms) = expires_at_ms else {
            return Age::Fresh;
        };
        let age_ms = now_ms.saturating_add(self.kept_ms).saturating_sub(expires_at_ms);
        if age_ms < self.soft_ms {
            Age::Fresh
        } else if age_ms < self.hard_ms {
            Age::Soft
        } else {
            Age::Hard
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::described;
    use super::*;

    #[test]
    fn an_entry_is_as_old_as_its_time_of_expiry_says() {
        let mut group = described("user:");
        (group.soft_ttl_ms, group.hard_ttl_ms, group.stale_ms) = (100, 1000, 500);
        let life = Life::of(&group, b"user:1", None);
        assert_eq!((life.soft_ms, life.hard_ms, life.kept_ms), (100, 1000, 1500));
        let loaded_at_ms = 50_000;
        for (after_ms, age) in [
            (0, Age::Fresh),
            (99, Age::Fresh),
            (100, Age::Soft),
            (999, Age::Soft),
            (1000, Age::Hard),
            (1499, Age::Hard),
        ] {
            let expires_at_ms = Some(loaded_at_ms + life.kept_ms);
            assert_eq!(
                life.age(expires_at_ms, loaded_at_ms + after_ms),
                age,
                "{after_ms}"
            );
        }
        // What a client has set: for ever, and for longer than the group would.
        assert_eq!(life.age(None, loaded_at_ms), Age::Fresh);
        assert_eq!(life.age(Some(loaded_at_ms + 9000), loaded_at_ms), Age::Fresh);
    }

    #[test]
    fn a_keyspace_that_keeps_nothing_long_makes_no_value_old_at_once() {
        let mut group = described("user:");
        (group.soft_ttl_ms, group.hard_ttl_ms, group.stale_ms) = (1000, 1000, 500);
        let life = Life::of(&group, b"user:1", Some(300));
        assert_eq!((life.soft_ms, life.hard_ms, life.kept_ms), (300, 300, 300));
        assert_eq!(life.age(Some(1300), 1000), Age::Fresh);
    }

    #[test]
    fn jitter_spreads_the_ends_over_its_share() {
        let mut group = described("user:");
        (group.soft_ttl_ms, group.hard_ttl_ms, group.jitter_percent) = (100_000, 200_000, 20);
        let lives: Vec<Life> = (0..10_000)
            .map(|number| Life::of(&group, format!("user:{number}").as_bytes(), None))
            .collect();
        assert!(
            lives
                .iter()
                .all(|life| (80_000..=100_000).contains(&life.soft_ms))
        );
        // In each tenth of the span is about a tenth of the keys.
        for tenth in 0..10 {
            let from = 80_000 + tenth * 2000;
            let keys = lives
                .iter()
                .filter(|life| (from..from + 2000).contains(&life.soft_ms));
            let keys = keys.count();
            assert!((850..1150).contains(&keys), "{tenth}: {keys}");
        }
        assert_eq!(
            Life::of(&group, b"user:1", None),
            Life::of(&group, b"user:1", None)
        );
    }
}

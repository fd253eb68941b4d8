//! What a read of a group's key gets: the decision, made while the key's slot is locked.

use super::age::Age;
use super::remembered::Why;

/// What is known of a key when it is read.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The age of its entry, if it has one.
    pub age: Option<Age>,
    /// Why it has no value, as far as that is remembered.
    pub remembered: Option<&'a Why>,
    /// The filter of the origin's keys says that the origin doesn't have it.
    pub is_filtered: bool,
    /// A load of it is under way.
    pub is_loading: bool,
    /// A load may begin: the breaker isn't open.
    pub may_load: bool,
}

/// What the read gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The entry.
    Serve,
    /// The entry, and a load begins that nobody waits for.
    ServeAndLoad,
    /// The entry although it is too old, since it can't be loaded.
    ServeStale,
    /// What the load brings, which is begun unless it is under way.
    Load,
    /// That there is no value, because that is remembered.
    Absent,
    /// That there is no value, by the filter.
    Filtered,
    /// An error: it can't be loaded.
    Fail(Why),
    /// An error: the origin is left in peace.
    Refused,
}

/// Decides.
pub fn verdict(known: Known<'_>) -> Verdict {
    let failed = matches!(known.remembered, Some(Why::Failed(_)));
    match known.age {
        Some(Age::Fresh) => Verdict::Serve,
        // Its time to live is the client's, not the group's.
        Some(_) if known.remembered == Some(&Why::Written) => Verdict::Serve,
        Some(Age::Soft) if known.is_loading || failed || !known.may_load => Verdict::Serve,
        Some(Age::Soft) => Verdict::ServeAndLoad,
        Some(Age::Hard) | None if known.is_loading => Verdict::Load,
        Some(Age::Hard) if failed || !known.may_load => Verdict::ServeStale,
        Some(Age::Hard) => Verdict::Load,
        None => match known.remembered {
            Some(Why::Absent) => Verdict::Absent,
            Some(why @ Why::Failed(_)) => Verdict::Fail(why.clone()),
            Some(Why::Written) | None if known.is_filtered => Verdict::Filtered,
            Some(Why::Written) | None if !known.may_load => Verdict::Refused,
            Some(Why::Written) | None => Verdict::Load,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_read_gets_what_is_best_for_it() {
        let failure = Why::Failed("503".into());
        let (absent, failed) = (Some(&Why::Absent), Some(&failure));
        let (fresh, soft, hard) = (Some(Age::Fresh), Some(Age::Soft), Some(Age::Hard));
        // age, remembered, filtered, loading, may load
        for (age, remembered, is_filtered, is_loading, may_load, expected) in [
            (fresh, None, false, false, true, Verdict::Serve),
            (fresh, failed, true, true, false, Verdict::Serve),
            (soft, None, false, false, true, Verdict::ServeAndLoad),
            (soft, None, true, false, true, Verdict::ServeAndLoad),
            (soft, None, false, true, true, Verdict::Serve),
            (soft, Some(&Why::Written), false, false, true, Verdict::Serve),
            (hard, Some(&Why::Written), false, false, true, Verdict::Serve),
            (None, Some(&Why::Written), false, false, true, Verdict::Load),
            (soft, failed, false, false, true, Verdict::Serve),
            (soft, None, false, false, false, Verdict::Serve),
            (hard, None, false, false, true, Verdict::Load),
            (hard, None, false, true, false, Verdict::Load),
            (hard, failed, false, false, true, Verdict::ServeStale),
            (hard, None, false, false, false, Verdict::ServeStale),
            (None, None, false, false, true, Verdict::Load),
            (None, None, false, true, true, Verdict::Load),
            (None, absent, false, false, true, Verdict::Absent),
            (None, failed, false, false, true, Verdict::Fail(failure.clone())),
            (None, None, true, false, true, Verdict::Filtered),
            (None, None, false, false, false, Verdict::Refused),
            // A load that a client's write has made begin anew counts, whatever was remembered.
            (None, absent, false, true, true, Verdict::Load),
        ] {
            let known = Known {
                age,
                remembered,
                is_filtered,
                is_loading,
                may_load,
            };
            assert_eq!(verdict(known), expected, "{known:?}");
        }
    }
}

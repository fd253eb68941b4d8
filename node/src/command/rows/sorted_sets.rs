//! The rows of the commands on sorted sets.

use super::{KeyedFn, R, RF, RM, W, WD, WDF, WDM, WF, WM, keyed};
use crate::command::{Command, CountRefusal, Flags, Group, KeyAccess, Keys};
use crate::commands::{sorted_algebra, sorted_ranges, sorted_sets};

const fn row(
    spec: (&'static str, i8, Flags, Keys),
    text: (&'static str, &'static str),
    run: KeyedFn,
) -> Command {
    keyed(Group::SortedSet, spec, text, run)
}

pub(super) const SORTED_SETS: &[Command] = &[
    row(
        ("zadd", -4, WDF, Keys::one(KeyAccess::Change)),
        ("1.2.0", "Adds members to a sorted set, or changes their scores."),
        sorted_sets::zadd,
    ),
    row(
        ("zcard", 2, RF, Keys::one(KeyAccess::Inspect)),
        ("1.2.0", "Counts a sorted set's members."),
        sorted_sets::zcard,
    ),
    row(
        ("zcount", 4, RF, Keys::one(KeyAccess::Read)),
        ("2.0.0", "Counts the members in a range of scores."),
        sorted_ranges::zcount,
    ),
    row(
        (
            "zdiff",
            -3,
            RM,
            Keys::counted(CountRefusal::Inputs, KeyAccess::Read),
        ),
        (
            "6.2.0",
            "Returns the members of the first sorted set that no other has.",
        ),
        sorted_algebra::zdiff,
    ),
    row(
        (
            "zdiffstore",
            -4,
            WDM,
            Keys::into_counted(KeyAccess::Overwrite, KeyAccess::Read),
        ),
        (
            "6.2.0",
            "Stores the members of the first sorted set that no other has.",
        ),
        sorted_algebra::zdiffstore,
    ),
    row(
        ("zincrby", 4, WDF, Keys::one(KeyAccess::Update)),
        ("1.2.0", "Adds to the score of a member."),
        sorted_sets::zincrby,
    ),
    row(
        (
            "zinter",
            -3,
            RM,
            Keys::counted(CountRefusal::Inputs, KeyAccess::Read),
        ),
        ("6.2.0", "Returns the members that all sorted sets have."),
        sorted_algebra::zinter,
    ),
    row(
        (
            "zintercard",
            -3,
            RM,
            Keys::counted(CountRefusal::Inputs, KeyAccess::Read),
        ),
        ("7.0.0", "Counts the members that all sorted sets have."),
        sorted_algebra::zintercard,
    ),
    row(
        (
            "zinterstore",
            -4,
            WDM,
            Keys::into_counted(KeyAccess::Overwrite, KeyAccess::Read),
        ),
        ("2.0.0", "Stores the members that all sorted sets have."),
        sorted_algebra::zinterstore,
    ),
    row(
        ("zlexcount", 4, RF, Keys::one(KeyAccess::Read)),
        ("2.8.9", "Counts the members in a range of the alphabet."),
        sorted_ranges::zlexcount,
    ),
    row(
        ("zmpop", -4, WM, Keys::counted(CountRefusal::Pop, KeyAccess::Take)),
        (
            "7.0.0",
            "Takes members from an end of the first of several sorted sets that has any.",
        ),
        sorted_sets::zmpop,
    ),
    row(
        ("zmscore", -3, RF, Keys::one(KeyAccess::Read)),
        ("6.2.0", "Returns the scores of several members."),
        sorted_sets::zmscore,
    ),
    row(
        ("zpopmax", -2, WF, Keys::one(KeyAccess::Take)),
        ("5.0.0", "Takes the members with the highest scores."),
        sorted_sets::zpopmax,
    ),
    row(
        ("zpopmin", -2, WF, Keys::one(KeyAccess::Take)),
        ("5.0.0", "Takes the members with the lowest scores."),
        sorted_sets::zpopmin,
    ),
    row(
        ("zrandmember", -2, R, Keys::one(KeyAccess::Read)),
        ("6.2.0", "Returns members of a sorted set at random."),
        sorted_sets::zrandmember,
    ),
    row(
        ("zrange", -4, R, Keys::one(KeyAccess::Read)),
        (
            "1.2.0",
            "Returns the members in a range of ranks, scores or the alphabet.",
        ),
        sorted_ranges::zrange,
    ),
    row(
        ("zrangebylex", -4, R, Keys::one(KeyAccess::Read)),
        ("2.8.9", "Returns the members in a range of the alphabet."),
        sorted_ranges::zrangebylex,
    ),
    row(
        ("zrangebyscore", -4, R, Keys::one(KeyAccess::Read)),
        ("1.0.5", "Returns the members in a range of scores."),
        sorted_ranges::zrangebyscore,
    ),
    row(
        (
            "zrangestore",
            -5,
            WD,
            Keys::two(KeyAccess::Overwrite, KeyAccess::Read),
        ),
        (
            "6.2.0",
            "Stores the members in a range of ranks, scores or the alphabet.",
        ),
        sorted_ranges::zrangestore,
    ),
    row(
        ("zrank", -3, RF, Keys::one(KeyAccess::Read)),
        ("2.0.0", "Returns how many members have lower scores than one."),
        sorted_sets::zrank,
    ),
    row(
        ("zrem", -3, WF, Keys::one(KeyAccess::Delete)),
        ("1.2.0", "Removes members of a sorted set."),
        sorted_sets::zrem,
    ),
    row(
        ("zremrangebylex", 4, W, Keys::one(KeyAccess::Delete)),
        ("2.8.9", "Removes the members in a range of the alphabet."),
        sorted_ranges::zremrangebylex,
    ),
    row(
        ("zremrangebyrank", 4, W, Keys::one(KeyAccess::Delete)),
        ("2.0.0", "Removes the members in a range of ranks."),
        sorted_ranges::zremrangebyrank,
    ),
    row(
        ("zremrangebyscore", 4, W, Keys::one(KeyAccess::Delete)),
        ("1.2.0", "Removes the members in a range of scores."),
        sorted_ranges::zremrangebyscore,
    ),
    row(
        ("zrevrange", -4, R, Keys::one(KeyAccess::Read)),
        (
            "1.2.0",
            "Returns the members in a range of ranks from the highest score on.",
        ),
        sorted_ranges::zrevrange,
    ),
    row(
        ("zrevrangebylex", -4, R, Keys::one(KeyAccess::Read)),
        (
            "2.8.9",
            "Returns the members in a range of the alphabet from its end on.",
        ),
        sorted_ranges::zrevrangebylex,
    ),
    row(
        ("zrevrangebyscore", -4, R, Keys::one(KeyAccess::Read)),
        (
            "2.2.0",
            "Returns the members in a range of scores from the highest on.",
        ),
        sorted_ranges::zrevrangebyscore,
    ),
    row(
        ("zrevrank", -3, RF, Keys::one(KeyAccess::Read)),
        ("2.0.0", "Returns how many members have higher scores than one."),
        sorted_sets::zrevrank,
    ),
    row(
        ("zscan", -3, R, Keys::one(KeyAccess::Read)),
        ("2.8.0", "Goes through a sorted set's members step by step."),
        sorted_sets::zscan,
    ),
    row(
        ("zscore", 3, RF, Keys::one(KeyAccess::Read)),
        ("1.2.0", "Returns the score of a member."),
        sorted_sets::zscore,
    ),
    row(
        (
            "zunion",
            -3,
            RM,
            Keys::counted(CountRefusal::Inputs, KeyAccess::Read),
        ),
        ("6.2.0", "Returns the members that any of the sorted sets has."),
        sorted_algebra::zunion,
    ),
    row(
        (
            "zunionstore",
            -4,
            WDM,
            Keys::into_counted(KeyAccess::Overwrite, KeyAccess::Read),
        ),
        ("2.0.0", "Stores the members that any of the sorted sets has."),
        sorted_algebra::zunionstore,
    ),
];

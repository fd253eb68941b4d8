//! The rows of the commands on sets.

use super::{KeyedFn, R, RF, RM, WD, WDF, WF, keyed};
use crate::command::{Command, CountRefusal, Flags, Group, KeyAccess, Keys};
use crate::commands::{set_algebra, sets};

const fn row(
    spec: (&'static str, i8, Flags, Keys),
    text: (&'static str, &'static str),
    run: KeyedFn,
) -> Command {
    keyed(Group::Set, spec, text, run)
}

pub(super) const SETS: &[Command] = &[
    row(
        ("sadd", -3, WDF, Keys::one(KeyAccess::Insert)),
        ("1.0.0", "Adds members to a set, which is made if there is none."),
        sets::sadd,
    ),
    row(
        ("scard", 2, RF, Keys::one(KeyAccess::Inspect)),
        ("1.0.0", "Counts a set's members."),
        sets::scard,
    ),
    row(
        ("sdiff", -2, R, Keys::all(KeyAccess::Read)),
        ("1.0.0", "Returns the members of the first set that no other has."),
        set_algebra::sdiff,
    ),
    row(
        (
            "sdiffstore",
            -3,
            WD,
            Keys::into(KeyAccess::Overwrite, KeyAccess::Read),
        ),
        ("1.0.0", "Stores the members of the first set that no other has."),
        set_algebra::sdiffstore,
    ),
    row(
        ("sinter", -2, R, Keys::all(KeyAccess::Read)),
        ("1.0.0", "Returns the members that all sets have."),
        set_algebra::sinter,
    ),
    row(
        (
            "sintercard",
            -3,
            RM,
            Keys::counted(CountRefusal::Cardinality, KeyAccess::Read),
        ),
        ("7.0.0", "Counts the members that all sets have."),
        set_algebra::sintercard,
    ),
    row(
        (
            "sinterstore",
            -3,
            WD,
            Keys::into(KeyAccess::Change, KeyAccess::Read),
        ),
        ("1.0.0", "Stores the members that all sets have."),
        set_algebra::sinterstore,
    ),
    row(
        ("sismember", 3, RF, Keys::one(KeyAccess::Inspect)),
        ("1.0.0", "Tells whether a set has a member."),
        sets::sismember,
    ),
    row(
        ("smembers", 2, R, Keys::one(KeyAccess::Read)),
        ("1.0.0", "Returns a set's members."),
        sets::smembers,
    ),
    row(
        ("smismember", -3, RF, Keys::one(KeyAccess::Read)),
        ("6.2.0", "Tells which of several members a set has."),
        sets::smismember,
    ),
    row(
        ("smove", 4, WF, Keys::two(KeyAccess::Take, KeyAccess::Insert)),
        ("1.0.0", "Moves a member from one set to another."),
        sets::smove,
    ),
    row(
        ("spop", -2, WF, Keys::one(KeyAccess::Take)),
        ("1.0.0", "Takes members of a set at random."),
        sets::spop,
    ),
    row(
        ("srandmember", -2, R, Keys::one(KeyAccess::Read)),
        ("1.0.0", "Returns members of a set at random."),
        sets::srandmember,
    ),
    row(
        ("srem", -3, WF, Keys::one(KeyAccess::Delete)),
        ("1.0.0", "Removes members of a set."),
        sets::srem,
    ),
    row(
        ("sscan", -3, R, Keys::one(KeyAccess::Read)),
        ("2.8.0", "Goes through a set's members step by step."),
        sets::sscan,
    ),
    row(
        ("sunion", -2, R, Keys::all(KeyAccess::Read)),
        ("1.0.0", "Returns the members that any of the sets has."),
        set_algebra::sunion,
    ),
    row(
        (
            "sunionstore",
            -3,
            WD,
            Keys::into(KeyAccess::Overwrite, KeyAccess::Read),
        ),
        ("1.0.0", "Stores the members that any of the sets has."),
        set_algebra::sunionstore,
    ),
];

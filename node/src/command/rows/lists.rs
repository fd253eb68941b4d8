//! The rows of the commands on lists.

use super::{KeyedFn, R, RF, W, WD, WDF, WF, WM, keyed};
use crate::command::{Command, CountRefusal, Flags, Group, KeyAccess, Keys};
use crate::commands::lists;

const fn row(
    spec: (&'static str, i8, Flags, Keys),
    text: (&'static str, &'static str),
    run: KeyedFn,
) -> Command {
    keyed(Group::List, spec, text, run)
}

pub(super) const LISTS: &[Command] = &[
    row(
        ("lindex", 3, R, Keys::one(KeyAccess::Read)),
        ("1.0.0", "Returns the element at an index of a list."),
        lists::lindex,
    ),
    row(
        ("linsert", 5, WD, Keys::one(KeyAccess::Insert)),
        ("2.2.0", "Adds an element to a list next to another."),
        lists::linsert,
    ),
    row(
        ("llen", 2, RF, Keys::one(KeyAccess::Inspect)),
        ("1.0.0", "Counts a list's elements."),
        lists::llen,
    ),
    row(
        ("lmove", 5, WD, Keys::two(KeyAccess::Take, KeyAccess::Insert)),
        (
            "6.2.0",
            "Takes an element from an end of a list and adds it at an end of another.",
        ),
        lists::lmove,
    ),
    row(
        ("lmpop", -4, WM, Keys::counted(CountRefusal::Pop, KeyAccess::Take)),
        (
            "7.0.0",
            "Takes elements from an end of the first of several lists that has any.",
        ),
        lists::lmpop,
    ),
    row(
        ("lpop", -2, WF, Keys::one(KeyAccess::Take)),
        ("1.0.0", "Takes the first elements of a list."),
        lists::lpop,
    ),
    row(
        ("lpos", -3, R, Keys::one(KeyAccess::Read)),
        ("6.0.6", "Returns where in a list an element is."),
        lists::lpos,
    ),
    row(
        ("lpush", -3, WDF, Keys::one(KeyAccess::Insert)),
        (
            "1.0.0",
            "Adds elements at a list's front; the list is made if there is none.",
        ),
        lists::lpush,
    ),
    row(
        ("lpushx", -3, WDF, Keys::one(KeyAccess::Insert)),
        ("2.2.0", "Adds elements at the front of a list that exists."),
        lists::lpushx,
    ),
    row(
        ("lrange", 4, R, Keys::one(KeyAccess::Read)),
        ("1.0.0", "Returns a range of a list's elements."),
        lists::lrange,
    ),
    row(
        ("lrem", 4, W, Keys::one(KeyAccess::Delete)),
        ("1.0.0", "Removes equal elements from a list."),
        lists::lrem,
    ),
    row(
        ("lset", 4, WD, Keys::one(KeyAccess::Change)),
        ("1.0.0", "Replaces the element at an index of a list."),
        lists::lset,
    ),
    row(
        ("ltrim", 4, W, Keys::one(KeyAccess::Delete)),
        ("1.0.0", "Removes all elements of a list but a range."),
        lists::ltrim,
    ),
    row(
        ("rpop", -2, WF, Keys::one(KeyAccess::Take)),
        ("1.0.0", "Takes the last elements of a list."),
        lists::rpop,
    ),
    row(
        ("rpoplpush", 3, WD, Keys::two(KeyAccess::Take, KeyAccess::Insert)),
        (
            "1.2.0",
            "Takes a list's last element and adds it at the front of another.",
        ),
        lists::rpoplpush,
    ),
    row(
        ("rpush", -3, WDF, Keys::one(KeyAccess::Insert)),
        (
            "1.0.0",
            "Adds elements at a list's end; the list is made if there is none.",
        ),
        lists::rpush,
    ),
    row(
        ("rpushx", -3, WDF, Keys::one(KeyAccess::Insert)),
        ("2.2.0", "Adds elements at the end of a list that exists."),
        lists::rpushx,
    ),
];

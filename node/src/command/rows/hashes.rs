//! The rows of the commands on hashes.

use super::{KeyedFn, R, RF, WDF, WF, keyed};
use crate::command::{Command, Flags, Group, KeyAccess, Keys};
use crate::commands::hashes;

const fn row(
    spec: (&'static str, i8, Flags, Keys),
    text: (&'static str, &'static str),
    run: KeyedFn,
) -> Command {
    keyed(Group::Hash, spec, text, run)
}

pub(super) const HASHES: &[Command] = &[
    row(
        ("hdel", -3, WF, Keys::one(KeyAccess::Delete)),
        ("2.0.0", "Removes fields of a hash."),
        hashes::hdel,
    ),
    row(
        ("hexists", 3, RF, Keys::one(KeyAccess::Inspect)),
        ("2.0.0", "Tells whether a hash has a field."),
        hashes::hexists,
    ),
    row(
        ("hget", 3, RF, Keys::one(KeyAccess::Read)),
        ("2.0.0", "Returns the value of a hash's field."),
        hashes::hget,
    ),
    row(
        ("hgetall", 2, R, Keys::one(KeyAccess::Read)),
        ("2.0.0", "Returns a hash's fields and their values."),
        hashes::hgetall,
    ),
    row(
        ("hincrby", 4, WDF, Keys::one(KeyAccess::Update)),
        ("2.0.0", "Adds to the integer in a hash's field."),
        hashes::hincrby,
    ),
    row(
        ("hincrbyfloat", 4, WDF, Keys::one(KeyAccess::Update)),
        ("2.6.0", "Adds to the number in a hash's field."),
        hashes::hincrbyfloat,
    ),
    row(
        ("hkeys", 2, R, Keys::one(KeyAccess::Read)),
        ("2.0.0", "Returns a hash's fields."),
        hashes::hkeys,
    ),
    row(
        ("hlen", 2, RF, Keys::one(KeyAccess::Inspect)),
        ("2.0.0", "Counts a hash's fields."),
        hashes::hlen,
    ),
    row(
        ("hmget", -3, RF, Keys::one(KeyAccess::Read)),
        ("2.0.0", "Returns the values of several of a hash's fields."),
        hashes::hmget,
    ),
    row(
        ("hmset", -4, WDF, Keys::one(KeyAccess::Change)),
        ("2.0.0", "Sets fields of a hash; the old form of HSET."),
        hashes::hmset,
    ),
    row(
        ("hrandfield", -2, R, Keys::one(KeyAccess::Read)),
        ("6.2.0", "Returns fields of a hash at random."),
        hashes::hrandfield,
    ),
    row(
        ("hscan", -3, R, Keys::one(KeyAccess::Read)),
        ("2.8.0", "Goes through a hash's fields step by step."),
        hashes::hscan,
    ),
    row(
        ("hset", -4, WDF, Keys::one(KeyAccess::Change)),
        ("2.0.0", "Sets fields of a hash, which is made if there is none."),
        hashes::hset,
    ),
    row(
        ("hsetnx", 4, WDF, Keys::one(KeyAccess::Insert)),
        ("2.0.0", "Sets a field of a hash if the hash doesn't have it."),
        hashes::hsetnx,
    ),
    row(
        ("hstrlen", 3, RF, Keys::one(KeyAccess::Inspect)),
        ("3.2.0", "Returns the length of the value of a hash's field."),
        hashes::hstrlen,
    ),
    row(
        ("hvals", 2, R, Keys::one(KeyAccess::Read)),
        ("2.0.0", "Returns the values of a hash's fields."),
        hashes::hvals,
    ),
];

//! The command table: what every command is called, takes and does. Dispatch, arity checks, routing by key,
//! memory checks, the `COMMAND` family and the counters all read the same rows.

mod index;
mod keys;
mod rows;

use crate::error::Outcome;
use crate::exclusive::Exclusive;
use crate::execute::{Context, Keyed};
use crate::resp::{Args, Reply};

pub use index::{Entry, Table, table};
pub use keys::{CountRefusal, Counted, KeyAccess, Keys};

/// What a command does, besides its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Administers the node.
    pub const ADMIN: Self = Self(1 << 3);
    /// May need memory: refused when there is none and nothing may be evicted.
    pub const DENY_OOM: Self = Self(1 << 2);
    /// Takes time that doesn't depend on the data.
    pub const FAST: Self = Self(1 << 4);
    /// Runs at once between `MULTI` and `EXEC`, where other commands are queued.
    pub const IMMEDIATE: Self = Self(1 << 7);
    /// Some of its keys are not where its row's first and last key say.
    pub const MOVABLE_KEYS: Self = Self(1 << 6);
    /// May be called without keys, although it can have some.
    pub const NO_MANDATORY_KEYS: Self = Self(1 << 10);
    /// Can't be called by a script.
    pub const NO_SCRIPT: Self = Self(1 << 9);
    /// Has no keys and takes no slot's lock: it may run while one is held.
    pub const NO_SLOT: Self = Self(1 << 8);
    /// Nothing of all this.
    pub const NONE: Self = Self(0);
    /// Allowed before authentication.
    pub const NO_AUTH: Self = Self(1 << 5);
    /// Publishes or subscribes.
    pub const PUB_SUB: Self = Self(1 << 11);
    /// Reads keys and changes nothing.
    pub const READ: Self = Self(1 << 1);
    /// Allowed to a subscribed connection in RESP2.
    pub const WHILE_SUBSCRIBED: Self = Self(1 << 12);
    /// Changes keys, or may.
    pub const WRITE: Self = Self(1 << 0);

    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::ADMIN,
        Self::DENY_OOM,
        Self::FAST,
        Self::IMMEDIATE,
        Self::MOVABLE_KEYS,
        Self::NO_AUTH,
        Self::NO_MANDATORY_KEYS,
        Self::NO_SCRIPT,
        Self::NO_SLOT,
        Self::PUB_SUB,
        Self::READ,
        Self::WHILE_SUBSCRIBED,
        Self::WRITE,
    ];

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are here.
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names that `COMMAND` gives.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        const NAMES: [(Flags, &str); 10] = [
            (Flags::WRITE, "write"),
            (Flags::READ, "readonly"),
            (Flags::DENY_OOM, "denyoom"),
            (Flags::ADMIN, "admin"),
            (Flags::PUB_SUB, "pubsub"),
            (Flags::NO_SCRIPT, "noscript"),
            (Flags::FAST, "fast"),
            (Flags::NO_AUTH, "no_auth"),
            (Flags::NO_MANDATORY_KEYS, "no_mandatory_keys"),
            (Flags::MOVABLE_KEYS, "movablekeys"),
        ];
        NAMES
            .into_iter()
            .filter(move |(flag, _)| self.has(*flag))
            .map(|(_, name)| name)
    }
}

/// What a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The ring.
    Cluster,
    /// The connection.
    Connection,
    /// Keys of any type.
    Generic,
    /// Hashes.
    Hash,
    /// Lists.
    List,
    /// Messages.
    PubSub,
    /// Programs that clients send.
    Scripting,
    /// The node.
    Server,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Strings.
    String,
    /// Several commands as one.
    Transactions,
}

impl Group {
    /// The name in `COMMAND DOCS`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Connection => "connection",
            Self::Generic => "generic",
            Self::Hash => "hash",
            Self::List => "list",
            Self::PubSub => "pubsub",
            Self::Scripting => "scripting",
            Self::Server => "server",
            Self::Set => "set",
            Self::SortedSet => "sorted-set",
            Self::String => "string",
            Self::Transactions => "transactions",
        }
    }
}

/// What runs a command.
#[derive(Clone, Copy)]
pub enum Run {
    /// It works on the keys of one slot, which is locked and served here.
    Keyed(fn(&mut Keyed<'_, '_>) -> Outcome),
    /// It works on the connection or the node.
    Plain(fn(&mut Context<'_>, Args<'_>, &mut Reply) -> Outcome),
    /// It runs commands itself, in one slot that is locked already if it has keys.
    Script(for<'a> fn(&mut Context<'a>, &mut Exclusive<'a>, Args<'_>, &mut Reply) -> Outcome),
    /// Its second argument names a subcommand.
    Container(&'static [Command]),
}

/// A row of the table.
pub struct Command {
    /// In lower case.
    pub name: &'static str,
    /// Arguments, the name and the subcommand's included; negative for at least so many.
    pub arity: i8,
    /// What it does besides its work.
    pub flags: Flags,
    /// Where its keys are.
    pub keys: Keys,
    /// What it is for.
    pub group: Group,
    /// The version of Redis whose clients know it.
    pub since: &'static str,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// What runs it.
    pub run: Run,
}

/// Commands that administer nothing and are in the category `@dangerous` of Redis all the same.
const DANGEROUS: [&str; 5] = ["flushall", "flushdb", "info", "keys", "role"];

impl Command {
    /// Whether a command with so many arguments is complete.
    #[inline]
    pub fn accepts(&self, args: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            args >= arity
        } else {
            args == arity
        }
    }

    /// Whether its slot must be one that takes writes.
    #[inline]
    pub fn may_write(&self) -> bool {
        // What a script will do is known only afterwards.
        self.flags.has(Flags::WRITE) || (matches!(self.run, Run::Script(_)) && !self.flags.has(Flags::READ))
    }

    /// Whether it sends a message to others.
    pub fn publishes(&self) -> bool {
        self.flags.has(Flags::PUB_SUB) && self.name.ends_with("publish")
    }

    /// The access control categories that follow from its row.
    pub fn categories(&self) -> Vec<&'static str> {
        let mut categories = Vec::new();
        if matches!(self.group, Group::Generic) && self.keys.first > 0
            || self.name == "scan"
            || self.name == "keys"
        {
            categories.push("@keyspace");
        }
        for (is_in, category) in [
            (self.flags.has(Flags::READ), "@read"),
            (self.flags.has(Flags::WRITE), "@write"),
            (self.group == Group::Hash, "@hash"),
            (self.group == Group::List, "@list"),
            (self.group == Group::Set, "@set"),
            (self.group == Group::SortedSet, "@sortedset"),
            (self.group == Group::String, "@string"),
            (self.group == Group::PubSub, "@pubsub"),
            (self.group == Group::Connection, "@connection"),
            (self.group == Group::Transactions, "@transaction"),
            (self.group == Group::Scripting, "@scripting"),
            (self.flags.has(Flags::ADMIN), "@admin"),
            (
                self.flags.has(Flags::ADMIN) || DANGEROUS.contains(&self.name),
                "@dangerous",
            ),
            (self.flags.has(Flags::FAST), "@fast"),
            (!self.flags.has(Flags::FAST), "@slow"),
        ] {
            if is_in {
                categories.push(category);
            }
        }
        categories
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two lines of work that each take the next free bit would make two flags one.
    #[test]
    fn no_flag_is_another() {
        let all = Flags::ALL.into_iter().fold(Flags::NONE, Flags::and);
        assert_eq!(all.0.count_ones() as usize, Flags::ALL.len());
    }
}

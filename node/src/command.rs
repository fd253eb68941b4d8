//! The command table: what every command is called, takes and does. Dispatch, arity checks, routing by key,
//! memory checks, the `COMMAND` family and the counters all read the same rows.

mod index;
mod rows;

use crate::error::Outcome;
use crate::execute::{Context, Keyed};
use crate::resp::{Args, Reply};

pub use index::{Entry, Table, table};

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
    pub const IMMEDIATE: Self = Self(1 << 6);
    /// Nothing of all this.
    pub const NONE: Self = Self(0);
    /// Allowed before authentication.
    pub const NO_AUTH: Self = Self(1 << 5);
    /// Reads keys and changes nothing.
    pub const READ: Self = Self(1 << 1);
    /// Changes keys, or may.
    pub const WRITE: Self = Self(1 << 0);

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
        const NAMES: [(Flags, &str); 6] = [
            (Flags::WRITE, "write"),
            (Flags::READ, "readonly"),
            (Flags::DENY_OOM, "denyoom"),
            (Flags::ADMIN, "admin"),
            (Flags::FAST, "fast"),
            (Flags::NO_AUTH, "no_auth"),
        ];
        NAMES
            .into_iter()
            .filter(move |(flag, _)| self.has(*flag))
            .map(|(_, name)| name)
    }
}

/// Where a command's keys stand among its arguments: every `step`-th from `first` to `last`, which counts from
/// the end when it is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The index of the first; 0 for a command without keys.
    pub first: u8,
    /// The index of the last.
    pub last: i8,
    /// From one to the next.
    pub step: u8,
    /// What happens to them.
    pub access: KeyAccess,
}

/// What a command does with its keys, as key specifications put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAccess {
    /// Reads the value and returns it.
    Read,
    /// Reads something about it.
    Inspect,
    /// Changes the value.
    Update,
    /// Writes a value without looking at the old one.
    Overwrite,
    /// Removes it.
    Remove,
}

impl KeyAccess {
    /// The flags in a key specification.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Read => &["RO", "access"],
            Self::Inspect => &["RO"],
            Self::Update => &["RW", "access", "update"],
            Self::Overwrite => &["OW", "update"],
            Self::Remove => &["RM", "delete"],
        }
    }
}

impl Keys {
    /// None.
    pub const NONE: Self = Self {
        first: 0,
        last: 0,
        step: 0,
        access: KeyAccess::Inspect,
    };

    /// The first argument.
    pub const fn one(access: KeyAccess) -> Self {
        Self {
            first: 1,
            last: 1,
            step: 1,
            access,
        }
    }

    /// All arguments.
    pub const fn all(access: KeyAccess) -> Self {
        Self {
            first: 1,
            last: -1,
            step: 1,
            access,
        }
    }

    /// Every other argument.
    pub const fn alternate(access: KeyAccess) -> Self {
        Self {
            first: 1,
            last: -1,
            step: 2,
            access,
        }
    }

    /// The first two arguments.
    pub const fn two(access: KeyAccess) -> Self {
        Self {
            first: 1,
            last: 2,
            step: 1,
            access,
        }
    }

    /// The argument behind a subcommand.
    pub const fn of_subcommand(access: KeyAccess) -> Self {
        Self {
            first: 2,
            last: 2,
            step: 1,
            access,
        }
    }

    /// The keys among these arguments.
    #[inline]
    pub fn of(self, args: Args<'_>) -> impl Iterator<Item = &[u8]> + use<'_> {
        let last = match usize::try_from(self.last) {
            Ok(last) => last,
            Err(_) => args.len().saturating_sub(usize::from(self.last.unsigned_abs())),
        };
        let count = if self.first == 0 {
            0
        } else {
            (last + 1).saturating_sub(usize::from(self.first))
        };
        args.from(self.first.into())
            .take(count)
            .step_by(usize::from(self.step.max(1)))
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
    /// The node.
    Server,
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
            Self::Server => "server",
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
            (self.group == Group::String, "@string"),
            (self.group == Group::Connection, "@connection"),
            (self.group == Group::Transactions, "@transaction"),
            (self.flags.has(Flags::ADMIN), "@admin"),
            (self.flags.has(Flags::ADMIN), "@dangerous"),
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

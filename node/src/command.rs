//! The command table: what every command is called, takes and does. Dispatch, arity checks, routing by key,
//! memory checks, the `COMMAND` family and the counters all read the same rows.

mod index;
mod rows;

use crate::error::{CommandError, Outcome};
use crate::execute::{Context, Keyed};
use crate::resp::{Args, Reply, number};

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
    pub const IMMEDIATE: Self = Self(1 << 7);
    /// Some of its keys are not where its row's first and last key say.
    pub const MOVABLE_KEYS: Self = Self(1 << 6);
    /// Has no keys and takes no slot's lock: it may run while one is held.
    pub const NO_SLOT: Self = Self(1 << 8);
    /// Nothing of all this.
    pub const NONE: Self = Self(0);
    /// Allowed before authentication.
    pub const NO_AUTH: Self = Self(1 << 5);
    /// Publishes or subscribes.
    pub const PUB_SUB: Self = Self(1 << 9);
    /// Reads keys and changes nothing.
    pub const READ: Self = Self(1 << 1);
    /// Allowed to a subscribed connection in RESP2.
    pub const WHILE_SUBSCRIBED: Self = Self(1 << 10);
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
        const NAMES: [(Flags, &str); 8] = [
            (Flags::WRITE, "write"),
            (Flags::READ, "readonly"),
            (Flags::DENY_OOM, "denyoom"),
            (Flags::ADMIN, "admin"),
            (Flags::PUB_SUB, "pubsub"),
            (Flags::FAST, "fast"),
            (Flags::NO_AUTH, "no_auth"),
            (Flags::MOVABLE_KEYS, "movablekeys"),
        ];
        NAMES
            .into_iter()
            .filter(move |(flag, _)| self.has(*flag))
            .map(|(_, name)| name)
    }
}

/// Where a command's keys stand among its arguments: every `step`-th from `first` to `last`, which counts from
/// the end when it is negative; and behind a number that says how many follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// The index of the first; 0 for a command without keys, or with counted ones only.
    pub first: u8,
    /// The index of the last.
    pub last: i8,
    /// From one to the next.
    pub step: u8,
    /// What happens to them, or to the first one.
    pub access: KeyAccess,
    /// What happens to those behind the first, where that is something else, and to counted ones.
    pub others: KeyAccess,
    /// How many more there are, said by an argument.
    pub counted: Option<Counted>,
}

/// Keys whose number an argument tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// The index of that argument; the keys are right behind it.
    pub at: u8,
    /// What is answered when the number is none, or is not followed by so many arguments.
    pub refusal: CountRefusal,
}

/// In which words a command refuses a number of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountRefusal {
    /// As the commands on several sorted sets do.
    Inputs,
    /// As the commands that pop from the first key that has something.
    Pop,
    /// As `SINTERCARD`.
    Cardinality,
}

impl Counted {
    /// The keys, or why there are none.
    fn keys<'a>(
        self,
        name: &str,
        args: Args<'a>,
    ) -> Result<impl ExactSizeIterator<Item = &'a [u8]> + use<'a>, CommandError> {
        const NOT_POSITIVE: CommandError = CommandError::Fixed("ERR numkeys should be greater than 0");
        let number = args.get(self.at.into()).and_then(number::parse_i64);
        let count = number
            .and_then(|number| usize::try_from(number).ok())
            .unwrap_or(0);
        let behind = args.skip(usize::from(self.at) + 1);
        match self.refusal {
            CountRefusal::Inputs if number.is_none() => return Err(CommandError::NotAnInteger),
            CountRefusal::Inputs if count == 0 => {
                let text = format!("ERR at least 1 input key is needed for '{name}' command");
                return Err(CommandError::Other(text));
            }
            CountRefusal::Pop | CountRefusal::Cardinality if count == 0 => return Err(NOT_POSITIVE),
            CountRefusal::Cardinality if count > behind.len() => {
                return Err(CommandError::Fixed(
                    "ERR Number of keys can't be greater than number of args",
                ));
            }
            _ if count > behind.len() => return Err(CommandError::Syntax),
            _ => {}
        }
        Ok(behind.first(count).from(0))
    }
}

/// What a command does with its keys, as key specifications put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAccess {
    /// Reads the value and returns it.
    Read,
    /// Reads something about it.
    Inspect,
    /// Changes the value and returns something of it.
    Update,
    /// Changes the value.
    Change,
    /// Adds to the value.
    Insert,
    /// Takes something away from the value.
    Delete,
    /// Takes something away from the value and returns it.
    Take,
    /// Writes a value without looking at the old one.
    Overwrite,
    /// Writes a value where there is none.
    Create,
    /// Removes it.
    Remove,
    /// None: it is no key, but something that is found in the same slot.
    NotAKey,
}

impl KeyAccess {
    /// The flags in a key specification.
    pub fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Read => &["RO", "access"],
            Self::Inspect => &["RO"],
            Self::Update => &["RW", "access", "update"],
            Self::Change => &["RW", "update"],
            Self::Insert => &["RW", "insert"],
            Self::Delete => &["RW", "delete"],
            Self::Take => &["RW", "access", "delete"],
            Self::Overwrite => &["OW", "update"],
            Self::Create => &["OW", "insert"],
            Self::Remove => &["RM", "delete"],
            Self::NotAKey => &["not_key"],
        }
    }
}

impl Keys {
    /// None.
    pub const NONE: Self = Self {
        first: 0,
        ..Self::range(0, 0, KeyAccess::Inspect)
    };

    const fn range(first: u8, last: i8, access: KeyAccess) -> Self {
        Self {
            first,
            last,
            step: if first == 0 { 0 } else { 1 },
            access,
            others: access,
            counted: None,
        }
    }

    /// The first argument.
    pub const fn one(access: KeyAccess) -> Self {
        Self::range(1, 1, access)
    }

    /// All arguments.
    pub const fn all(access: KeyAccess) -> Self {
        Self::range(1, -1, access)
    }

    /// All arguments, the first for something else.
    pub const fn into(access: KeyAccess, others: KeyAccess) -> Self {
        Self {
            others,
            ..Self::range(1, -1, access)
        }
    }

    /// Every other argument.
    pub const fn alternate(access: KeyAccess) -> Self {
        Self {
            step: 2,
            ..Self::range(1, -1, access)
        }
    }

    /// The first two arguments.
    pub const fn two(access: KeyAccess, others: KeyAccess) -> Self {
        Self {
            others,
            ..Self::range(1, 2, access)
        }
    }

    /// The argument behind a subcommand.
    pub const fn of_subcommand(access: KeyAccess) -> Self {
        Self::range(2, 2, access)
    }

    /// So many as the first argument says.
    pub const fn counted(refusal: CountRefusal, access: KeyAccess) -> Self {
        Self {
            counted: Some(Counted { at: 1, refusal }),
            ..Self::range(0, 0, access)
        }
    }

    /// The first argument, and so many more as the second says.
    pub const fn into_counted(access: KeyAccess, others: KeyAccess) -> Self {
        Self {
            others,
            counted: Some(Counted {
                at: 2,
                refusal: CountRefusal::Inputs,
            }),
            ..Self::range(1, 1, access)
        }
    }

    /// Whether there are any.
    pub const fn is_empty(self) -> bool {
        self.first == 0 && self.counted.is_none()
    }

    /// The keys among these arguments of the command of that name.
    #[inline]
    pub fn of<'a>(
        self,
        name: &str,
        args: Args<'a>,
    ) -> Result<impl Iterator<Item = &'a [u8]> + use<'a>, CommandError> {
        let last = match usize::try_from(self.last) {
            Ok(last) => last,
            Err(_) => args.len().saturating_sub(usize::from(self.last.unsigned_abs())),
        };
        let count = if self.first == 0 {
            0
        } else {
            (last + 1).saturating_sub(usize::from(self.first))
        };
        let counted = match self.counted {
            Some(counted) => Some(counted.keys(name, args)?),
            None => None,
        };
        Ok(args
            .from(self.first.into())
            .take(count)
            .step_by(usize::from(self.step.max(1)))
            .chain(counted.into_iter().flatten()))
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
            (self.group == Group::Hash, "@hash"),
            (self.group == Group::List, "@list"),
            (self.group == Group::Set, "@set"),
            (self.group == Group::SortedSet, "@sortedset"),
            (self.group == Group::String, "@string"),
            (self.group == Group::PubSub, "@pubsub"),
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

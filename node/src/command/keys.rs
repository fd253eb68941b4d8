//! Where the keys of a command are, and what happens to them.

use crate::error::CommandError;
use crate::resp::{Args, number};

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
    /// As `EVAL`, which may have none.
    Script,
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
            CountRefusal::Inputs | CountRefusal::Script if number.is_none() => {
                return Err(CommandError::NotAnInteger);
            }
            CountRefusal::Inputs if count == 0 => {
                let text = format!("ERR at least 1 input key is needed for '{name}' command");
                return Err(CommandError::Other(text));
            }
            CountRefusal::Pop | CountRefusal::Cardinality if count == 0 => return Err(NOT_POSITIVE),
            CountRefusal::Script if number.is_some_and(|number| number < 0) => {
                return Err(CommandError::Fixed("ERR Number of keys can't be negative"));
            }
            CountRefusal::Cardinality | CountRefusal::Script if count > behind.len() => {
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

    /// So many as the argument behind a script says, or none.
    pub const fn of_script(access: KeyAccess) -> Self {
        Self {
            counted: Some(Counted {
                at: 2,
                refusal: CountRefusal::Script,
            }),
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

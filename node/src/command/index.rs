//! Finds the row of a command by its name, whatever its case.

use std::sync::LazyLock;

use super::{Command, Run, rows};

/// A row with its place among the counters and its subcommands.
pub struct Entry {
    /// The row.
    pub command: &'static Command,
    /// Its number, among all commands and subcommands.
    pub index: u16,
    /// The name that counters and errors have for it: `client|list` for a subcommand.
    pub full_name: String,
    /// Its subcommands.
    pub subcommands: Vec<Entry>,
}

/// All commands.
pub struct Table {
    commands: Vec<Entry>,
    /// Open addressing by a hash of the name: places in `commands` plus one, 0 where there is none.
    buckets: Box<[u16]>,
    names: Vec<String>,
}

/// The table of this node.
#[inline]
pub fn table() -> &'static Table {
    static TABLE: LazyLock<Table> = LazyLock::new(|| Table::new(&rows::COMMANDS));
    &TABLE
}

/// So many that few names meet.
const BUCKETS: usize = 1024;

fn bucket_of(name: &[u8]) -> usize {
    name.iter().fold(name.len(), |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(usize::from(byte | 0x20))
    }) % BUCKETS
}

impl Table {
    fn new(groups: &[&'static [Command]]) -> Self {
        let mut names = Vec::new();
        let mut buckets = vec![0u16; BUCKETS].into_boxed_slice();
        let commands: Vec<Entry> = groups
            .iter()
            .copied()
            .flatten()
            .map(|command| entry(command, "", &mut names))
            .collect();
        for (place, entry) in (1..).zip(&commands) {
            let mut bucket = bucket_of(entry.command.name.as_bytes());
            while buckets[bucket] != 0 {
                bucket = (bucket + 1) % BUCKETS;
            }
            buckets[bucket] = place;
        }
        Self {
            commands,
            buckets,
            names,
        }
    }

    /// How many commands and subcommands there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All commands, without subcommands.
    pub fn commands(&self) -> &[Entry] {
        &self.commands
    }

    /// The full names of all commands and subcommands, by their numbers.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The command of that name.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<&Entry> {
        let mut bucket = bucket_of(name);
        loop {
            let place = usize::from(self.buckets[bucket]).checked_sub(1)?;
            let entry = &self.commands[place];
            if entry.command.name.as_bytes().eq_ignore_ascii_case(name) {
                return Some(entry);
            }
            bucket = (bucket + 1) % BUCKETS;
        }
    }
}

impl Table {
    /// The command of that name, or the subcommand in the form `client|list`.
    pub fn find_full(&self, name: &[u8]) -> Option<&Entry> {
        match name.iter().position(|&byte| byte == b'|') {
            Some(bar) => self.find(&name[..bar])?.find(&name[bar + 1..]),
            None => self.find(name),
        }
    }
}

impl Entry {
    /// The subcommand of that name.
    pub fn find(&self, name: &[u8]) -> Option<&Self> {
        self.subcommands
            .iter()
            .find(|entry| entry.command.name.as_bytes().eq_ignore_ascii_case(name))
    }
}

fn entry(command: &'static Command, container: &str, names: &mut Vec<String>) -> Entry {
    let full_name = format!("{container}{}", command.name);
    let index = u16::try_from(names.len()).unwrap_or(u16::MAX);
    names.push(full_name.clone());
    let subcommands = match command.run {
        Run::Container(subcommands) => {
            let container = format!("{full_name}|");
            subcommands
                .iter()
                .map(|subcommand| entry(subcommand, &container, names))
                .collect()
        }
        Run::Keyed(_) | Run::Plain(_) | Run::Script(_) => Vec::new(),
    };
    Entry {
        command,
        index,
        full_name,
        subcommands,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Flags, KeyAccess};
    use super::*;

    #[test]
    fn every_row_is_found_by_its_name_in_any_case() {
        for entry in table().commands() {
            for name in [entry.command.name.to_owned(), entry.command.name.to_uppercase()] {
                assert_eq!(
                    table().find(name.as_bytes()).map(|found| found.index),
                    Some(entry.index),
                    "{name}"
                );
            }
        }
        for unknown in ["", "gets", "ge", "client|list", "\0get"] {
            assert!(table().find(unknown.as_bytes()).is_none(), "{unknown}");
        }
    }

    #[test]
    fn rows_are_sound() {
        let mut seen = BTreeSet::new();
        let rows = table()
            .commands()
            .iter()
            .flat_map(|entry| entry.subcommands.iter().chain([entry]));
        for Entry {
            command, full_name, ..
        } in rows
        {
            assert!(seen.insert(full_name), "{full_name} is there twice");
            assert!(
                command.summary.ends_with('.') && command.summary.len() < 100,
                "{full_name}"
            );
            assert!(!command.since.is_empty(), "{full_name}");
            let (Run::Keyed(_) | Run::Script(_)) = command.run else {
                // WATCH takes its slot itself, since it keeps what it saw with the connection; so do sharded channels.
                let routes_itself = command.name == "watch" || command.keys.access == KeyAccess::NotAKey;
                assert!(
                    command.keys.is_empty() || routes_itself,
                    "{full_name} has keys that nobody routes by"
                );
                continue;
            };
            let (reads, writes) = (command.flags.has(Flags::READ), command.flags.has(Flags::WRITE));
            let is_script = matches!(command.run, Run::Script(_));
            assert!(reads != writes || is_script, "{full_name} must be one of the two");
            assert!(!command.flags.has(Flags::DENY_OOM) || writes, "{full_name}");
            let all_read = [command.keys.access, command.keys.others]
                .iter()
                .all(|access| matches!(access, KeyAccess::Read | KeyAccess::Inspect));
            assert_eq!(reads, all_read, "{full_name}");
            let needed = command
                .keys
                .counted
                .map_or(command.keys.first, |counted| counted.at + 1);
            assert!(
                command.arity.unsigned_abs() > needed || command.flags.has(Flags::NO_MANDATORY_KEYS),
                "{full_name} could be called without key"
            );
            assert_eq!(
                command.keys.counted.is_some(),
                command.flags.has(Flags::MOVABLE_KEYS),
                "{full_name}"
            );
        }
    }
}

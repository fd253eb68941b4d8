//! Which commands a user may use: the rules of Redis' ACL about commands, and what no tenant ever may.
//!
//! Rules are read one after the other, each adding to or taking from what those before it allow; in the beginning nothing is
//! allowed. What can't be understood allows nothing; a category that doesn't exist, taken away, takes everything. Source: the Redis documentation, "ACL".

use crate::command::{Command, Entry, table};

use super::reach::may_tenants;

/// The categories that there are, without `@`: Redis' own, of which some have no command here.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// What a rule is about.
enum Subject<'a> {
    All,
    Category(&'a str),
    /// A command with all of its subcommands, or one subcommand.
    Command(&'a str),
}

fn parse(rule: &str) -> Option<(bool, Subject<'_>)> {
    match rule {
        "allcommands" => return Some((true, Subject::All)),
        "nocommands" => return Some((false, Subject::All)),
        _ => {}
    }
    let (allows, name) = match rule.split_at_checked(1)? {
        ("+", name) => (true, name),
        ("-", name) => (false, name),
        _ => return None,
    };
    let subject = match name.strip_prefix('@') {
        Some("all") => Subject::All,
        Some(category) => Subject::Category(category),
        None => Subject::Command(name),
    };
    Some((allows, subject))
}

impl Subject<'_> {
    fn includes(&self, entry: &Entry) -> bool {
        match self {
            Self::All => true,
            Self::Category(category) => is_in(entry.command, category),
            Self::Command(name) => {
                let full_name = entry.full_name.as_str();
                let family = full_name.split('|').next().unwrap_or_default();
                full_name.eq_ignore_ascii_case(name) || family.eq_ignore_ascii_case(name)
            }
        }
    }

    /// What a rule that takes away is about at least: with a category that doesn't exist, somebody meant another one, and so
    /// nothing may stay allowed.
    fn or_all(self) -> Self {
        match self {
            Self::Category(name) if !CATEGORIES.iter().any(|known| known.eq_ignore_ascii_case(name)) => {
                Self::All
            }
            known => known,
        }
    }
}

/// Whether a command is in a category, given without `@`.
pub fn is_in(command: &Command, category: &str) -> bool {
    command
        .categories()
        .iter()
        .any(|other| other[1..].eq_ignore_ascii_case(category))
}

/// A bit for each command of the table, by its number: whether the rules allow it and tenants may have it.
pub(super) fn permitted(rules: &[String]) -> Vec<u64> {
    let mut words = vec![0; table().len().div_ceil(64)];
    let entries = table()
        .commands()
        .iter()
        .flat_map(|entry| std::iter::once(entry).chain(&entry.subcommands));
    for entry in entries {
        let mut allowed = false;
        // A rule's words may stand in one string, as in `ACL SETUSER`.
        for rule in rules.iter().flat_map(|rules| rules.split_whitespace()) {
            if let Some((allows, subject)) = parse(rule)
                && (if allows { subject } else { subject.or_all() }).includes(entry)
            {
                allowed = allows;
            }
        }
        if allowed && may_tenants(entry) {
            let index = usize::from(entry.index);
            words[index / 64] |= 1 << (index % 64);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rules: &[&str]) -> impl Fn(&str) -> bool {
        let rules: Vec<String> = rules.iter().map(|&rule| rule.to_owned()).collect();
        let words = permitted(&rules);
        move |name| {
            let index = usize::from(table().find_full(name.as_bytes()).unwrap().index);
            words[index / 64] >> (index % 64) & 1 == 1
        }
    }

    #[test]
    fn rules_come_one_after_the_other() {
        type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str]);
        let table: [Row<'_>; 13] = [
            (&[], &[], &["get", "set", "ping", "client|id"]),
            (
                &["+@all"],
                &["get", "set", "client|id", "eval", "info"],
                &["config|set"],
            ),
            (&["allcommands", "nocommands"], &[], &["get", "ping"]),
            (
                &["+@all", "-@write"],
                &["get", "ping"],
                &["set", "del", "flushall"],
            ),
            (&["-@write", "+@all"], &["get", "set"], &[]),
            (&["+@read", "-get"], &["mget", "strlen"], &["get", "set"]),
            (&["+get", "+SET"], &["get", "set"], &["mget"]),
            (&["+client|id"], &["client|id"], &["client|info", "client"]),
            (
                &["+client", "-client|id"],
                &["client|info", "client"],
                &["client|id"],
            ),
            (&["+@hash +get"], &["hset", "get"], &["set"]),
            // A mistake in what is taken away doesn't leave it.
            (&["+@all", "-@wirte", "+ping"], &["ping"], &["get", "set"]),
            (&["+@nothing", "+nothing", "get", "~*", "on", "+"], &[], &["get"]),
            (
                &["+config", "+@admin"],
                &["client|list"],
                &["config|get", "config|set", "client|pause"],
            ),
        ];
        for (rules, may, may_not) in table {
            let allowed = allowed(rules);
            for name in may {
                assert!(allowed(name), "{rules:?} allow {name}");
            }
            for name in may_not {
                assert!(!allowed(name), "{rules:?} don't allow {name}");
            }
        }
    }
}

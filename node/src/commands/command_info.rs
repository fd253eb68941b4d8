//! `COMMAND …`: the table, for clients that route by it.

use crate::command::{Command, Entry, KeyAccess, Keys, table};
use crate::commands::{is_word, matches_pattern};
use crate::error::{CommandError, Outcome};
use crate::execute::{Context, resolve};
use crate::resp::{Args, Reply};

/// `COMMAND`
pub fn all(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.array(table().commands().len());
    for entry in table().commands() {
        write_row(entry, reply);
    }
    Ok(())
}

/// `COMMAND COUNT`
pub fn count(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.count(table().commands().len());
    Ok(())
}

/// `COMMAND INFO [name …]`
pub fn info(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if args.len() == 2 {
        return all(context, args, reply);
    }
    reply.array(args.len() - 2);
    for name in args.from(2) {
        match table().find_full(name) {
            Some(entry) => write_row(entry, reply),
            None => reply.null(),
        }
    }
    Ok(())
}

/// `COMMAND DOCS [name …]`
pub fn docs(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let entries: Vec<&Entry> = if args.len() == 2 {
        table().commands().iter().collect()
    } else {
        args.from(2).filter_map(|name| table().find_full(name)).collect()
    };
    reply.map(entries.len());
    for entry in entries {
        write_docs(entry, reply);
    }
    Ok(())
}

fn write_docs(entry: &Entry, reply: &mut Reply) {
    let command = entry.command;
    reply.bulk(entry.full_name.as_bytes());
    reply.map(if entry.subcommands.is_empty() { 3 } else { 4 });
    for (name, value) in [
        ("summary", command.summary),
        ("since", command.since),
        ("group", command.group.name()),
    ] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if !entry.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(entry.subcommands.len());
        for subcommand in &entry.subcommands {
            // One level: subcommands have none themselves.
            reply.bulk(subcommand.full_name.as_bytes());
            reply.map(3);
            let Command {
                summary,
                since,
                group,
                ..
            } = subcommand.command;
            for (name, value) in [("summary", *summary), ("since", *since), ("group", group.name())] {
                reply.bulk(name.as_bytes());
                reply.bulk(value.as_bytes());
            }
        }
    }
}

/// `COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`
pub fn list(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let is_listed: Box<dyn Fn(&Entry) -> bool> = match (args.get(2), args.get(3), args.get(4), args.len()) {
        (None, _, _, _) => Box::new(|_| true),
        (Some(filter), Some(kind), Some(value), 5) if is_word(filter, "FILTERBY") => {
            if is_word(kind, "PATTERN") {
                Box::new(|entry| matches_pattern(&value.to_ascii_lowercase(), entry.full_name.as_bytes()))
            } else if is_word(kind, "ACLCAT") {
                Box::new(|entry| {
                    entry
                        .command
                        .categories()
                        .iter()
                        .any(|category| is_word(value, &category[1..]))
                })
            } else if is_word(kind, "MODULE") {
                Box::new(|_| false)
            } else {
                return Err(CommandError::Syntax);
            }
        }
        _ => return Err(CommandError::Syntax),
    };
    let listed: Vec<_> = table()
        .commands()
        .iter()
        .flat_map(|entry| std::iter::once(entry).chain(&entry.subcommands))
        .filter(|entry| is_listed(entry))
        .collect();
    reply.array(listed.len());
    for entry in listed {
        reply.bulk(entry.full_name.as_bytes());
    }
    Ok(())
}

/// The keys among a command's arguments, or why there are none.
fn keys_of(args: Args<'_>) -> Result<(&'static Command, Vec<&[u8]>), CommandError> {
    let command = resolve(args)
        .map_err(|_| CommandError::Fixed("ERR Invalid command specified"))?
        .command;
    if command.keys.is_empty() || command.keys.access == KeyAccess::NotAKey {
        return Err(CommandError::Fixed("ERR The command has no key arguments"));
    }
    if !command.accepts(args.len()) {
        return Err(CommandError::Fixed(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    match command.keys.of(command.name, args) {
        Ok(keys) => Ok((command, keys.collect())),
        Err(_) => Err(CommandError::Fixed("ERR Invalid arguments specified for command")),
    }
}

/// `COMMAND GETKEYS command [arg …]`
pub fn get_keys(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (_, keys) = keys_of(args.skip(2))?;
    reply.array(keys.len());
    for key in keys {
        reply.bulk(key);
    }
    Ok(())
}

/// `COMMAND GETKEYSANDFLAGS command [arg …]`
pub fn get_keys_and_flags(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (command, keys) = keys_of(args.skip(2))?;
    reply.array(keys.len());
    for (place, key) in keys.into_iter().enumerate() {
        let Keys {
            first,
            access,
            others,
            ..
        } = command.keys;
        let access = match place {
            // Without options it doesn't look at the old value.
            0 if command.name == "set" && !looks_at_old(args.skip(2)) => KeyAccess::Overwrite,
            0 if first > 0 => access,
            _ => others,
        };
        reply.array(2);
        reply.bulk(key);
        write_words(access.flags().iter().copied(), reply);
    }
    Ok(())
}

/// Whether a `SET` returns the old value, or compares with it.
fn looks_at_old(args: Args<'_>) -> bool {
    args.from(3)
        .any(|word| is_word(word, "GET") || is_word(word, "IFEQ"))
}

/// A set of simple strings.
fn write_words(words: impl Iterator<Item = &'static str>, reply: &mut Reply) {
    let words: Vec<_> = words.collect();
    reply.set(words.len());
    for word in words {
        reply.simple(word);
    }
}

/// A row in the ten fields of Redis 7: name, arity, flags, first key, last key, step, categories, tips, key
/// specifications, subcommands.
fn write_row(entry: &Entry, reply: &mut Reply) {
    write_row_head(entry, reply);
    reply.array(entry.subcommands.len());
    for subcommand in &entry.subcommands {
        write_row_head(subcommand, reply);
        reply.array(0);
    }
}

fn write_row_head(entry: &Entry, reply: &mut Reply) {
    let command = entry.command;
    reply.array(10);
    reply.bulk(entry.full_name.as_bytes());
    reply.integer(command.arity.into());
    write_words(command.flags.names(), reply);
    reply.integer(command.keys.first.into());
    reply.integer(command.keys.last.into());
    reply.integer(command.keys.step.into());
    write_words(command.categories().into_iter(), reply);
    reply.array(0);
    let specifications = key_specifications(command.keys);
    reply.array(specifications.len());
    for specification in specifications {
        write_key_specification(&specification, reply);
    }
}

/// A part of a command's keys, of which the same can be said.
struct KeySpecification {
    access: KeyAccess,
    /// The index where to begin.
    begin: u8,
    /// How to find the keys from there: the kind, and its numbers by name.
    find: (&'static str, [(&'static str, i64); 3]),
}

fn key_specifications(keys: Keys) -> Vec<KeySpecification> {
    let range = |access, begin: u8, last: i8| {
        // From the first key on; counted from the end where the row counts from there.
        let last = if last < 0 {
            i64::from(last)
        } else {
            i64::from(last) - i64::from(begin)
        };
        KeySpecification {
            access,
            begin,
            find: (
                "range",
                [("lastkey", last), ("keystep", keys.step.into()), ("limit", 0)],
            ),
        }
    };
    let mut specifications = Vec::new();
    let is_one = i16::from(keys.first) == i16::from(keys.last);
    if keys.first > 0 && (is_one || keys.access == keys.others) {
        specifications.push(range(keys.access, keys.first, keys.last));
    } else if keys.first > 0 {
        specifications.push(range(keys.access, keys.first, keys.first.cast_signed()));
        specifications.push(range(keys.others, keys.first + 1, keys.last));
    }
    if let Some(counted) = keys.counted {
        specifications.push(KeySpecification {
            access: keys.others,
            begin: counted.at,
            find: ("keynum", [("keynumidx", 0), ("firstkey", 1), ("keystep", 1)]),
        });
    }
    specifications
}

fn write_key_specification(specification: &KeySpecification, reply: &mut Reply) {
    let (kind, numbers) = specification.find;
    reply.map(3);
    reply.bulk(b"flags");
    write_words(specification.access.flags().iter().copied(), reply);
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.integer(specification.begin.into());
    reply.bulk(b"find_keys");
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(3);
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(number);
    }
}

//! `ACL …`: who one is, and what one may do. Users are made by the tenants document, not by commands.

use crate::clients::DEFAULT_USER;
use crate::command::{Entry, table};
use crate::commands::text;
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply};
use crate::tenants::{CATEGORIES, is_in};

/// `ACL WHOAMI`
pub fn whoami(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let name = context.session.login.as_ref().map(|login| login.user().name());
    reply.bulk(name.unwrap_or(DEFAULT_USER).as_bytes());
    Ok(())
}

/// `ACL CAT [category]`
pub fn cat(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let Some(category) = args.get(2) else {
        reply.array(CATEGORIES.len());
        for category in CATEGORIES {
            reply.bulk(category.as_bytes());
        }
        return Ok(());
    };
    if args.len() > 3 {
        return Err(CommandError::Arity("acl|cat".to_owned()));
    }
    let category = text(category).to_ascii_lowercase();
    if !CATEGORIES.contains(&category.as_str()) {
        return Err(CommandError::Other(format!("ERR Unknown category '{category}'")));
    }
    let members: Vec<&Entry> = table()
        .commands()
        .iter()
        .flat_map(|entry| std::iter::once(entry).chain(&entry.subcommands))
        .filter(|entry| is_in(entry.command, &category))
        .collect();
    reply.array(members.len());
    for entry in members {
        reply.bulk(entry.full_name.as_bytes());
    }
    Ok(())
}

/// `ACL GETUSER name`: of oneself; to a tenant's user nobody else is there.
pub fn getuser(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let login = context.session.login.as_ref();
    let own = login.map_or(DEFAULT_USER, |login| login.user().name());
    if args.at(2) != own.as_bytes() {
        reply.null();
        return Ok(());
    }
    let rules = login.map_or_else(|| "+@all".to_owned(), |login| login.user().rules().join(" "));
    let needs_password = login.is_some() || context.node.password.is_some();
    let flags: &[&str] = if needs_password {
        &["on"]
    } else {
        &["on", "nopass"]
    };
    reply.map(6);
    reply.bulk(b"flags");
    reply.array(flags.len());
    for flag in flags {
        reply.bulk(flag.as_bytes());
    }
    // Digests of passwords are nothing to show.
    reply.bulk(b"passwords");
    reply.array(0);
    for (name, value) in [("commands", rules.as_str()), ("keys", "~*"), ("channels", "&*")] {
        reply.bulk(name.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"selectors");
    reply.array(0);
    Ok(())
}

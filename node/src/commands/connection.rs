//! Commands on the connection itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clients::DEFAULT_USER;
use crate::commands::{integer, is_word, text};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply, number};

use super::server::REDIS_VERSION;

/// Lets the client in when it gives the password. Every other user than `default` is a tenant's.
fn authenticate(context: &mut Context<'_>, user: &[u8], password: &[u8]) -> Outcome {
    let Context { node, session, .. } = context;
    if user == DEFAULT_USER.as_bytes() {
        // Without any password the default user may give whatever it likes.
        let secret = node.password.as_ref();
        if !secret.is_none_or(|secret| secret.matches(password)) {
            return Err(CommandError::WrongPass);
        }
        session.enter(node, None);
        return Ok(());
    }
    let login = node.tenants.log_in(user, password, session.login.as_deref())?;
    session.enter(node, Some(Arc::clone(&login)));
    // Whoever took over a document meanwhile has seen this login, or is seen now.
    if !node.tenants.still_holds(&login) {
        session.closing = true;
        return Err(CommandError::WrongPass);
    }
    Ok(())
}

/// `AUTH [username] password`
pub fn auth(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    match (args.get(1), args.get(2), args.len()) {
        (Some(_), None, 2) if context.node.password.is_none() => {
            const TEXT: &str = "ERR AUTH <password> called without any password configured for the default user. \
                                Are you sure your configuration is correct?";
            return Err(CommandError::Fixed(TEXT));
        }
        (Some(password), None, 2) => authenticate(context, DEFAULT_USER.as_bytes(), password)?,
        (Some(user), Some(password), 3) => authenticate(context, user, password)?,
        _ => return Err(CommandError::Syntax),
    }
    reply.ok();
    Ok(())
}

/// Whether a name can stand in a line of `CLIENT LIST`.
pub(super) fn is_printable(name: &[u8]) -> bool {
    name.iter().all(u8::is_ascii_graphic)
}

pub(super) const BAD_CLIENT_NAME: CommandError =
    CommandError::Fixed("ERR Client names cannot contain spaces, newlines or special characters.");

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`
pub fn hello(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let version = match args.get(1).map(number::parse_i64) {
        None => None,
        Some(Some(version @ (2 | 3))) => Some(version),
        Some(Some(_)) => return Err(CommandError::Fixed("NOPROTO unsupported protocol version")),
        Some(None) => {
            return Err(CommandError::Fixed(
                "ERR Protocol version is not an integer or out of range",
            ));
        }
    };
    let mut name = None;
    let mut words = args.from(2);
    while let Some(word) = words.next() {
        let unknown = || CommandError::Other(format!("ERR Syntax error in HELLO option '{}'", text(word)));
        if is_word(word, "AUTH") {
            let (user, password) = words.next().zip(words.next()).ok_or_else(unknown)?;
            authenticate(context, user, password)?;
        } else if is_word(word, "SETNAME") {
            let given = words.next().ok_or_else(unknown)?;
            if !is_printable(given) {
                return Err(BAD_CLIENT_NAME);
            }
            name = Some(text(given));
        } else {
            return Err(unknown());
        }
    }
    if !context.session.authenticated {
        const TEXT: &str = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
                            <proto> AUTH <user> <pass> option can be used to authenticate the client and select \
                            the RESP protocol version at the same time";
        return Err(CommandError::Fixed(TEXT));
    }
    let client = &context.session.client;
    if let Some(name) = name {
        client.introduction.lock().name = name;
    }
    if let Some(version) = version {
        reply.set_resp3(version == 3);
        client.resp3.store(version == 3, Ordering::Relaxed);
    }
    reply.map(7);
    reply.bulk(b"server");
    reply.bulk(b"redis");
    reply.bulk(b"version");
    reply.bulk(REDIS_VERSION.as_bytes());
    reply.bulk(b"proto");
    reply.integer(if reply.is_resp3() { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(i64::try_from(client.id).unwrap_or(i64::MAX));
    reply.bulk(b"mode");
    reply.bulk(b"cluster");
    reply.bulk(b"role");
    reply.bulk(b"master");
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

/// `PING [message]`: to a subscribed connection in RESP2 as if it were a message.
pub fn ping(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let looks_like_message = !reply.is_resp3() && context.session.client.subscriptions.is_any();
    match (args.get(1), args.len()) {
        (message, 1 | 2) if looks_like_message => {
            reply.array(2);
            reply.bulk(b"pong");
            reply.bulk(message.unwrap_or_default());
        }
        (None, _) => reply.simple("PONG"),
        (Some(message), 2) => reply.bulk(message),
        _ => return Err(CommandError::Arity("ping".to_owned())),
    }
    Ok(())
}

/// `ECHO message`
pub fn echo(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.bulk(args.at(1));
    Ok(())
}

/// `QUIT`
pub fn quit(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    context.session.closing = true;
    reply.ok();
    Ok(())
}

/// `RESET`
pub fn reset(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let Context { node, session, .. } = context;
    session.leave(&node.store);
    session.collect_before_reply(reply);
    session.client.mailbox.discard();
    session.reset(node);
    reply.set_resp3(false);
    reply.simple("RESET");
    Ok(())
}

/// `SELECT 0`
pub fn select(_: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if integer(args.at(1))? != 0 {
        return Err(CommandError::Fixed("ERR SELECT is not allowed in cluster mode"));
    }
    reply.ok();
    Ok(())
}

/// `READONLY`: reads may be answered from copies of slots that other members serve.
pub fn readonly(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    context.session.client.readonly.store(true, Ordering::Relaxed);
    reply.ok();
    Ok(())
}

/// `READWRITE`
pub fn readwrite(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    context.session.client.readonly.store(false, Ordering::Relaxed);
    reply.ok();
    Ok(())
}

/// `ASKING`: no node here ever answers `ASK`, so there is nothing to remember.
pub fn asking(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.ok();
    Ok(())
}

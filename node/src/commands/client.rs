//! `CLIENT …`: what a client says about itself and may know of others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::clients::{Client, DEFAULT_USER, Stop};
use crate::command::table;
use crate::commands::{integer, is_word, text};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::pause::Paused;
use crate::resp::{Args, Reply};
use crate::session::ReplyMode;

use super::connection::{BAD_CLIENT_NAME, is_printable};

fn describe(client: &Client, now_ms: u64) -> String {
    let last = usize::from(client.last_command.load(Ordering::Relaxed));
    client.describe(now_ms, table().names().get(last).map_or("NULL", String::as_str))
}

/// `CLIENT ID`
pub fn id(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.integer(i64::try_from(context.session.client.id).unwrap_or(i64::MAX));
    Ok(())
}

/// `CLIENT INFO`
pub fn info(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.verbatim(&format!(
        "{}\n",
        describe(&context.session.client, context.now_ms)
    ));
    Ok(())
}

/// The clients that this one may know of: those of its tenant.
fn visible(context: &Context<'_>) -> Vec<Arc<Client>> {
    let tenant = context.session.keyspace.id();
    let mut clients = context.node.clients.all();
    clients.retain(|client| client.is_of(tenant));
    clients
}

/// `CLIENT LIST [TYPE type] [ID id [id …]]`
pub fn list(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let mut clients = visible(context);
    match args.get(2) {
        None => {}
        Some(word) if is_word(word, "TYPE") && args.len() == 4 => {
            let kind = ClientType::parse(args.at(3))?;
            clients.retain(|client| kind.includes(client));
        }
        Some(word) if is_word(word, "ID") && args.len() > 3 => {
            let ids = args.from(3).map(client_id).collect::<Result<Vec<_>, _>>()?;
            clients.retain(|client| ids.contains(&client.id));
        }
        Some(_) => return Err(CommandError::Syntax),
    }
    let mut lines = String::new();
    for client in clients {
        lines.push_str(&describe(&client, context.now_ms));
        lines.push('\n');
    }
    reply.verbatim(&lines);
    Ok(())
}

/// What kind of client one is.
#[derive(Clone, Copy)]
enum ClientType {
    /// Subscribed to nothing.
    Normal,
    /// Subscribed to something.
    PubSub,
    /// Another node; those come by the peer protocol.
    Node,
}

impl ClientType {
    fn parse(name: &[u8]) -> Result<Self, CommandError> {
        match name {
            normal if is_word(normal, "normal") => Ok(Self::Normal),
            pubsub if is_word(pubsub, "pubsub") => Ok(Self::PubSub),
            node if ["master", "replica", "slave"]
                .iter()
                .any(|word| is_word(node, word)) =>
            {
                Ok(Self::Node)
            }
            _ => Err(CommandError::Other(format!(
                "ERR Unknown client type '{}'",
                text(name)
            ))),
        }
    }

    fn includes(self, client: &Client) -> bool {
        match self {
            Self::Normal => !client.subscriptions.is_any(),
            Self::PubSub => client.subscriptions.is_any(),
            Self::Node => false,
        }
    }
}

fn client_id(arg: &[u8]) -> Result<u64, CommandError> {
    let id = crate::resp::number::parse_u64(arg).filter(|&id| id > 0);
    id.ok_or(CommandError::Fixed("ERR Invalid client ID"))
}

/// `CLIENT GETNAME`
pub fn getname(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    match context.session.client.introduction.lock().name.as_str() {
        "" => reply.null(),
        name => reply.bulk(name.as_bytes()),
    }
    Ok(())
}

/// `CLIENT SETNAME name`
pub fn setname(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let name = args.at(2);
    if !is_printable(name) {
        return Err(BAD_CLIENT_NAME);
    }
    context.session.client.introduction.lock().name = text(name);
    reply.ok();
    Ok(())
}

/// `CLIENT SETINFO LIB-NAME name | LIB-VER version`
pub fn setinfo(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (option, value) = (args.at(2), args.at(3));
    let is_name = is_word(option, "LIB-NAME");
    if !is_name && !is_word(option, "LIB-VER") {
        return Err(CommandError::Other(format!(
            "ERR Unrecognized option '{}'",
            text(option)
        )));
    }
    if !is_printable(value) {
        let option = if is_name { "lib-name" } else { "lib-ver" };
        let message = format!("ERR {option} cannot contain spaces, newlines or special characters.");
        return Err(CommandError::Other(message));
    }
    let mut introduction = context.session.client.introduction.lock();
    *(if is_name {
        &mut introduction.lib_name
    } else {
        &mut introduction.lib_version
    }) = text(value);
    drop(introduction);
    reply.ok();
    Ok(())
}

fn set_flag(flag: &AtomicBool, arg: &[u8], reply: &mut Reply) -> Outcome {
    let value = match arg {
        on if is_word(on, "ON") => true,
        off if is_word(off, "OFF") => false,
        _ => return Err(CommandError::Syntax),
    };
    flag.store(value, Ordering::Relaxed);
    reply.ok();
    Ok(())
}

/// `CLIENT NO-EVICT ON | OFF`: clients are never evicted, so it only shows in `CLIENT LIST`.
pub fn no_evict(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    set_flag(&context.session.client.no_evict, args.at(2), reply)
}

/// `CLIENT NO-TOUCH ON | OFF`: whether reads make entries more recently used.
pub fn no_touch(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    set_flag(&context.session.client.no_touch, args.at(2), reply)
}

/// `CLIENT REPLY ON | OFF | SKIP`
pub fn reply_mode(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let mode = &mut context.session.reply_mode;
    match args.at(2) {
        on if is_word(on, "ON") => {
            *mode = ReplyMode::On;
            reply.ok();
        }
        off if is_word(off, "OFF") => *mode = ReplyMode::Off,
        // While replies are off there is none to skip.
        skip if is_word(skip, "SKIP") && *mode == ReplyMode::Off => {}
        skip if is_word(skip, "SKIP") => *mode = ReplyMode::SkipNext,
        _ => return Err(CommandError::Syntax),
    }
    Ok(())
}

/// `CLIENT PAUSE timeout [WRITE | ALL]`
pub fn pause(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let paused = match (args.get(3), args.len()) {
        (None, _) => Paused::All,
        (Some(all), 4) if is_word(all, "ALL") => Paused::All,
        (Some(write), 4) if is_word(write, "WRITE") => Paused::Writes,
        (Some(_), 4) => {
            return Err(CommandError::Fixed("ERR CLIENT PAUSE mode must be WRITE or ALL"));
        }
        _ => {
            return Err(CommandError::Other(format!(
                "ERR unknown subcommand or wrong number of arguments for '{}'. Try CLIENT HELP.",
                text(args.at(1))
            )));
        }
    };
    let timeout_ms = integer(args.at(2))
        .map_err(|_| CommandError::Fixed("ERR timeout is not an integer or out of range"))?;
    let timeout_ms = u64::try_from(timeout_ms).map_err(|_| CommandError::Fixed("ERR timeout is negative"))?;
    context
        .node
        .pause
        .begin(paused, context.now_ms.saturating_add(timeout_ms));
    reply.ok();
    Ok(())
}

/// `CLIENT UNPAUSE`
pub fn unpause(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    context.node.pause.end();
    context.node.clients.wake_all();
    reply.ok();
    Ok(())
}

/// Whether there is such a user, as far as this client may know.
fn is_user(context: &Context<'_>, name: &str) -> bool {
    let tenants = &context.node.tenants;
    match context.session.keyspace.tenant() {
        Some(space) => tenants.users_of(space.id).contains(name),
        None => name == DEFAULT_USER || tenants.has_user(name),
    }
}

/// Which clients `CLIENT KILL` ends.
struct KillFilter {
    id: Option<u64>,
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
    kind: Option<ClientType>,
    age_s_min: Option<u64>,
    user: Option<String>,
    matches_none: bool,
    skips_own: bool,
}

impl KillFilter {
    fn parse(context: &Context<'_>, args: Args<'_>) -> Result<Self, CommandError> {
        let mut filter = Self {
            id: None,
            remote: None,
            local: None,
            kind: None,
            age_s_min: None,
            user: None,
            matches_none: false,
            skips_own: true,
        };
        let mut words = args.from(2);
        while let Some(word) = words.next() {
            let value = words.next().ok_or(CommandError::Syntax)?;
            if is_word(word, "ID") {
                let id = u64::try_from(integer(value).unwrap_or(0))
                    .ok()
                    .filter(|&id| id > 0);
                filter.id = Some(id.ok_or(CommandError::Fixed("ERR client-id should be greater than 0"))?);
            } else if is_word(word, "ADDR") {
                filter.remote = filter.address(value);
            } else if is_word(word, "LADDR") {
                filter.local = filter.address(value);
            } else if is_word(word, "TYPE") {
                filter.kind = Some(ClientType::parse(value)?);
            } else if is_word(word, "USER") {
                if !is_user(context, &text(value)) {
                    return Err(CommandError::Other(format!("ERR No such user '{}'", text(value))));
                }
                filter.user = Some(text(value));
            } else if is_word(word, "MAXAGE") {
                let age_s = integer(value)
                    .map_err(|_| CommandError::Fixed("ERR maxage is not an integer or out of range"))?;
                let age_s = u64::try_from(age_s).ok().filter(|&age_s| age_s > 0);
                filter.age_s_min =
                    Some(age_s.ok_or(CommandError::Fixed("ERR maxage should be greater than 0"))?);
            } else if is_word(word, "SKIPME") {
                filter.skips_own = match value {
                    yes if is_word(yes, "yes") => true,
                    no if is_word(no, "no") => false,
                    _ => return Err(CommandError::Syntax),
                };
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(filter)
    }

    /// The address; one that can't be read is nobody's.
    fn address(&mut self, arg: &[u8]) -> Option<SocketAddr> {
        let address = text(arg).parse().ok();
        self.matches_none |= address.is_none();
        address
    }

    fn matches(&self, client: &Client, now_ms: u64) -> bool {
        let age_s = now_ms.saturating_sub(client.connected_at_ms) / 1000;
        !self.matches_none
            && self.age_s_min.is_none_or(|age_s_min| age_s >= age_s_min)
            && self.user.as_ref().is_none_or(|user| client.user_name() == *user)
            && self.id.is_none_or(|id| client.id == id)
            && self.remote.is_none_or(|remote| client.remote == remote)
            && self.kind.is_none_or(|kind| kind.includes(client))
            && self.local.is_none_or(|local| client.local == local)
    }
}

/// `CLIENT KILL address | [ID id] [ADDR address] [LADDR address] [USER name] [TYPE type] [MAXAGE seconds] [SKIPME yes | no]`
pub fn kill(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let by_address = args.len() == 3;
    let filter = if by_address {
        let address = text(args.at(2)).parse().ok();
        KillFilter {
            id: None,
            remote: address,
            local: None,
            kind: None,
            age_s_min: None,
            user: None,
            matches_none: address.is_none(),
            skips_own: false,
        }
    } else {
        KillFilter::parse(context, args)?
    };
    let own_id = context.session.client.id;
    let clients = visible(context);
    let killed: Vec<&Arc<Client>> = clients
        .iter()
        .filter(|client| filter.matches(client, context.now_ms) && !(filter.skips_own && client.id == own_id))
        .collect();
    for client in &killed {
        if client.id == own_id {
            // It still gets the reply.
            context.session.closing = true;
        } else {
            client.stop(Stop::Kill);
        }
    }
    match (by_address, killed.len()) {
        (true, 0) => return Err(CommandError::Fixed("ERR No such client")),
        (true, _) => reply.ok(),
        (false, count) => reply.count(count),
    }
    Ok(())
}

//! `redis.call` and `redis.pcall`: commands that a script runs.
//!
//! They go through the same table and checks as a client's, and run as those of a transaction do.

use mlua::{Lua, MultiValue, Value};

use super::raised::{self, Raised};
use super::to_lua;
use super::watchdog::Watchdog;
use crate::command::Flags;
use crate::error::CommandError;
use crate::exclusive::Exclusive;
use crate::execute::{Context, resolve, slot_of};
use crate::resp::{OwnedArgs, Reply, number};

/// A script that runs, and what it runs in.
pub struct Call<'c, 'a> {
    /// The client's connection and the node.
    pub context: &'c mut Context<'a>,
    /// The slot.
    pub exclusive: &'c mut Exclusive<'a>,
    /// Whether commands that write are refused.
    pub read_only: bool,
    /// Told before a write.
    pub watchdog: &'c Watchdog,
    /// What a reply may take on its way.
    pub bytes_max: usize,
}

const NO_ARGUMENTS: &str = "ERR Please specify at least one argument for this redis lib call";
const BAD_ARGUMENTS: &str = "ERR Lua redis lib command arguments must be strings or integers";
const UNKNOWN: &str = "ERR Unknown Redis command called from script";
const ARITY: &str = "ERR Wrong number of args calling Redis command from script";
const NOT_ALLOWED: &str = "ERR This Redis command is not allowed from script";
const NOT_PERMITTED: &str = "ERR The user executing the script can't run this command or subcommand";
const NO_WRITES: &str = "ERR Write commands are not allowed from read-only scripts.";
const NOT_LOCAL: &str = "ERR Script attempted to access a non local key in a cluster node";
const OTHER_SLOT: &str = "ERR Script attempted to access keys that do not hash to the same slot";
const CLUSTER_DOWN: &str = "ERR Script attempted to execute a command while the cluster is down";
const TOO_LONG: &str = "ERR the command's reply takes more memory than a script may have";

impl Call<'_, '_> {
    /// `redis.call`: an error of the command is an error of the script.
    pub fn call(&mut self, lua: &Lua, args: &MultiValue, resp3: bool) -> mlua::Result<Value> {
        self.watchdog.check()?;
        let args = arguments(args)?;
        let mut reply = Reply::new(self.bytes_max);
        reply.set_resp3(resp3);
        // Messages to the client stay in its mailbox: they are nothing for the script.
        reply.set_part(true);
        self.run(&args, &mut reply)?;
        if reply.overflowed() {
            return Err(raised::reply(TOO_LONG));
        }
        to_lua::value(lua, reply.as_bytes())
    }

    /// `redis.pcall`: an error of the command is a value.
    pub fn pcall(&mut self, lua: &Lua, args: &MultiValue, resp3: bool) -> mlua::Result<Value> {
        match self.call(lua, args, resp3) {
            Err(error) if matches!(error.downcast_ref(), Some(Raised::Reply(_))) => {
                raised::native(lua, Value::Error(Box::new(error)))
            }
            result => result,
        }
    }

    /// The checks in Redis's order, and then the command.
    fn run(&mut self, args: &OwnedArgs, reply: &mut Reply) -> mlua::Result<()> {
        let args = args.as_args();
        let entry = resolve(args).map_err(|_| raised::reply(UNKNOWN))?;
        let command = entry.command;
        if !command.accepts(args.len()) {
            return Err(raised::reply(ARITY));
        }
        let login = self.context.session.login.as_ref();
        if login.is_some_and(|login| !login.user().may(entry)) {
            return Err(raised::reply(NOT_PERMITTED));
        }
        if command.flags.has(Flags::NO_SCRIPT) {
            return Err(raised::reply(NOT_ALLOWED));
        }
        let writes = command.flags.has(Flags::WRITE);
        // A message is seen by others, as what is written is.
        if (writes || command.publishes()) && self.read_only {
            return Err(raised::reply(NO_WRITES));
        }
        let slot = match slot_of(command, args) {
            Ok(slot) => slot,
            Err(CommandError::CrossSlot) => return Err(raised::reply(NOT_LOCAL)),
            Err(error) => return Err(raised::reply(error.to_string())),
        };
        if let Some(slot) = slot {
            let locked = self.exclusive.lock(self.context, slot, !self.read_only);
            locked.map_err(|error| match error {
                CommandError::Moved { .. } | CommandError::SlotNotServed => raised::reply(NOT_LOCAL),
                CommandError::ClusterDown => raised::reply(CLUSTER_DOWN),
                other => raised::reply(other.to_string()),
            })?;
            if self.exclusive.guard().is_none_or(|guard| guard.slot() != slot) {
                return Err(raised::reply(OTHER_SLOT));
            }
        }
        if writes {
            self.watchdog.note_write()?;
        }
        self.exclusive.run(self.context, entry, args, reply);
        Ok(())
    }
}

fn arguments(values: &MultiValue) -> mlua::Result<OwnedArgs> {
    if values.is_empty() {
        return Err(raised::reply(NO_ARGUMENTS));
    }
    let mut args = OwnedArgs::default();
    for value in values {
        match value {
            Value::String(string) => args.push(&string.as_bytes()),
            Value::Integer(number) => args.push(number.to_string().as_bytes()),
            Value::Number(number) => args.push(number::format_f64(*number).as_bytes()),
            _ => return Err(raised::reply(BAD_ARGUMENTS)),
        }
    }
    Ok(args)
}

//! The library `redis`, without what runs commands; and the random numbers of `math`.

use std::cell::Cell;
use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use super::raised::{self, bad_argument, message, number};
use crate::commands::server::REDIS_VERSION;

/// What of a script's state its functions share.
#[derive(Clone, Default)]
pub struct Shared {
    /// Whether it has chosen RESP3.
    pub resp3: Rc<Cell<bool>>,
    /// Its random numbers.
    pub random: Rc<Cell<Random>>,
    /// Whether `redis.log` writes anything.
    pub may_log: Rc<Cell<bool>>,
}

/// The generator of POSIX's `lrand48`, whose numbers Redis gives on every system.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed; of which 32 bits count.
    pub fn new(seed: u32) -> Self {
        Self(u64::from(seed) << 16 | 0x330e)
    }

    /// Any of its states.
    pub fn drawn(state: u64) -> Self {
        Self(state)
    }

    /// A number from 0 on, below 1, and the generator behind it.
    fn next(self) -> (f64, Self) {
        const MODULUS: u64 = 1 << 48;
        const NUMBERS: f64 = 2_147_483_648.0;
        let state = (self.0.wrapping_mul(0x5_deec_e66d) + 0xb) % MODULUS;
        let number = u32::try_from(state >> 17).unwrap_or(0);
        (f64::from(number) / NUMBERS, Self(state))
    }
}

/// `math.random` and `math.randomseed`.
pub fn install_random(lua: &Lua, math: &Table, shared: &Shared) -> mlua::Result<()> {
    let generator = Rc::clone(&shared.random);
    let random = lua.create_function(move |lua, args: MultiValue| {
        let (drawn, next) = generator.get().next();
        generator.set(next);
        let whole = |index| number(lua, "random", &args, index).map(int);
        let (low, high) = match args.len() {
            0 => return Ok(drawn),
            1 => (1, whole(0)?),
            2 => (whole(0)?, whole(1)?),
            _ => return Err(message(lua, "wrong number of arguments")),
        };
        if low > high {
            return Err(bad_argument(lua, "random", args.len(), "interval is empty"));
        }
        Ok((drawn * f64::from(high.wrapping_sub(low).wrapping_add(1))).floor() + f64::from(low))
    })?;
    math.raw_set("random", random)?;
    let generator = Rc::clone(&shared.random);
    let seed = lua.create_function(move |lua, args: MultiValue| {
        let seed = int(number(lua, "randomseed", &args, 0)?);
        generator.set(Random::new(seed.cast_unsigned()));
        Ok(())
    })?;
    math.raw_set("randomseed", seed)
}

/// A number as an `int` of C.
#[expect(clippy::cast_possible_truncation, reason = "as the C of Lua does")]
fn int(number: f64) -> i32 {
    super::to_reply::integer(number) as i32
}

/// The table of the library.
pub fn library(lua: &Lua, shared: &Shared) -> mlua::Result<Table> {
    type LuaFn = fn(&Lua, &MultiValue) -> mlua::Result<Value>;
    let library = lua.create_table()?;
    for (name, number) in [
        ("LOG_DEBUG", 0),
        ("LOG_VERBOSE", 1),
        ("LOG_NOTICE", 2),
        ("LOG_WARNING", 3),
        ("REPL_NONE", 0),
        ("REPL_AOF", 1),
        ("REPL_REPLICA", 2),
        ("REPL_SLAVE", 2),
        ("REPL_ALL", 3),
    ] {
        library.raw_set(name, number)?;
    }
    library.raw_set("REDIS_VERSION", REDIS_VERSION)?;
    let version = REDIS_VERSION
        .split('.')
        .filter_map(|part| part.parse::<u32>().ok())
        .fold(0, |version, part| version << 8 | part);
    library.raw_set("REDIS_VERSION_NUM", version)?;
    let functions: [(&str, LuaFn); 5] = [
        ("error_reply", |lua, args| one_field(lua, "err", args)),
        ("status_reply", |lua, args| one_field(lua, "ok", args)),
        ("sha1hex", sha1_hex),
        // Writes are not replicated by command here, so there is nothing to choose.
        ("replicate_commands", |_, _| Ok(Value::Boolean(true))),
        ("set_repl", |_, _| Ok(Value::Nil)),
    ];
    for (name, function) in functions {
        let function = lua.create_function(move |lua, args: MultiValue| function(lua, &args))?;
        library.raw_set(name, function)?;
    }
    let may_log = Rc::clone(&shared.may_log);
    let log = lua.create_function(move |lua, args: MultiValue| log(lua, &args, may_log.get()))?;
    library.raw_set("log", log)?;
    let resp3 = Rc::clone(&shared.resp3);
    let set_resp = lua.create_function(move |lua, args: MultiValue| {
        if args.len() != 1 {
            return Err(raised::reply("ERR redis.setresp() requires one argument."));
        }
        match number(lua, "setresp", &args, 0) {
            Ok(3.0) => resp3.set(true),
            Ok(2.0) => resp3.set(false),
            _ => return Err(raised::reply("ERR RESP version must be 2 or 3.")),
        }
        Ok(())
    })?;
    library.raw_set("setresp", set_resp)?;
    Ok(library)
}

/// `redis.error_reply(text)` and `redis.status_reply(text)`: a table that stands for such a reply.
fn one_field(lua: &Lua, field: &str, args: &MultiValue) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    match args.front() {
        Some(Value::String(text)) if args.len() == 1 && field == "err" => {
            let text = text.as_bytes();
            let text = text.strip_prefix(b"-").unwrap_or(&text);
            // A text of one word has no code.
            let code: &[u8] = if text.contains(&b' ') { b"" } else { b"ERR " };
            table.raw_set(field, lua.create_string([code, text].concat())?)?;
        }
        Some(Value::String(text)) if args.len() == 1 => table.raw_set(field, text)?,
        _ => table.raw_set("err", "ERR wrong number or type of arguments")?,
    }
    Ok(Value::Table(table))
}

/// `redis.sha1hex(text)`
fn sha1_hex(lua: &Lua, args: &MultiValue) -> mlua::Result<Value> {
    if args.len() != 1 {
        return Err(raised::reply("ERR wrong number of arguments"));
    }
    let id = match raised::string(lua, "sha1hex", args, 0) {
        Ok(text) => super::ScriptId::of(&text.as_bytes()),
        Err(_) => super::ScriptId::of(b""),
    };
    Ok(Value::String(lua.create_string(id.to_string())?))
}

/// `redis.log(level, text, …)`
fn log(lua: &Lua, args: &MultiValue, may_log: bool) -> mlua::Result<Value> {
    const TEXT_BYTES_MAX: usize = 1024;
    if args.len() < 2 {
        return Err(raised::reply("ERR redis.log() requires two arguments or more."));
    }
    let Some(level @ (Value::Integer(_) | Value::Number(_))) = args.front() else {
        return Err(raised::reply("ERR First argument must be a number (log level)."));
    };
    let mut text = String::new();
    for index in 1..args.len() {
        if let Ok(part) = raised::string(lua, "log", args, index) {
            let separator = if text.is_empty() { "" } else { " " };
            text.extend([separator, &part.to_string_lossy()]);
        }
    }
    while text.len() > TEXT_BYTES_MAX {
        text.pop();
    }
    match level {
        Value::Integer(0..=3) if !may_log => {}
        Value::Integer(0) => tracing::trace!(script = %text),
        Value::Integer(1) => tracing::debug!(script = %text),
        Value::Integer(2) => tracing::info!(script = %text),
        Value::Integer(3) => tracing::warn!(script = %text),
        _ => return Err(raised::reply("ERR Invalid debug level.")),
    }
    Ok(Value::Nil)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_are_those_of_lrand48() {
        let table = [(0, [18, 75]), (5, [53, 28]), (u32::MAX, [31, 5]), (1, [5, 46])];
        for (seed, expected) in table {
            let (first, next) = Random::new(seed).next();
            let (second, _) = next.next();
            let found = [first, second].map(|drawn| int(drawn * 100.0) + 1);
            assert_eq!(found, expected, "{seed}");
        }
    }
}

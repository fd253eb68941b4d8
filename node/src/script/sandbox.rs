//! What a script can see: a Lua state without files, sockets, programs, modules or bytecode, whose libraries and
//! globals can't be written to. `prelude.lua` puts it together.

use std::rc::Rc;

use mlua::chunk::ChunkMode;
use mlua::{Function, Lua, LuaOptions, MultiValue, StdLib, Table, Value};

use super::raised::{
    PRELUDE, bad_argument, message, native, number, plain_message, reply, string, type_name,
};
use super::watchdog::Watchdog;
use super::{bits, json, redis_api, strings};

/// A script's name in its errors.
pub const SCRIPT: &str = "@user_script";

/// A state that is ready for scripts.
pub struct Sandbox {
    /// The state.
    pub lua: Lua,
    /// The table behind the globals; `KEYS` and `ARGV` go in here.
    pub globals: Table,
    /// The table behind `redis`; `call` and `pcall` go in here.
    pub redis: Table,
    /// Runs a script and says whether it came to its end.
    pub run: Function,
    /// Takes away what a script put where nothing belongs.
    pub tidy: Function,
}

impl Sandbox {
    /// Makes a state. `failed` is told of errors that a script doesn't catch, while it is still where it was.
    pub fn new(
        watchdog: &Rc<Watchdog>,
        api: &redis_api::Shared,
        bytes_max: usize,
        failed: impl Fn(&Lua, Value) + 'static,
    ) -> mlua::Result<Self> {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH | StdLib::OS;
        let lua = Lua::new_with(libraries, LuaOptions::default())?;
        let real = lua.globals();
        watchdog.set_guard(real.get("pcall")?);
        let strings: Table = real.get("string")?;
        strings::install(&lua, &strings, watchdog, bytes_max)?;
        strings::install_counted(&lua, &strings, &real.get("table")?, bytes_max)?;
        redis_api::install_random(&lua, &real.get("math")?, api)?;
        let redis = redis_api::library(&lua, api)?;

        let given = lua.create_table()?;
        given.set("redis", &redis)?;
        given.set("bit", bits::library(&lua)?)?;
        given.set("cjson", json::library(&lua, watchdog, bytes_max)?)?;
        given.set(
            "unpack",
            lua.create_function(|lua, args: MultiValue| unpack(lua, &args))?,
        )?;
        let set_metatable = lua.create_function(|lua, args: MultiValue| set_metatable(lua, &args))?;
        given.set("setmetatable", set_metatable)?;
        let dog = Rc::clone(watchdog);
        let load = lua.create_function(move |lua, args: MultiValue| load(lua, &args, &dog))?;
        given.set("load", load)?;
        given.set(
            "loadstring",
            lua.create_function(|lua, args: MultiValue| load_string(lua, &args))?,
        )?;
        let dog = Rc::clone(watchdog);
        given.set(
            "native",
            lua.create_function(move |lua, value: Value| {
                // A doomed script may have caught Lua's word for it, which is a plain string.
                if dog.doom().is_some() {
                    dog.check()?;
                }
                native(lua, value)
            })?,
        )?;
        given.set(
            "failed",
            lua.create_function(move |lua, value: Value| {
                failed(lua, value);
                Ok(())
            })?,
        )?;
        let prelude = lua.load(include_str!("prelude.lua")).set_name(PRELUDE);
        let kept: Table = prelude.call(given)?;
        let environment: Table = kept.get("environment")?;
        lua.set_globals(environment)?;
        Ok(Self {
            globals: kept.get("globals")?,
            redis,
            run: kept.get("run")?,
            tidy: kept.get("tidy")?,
            lua,
        })
    }
}

/// Compiles a program. Bytecode is none: Lua trusts it, and it could be anything.
pub fn compile(lua: &Lua, program: &[u8], name: &str) -> mlua::Result<Function> {
    if program.first() == Some(&0x1b) {
        let shown = match name.strip_prefix(['@', '=']) {
            Some(name) => name.to_owned(),
            None => format!("[string \"{name}\"]"),
        };
        return Err(mlua::Error::SyntaxError {
            message: format!("{shown}:1: unexpected symbol near 'char(27)'"),
            incomplete_input: false,
        });
    }
    lua.load(program)
        .set_name(name)
        .set_mode(ChunkMode::Text)
        .into_function()
}

/// A function, or nothing and why there is none.
type Compiled = (Option<Function>, Option<String>);

fn compiled(lua: &Lua, program: &[u8], name: &[u8]) -> Compiled {
    const NAME_BYTES_MAX: usize = 1000;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = String::from_utf8_lossy(&name[..name.len().min(NAME_BYTES_MAX)]);
    match compile(lua, program, &name) {
        Ok(function) => (Some(function), None),
        Err(error) => (None, Some(plain_message(&error))),
    }
}

/// `loadstring(text [, name])`
fn load_string(lua: &Lua, args: &MultiValue) -> mlua::Result<Compiled> {
    let text = string(lua, "loadstring", args, 0)?;
    let name = match args.get(1) {
        None | Some(Value::Nil) => text.clone(),
        Some(_) => string(lua, "loadstring", args, 1)?,
    };
    Ok(compiled(lua, &text.as_bytes(), &name.as_bytes()))
}

/// `load(function [, name])`: the pieces that the function returns, one behind the other.
fn load(lua: &Lua, args: &MultiValue, watchdog: &Watchdog) -> mlua::Result<Compiled> {
    let Some(Value::Function(next)) = args.front() else {
        let got = type_name(args.front());
        let what = format!("bad argument #1 to 'load' (function expected, got {got})");
        return Err(message(lua, &what));
    };
    let mut program = Vec::new();
    loop {
        let piece = match watchdog.call(lua, next, MultiValue::new()) {
            Ok(piece) => piece,
            Err(error) => {
                let caught = native(lua, Value::Error(Box::new(error)))?;
                return Ok((None, Some(caught.to_string()?)));
            }
        };
        match piece {
            Value::String(piece) if !piece.as_bytes().is_empty() => {
                program.extend_from_slice(&piece.as_bytes());
                if program.len() > super::cache::SOURCE_BYTES_MAX {
                    return Err(message(lua, "a program may have 1 MiB at most"));
                }
            }
            Value::String(_) | Value::Nil => break,
            _ => return Ok((None, Some("reader function must return a string".to_owned()))),
        }
    }
    match args.get(1) {
        None | Some(Value::Nil) => Ok(compiled(lua, &program, b"=(load)")),
        Some(_) => Ok(compiled(lua, &program, &string(lua, "load", args, 1)?.as_bytes())),
    }
}

/// `unpack(list [, from [, to]])`. Lua's own trusts a difference that can overflow.
#[expect(
    clippy::cast_possible_truncation,
    reason = "beyond the range is beyond what is allowed"
)]
fn unpack(lua: &Lua, args: &MultiValue) -> mlua::Result<MultiValue> {
    const VALUES_MAX: i64 = 7000;
    let Some(Value::Table(list)) = args.front() else {
        let got = type_name(args.front());
        let what = format!("bad argument #1 to 'unpack' (table expected, got {got})");
        return Err(message(lua, &what));
    };
    let limit = |index: usize, default: usize| match args.get(index) {
        None | Some(Value::Nil) => Ok(i64::try_from(default).unwrap_or(i64::MAX)),
        Some(_) => number(lua, "unpack", args, index).map(|number| number as i64),
    };
    let (from, to) = (limit(1, 1)?, limit(2, list.raw_len())?);
    if to.saturating_sub(from) >= VALUES_MAX {
        return Err(message(lua, "too many results to unpack"));
    }
    (from..=to).map(|index| list.raw_get::<Value>(index)).collect()
}

/// `setmetatable(table, metatable)`. What can't be written to says so by a metatable that is shown as `false`.
fn set_metatable(lua: &Lua, args: &MultiValue) -> mlua::Result<Table> {
    let Some(Value::Table(table)) = args.front() else {
        let what = format!("table expected, got {}", type_name(args.front()));
        return Err(bad_argument(lua, "setmetatable", 1, &what));
    };
    let metatable = match args.get(1) {
        Some(Value::Nil) => None,
        Some(Value::Table(metatable)) => Some(metatable.clone()),
        _ => return Err(bad_argument(lua, "setmetatable", 2, "nil or table expected")),
    };
    let shown = table
        .metatable()
        .map(|metatable| metatable.raw_get::<Value>("__metatable"));
    match shown.transpose()?.unwrap_or(Value::Nil) {
        Value::Nil => table.set_metatable(metatable).map(|()| table.clone()),
        Value::Boolean(false) => Err(reply("ERR Attempt to modify a readonly table")),
        _ => Err(message(lua, "cannot change a protected metatable")),
    }
}

//! Errors that the functions here raise in a script.
//!
//! Lua carries them as objects of its own kind; whatever catches one in a script ([`super::sandbox`]) turns it into
//! what Redis would have raised there: a string with the position, or a table with the field `err`.

use std::borrow::Cow;

use mlua::{Error, Lua, MultiValue, Value};

use super::watchdog::Doom;

/// What was raised.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Raised {
    /// A message that begins with the position.
    #[error("{0}")]
    Message(String),
    /// The error of a command: a table with the field `err`.
    #[error("{0}")]
    Reply(String),
    /// What a function of the script raised by itself.
    #[error("an error of the script's own")]
    Thrown(Value),
    /// The script is to end, whatever it catches.
    #[error("{0}")]
    End(Doom),
}

/// The name of the program that the sandbox is made by; its lines mean nothing to users.
pub const PRELUDE: &str = "=annulus";

/// The position of whoever called the function that is running, as messages begin with it.
fn position(lua: &Lua) -> String {
    let mut level = 1;
    while let Some((source, short, line)) = lua.inspect_stack(level, |frame| {
        let source = frame.source();
        (
            source.source.map(Cow::into_owned),
            source.short_src.map(Cow::into_owned),
            frame.current_line(),
        )
    }) {
        if source.as_deref() != Some(PRELUDE) {
            return match (short, line) {
                (Some(short), Some(line)) => format!("{short}:{line}: "),
                _ => String::new(),
            };
        }
        level += 1;
    }
    String::new()
}

/// An error with a message at the caller's position.
pub fn message(lua: &Lua, message: &str) -> Error {
    Error::external(Raised::Message(position(lua) + message))
}

/// An error as commands answer it.
pub fn reply(message: impl Into<String>) -> Error {
    Error::external(Raised::Reply(message.into()))
}

/// An error about an argument, counted from 1.
pub fn bad_argument(lua: &Lua, function: &str, place: usize, what: &str) -> Error {
    message(lua, &format!("bad argument #{place} to '{function}' ({what})"))
}

/// The name of a value's type in an error.
pub fn type_name(value: Option<&Value>) -> &'static str {
    match value {
        None => "no value",
        Some(Value::Integer(_)) => "number",
        Some(Value::LightUserData(_) | Value::Error(_)) => "userdata",
        Some(value) => value.type_name(),
    }
}

/// An argument that must be a string; a number is taken for its text.
pub fn string(lua: &Lua, function: &str, args: &MultiValue, index: usize) -> mlua::Result<mlua::LuaString> {
    let value = args.get(index);
    let string = match value {
        Some(value @ (Value::String(_) | Value::Integer(_) | Value::Number(_))) => {
            lua.coerce_string(value.clone())?
        }
        _ => None,
    };
    string.ok_or_else(|| {
        let what = format!("string expected, got {}", type_name(value));
        bad_argument(lua, function, index + 1, &what)
    })
}

/// An argument that must be a number; a string is taken for the number in it.
pub fn number(lua: &Lua, function: &str, args: &MultiValue, index: usize) -> mlua::Result<f64> {
    let value = args.get(index);
    let number = match value {
        Some(value @ (Value::String(_) | Value::Integer(_) | Value::Number(_))) => {
            lua.coerce_number(value.clone())?
        }
        _ => None,
    };
    number.ok_or_else(|| {
        let what = format!("number expected, got {}", type_name(value));
        bad_argument(lua, function, index + 1, &what)
    })
}

/// What a script finds in place of an error object that it caught.
pub fn native(lua: &Lua, value: Value) -> mlua::Result<Value> {
    let Value::Error(error) = value else {
        return Ok(value);
    };
    match error.downcast_ref::<Raised>() {
        Some(Raised::End(_)) => Err(*error),
        Some(Raised::Thrown(value)) => Ok(value.clone()),
        Some(Raised::Message(message)) => Ok(Value::String(lua.create_string(message)?)),
        Some(Raised::Reply(message)) => {
            let table = lua.create_table_with_capacity(0, 1)?;
            table.raw_set("err", message.as_str())?;
            Ok(Value::Table(table))
        }
        None => Ok(Value::String(lua.create_string(plain_message(&error))?)),
    }
}

/// What an error of Lua's own says, without the frames that it came through.
pub fn plain_message(error: &Error) -> String {
    match error {
        Error::CallbackError { cause, .. } | Error::WithContext { cause, .. } => plain_message(cause),
        Error::MemoryError(_) => "not enough memory".to_owned(),
        Error::StackError => "stack overflow".to_owned(),
        Error::RuntimeError(message) | Error::SyntaxError { message, .. } => message.clone(),
        Error::ExternalError(error) => error.to_string(),
        other => other.to_string(),
    }
}

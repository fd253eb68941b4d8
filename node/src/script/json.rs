//! The library `cjson`: `encode`, `decode` and `null`.

use std::rc::Rc;

use mlua::{Function, Lua, MultiValue, Table, Value};

use super::json_reader::{Reader, Token};
use super::raised::{bad_argument, message, string, type_name};
use super::watchdog::Watchdog;

/// Tables in tables, and arrays and objects in such.
const DEPTH_MAX: usize = 1000;

/// The table of the library. Texts take so many bytes at most.
pub fn library(lua: &Lua, watchdog: &Rc<Watchdog>, bytes_max: usize) -> mlua::Result<Table> {
    let library = lua.create_table()?;
    library.raw_set("_NAME", "cjson")?;
    library.raw_set("_VERSION", "2.1.0")?;
    library.raw_set("null", Value::NULL)?;
    let watchdog = Rc::clone(watchdog);
    let next: Function = lua.globals().get("next")?;
    let encode = lua.create_function(move |lua, args: MultiValue| {
        let [value] = one_argument(lua, "encode", &args)?;
        let encoder = Encoder {
            lua,
            watchdog: &watchdog,
            next: &next,
            bytes_max,
            text: Vec::new(),
            open: Vec::new(),
        };
        lua.create_string(encoder.encode(value)?)
    })?;
    library.raw_set("encode", encode)?;
    let decode = lua.create_function(|lua, args: MultiValue| {
        one_argument(lua, "decode", &args)?;
        let text = string(lua, "decode", &args, 0)?;
        decode(lua, &text.as_bytes())
    })?;
    library.raw_set("decode", decode)?;
    Ok(library)
}

fn one_argument<'a>(lua: &Lua, function: &str, args: &'a MultiValue) -> mlua::Result<[&'a Value; 1]> {
    match args.front() {
        Some(value) if args.len() == 1 => Ok([value]),
        _ => Err(bad_argument(lua, function, 1, "expected 1 argument")),
    }
}

/// Writes a value, with a list of the tables that are open in place of recursion.
struct Encoder<'a> {
    lua: &'a Lua,
    watchdog: &'a Watchdog,
    /// Lua's `next`, which finds the fields of an object.
    next: &'a Function,
    bytes_max: usize,
    text: Vec<u8>,
    open: Vec<Written>,
}

/// A table that is being written.
struct Written {
    table: Table,
    shape: Shape,
    /// Whether the next value is the first.
    is_first: bool,
}

/// What a table is in JSON.
enum Shape {
    /// So many values, and how many are written.
    Array { len: u64, done: u64 },
    /// Fields, and the last that was written.
    Object { key: Value },
}

impl Encoder<'_> {
    fn encode(mut self, value: &Value) -> mlua::Result<Vec<u8>> {
        self.begin(value)?;
        while let Some(last) = self.open.last_mut() {
            let (key, value) = match &mut last.shape {
                Shape::Array { len, done } if done == len => (None, None),
                Shape::Array { done, .. } => {
                    *done += 1;
                    (None, Some(last.table.raw_get::<Value>(*done)?))
                }
                Shape::Object { key } => {
                    let (next, value) = self.next.call::<(Value, Value)>((&last.table, &*key))?;
                    *key = next.clone();
                    if next.is_nil() {
                        (None, None)
                    } else {
                        (Some(next), Some(value))
                    }
                }
            };
            let Some(value) = value else {
                let end = if matches!(last.shape, Shape::Array { .. }) {
                    b']'
                } else {
                    b'}'
                };
                self.text.push(end);
                self.open.pop();
                continue;
            };
            if !std::mem::take(&mut last.is_first) {
                self.text.push(b',');
            }
            if let Some(key) = key {
                self.key(&key)?;
                self.text.push(b':');
            }
            self.begin(&value)?;
        }
        Ok(self.text)
    }

    /// Writes a value, or opens it.
    fn begin(&mut self, value: &Value) -> mlua::Result<()> {
        match value {
            Value::Nil => self.text.extend_from_slice(b"null"),
            value if *value == Value::NULL => self.text.extend_from_slice(b"null"),
            Value::Boolean(true) => self.text.extend_from_slice(b"true"),
            Value::Boolean(false) => self.text.extend_from_slice(b"false"),
            Value::Integer(_) => self.number(value)?,
            Value::Number(number) if number.is_finite() => self.number(value)?,
            Value::Number(_) => {
                let what = "Cannot serialise number: must not be NaN or Inf";
                return Err(message(self.lua, what));
            }
            Value::String(string) => self.string(&string.as_bytes()),
            Value::Table(table) => self.open(table)?,
            other => {
                let what = format!("Cannot serialise {}: type not supported", type_name(Some(other)));
                return Err(message(self.lua, &what));
            }
        }
        if self.text.len() > self.bytes_max {
            return Err(mlua::Error::MemoryError(String::new()));
        }
        Ok(())
    }

    fn open(&mut self, table: &Table) -> mlua::Result<()> {
        self.watchdog.check()?;
        if self.open.len() >= DEPTH_MAX {
            let what = format!("Cannot serialise, excessive nesting ({})", self.open.len() + 1);
            return Err(message(self.lua, &what));
        }
        let shape = self.shape(table)?;
        let begin = if matches!(shape, Shape::Array { .. }) {
            b'['
        } else {
            b'{'
        };
        self.text.push(begin);
        self.open.push(Written {
            table: table.clone(),
            shape,
            is_first: true,
        });
        Ok(())
    }

    fn number(&mut self, value: &Value) -> mlua::Result<()> {
        // Lua writes numbers with 14 digits, and so does cjson.
        if let Some(text) = self.lua.coerce_string(value.clone())? {
            self.text.extend_from_slice(&text.as_bytes());
        }
        Ok(())
    }

    fn string(&mut self, string: &[u8]) {
        self.text.push(b'"');
        for &byte in string {
            match byte {
                b'"' | b'\\' | b'/' => self.text.extend_from_slice(&[b'\\', byte]),
                8 => self.text.extend_from_slice(b"\\b"),
                b'\t' => self.text.extend_from_slice(b"\\t"),
                b'\n' => self.text.extend_from_slice(b"\\n"),
                12 => self.text.extend_from_slice(b"\\f"),
                b'\r' => self.text.extend_from_slice(b"\\r"),
                0..32 | 127 => self.text.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
                _ => self.text.push(byte),
            }
        }
        self.text.push(b'"');
    }

    fn key(&mut self, key: &Value) -> mlua::Result<()> {
        match key {
            Value::String(string) => self.string(&string.as_bytes()),
            Value::Integer(_) | Value::Number(_) => {
                self.text.push(b'"');
                self.number(key)?;
                self.text.push(b'"');
            }
            other => {
                let what = format!(
                    "Cannot serialise {}: table key must be a number or string",
                    type_name(Some(other))
                );
                return Err(message(self.lua, &what));
            }
        }
        Ok(())
    }

    /// An array has positive whole numbers for keys, at least every other of them once there are ten.
    fn shape(&self, table: &Table) -> mlua::Result<Shape> {
        const SPARSE_RATIO: u64 = 2;
        const SPARSE_FROM: u64 = 10;
        let (mut len, mut count) = (0, 0);
        for pair in table.pairs::<Value, Value>() {
            let (Value::Integer(index @ 1..), _) = pair? else {
                return Ok(Shape::Object { key: Value::Nil });
            };
            len = len.max(index.unsigned_abs());
            count += 1;
        }
        if len > SPARSE_FROM && len > count * SPARSE_RATIO {
            let what = "Cannot serialise table: excessively sparse array";
            return Err(message(self.lua, what));
        }
        Ok(if len == 0 {
            Shape::Object { key: Value::Nil }
        } else {
            Shape::Array { len, done: 0 }
        })
    }
}

/// An array or object that is being read, and the key whose value comes next.
struct Open {
    table: Table,
    key: Option<Value>,
    count: usize,
}

/// What may come next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    /// A value, or the end of an array that has just begun.
    FirstValue,
    Key,
    /// A key, or the end of an object that has just begun.
    FirstKey,
    Colon,
    /// A comma, or the end of what is open.
    Behind,
}

/// The value of a token that is one by itself.
fn scalar(lua: &Lua, token: Token) -> mlua::Result<Value> {
    match token {
        Token::String(string) => Ok(Value::String(lua.create_string(string)?)),
        Token::Number(number) => Ok(Value::Number(number)),
        Token::Boolean(value) => Ok(Value::Boolean(value)),
        _ => Ok(Value::NULL),
    }
}

fn decode(lua: &Lua, text: &[u8]) -> mlua::Result<Value> {
    let mut reader = Reader::new(text);
    let mut open: Vec<Open> = Vec::new();
    let mut expected = Expected::Value;
    loop {
        let token = reader.next();
        let is_object = open.last().is_some_and(|last| last.key.is_some());
        let mut done = None;
        let wants_value = matches!(expected, Expected::Value | Expected::FirstValue);
        match (expected, token) {
            (_, token) if wants_value && token.is_scalar() => done = Some(scalar(lua, token)?),
            (Expected::Value | Expected::FirstValue, token @ (Token::ArrayBegin | Token::ObjectBegin)) => {
                if open.len() >= DEPTH_MAX {
                    let (depth, at) = (open.len() + 1, reader.token_at + 1);
                    let what = format!("Found too many nested data structures ({depth}) at character {at}");
                    return Err(message(lua, &what));
                }
                let is_array = token == Token::ArrayBegin;
                open.push(Open {
                    table: lua.create_table()?,
                    key: (!is_array).then_some(Value::Nil),
                    count: 0,
                });
                expected = if is_array {
                    Expected::FirstValue
                } else {
                    Expected::FirstKey
                };
                continue;
            }
            (Expected::Key | Expected::FirstKey, Token::String(key)) => {
                if let Some(last) = open.last_mut() {
                    last.key = Some(Value::String(lua.create_string(key)?));
                }
                expected = Expected::Colon;
                continue;
            }
            (Expected::Colon, Token::Colon) => {
                expected = Expected::Value;
                continue;
            }
            (Expected::Behind, Token::Comma) => {
                expected = if is_object { Expected::Key } else { Expected::Value };
                continue;
            }
            (Expected::Behind | Expected::FirstKey, Token::ObjectEnd) if is_object => {}
            (Expected::Behind | Expected::FirstValue, Token::ArrayEnd) if !is_object => {}
            (expected, token) => {
                return Err(unexpected(lua, expected, is_object, &token, reader.token_at));
            }
        }
        // Without a value of its own, it is the end of what is open.
        let closed = || open.pop().map_or(Value::NULL, |last| Value::Table(last.table));
        let value = done.unwrap_or_else(closed);
        let Some(last) = open.last_mut() else {
            return match reader.next() {
                Token::End => Ok(value),
                token => {
                    let (name, at) = (token.name(), reader.token_at + 1);
                    let what = format!("Expected the end but found {name} at character {at}");
                    Err(message(lua, &what))
                }
            };
        };
        last.count += 1;
        match &last.key {
            Some(key) => last.table.raw_set(key, value)?,
            None => last.table.raw_set(last.count, value)?,
        }
        expected = Expected::Behind;
    }
}

fn unexpected(lua: &Lua, expected: Expected, is_object: bool, token: &Token, at: usize) -> mlua::Error {
    let wanted = match expected {
        Expected::Value | Expected::FirstValue => "value",
        Expected::Key | Expected::FirstKey => "object key string",
        Expected::Colon => "colon",
        Expected::Behind if is_object => "comma or object end",
        Expected::Behind => "comma or array end",
    };
    let (name, at) = (token.name(), at + 1);
    message(
        lua,
        &format!("Expected {wanted} but found {name} at character {at}"),
    )
}

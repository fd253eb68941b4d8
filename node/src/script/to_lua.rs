//! From a command's reply to what the script gets.
//!
//! The reply is read from its bytes, with a list of what is open in place of recursion.

use mlua::{Lua, Table, Value};

use super::raised;
use crate::resp::number;

/// An array, map or set that is being read.
struct Open {
    table: Table,
    kind: Kind,
    /// Values still to come.
    left: usize,
    /// Values that came.
    count: usize,
    /// Of a map, the key whose value comes next.
    key: Option<Value>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Array,
    Map,
    Set,
}

impl Open {
    fn new(lua: &Lua, kind: Kind, left: usize) -> mlua::Result<Self> {
        let (list, fields) = if kind == Kind::Array { (left, 0) } else { (0, left) };
        Ok(Self {
            table: lua.create_table_with_capacity(list, fields)?,
            kind,
            left: if kind == Kind::Map { 2 * left } else { left },
            count: 0,
            key: None,
        })
    }

    fn add(&mut self, value: Value) -> mlua::Result<()> {
        self.left -= 1;
        self.count += 1;
        match (self.kind, self.key.take()) {
            (Kind::Array, _) => self.table.raw_set(self.count, value),
            (Kind::Map, None) => {
                self.key = Some(value);
                Ok(())
            }
            (Kind::Map, Some(key)) => self.table.raw_set(key, value),
            (Kind::Set, _) => self.table.raw_set(value, true),
        }
    }

    fn end(self, lua: &Lua) -> mlua::Result<Value> {
        match self.kind {
            Kind::Array => Ok(Value::Table(self.table)),
            Kind::Map => field(lua, "map", Value::Table(self.table)),
            Kind::Set => field(lua, "set", Value::Table(self.table)),
        }
    }
}

/// The value of a whole reply; the error if it is one.
pub fn value(lua: &Lua, reply: &[u8]) -> mlua::Result<Value> {
    if let Some(text) = reply.strip_prefix(b"-") {
        return Err(raised::reply(String::from_utf8_lossy(text).trim_end()));
    }
    let mut rest = reply;
    let mut open: Vec<Open> = Vec::new();
    loop {
        let mut done = match next(lua, &mut rest)? {
            Next::Value(value) => Some(value),
            Next::Open(begun) => {
                open.push(begun);
                None
            }
        };
        loop {
            if let Some(value) = done.take() {
                let Some(last) = open.last_mut() else {
                    return Ok(value);
                };
                last.add(value)?;
            }
            let Some(full) = open.pop_if(|last| last.left == 0) else {
                break;
            };
            done = Some(full.end(lua)?);
        }
    }
}

enum Next {
    Value(Value),
    Open(Open),
}

/// A table with one field.
fn field(lua: &Lua, name: &str, value: impl mlua::IntoLua) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(name, value)?;
    Ok(Value::Table(table))
}

/// A reply that isn't one; no command writes such.
fn broken() -> mlua::Error {
    raised::reply("ERR a command's reply could not be read")
}

fn line<'a>(rest: &mut &'a [u8]) -> mlua::Result<&'a [u8]> {
    let end = rest
        .windows(2)
        .position(|pair| pair == b"\r\n")
        .ok_or_else(broken)?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Ok(line)
}

fn next(lua: &Lua, rest: &mut &[u8]) -> mlua::Result<Next> {
    let line = line(rest)?;
    let (&kind, text) = line.split_first().ok_or_else(broken)?;
    let number = number::parse_i64(text);
    let len = number.and_then(|number| usize::try_from(number).ok());
    let value = match (kind, len) {
        (b'+', _) => field(lua, "ok", lua.create_string(text)?)?,
        (b'-', _) => field(lua, "err", lua.create_string(text)?)?,
        #[expect(clippy::cast_precision_loss, reason = "scripts have no other numbers")]
        (b':', _) => Value::Number(number.ok_or_else(broken)? as f64),
        (b',', _) => field(lua, "double", number::parse_f64(text).unwrap_or(f64::NAN))?,
        (b'#', _) => Value::Boolean(text == b"t"),
        (b'(', _) => field(lua, "big_number", lua.create_string(text)?)?,
        (b'_', _) => Value::Nil,
        (b'$' | b'=', Some(len)) => {
            let (bulk, behind) = rest.split_at_checked(len).ok_or_else(broken)?;
            *rest = behind.get(2..).ok_or_else(broken)?;
            if kind == b'=' {
                verbatim(lua, bulk)?
            } else {
                Value::String(lua.create_string(bulk)?)
            }
        }
        (b'$' | b'*', None) => Value::Boolean(false),
        (b'*', Some(len)) => return Open::new(lua, Kind::Array, len).map(Next::Open),
        (b'%', Some(len)) => return Open::new(lua, Kind::Map, len).map(Next::Open),
        (b'~', Some(len)) => return Open::new(lua, Kind::Set, len).map(Next::Open),
        _ => return Err(broken()),
    };
    Ok(Next::Value(value))
}

fn verbatim(lua: &Lua, bulk: &[u8]) -> mlua::Result<Value> {
    let (format, text) = bulk.split_at_checked(4).ok_or_else(broken)?;
    let parts = lua.create_table_with_capacity(0, 2)?;
    parts.raw_set("format", lua.create_string(&format[..3])?)?;
    parts.raw_set("string", lua.create_string(text)?)?;
    field(lua, "verbatim_string", parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_become_values() {
        let lua = Lua::new();
        let table = [
            ("+OK\r\n", "v.ok == 'OK'"),
            (":42\r\n", "v == 42"),
            ("$3\r\na\r\n\r\n", "v == 'a\\r\\n'"),
            ("$-1\r\n", "v == false"),
            ("*-1\r\n", "v == false"),
            ("_\r\n", "v == nil"),
            ("#t\r\n", "v == true"),
            (",1.5\r\n", "v.double == 1.5"),
            ("(123\r\n", "v.big_number == '123'"),
            (
                "=6\r\ntxt:hi\r\n",
                "v.verbatim_string.format == 'txt' and v.verbatim_string.string == 'hi'",
            ),
            ("*0\r\n", "#v == 0"),
            ("%0\r\n", "next(v.map) == nil"),
            ("*2\r\n*1\r\n:1\r\n*1\r\n*0\r\n", "v[1][1] == 1 and #v[2][1] == 0"),
            (
                "*3\r\n$-1\r\n-E x\r\n_\r\n",
                "v[1] == false and v[2].err == 'E x' and #v == 2",
            ),
            ("%1\r\n$1\r\na\r\n~1\r\n$1\r\nm\r\n", "v.map.a.set.m == true"),
        ];
        for (reply, holds) in table {
            lua.globals()
                .set("v", value(&lua, reply.as_bytes()).unwrap())
                .unwrap();
            assert!(
                lua.load(format!("return {holds}")).eval::<bool>().unwrap(),
                "{reply:?}"
            );
        }
        for (reply, error) in [
            ("-WRONGTYPE no\r\n", "WRONGTYPE no"),
            ("*1\r\n", "ERR a command's reply could not be read"),
            ("$5\r\nab\r\n", "ERR a command's reply could not be read"),
            ("", "ERR a command's reply could not be read"),
        ] {
            assert_eq!(
                value(&lua, reply.as_bytes()).unwrap_err().to_string(),
                error,
                "{reply:?}"
            );
        }
    }
}

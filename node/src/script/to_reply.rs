//! From what a script returns to its reply.

use mlua::{Table, Value};

use super::watchdog::Watchdog;
use crate::error::CommandError;
use crate::resp::Reply;

/// Tables in tables.
const DEPTH_MAX: usize = 250;
/// What a script's reply may take: one table may stand in many places.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// Writes one value; with what `redis.setresp` has chosen.
pub struct Writer<'a> {
    /// Where to.
    pub reply: &'a mut Reply,
    /// Whether the script speaks RESP3.
    pub resp3: bool,
    /// Asked for each table.
    pub watchdog: &'a Watchdog,
}

/// An integer as C makes it of a number.
#[expect(clippy::cast_possible_truncation, reason = "it is in the range")]
pub fn integer(number: f64) -> i64 {
    const END: f64 = 9_223_372_036_854_775_808.0;
    if (-END..END).contains(&number) {
        number as i64
    } else {
        i64::MIN
    }
}

/// The text without line ends.
fn one_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(['\r', '\n'], " ")
}

impl Writer<'_> {
    /// Writes a whole reply.
    pub fn write(&mut self, value: &Value) -> Result<(), CommandError> {
        let begin = self.reply.len();
        self.value(value, begin, 0)
    }

    fn value(&mut self, value: &Value, begin: usize, depth: usize) -> Result<(), CommandError> {
        match value {
            Value::Boolean(is_true) => self.boolean(*is_true),
            Value::Integer(number) => self.reply.integer(*number),
            Value::Number(number) => self.reply.integer(integer(*number)),
            Value::String(string) => self.reply.bulk(&string.as_bytes()),
            Value::Table(table) => return self.table(table, begin, depth),
            _ => self.reply.null(),
        }
        Ok(())
    }

    fn boolean(&mut self, is_true: bool) {
        match (self.resp3, is_true) {
            (true, _) => self.reply.boolean(is_true),
            (false, true) => self.reply.integer(1),
            (false, false) => self.reply.null(),
        }
    }

    fn table(&mut self, table: &Table, begin: usize, depth: usize) -> Result<(), CommandError> {
        let failed = |error: &mlua::Error| CommandError::Other(super::raised::plain_message(error));
        self.watchdog.check().map_err(|error| failed(&error))?;
        if depth >= DEPTH_MAX {
            self.reply.error(&"ERR reached lua stack limit");
            return Ok(());
        }
        if self.reply.len() - begin > REPLY_BYTES_MAX {
            return Err(CommandError::Fixed(
                "ERR the script's reply takes more than 64 MiB",
            ));
        }
        if self.marked(table).map_err(|error| failed(&error))? {
            return Ok(());
        }
        if let Ok(Value::Table(map)) = table.raw_get("map") {
            self.reply.map(map.pairs::<Value, Value>().count());
            for pair in map.pairs::<Value, Value>() {
                let (key, value) = pair.map_err(|error| failed(&error))?;
                self.value(&key, begin, depth + 1)?;
                self.value(&value, begin, depth + 1)?;
            }
            return Ok(());
        }
        if let Ok(Value::Table(set)) = table.raw_get("set") {
            self.reply.set(set.pairs::<Value, Value>().count());
            for pair in set.pairs::<Value, Value>() {
                let (key, _) = pair.map_err(|error| failed(&error))?;
                self.value(&key, begin, depth + 1)?;
            }
            return Ok(());
        }
        let at = |index: usize| table.raw_get::<Value>(index).unwrap_or(Value::Nil);
        let mut len = 0;
        while !at(len + 1).is_nil() {
            len += 1;
        }
        self.reply.array(len);
        for index in 1..=len {
            self.value(&at(index), begin, depth + 1)?;
        }
        Ok(())
    }

    /// Writes what a table stands for by one of its fields: an error, a status, a number, a text.
    fn marked(&mut self, table: &Table) -> mlua::Result<bool> {
        if let Value::String(text) = table.raw_get("err")? {
            self.reply.error(&one_line(&text.as_bytes()));
        } else if let Value::String(text) = table.raw_get("ok")? {
            self.reply.simple(&one_line(&text.as_bytes()));
        } else if let Some(number) = table.raw_get::<Value>("double")?.as_number_or_integer() {
            self.reply.double(number);
        } else if let Value::String(text) = table.raw_get("big_number")? {
            self.reply.big_number(&one_line(&text.as_bytes()));
        } else if let Value::Table(parts) = table.raw_get("verbatim_string")?
            && let Value::String(format) = parts.raw_get("format")?
            && let Value::String(text) = parts.raw_get("string")?
        {
            let mut name = [b' '; 3];
            for (byte, given) in name.iter_mut().zip(format.as_bytes().iter()) {
                *byte = *given;
            }
            self.reply.verbatim_as(name, &text.as_bytes());
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

/// Numbers that scripts hold in one of two forms.
trait Numeric {
    fn as_number_or_integer(&self) -> Option<f64>;
}

impl Numeric for Value {
    fn as_number_or_integer(&self) -> Option<f64> {
        match self {
            #[expect(
                clippy::cast_precision_loss,
                reason = "it was a number with a fraction before"
            )]
            Self::Integer(number) => Some(*number as f64),
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use mlua::Lua;

    use annulus_proto::tenants::TenantId;

    use super::*;

    fn reply_to(lua: &Lua, script: &str, resp3: bool) -> String {
        let watchdog = Watchdog::new(Arc::default());
        watchdog.begin(TenantId::CLUSTER, Duration::from_mins(1));
        let mut reply = Reply::new(1 << 20);
        reply.set_resp3(resp3);
        let mut writer = Writer {
            reply: &mut reply,
            resp3,
            watchdog: &watchdog,
        };
        writer.write(&lua.load(script).eval().unwrap()).unwrap();
        reply.as_bytes().escape_ascii().to_string()
    }

    #[test]
    fn values_become_replies() {
        let lua = Lua::new();
        let table = [
            ("return 3.99", ":3\\r\\n", ":3\\r\\n"),
            ("return -3.99", ":-3\\r\\n", ":-3\\r\\n"),
            ("return true", ":1\\r\\n", "#t\\r\\n"),
            ("return false", "$-1\\r\\n", "#f\\r\\n"),
            ("return nil", "$-1\\r\\n", "_\\r\\n"),
            ("return function() end", "$-1\\r\\n", "_\\r\\n"),
            (
                "return 'a\\r\\n'",
                "$3\\r\\na\\r\\n\\r\\n",
                "$3\\r\\na\\r\\n\\r\\n",
            ),
            (
                "return {1, {2}, nil, 4}",
                "*2\\r\\n:1\\r\\n*1\\r\\n:2\\r\\n",
                "*2\\r\\n:1\\r\\n*1\\r\\n:2\\r\\n",
            ),
            ("return {a = 1}", "*0\\r\\n", "*0\\r\\n"),
            ("return {ok = 'a\\nb'}", "+a b\\r\\n", "+a b\\r\\n"),
            ("return {err = 'E x', ok = 'y'}", "-E x\\r\\n", "-E x\\r\\n"),
            ("return {err = 5}", "*0\\r\\n", "*0\\r\\n"),
            (
                "return {double = 2.5, map = {}}",
                "$3\\r\\n2.5\\r\\n",
                ",2.5\\r\\n",
            ),
            ("return {double = 3}", "$1\\r\\n3\\r\\n", ",3\\r\\n"),
            ("return {big_number = '12'}", "$2\\r\\n12\\r\\n", "(12\\r\\n"),
            (
                "return {verbatim_string = {format = 'tx', string = 'hi'}}",
                "$2\\r\\nhi\\r\\n",
                "=6\\r\\ntx :hi\\r\\n",
            ),
            (
                "return {map = {a = 1}, set = {}}",
                "*2\\r\\n$1\\r\\na\\r\\n:1\\r\\n",
                "%1\\r\\n$1\\r\\na\\r\\n:1\\r\\n",
            ),
            (
                "return {set = {a = true}}",
                "*1\\r\\n$1\\r\\na\\r\\n",
                "~1\\r\\n$1\\r\\na\\r\\n",
            ),
        ];
        for (script, resp2, resp3) in table {
            assert_eq!(reply_to(&lua, script, false), resp2, "{script}");
            assert_eq!(reply_to(&lua, script, true), resp3, "{script}");
        }
        assert_eq!(
            [integer(f64::NAN), integer(1e300), integer(-2.7)],
            [i64::MIN, i64::MIN, -2]
        );
    }
}

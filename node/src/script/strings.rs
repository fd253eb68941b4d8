//! The functions on patterns, in place of Lua's own: `string.find`, `match`, `gmatch`, `gsub`.

use std::rc::Rc;

use mlua::{Lua, LuaString, MultiValue, Table, Value};

use super::pattern::{Capture, Matcher, Refusal};
use super::raised::{bad_argument, message, number, string, type_name};
use super::to_reply::integer;
use super::watchdog::Watchdog;

/// Puts them into the table of functions on strings. `gmatch` is made by the prelude out of `gmatch_step`.
pub fn install(lua: &Lua, strings: &Table, watchdog: &Rc<Watchdog>, bytes_max: usize) -> mlua::Result<()> {
    let dog = Rc::clone(watchdog);
    let find = lua.create_function(move |lua, args: MultiValue| search(lua, &args, "find", &dog))?;
    strings.raw_set("find", find)?;
    let dog = Rc::clone(watchdog);
    let matches = lua.create_function(move |lua, args: MultiValue| search(lua, &args, "match", &dog))?;
    strings.raw_set("match", matches)?;
    let dog = Rc::clone(watchdog);
    let step = lua.create_function(move |lua, args: MultiValue| gmatch_step(lua, &args, &dog))?;
    strings.raw_set("gmatch_step", step)?;
    let dog = Rc::clone(watchdog);
    let gsub = lua.create_function(move |lua, args: MultiValue| gsub(lua, &args, &dog, bytes_max))?;
    strings.raw_set("gsub", gsub)
}

/// `string.rep` and `table.insert`, in place of Lua's own: those repeat nothing, or make room from far below the
/// first element, for as long as a number says.
pub fn install_counted(lua: &Lua, strings: &Table, tables: &Table, bytes_max: usize) -> mlua::Result<()> {
    let repeat = lua.create_function(move |lua, args: MultiValue| repeat(lua, &args, bytes_max))?;
    strings.raw_set("rep", repeat)?;
    let insert = lua.create_function(|lua, args: MultiValue| insert(lua, &args))?;
    tables.raw_set("insert", insert)
}

fn repeat(lua: &Lua, args: &MultiValue, bytes_max: usize) -> mlua::Result<LuaString> {
    let text = string(lua, "rep", args, 0)?;
    let times = usize::try_from(integer(number(lua, "rep", args, 1)?)).unwrap_or(0);
    if text.as_bytes().len().saturating_mul(times) > bytes_max {
        return Err(mlua::Error::MemoryError(String::new()));
    }
    let times = if text.as_bytes().is_empty() { 0 } else { times };
    lua.create_string(text.as_bytes().repeat(times))
}

fn insert(lua: &Lua, args: &MultiValue) -> mlua::Result<()> {
    let Some(Value::Table(list)) = args.front() else {
        let what = format!("table expected, got {}", type_name(args.front()));
        return Err(bad_argument(lua, "insert", 1, &what));
    };
    let end = list.raw_len() + 1;
    match args.len() {
        2 => list.raw_set(end, &args[1]),
        3 => {
            let Ok(place) = usize::try_from(integer(number(lua, "insert", args, 1)?)) else {
                return Err(bad_argument(lua, "insert", 2, "position out of bounds"));
            };
            for index in (place + 1..=end).rev() {
                list.raw_set(index, list.raw_get::<Value>(index - 1)?)?;
            }
            list.raw_set(place, &args[2])
        }
        _ => Err(message(lua, "wrong number of arguments to 'insert'")),
    }
}

fn raise(lua: &Lua, refusal: Refusal<mlua::Error>) -> mlua::Error {
    match refusal {
        Refusal::Malformed(why) => message(lua, why),
        Refusal::Stopped(error) => error,
    }
}

/// A place in a text of that length, which may be counted from its end; from 0.
#[expect(
    clippy::cast_possible_truncation,
    reason = "beyond any text means beyond the end"
)]
fn start_of(place: f64, len: usize) -> usize {
    let place = place as i64;
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    let from = if place < 0 { len + place } else { place - 1 };
    usize::try_from(from.clamp(0, len)).unwrap_or(0)
}

fn capture_value(lua: &Lua, text: &[u8], capture: Capture) -> mlua::Result<Value> {
    match capture {
        Capture::Text(begin, end) => Ok(Value::String(lua.create_string(&text[begin..end])?)),
        Capture::Position(at) | Capture::Open(at) => Ok(count_value(at + 1)),
    }
}

/// How many bytes come before a place: as scripts count, the position of the last of them.
fn count_value(count: usize) -> Value {
    Value::Integer(i64::try_from(count).unwrap_or(i64::MAX))
}

fn search(lua: &Lua, args: &MultiValue, function: &str, watchdog: &Watchdog) -> mlua::Result<MultiValue> {
    let (text, pattern) = (string(lua, function, args, 0)?, string(lua, function, args, 1)?);
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (text, pattern): (&[u8], &[u8]) = (&text, &pattern);
    let from = match args.get(2) {
        None | Some(Value::Nil) => 0,
        Some(_) => start_of(number(lua, function, args, 2)?, text.len()),
    };
    let is_find = function == "find";
    let is_plain = args
        .get(3)
        .is_some_and(|plain| plain.as_boolean() != Some(false) && !plain.is_nil())
        || !pattern.iter().any(|byte| b"^$*+?.([%-".contains(byte));
    if is_find && is_plain {
        watchdog.check()?;
        let found = find_plain(&text[from..], pattern).map(|at| from + at);
        return Ok(match found {
            Some(at) => [count_value(at + 1), count_value(at + pattern.len())]
                .into_iter()
                .collect(),
            None => [Value::Nil].into_iter().collect(),
        });
    }
    let rest = pattern.strip_prefix(b"^");
    let mut matcher = Matcher::new(text, rest.unwrap_or(pattern), || watchdog.check());
    let found = matcher
        .find(from, rest.is_some())
        .map_err(|refusal| raise(lua, refusal))?;
    let Some((start, end)) = found else {
        return Ok([Value::Nil].into_iter().collect());
    };
    let captured = matcher
        .captured(start, end)
        .map_err(|refusal| raise(lua, refusal))?;
    let mut values = MultiValue::new();
    if is_find {
        values.push_back(count_value(start + 1));
        values.push_back(count_value(end));
    }
    if !is_find || matcher.has_captures() {
        for capture in captured {
            values.push_back(capture_value(lua, text, capture)?);
        }
    }
    Ok(values)
}

/// Where a text is found in another.
fn find_plain(text: &[u8], wanted: &[u8]) -> Option<usize> {
    let Some((first, rest)) = wanted.split_first() else {
        return Some(0);
    };
    let mut from = 0;
    while let Some(offset) = text[from..].iter().position(|byte| byte == first) {
        from += offset + 1;
        if text[from..].starts_with(rest) {
            return Some(from - 1);
        }
    }
    None
}

/// `gmatch_step(text, pattern, from)`: where to go on, and what the next match has captured; nothing at the end.
fn gmatch_step(lua: &Lua, args: &MultiValue, watchdog: &Watchdog) -> mlua::Result<MultiValue> {
    let (text, pattern) = (string(lua, "gmatch", args, 0)?, string(lua, "gmatch", args, 1)?);
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let from = args.get(2).and_then(Value::as_usize).unwrap_or(0);
    let mut values = MultiValue::new();
    if from > text.len() {
        return Ok(values);
    }
    let mut matcher = Matcher::new(&text, &pattern, || watchdog.check());
    let found = matcher.find(from, false).map_err(|refusal| raise(lua, refusal))?;
    if let Some((start, end)) = found {
        // Behind an empty match goes on one further.
        let next = if end == start { end + 1 } else { end };
        values.push_back(count_value(next));
        for capture in matcher
            .captured(start, end)
            .map_err(|refusal| raise(lua, refusal))?
        {
            values.push_back(capture_value(lua, &text, capture)?);
        }
    }
    Ok(values)
}

/// What takes the place of a match.
enum Replacement {
    Text(LuaString),
    Table(Table),
    Function(mlua::Function),
}

fn gsub(
    lua: &Lua,
    args: &MultiValue,
    watchdog: &Watchdog,
    bytes_max: usize,
) -> mlua::Result<(LuaString, usize)> {
    let (text, pattern) = (string(lua, "gsub", args, 0)?, string(lua, "gsub", args, 1)?);
    let replacement = match args.get(2) {
        Some(Value::Table(table)) => Replacement::Table(table.clone()),
        Some(Value::Function(function)) => Replacement::Function(function.clone()),
        Some(Value::String(_) | Value::Integer(_) | Value::Number(_)) => {
            Replacement::Text(string(lua, "gsub", args, 2)?)
        }
        _ => return Err(bad_argument(lua, "gsub", 3, "string/function/table expected")),
    };
    let count_max = match args.get(3) {
        None | Some(Value::Nil) => text.as_bytes().len() + 1,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "beyond any count means all, and below zero none"
        )]
        Some(_) => number(lua, "gsub", args, 3)? as usize,
    };
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let rest = pattern.strip_prefix(b"^");
    let mut matcher = Matcher::new(&text, rest.unwrap_or(&pattern), || watchdog.check());
    let (mut built, mut at, mut count) = (Vec::new(), 0, 0);
    while count < count_max {
        let end = matcher.match_at(at).map_err(|refusal| raise(lua, refusal))?;
        if let Some(end) = end {
            count += 1;
            let captures = matcher.captured(at, end);
            let whole = &text[at..end];
            replace(lua, (&text, whole), captures, &replacement, watchdog, &mut built)?;
            if built.len() > bytes_max {
                return Err(mlua::Error::MemoryError(String::new()));
            }
            // Asked here as well: each match may be short and each replacement long.
            watchdog.check()?;
        }
        match end {
            Some(end) if end > at => at = end,
            _ if at < text.len() => {
                built.push(text[at]);
                at += 1;
            }
            _ => break,
        }
        if rest.is_some() {
            break;
        }
    }
    built.extend_from_slice(text.get(at..).unwrap_or_default());
    Ok((lua.create_string(built)?, count))
}

fn replace(
    lua: &Lua,
    (text, whole): (&[u8], &[u8]),
    captures: Result<Vec<Capture>, Refusal<mlua::Error>>,
    replacement: &Replacement,
    watchdog: &Watchdog,
    built: &mut Vec<u8>,
) -> mlua::Result<()> {
    let value = match replacement {
        Replacement::Text(template) => {
            return fill_in(lua, text, whole, captures, &template.as_bytes(), built);
        }
        Replacement::Table(table) => {
            let captures = captures.map_err(|refusal| raise(lua, refusal))?;
            table.get(capture_value(lua, text, captures[0])?)?
        }
        Replacement::Function(function) => {
            let mut args = MultiValue::new();
            for capture in captures.map_err(|refusal| raise(lua, refusal))? {
                args.push_back(capture_value(lua, text, capture)?);
            }
            watchdog.call(lua, function, args)?
        }
    };
    match value {
        Value::Nil | Value::Boolean(false) => built.extend_from_slice(whole),
        Value::String(_) | Value::Integer(_) | Value::Number(_) => {
            if let Some(string) = lua.coerce_string(value)? {
                built.extend_from_slice(&string.as_bytes());
            }
        }
        other => {
            let what = format!("invalid replacement value (a {})", type_name(Some(&other)));
            return Err(message(lua, &what));
        }
    }
    Ok(())
}

/// Writes a replacement in which `%1` stands for a capture and `%0` for the whole match.
fn fill_in(
    lua: &Lua,
    text: &[u8],
    whole: &[u8],
    captures: Result<Vec<Capture>, Refusal<mlua::Error>>,
    template: &[u8],
    built: &mut Vec<u8>,
) -> mlua::Result<()> {
    let mut captures = Some(captures);
    let mut known: Vec<Capture> = Vec::new();
    let mut bytes = template.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            built.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'0') => built.extend_from_slice(whole),
            Some(digit @ b'1'..=b'9') => {
                // A pattern that is left open matters only to whom asks for what it captured.
                if let Some(captures) = captures.take() {
                    known = captures.map_err(|refusal| raise(lua, refusal))?;
                }
                match known.get(usize::from(digit - b'1')) {
                    Some(&Capture::Text(begin, end)) => built.extend_from_slice(&text[begin..end]),
                    Some(&(Capture::Position(at) | Capture::Open(at))) => {
                        built.extend_from_slice((at + 1).to_string().as_bytes());
                    }
                    None => return Err(message(lua, "invalid capture index")),
                }
            }
            Some(&other) => built.push(other),
            None => built.push(0),
        }
    }
    Ok(())
}

//! `GET`, `HEAD`, `PUT` and `DELETE` of a key.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::Full;
use hyper::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Response, StatusCode};

use super::caller::Caller;
use super::conditions::{Conditions, Digest, ETag, Simple, Unmet, allows_range};
use super::problem::Problem;
use super::range::{Part, part};
use super::replies::Item;
use super::replies::{write_arg, write_command};
use super::upload::Upload;
use crate::buffers::make_room;

/// How long the key still lives, in milliseconds; not there when it lives on.
const TTL_HEADER: HeaderName = HeaderName::from_static("annulus-ttl-ms");

/// A change that depends on the value is tried so often when others change it at the same time.
const TRIES_MAX: u32 = 16;

const LINE_END: &[u8] = b"\r\n";

type Answer = Response<Full<Bytes>>;

fn failed(_: hyper::http::Error) -> Problem {
    Problem::of_reply("ERR a header of the response can't be written")
}

/// `GET` and `HEAD`; the caller of this drops the body of the latter.
pub(super) async fn get(
    caller: &mut Caller,
    key: &[u8],
    headers: &HeaderMap,
    is_head: bool,
) -> Result<Answer, Problem> {
    let conditions = Conditions::parse(headers)?;
    let with_ttl = caller.may_ask_ttl();
    let commands = caller.commands();
    write_command(commands, &[b"GET", key]);
    if with_ttl {
        write_command(commands, &[b"PTTL", key]);
    }
    let mut replies = caller.execute(key, false).await?;
    let Some(value) = replies.next_value()? else {
        return match conditions.check(None) {
            Err(Unmet::Match) => Err(Problem::precondition_failed()),
            _ => Err(Problem::no_such_key()),
        };
    };
    let ttl_ms = match with_ttl.then(|| replies.next()) {
        Some(Ok(Item::Integer(ttl_ms))) => u64::try_from(ttl_ms).ok(),
        _ => None,
    };
    let etag = ETag::of(&value);
    let mut response = Response::new(Full::default());
    let headers_out = response.headers_mut();
    headers_out.insert(ETAG, etag.header().map_err(failed)?);
    let is_in_group = caller.node.groups.of(caller.tenant(), key).is_some();
    headers_out.insert(
        CACHE_CONTROL,
        // Its entry outlives what its group calls fresh.
        if is_in_group {
            HeaderValue::from_static("private, no-cache")
        } else {
            cache_control(ttl_ms)?
        },
    );
    if let Some(ttl_ms) = ttl_ms {
        headers_out.insert(TTL_HEADER, HeaderValue::from(ttl_ms));
    }
    match conditions.check(Some(&etag)) {
        Ok(()) => {}
        Err(Unmet::Match) => return Err(Problem::precondition_failed()),
        Err(Unmet::NoneMatch) => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
    }
    headers_out.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers_out.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers_out.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    let range = headers.get(RANGE).map(HeaderValue::as_bytes);
    let range = range.filter(|_| !is_head && allows_range(headers.get(IF_RANGE), &etag));
    let body = match part(range, value.len()) {
        Part::Whole => value,
        Part::Beyond => return Err(Problem::range_not_satisfiable(value.len())),
        Part::Of(range) => {
            let described = format!("bytes {}-{}/{}", range.start, range.end - 1, value.len());
            let described = HeaderValue::try_from(described).map_err(|error| failed(error.into()))?;
            headers_out.insert(CONTENT_RANGE, described);
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            value.slice(range)
        }
    };
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    *response.body_mut() = Full::new(body);
    Ok(response)
}

/// Caches between may have nothing: a value is somebody's. The client's own may keep it while it lives, and where nobody
/// knows how long, ask whether it has changed.
fn cache_control(ttl_ms: Option<u64>) -> Result<HeaderValue, Problem> {
    let Some(ttl_ms) = ttl_ms else {
        return Ok(HeaderValue::from_static("private, no-cache"));
    };
    HeaderValue::try_from(format!("private, max-age={}", ttl_ms / 1000)).map_err(|error| failed(error.into()))
}

/// The value as it is now, for a change that depends on it.
async fn current(caller: &mut Caller, key: &[u8]) -> Result<Option<Bytes>, Problem> {
    write_command(caller.commands(), &[b"GET", key]);
    let mut replies = caller.execute(key, false).await?;
    caller.finish();
    replies.next_value()
}

fn holds(conditions: &Conditions, value: Option<&Bytes>) -> Result<(), Problem> {
    let etag = value.map(|value| ETag::of(value));
    conditions
        .check(etag.as_ref())
        .map_err(|_| Problem::precondition_failed())
}

fn changes_too_often() -> Problem {
    Problem::unavailable("the value is changed by others all the time, so that the condition can't be kept")
}

/// `PUT`
pub(super) async fn put(
    caller: &mut Caller,
    key: &[u8],
    headers: &HeaderMap,
    ttl_ms: Option<u64>,
    upload: &mut Upload,
) -> Result<Answer, Problem> {
    if headers.contains_key(CONTENT_RANGE) {
        return Err(Problem::bad_request(
            "a value is replaced as a whole; leave Content-Range out",
        ));
    }
    let conditions = Conditions::parse(headers)?;
    let bytes_max = caller.value_bytes_max();
    if upload.missing_bytes() > bytes_max as u64 {
        return Err(Problem::too_large(bytes_max));
    }
    let simple = conditions.simple();
    // Before the body: it need not come when the condition doesn't hold.
    let mut expected = None;
    if simple == Simple::Depends {
        expected = current(caller, key).await?;
        holds(&conditions, expected.as_ref())?;
    }
    let (written, etag) = receive(caller, key, upload, bytes_max).await?;
    let ttl = ttl_ms.map(|ttl_ms| ttl_ms.to_string());
    for _ in 0..TRIES_MAX {
        let mut tail: Vec<&[u8]> = Vec::with_capacity(4);
        if let Some(ttl) = &ttl {
            tail.extend([b"PX", ttl.as_bytes()]);
        }
        match (simple, &expected) {
            (Simple::None, _) => {}
            (Simple::Exists, _) => tail.push(b"XX"),
            (Simple::Absent, _) | (Simple::Depends, None) => tail.push(b"NX"),
            (Simple::Depends, Some(expected)) => tail.extend([b"IFEQ", &expected[..]]),
        }
        written.finish(caller.commands(), &tail);
        if !caller.has_room() {
            return Err(Problem::no_room());
        }
        let mut replies = caller.execute(key, true).await?;
        match (replies.next()?, simple) {
            (Item::Done, _) => {
                let status = if simple == Simple::Absent {
                    StatusCode::CREATED
                } else {
                    StatusCode::NO_CONTENT
                };
                let mut response = Response::new(Full::default());
                *response.status_mut() = status;
                response
                    .headers_mut()
                    .insert(ETAG, etag.header().map_err(failed)?);
                return Ok(response);
            }
            (Item::Null, Simple::Depends) => {}
            (Item::Null, _) => return Err(Problem::precondition_failed()),
            _ => return Err(Problem::of_reply("")),
        }
        // Somebody else has changed it since; the condition may hold all the same.
        let commands = caller.take_commands();
        expected = current(caller, key).await?;
        caller.put_commands(commands);
        holds(&conditions, expected.as_ref())?;
    }
    Err(changes_too_often())
}

/// `DELETE`
pub(super) async fn delete(caller: &mut Caller, key: &[u8], headers: &HeaderMap) -> Result<Answer, Problem> {
    let conditions = Conditions::parse(headers)?;
    let simple = conditions.simple();
    for _ in 0..TRIES_MAX {
        let expected = match simple {
            Simple::None | Simple::Exists => None,
            Simple::Absent | Simple::Depends => {
                let value = current(caller, key).await?;
                holds(&conditions, value.as_ref())?;
                Some(value.ok_or_else(Problem::no_such_key)?)
            }
        };
        let commands = caller.commands();
        match &expected {
            None => write_command(commands, &[b"DEL", key]),
            Some(expected) => write_command(commands, &[b"DELIFEQ", key, expected]),
        }
        let mut replies = caller.execute(key, true).await?;
        caller.finish();
        match (replies.next()?, simple) {
            (Item::Integer(0), Simple::None) => return Err(Problem::no_such_key()),
            (Item::Integer(0), Simple::Exists) => return Err(Problem::precondition_failed()),
            // Changed since: look again.
            (Item::Integer(0), _) => {}
            (Item::Integer(_), _) => {
                let mut response = Response::new(Full::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                return Ok(response);
            }
            _ => return Err(Problem::of_reply("")),
        }
    }
    Err(changes_too_often())
}

/// `SET key value`, written in front of a buffer; options may follow.
struct Written {
    /// Behind the value and its line end.
    end: usize,
}

impl Written {
    /// Where the number of arguments is: one digit.
    const COUNT_AT: usize = 1;
    const COUNT: u8 = 3;

    /// Puts these options in place of any others.
    fn finish(&self, buffer: &mut BytesMut, tail: &[&[u8]]) {
        buffer.truncate(self.end);
        for arg in tail {
            write_arg(buffer, arg);
        }
        // Never more than four options.
        buffer[Self::COUNT_AT] = b'0' + Self::COUNT + u8::try_from(tail.len()).unwrap_or_default();
    }
}

/// Receives a value as the command that sets it, and tells its tag.
async fn receive(
    caller: &mut Caller,
    key: &[u8],
    upload: &mut Upload,
    bytes_max: usize,
) -> Result<(Written, ETag), Problem> {
    // How long the value is may be known only at its end: room for that is left in front of it.
    let mut head = BytesMut::with_capacity(key.len() + 64);
    write_command(&mut head, &[b"SET", key]);
    let room = head.len() + "$18446744073709551615\r\n".len();
    caller.commands().resize(room, 0);
    let mut digest = Digest::default();
    let mut len = 0;
    while let Some(piece) = upload.next().await? {
        len += piece.len();
        if len > bytes_max {
            return Err(Problem::too_large(bytes_max));
        }
        digest.update(&piece);
        let missing = upload.expected_bytes().saturating_add(LINE_END.len() as u64);
        let buffer = caller.commands();
        make_room(buffer, piece.len(), missing);
        buffer.extend_from_slice(&piece);
        if !caller.has_room() {
            return Err(Problem::no_room());
        }
    }
    head[Written::COUNT_AT] = b'0' + Written::COUNT;
    head.extend_from_slice(format!("${len}\r\n").as_bytes());
    let buffer = caller.commands();
    let begin = room - head.len();
    buffer[begin..room].copy_from_slice(&head);
    buffer.advance(begin);
    buffer.extend_from_slice(LINE_END);
    Ok((Written { end: buffer.len() }, digest.finish()))
}

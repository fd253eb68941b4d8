//! What went wrong, as RFC 9457 has it: a status, and a JSON object for programs and people.

use std::borrow::Cow;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use hyper::{Response, StatusCode};

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// What is sent.
    pub(super) status: StatusCode,
    /// The last part of `type`, by which programs tell problems of one status apart.
    pub(super) kind: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
    /// Nothing more may be asked on this connection.
    pub(super) ends_connection: bool,
}

/// What `type` begins with (RFC 4151): a name, not an address.
const TYPE_PREFIX: &str = "tag:annulus.dev,2026:http/";

/// What may be tried again so soon.
const RETRY_AFTER_S: HeaderValue = HeaderValue::from_static("1");

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            kind,
            title,
            detail: detail.into(),
            header: None,
            ends_connection: false,
        }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// The same, after which the connection ends.
    pub(super) fn and_end(mut self) -> Self {
        self.ends_connection = true;
        self
    }

    pub(super) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request is not understood",
            detail,
        )
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-path",
            "There is no such path",
            "paths are /v1/keys/{key}, /v1/groups/{group}/{key} and /v1/openapi.json",
        )
    }

    pub(super) fn no_such_key() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-key",
            "There is no such key",
            "the key doesn't exist, or its time is over",
        )
    }

    pub(super) fn no_such_group() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "no-such-group",
            "There is no such group",
            "no read-through group of that name is known in the caller's keyspace",
        )
    }

    pub(super) fn method_not_allowed(allowed: &'static str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "The path doesn't have this method",
            format!("this path has {allowed}"),
        )
        .with(ALLOW, HeaderValue::from_static(allowed))
    }

    pub(super) fn unauthorized(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "It is not known who asks",
            detail,
        )
        .with(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"annulus\", charset=\"UTF-8\""),
        )
    }

    pub(super) fn precondition_failed() -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "precondition-failed",
            "The value is not the expected one",
            "If-Match or If-None-Match does not hold for the current value; nothing was changed",
        )
    }

    pub(super) fn too_large(bytes_max: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            "The value is too long",
            format!("a value may have {bytes_max} bytes at most"),
        )
        .and_end()
    }

    pub(super) fn range_not_satisfiable(len: usize) -> Self {
        let problem = Self::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            "range-not-satisfiable",
            "The range lies beyond the value",
            format!("the value has {len} bytes"),
        );
        match HeaderValue::try_from(format!("bytes */{len}")) {
            Ok(value) => problem.with(CONTENT_RANGE, value),
            Err(_) => problem,
        }
    }

    pub(super) fn timeout() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "too-slow",
            "The body came too slowly",
            "the value was not received in time; nothing was changed",
        )
        .and_end()
    }

    pub(super) fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "The key can't be served at the moment",
            detail,
        )
        .with(RETRY_AFTER, RETRY_AFTER_S)
    }

    pub(super) fn no_room() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-room",
            "The node has no memory for the request",
            "requests that are under way use all memory that there is for them",
        )
        .with(RETRY_AFTER, RETRY_AFTER_S)
        .and_end()
    }

    /// The request may have been done, and may not.
    pub(super) fn uncertain(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "uncertain",
            "It is not known whether the change was made",
            detail,
        )
    }

    /// An error reply, without its leading `-`.
    pub(super) fn of_reply(error: &str) -> Self {
        let (code, text) = error.split_once(' ').unwrap_or((error, ""));
        let text = text.to_owned();
        match code {
            "NOAUTH" | "WRONGPASS" => Self::unauthorized(text),
            "NOPERM" => Self::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "The user may not do this",
                text,
            ),
            "WRONGTYPE" => Self::new(
                StatusCode::CONFLICT,
                "wrong-type",
                "The key holds no string",
                "the key holds a collection; over HTTP there are strings only",
            ),
            "THROTTLED" => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "throttled",
                "The tenant's rate is used up",
                text,
            )
            .with(RETRY_AFTER, RETRY_AFTER_S),
            "OOM" => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "out-of-memory",
                "There is no memory for the value",
                text,
            ),
            "ORIGIN" => Self::new(
                StatusCode::BAD_GATEWAY,
                "origin-failed",
                "The group's origin doesn't give the value",
                text,
            ),
            "UNCERTAIN" => Self::uncertain(text),
            "MOVED" => Self::unavailable("the key's slot is on its way from one node to another"),
            "CLUSTERDOWN" | "TRYAGAIN" | "NOREPLICAS" | "BUSY" | "LOADING" => Self::unavailable(text),
            "ERR" if text.contains("connections to this node already") => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-connections",
                "The tenant has too many connections",
                text,
            )
            .with(RETRY_AFTER, RETRY_AFTER_S)
            .and_end(),
            "ERR" if text.starts_with("a value of tenant") || text.starts_with("an entry of") => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too-large",
                "The value is too long",
                text,
            ),
            _ => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The request failed in a way that it shouldn't",
                text,
            ),
        }
    }

    /// The response that says so.
    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let body = serde_json::json!({
            "type": format!("{TYPE_PREFIX}{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        })
        .to_string();
        let mut response = Response::new(Full::default());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        if let Some((name, value)) = self.header.map(|header| *header) {
            headers.insert(name, value);
        }
        *response.body_mut() = Full::new(Bytes::from(body));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_replies_have_their_status() {
        let table = [
            ("NOAUTH Authentication required.", 401),
            ("NOPERM User u has no permissions to run the 'get' command", 403),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                409,
            ),
            (
                "THROTTLED tenant a/b may run 5 operations a second on this node",
                429,
            ),
            (
                "ERR tenant a/b has its 5 connections to this node already; close some",
                429,
            ),
            (
                "ERR a value of tenant a/b may have 5 bytes at most, by its quota",
                413,
            ),
            (
                "ERR an entry of 5 bytes does not fit in maxmemory of 4 bytes",
                413,
            ),
            ("OOM command not allowed when used memory > 'maxmemory'.", 507),
            ("CLUSTERDOWN Hash slot not served", 503),
            ("TRYAGAIN Slot 5 is being handed over", 503),
            ("NOREPLICAS Not enough good replicas to write.", 503),
            ("UNCERTAIN the write was made here", 504),
            ("ERR something else", 500),
            ("", 500),
        ];
        for (error, status) in table {
            assert_eq!(Problem::of_reply(error).status, status, "{error}");
        }
    }
}

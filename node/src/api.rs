//! The data over HTTP/1.1: `/v1/keys/{key}`, `/v1/groups/{group}/{key}`, and the description of both.
//!
//! Nothing is executed here: a request becomes commands in a pipeline like that of a Redis client ([`caller`]), so that users,
//! rules, rates, quotas, copies and the ring hold as they do there. Here is what HTTP adds: names in paths, conditions,
//! ranges, problems.
//!
//! A connection is a client among the others: it counts in `maxclients`, `CLIENT LIST` shows it and `CLIENT KILL` ends it. Of
//! somebody who isn't known no body is read. A head may have [`HEAD_BYTES_MAX`] and must come in [`HEAD_TIMEOUT`], a body must
//! keep coming, and who doesn't take the answer loses it.

mod caller;
mod conditions;
mod credentials;
mod groups;
mod problem;
mod range;
pub(crate) mod replies;
mod socket;
mod target;
mod upload;
mod values;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::lock::Mutex;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderValue,
};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tracing::debug;

use crate::clients::{Client, Full as NoPlace, Stop};
use crate::node::Node;
use crate::peer::Forwarder;
use crate::stats::ThreadStats;
use crate::tls::ClientStream;
use caller::Caller;
use problem::Problem;
use socket::Socket;
use target::Target;
use upload::Upload;

/// How long the head of a request may take to arrive, and so how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);
/// A head may have so many bytes, and so a key may have nearly as many, or a third when all of it is encoded.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;

/// What the interface promises, in the words of `OpenAPI` 3.1.
const DOCUMENT: &str = include_str!("api/openapi.json");

type Answer = Response<Full<Bytes>>;

/// Serves a client that was admitted, until its connection ends.
pub async fn serve<S: ClientStream>(
    stream: S,
    node: Arc<Node>,
    stats: Arc<ThreadStats>,
    client: Arc<Client>,
    forwarder: Option<Arc<Forwarder>>,
) {
    let place = Place {
        node: Arc::clone(&node),
        stats: Arc::clone(&stats),
        client: Arc::clone(&client),
    };
    let socket = Socket::new(stream, Arc::clone(&client), Arc::clone(&stats));
    let caller = Arc::new(Mutex::new(Caller::new(
        node,
        stats,
        Arc::clone(&client),
        forwarder,
    )));
    let service = service_fn(move |request| {
        let caller = Arc::clone(&caller);
        async move { Ok::<_, Infallible>(answer(&mut *caller.lock().await, request).await) }
    });
    let connection = protocol(HEAD_TIMEOUT).serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let mut drains = false;
    let ended = poll_fn(|context| {
        match client.poll_stop(context.waker()) {
            Stop::No => {}
            Stop::Drain if drains => {}
            Stop::Drain => {
                drains = true;
                connection.as_mut().graceful_shutdown();
            }
            Stop::Kill => return Poll::Ready(Ok(())),
        }
        connection.as_mut().poll(context)
    })
    .await;
    if let Err(error) = ended {
        debug!(%error, "an HTTP client's connection ended early");
    }
    drop(place);
}

/// HTTP with what is asked of clients; the head of a request may take so long.
fn protocol(head_timeout: Duration) -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    protocol
}

/// Tells a client that there is no place for it.
pub async fn refuse(mut stream: impl AsyncWrite + Unpin, full: NoPlace) {
    let body = format!("{full}\n");
    let response = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nRetry-After: \
         1\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // Whether the client hears it is its own affair: it is refused either way.
    if stream.write_all(response.as_bytes()).await.is_ok() {
        stream.shutdown().await.unwrap_or_default();
    }
}

/// A client's place among the others, given back at the end.
struct Place {
    node: Arc<Node>,
    stats: Arc<ThreadStats>,
    client: Arc<Client>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.node.clients.dismiss(self.client.id);
        self.stats.connections_closed.add(1);
    }
}

async fn answer(caller: &mut Caller, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let is_head = head.method == Method::HEAD;
    let mut upload = Upload::new(body);
    let outcome = respond(caller, &head, &mut upload).await;
    caller.finish();
    let mut response = match outcome {
        Ok(response) => response,
        Err(problem) => {
            // What is left of the body would have to be read to get to the next request.
            let is_stranger = problem.status == StatusCode::UNAUTHORIZED;
            let waits_to_be_asked = is_stranger || head.headers.contains_key(EXPECT);
            let ends = problem.ends_connection || !upload.discard(waits_to_be_asked).await;
            let mut response = problem.into_response();
            if ends {
                let headers = response.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    };
    if is_head {
        *response.body_mut() = Full::default();
    }
    response
}

async fn respond(caller: &mut Caller, head: &Parts, upload: &mut Upload) -> Result<Answer, Problem> {
    let target = Target::parse(head.uri.path())?;
    let allowed = target.methods();
    if !allowed.split(", ").any(|method| method == head.method.as_str()) {
        return Err(Problem::method_not_allowed(allowed));
    }
    let ttl_ms = |may_have_ttl| target::ttl_ms(head.uri.query(), may_have_ttl);
    if target == Target::Document {
        ttl_ms(false)?;
        return Ok(document());
    }
    caller.identify(head.headers.get(AUTHORIZATION)).await?;
    let key = match target {
        Target::Key(key) => key,
        Target::InGroup { group, key } => {
            let prefix = groups::key_prefix(&caller.node, caller.tenant(), &group);
            [&prefix.ok_or_else(Problem::no_such_group)?[..], &key].concat()
        }
        Target::Document => return Err(Problem::no_such_path()),
    };
    match head.method {
        Method::PUT => {
            let ttl_ms = ttl_ms(true)?;
            values::put(caller, &key, &head.headers, ttl_ms, upload).await
        }
        Method::DELETE => {
            ttl_ms(false)?;
            values::delete(caller, &key, &head.headers).await
        }
        _ => {
            ttl_ms(false)?;
            values::get(caller, &key, &head.headers, head.method == Method::HEAD).await
        }
    }
}

fn document() -> Answer {
    let mut response = Response::new(Full::new(Bytes::from_static(DOCUMENT.as_bytes())));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(DOCUMENT.len()));
    response
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod timeouts;

//! `annulus-origin [ADDRESS]`: a small service to try read-through groups with.
//!
//! `GET /users/{id}` answers a user as JSON, `GET /keys?count=N` the ids from 0 to N-1, one a line. Tests make it slow or
//! broken, and ask what it was asked:
//!
//! - `PUT /-/mode` with JSON: `latencyMs`, `status` (another than 200), `fault` (`none`, `half`, `hang`), `users` (ids from
//!   there on are not there), `bodyBytes` (so many bytes instead of a user).
//! - `GET /-/figures`, and `POST /-/reset` to begin anew.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

const ADDRESS: &str = "0.0.0.0:8080";

/// What it does with a request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Mode {
    latency_ms: u64,
    status: Option<u16>,
    fault: Fault,
    users: Option<u64>,
    body_bytes: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Fault {
    #[default]
    None,
    /// Half of the answer, and the connection ends.
    Half,
    /// No answer.
    Hang,
}

/// What it was asked since it began anew.
struct Figures {
    since: Instant,
    requests: u64,
    under_way: u64,
    under_way_max: u64,
    by_id: HashMap<String, u64>,
    /// For users, by second.
    per_second: Vec<u64>,
}

impl Figures {
    fn new() -> Self {
        Self {
            since: now(),
            requests: 0,
            under_way: 0,
            under_way_max: 0,
            by_id: HashMap::new(),
            per_second: Vec::new(),
        }
    }
}

struct Origin {
    mode: Mutex<Mode>,
    figures: Mutex<Figures>,
}

#[expect(clippy::disallowed_methods, reason = "it counts by second")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| ADDRESS.to_owned());
    let address: SocketAddr = address
        .parse()
        .context("the argument must be an address and a port")?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {address}"))?;
    eprintln!("answers on {}", listener.local_addr()?);
    let origin = Arc::new(Origin {
        mode: Mutex::default(),
        figures: Mutex::new(Figures::new()),
    });
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            ended = tokio::signal::ctrl_c() => return Ok(ended?),
        };
        tokio::spawn(answer_all(Arc::clone(&origin), stream));
    }
}

async fn answer_all(origin: Arc<Origin>, stream: TcpStream) {
    let service = service_fn(|request| async { Ok::<_, Infallible>(origin.answer(request).await) });
    let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Clients that go away, and answers that end half-way, are part of what it is for.
    served.await.unwrap_or_default();
}

type Body = BoxBody<Bytes, io::Error>;

fn whole(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(bytes.into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

impl Origin {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().to_owned();
        if let Some(id) = path.strip_prefix("/users/") {
            return self.user(id).await;
        }
        match (request.method(), path.as_str()) {
            (&Method::GET, "/healthz") => whole(StatusCode::OK, "alive\n"),
            (&Method::GET, "/keys") => {
                let count = request
                    .uri()
                    .query()
                    .and_then(|query| query.strip_prefix("count="));
                let count: u64 = count.and_then(|count| count.parse().ok()).unwrap_or(1000);
                whole(StatusCode::OK, list(count))
            }
            (&Method::PUT, "/-/mode") => self.set(request).await,
            (&Method::GET, "/-/figures") => whole(StatusCode::OK, self.figures().to_string()),
            (&Method::POST, "/-/reset") => {
                *self.figures.lock().unwrap_or_else(PoisonError::into_inner) = Figures::new();
                whole(StatusCode::OK, "")
            }
            _ => whole(StatusCode::NOT_FOUND, "no such thing\n"),
        }
    }

    async fn user(&self, id: &str) -> Response<Body> {
        self.begin(id);
        let mode = self.mode.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if mode.latency_ms > 0 {
            pause(Duration::from_millis(mode.latency_ms)).await;
        }
        let number: Option<u64> = id.parse().ok();
        let is_there = number.is_some_and(|number| mode.users.is_none_or(|users| number < users));
        let response = match (mode.fault, mode.status) {
            (Fault::Hang, _) => std::future::pending().await,
            (Fault::Half, _) => half(),
            (Fault::None, Some(status)) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                whole(status, "as it was told\n")
            }
            (Fault::None, None) if !is_there => whole(StatusCode::NOT_FOUND, "no such user\n"),
            (Fault::None, None) => match mode.body_bytes {
                Some(bytes) => whole(StatusCode::OK, vec![b'x'; bytes]),
                None => whole(
                    StatusCode::OK,
                    json!({"id": number, "name": format!("User {id}")}).to_string() + "\n",
                ),
            },
        };
        self.figures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .under_way -= 1;
        response
    }

    fn begin(&self, id: &str) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.requests += 1;
        figures.under_way += 1;
        figures.under_way_max = figures.under_way_max.max(figures.under_way);
        *figures.by_id.entry(id.to_owned()).or_default() += 1;
        let second = usize::try_from(figures.since.elapsed().as_secs()).unwrap_or(0);
        if figures.per_second.len() <= second {
            figures.per_second.resize(second + 1, 0);
        }
        figures.per_second[second] += 1;
    }

    fn figures(&self) -> serde_json::Value {
        let figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "requests": figures.requests,
            "underWayMax": figures.under_way_max,
            "ids": figures.by_id.len(),
            "mostForOneId": figures.by_id.values().max().copied().unwrap_or(0),
            "perSecond": figures.per_second,
        })
    }

    async fn set(&self, request: Request<Incoming>) -> Response<Body> {
        let Ok(body) = request.into_body().collect().await else {
            return whole(StatusCode::BAD_REQUEST, "the body ended half-way\n");
        };
        match serde_json::from_slice(&body.to_bytes()) {
            Ok(mode) => {
                *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
                whole(StatusCode::OK, "")
            }
            Err(error) => whole(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

fn list(count: u64) -> String {
    let ids: Vec<String> = (0..count).map(|id| id.to_string()).collect();
    ids.join("\n")
}

/// The first half of an answer.
fn half() -> Response<Body> {
    let first = stream::once(async { Ok(Frame::data(Bytes::from_static(b"{\"id\":"))) });
    let end = stream::once(async {
        pause(Duration::from_millis(20)).await;
        Err(io::Error::other("as it was told"))
    });
    Response::new(BodyExt::boxed(StreamBody::new(first.chain(end))))
}

/// Being slow is what it is told to be.
async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

//! An origin that counts what it is asked, and does what it is told.
#![allow(
    clippy::allow_attributes,
    dead_code,
    reason = "not every test needs all of this"
)]

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use annulus_proto::groups::{Group, Origin as DescribedOrigin};
use annulus_proto::tenants::TenantId;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// What it does with a request.
#[derive(Debug, Clone, Default)]
pub enum Mode {
    /// Answers `value-of-<path>-<n>`, n counting the answers for that path.
    #[default]
    Answer,
    /// Answers so many bytes.
    Bytes(usize),
    /// Answers that text.
    Text(String),
    /// Answers that status.
    Status(u16),
    /// Sends half of an answer and closes the connection.
    HalfWay,
    /// Sends half of so many bytes, and the rest once it is let go.
    Part(usize),
    /// Never answers.
    Hang,
    /// Answers as by default once it is let go.
    Wait,
}

#[derive(Default)]
struct State {
    mode: Mutex<Mode>,
    asked: Mutex<HashMap<String, u64>>,
    headers: Mutex<HashMap<String, String>>,
    under_way: Mutex<(u64, u64)>,
    go: Arc<Notify>,
}

/// A running origin; it ends with the test.
#[derive(Clone)]
pub struct Origin {
    state: Arc<State>,
    pub addr: SocketAddr,
}

impl Origin {
    pub fn start() -> Self {
        let state = Arc::new(State::default());
        let (sender, receiver) = std::sync::mpsc::channel();
        let served = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let state = Arc::clone(&served);
                    tokio::spawn(async move {
                        let service = service_fn(|request: Request<_>| answer(&state, request));
                        let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                        // What ends half-way is an error of the server's, too.
                        served.await.unwrap_or_default();
                    });
                }
            });
        });
        let addr = receiver.recv().unwrap();
        Self { state, addr }
    }

    pub fn set(&self, mode: Mode) {
        *self.state.mode.lock() = mode;
    }

    /// How often it was asked for a path.
    pub fn asked(&self, path: &str) -> u64 {
        self.state.asked.lock().get(path).copied().unwrap_or(0)
    }

    /// How often it was asked at all.
    pub fn asked_in_all(&self) -> u64 {
        self.state.asked.lock().values().sum()
    }

    /// A header of the last request.
    pub fn header(&self, name: &str) -> Option<String> {
        self.state.headers.lock().get(name).cloned()
    }

    /// The most requests that were under way at a time.
    pub fn under_way_max(&self) -> u64 {
        self.state.under_way.lock().1
    }

    /// Answers those who wait, and whoever comes from now on.
    pub fn let_go(&self) {
        self.set(Mode::Answer);
        self.state.go.notify_waiters();
    }
}

type Body = BoxBody<Bytes, io::Error>;

fn whole(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(bytes.into()).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// The group `users` of keys that begin with `user:`, in the cluster's own keyspace, with times that no test waits for.
pub fn described(origin: &Origin) -> Group {
    Group {
        tenant: TenantId::CLUSTER,
        namespace: "shop".to_owned(),
        name: "users".to_owned(),
        key_prefix: "user:".to_owned(),
        origin: DescribedOrigin {
            url_template: format!("http://{}/u/{{key}}", origin.addr),
            headers: Vec::new(),
            ca_pem: None,
            may_be_local: true,
            timeout_ms: 60_000,
            retries: 0,
            backoff_ms: 1,
            backoff_max_ms: 10,
            concurrent_max: 32,
            breaker_failures: 1000,
            breaker_open_ms: 60_000,
        },
        soft_ttl_ms: 600_000,
        hard_ttl_ms: 600_000,
        jitter_percent: 0,
        negative_ttl_ms: 60_000,
        failure_ttl_ms: 60_000,
        stale_ms: 0,
        value_bytes_max: 1 << 20,
        filter: None,
    }
}

async fn answer(
    state: &State,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let count = {
        let mut asked = state.asked.lock();
        let count = asked.entry(path.clone()).or_default();
        *count += 1;
        *count
    };
    *state.headers.lock() = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    {
        let mut under_way = state.under_way.lock();
        under_way.0 += 1;
        under_way.1 = under_way.1.max(under_way.0);
    }
    let go = state.go.notified();
    let mode = state.mode.lock().clone();
    let value = || format!("value-of-{path}-{count}");
    let response = match mode {
        Mode::Answer => whole(StatusCode::OK, value()),
        Mode::Bytes(len) => whole(StatusCode::OK, vec![b'x'; len]),
        Mode::Text(text) => whole(StatusCode::OK, text),
        Mode::Status(status) => whole(StatusCode::from_u16(status).unwrap(), "an error page"),
        Mode::HalfWay => {
            let frames = stream::unfold(0, |sent| async move {
                if sent == 0 {
                    return Some((Ok(Frame::data(Bytes::from_static(b"half"))), 1));
                }
                // The first half is on its way before the end comes.
                tokio::time::sleep(Duration::from_millis(20)).await;
                Some((Err(io::Error::other("it died")), 2))
            });
            Response::new(BodyExt::boxed(StreamBody::new(frames)))
        }
        Mode::Part(len) => {
            let half = Bytes::from(vec![b'x'; len / 2]);
            // It is told even if that is before somebody has asked for the rest.
            let mut go = Box::pin(Arc::clone(&state.go).notified_owned());
            go.as_mut().enable();
            let first = half.clone();
            let parts = stream::once(async { Ok(first) });
            let parts = parts.chain(stream::once(async move {
                go.await;
                Ok(half)
            }));
            Response::new(BodyExt::boxed(StreamBody::new(parts.map_ok(Frame::data))))
        }
        Mode::Hang => {
            tokio::time::sleep(Duration::from_hours(1)).await;
            whole(StatusCode::OK, "late")
        }
        Mode::Wait => {
            go.await;
            whole(StatusCode::OK, value())
        }
    };
    state.under_way.lock().0 -= 1;
    Ok(response)
}

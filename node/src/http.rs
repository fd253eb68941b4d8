//! Health and metrics over HTTP/1.1: `/healthz`, `/readyz`, `/metrics`.
//!
//! Reading is all that this server does: no request has a body, and none changes anything. Whoever is slow or
//! sends too much is cut off, so that a probe always gets through.

mod routes;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub use routes::{Readiness, Subject};

use crate::peer::accept;

/// How long a request's head may take to arrive, and so how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may last; then it ends after the request that it is in. Scrapers connect again.
const CONNECTION_LIFE: Duration = Duration::from_mins(5);

/// How long the last request of a connection may take to be answered.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const CONNECTIONS_MAX: usize = 128;
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, subject: Arc<Subject>, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let connection = tokio::select! {
            connection = accept(&listener) => connection,
            () = stop.cancelled() => return,
        };
        // Over the limit the connection is closed at once, which a prober sees as clearly as an answer.
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            debug!("refused an HTTP connection, there are {CONNECTIONS_MAX} already");
            continue;
        };
        let (subject, stop) = (Arc::clone(&subject), stop.clone());
        tokio::spawn(async move {
            serve_connection(connection, subject, stop).await;
            drop(place);
        });
    }
}

async fn serve_connection(connection: TcpStream, subject: Arc<Subject>, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let answer = answer(&subject, &request);
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(connection), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = tokio::time::sleep(CONNECTION_LIFE) => None,
        () = stop.cancelled() => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        match tokio::time::timeout(LAST_ANSWER_TIMEOUT, connection).await {
            Ok(ended) => ended,
            Err(_) => return,
        }
    };
    if let Err(error) = ended {
        debug!(%error, "an HTTP connection ended early");
    }
}

fn answer(subject: &Subject, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let has_body = !request.body().is_end_stream();
    routes::answer(subject, request.method(), request.uri().path(), has_body)
}

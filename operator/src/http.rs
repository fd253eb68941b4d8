//! `/healthz`, `/readyz` and `/metrics` of the operator itself.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::metrics::Metrics;

/// More than a kubelet and a few scrapers never have open at once.
const CONNECTIONS_MAX: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether this replica does its part: leads with filled caches, or stands by; and answers the API server where it has a
/// webhook.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    controllers: AtomicBool,
    webhook: AtomicBool,
}

impl Readiness {
    /// Whether the controllers do their part, from now on.
    pub fn set(&self, ready: bool) {
        self.0.controllers.store(ready, Ordering::Relaxed);
    }

    /// Whether the webhook answers, or there is none.
    pub fn set_webhook(&self, ready: bool) {
        self.0.webhook.store(ready, Ordering::Relaxed);
    }

    /// Whether all of that is so.
    pub fn get(&self) -> bool {
        self.0.controllers.load(Ordering::Relaxed) && self.0.webhook.load(Ordering::Relaxed)
    }
}

/// Accepts connections, at most so many at a time, and serves each in a task of its own, until the future is dropped.
pub async fn accept_all<F>(
    listener: TcpListener,
    connections_max: usize,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        // A closed semaphore can't be: nobody closes it.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let served = serve(stream, peer);
        tokio::spawn(async move {
            served.await;
            drop(place);
        });
    }
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, metrics: Metrics, readiness: Readiness) {
    accept_all(listener, CONNECTIONS_MAX, |stream, peer| {
        let (metrics, readiness) = (metrics.clone(), readiness.clone());
        async move {
            let service = service_fn(move |request| {
                let response = answer(&request, &metrics, &readiness);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                debug!(%peer, %error, "http connection ended");
            }
        }
    })
    .await;
}

fn answer(request: &Request<Incoming>, metrics: &Metrics, readiness: &Readiness) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
    }
    match request.uri().path() {
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" if readiness.get() => plain(StatusCode::OK, "ok\n"),
        "/readyz" => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "waiting for the Kubernetes API\n",
        ),
        "/metrics" => match metrics.encode() {
            Ok(text) => {
                let mut response = Response::new(Full::from(text));
                let text_format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                response.headers_mut().insert(
                    http::header::CONTENT_TYPE,
                    http::HeaderValue::from_static(text_format),
                );
                response
            }
            Err(_) => plain(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics can't be written\n",
            ),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /healthz, /readyz and /metrics\n",
        ),
    }
}

/// A few words.
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}

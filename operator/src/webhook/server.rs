//! HTTPS for the API server: bounded connections, bytes and times, since anybody in the cluster may knock.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::certificate::LiveCertificate;
use super::review::{Question, Reviewer};
use crate::http::{accept_all, plain};

/// How much is let in. All of it is for everybody together but the times and the size of one body.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// More than the API servers of a cluster keep open.
    pub connections: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// From one answer to the next request's head: the API server keeps connections for a while.
    pub header: Duration,
    /// For a body.
    pub body: Duration,
    /// The API server takes objects of 3 MiB, and an update brings two of them.
    pub body_bytes: usize,
    /// All bodies together: whoever sends many at once must not take the operator's memory.
    pub bodies_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(30),
            body: Duration::from_secs(5),
            body_bytes: 7 << 20,
            bodies_bytes: 21 << 20,
        }
    }
}

/// What all connections share.
struct Shared {
    reviewer: Reviewer,
    limits: Limits,
    /// A permit for each byte of a body that is held.
    bodies: Arc<Semaphore>,
}

/// Serves until the future is dropped.
pub async fn serve(
    listener: TcpListener,
    certificate: Arc<LiveCertificate>,
    reviewer: Reviewer,
    limits: Limits,
) {
    let acceptor = TlsAcceptor::from(certificate.server_config());
    let shared = Arc::new(Shared {
        reviewer,
        limits,
        bodies: Arc::new(Semaphore::new(limits.bodies_bytes)),
    });
    accept_all(listener, limits.connections, |stream, peer| {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        async move {
            if let Err(error) = connection(stream, acceptor, shared).await {
                debug!(%peer, %error, "connection to the webhook ended");
            }
        }
    })
    .await;
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) -> io::Result<()> {
    let stream = timeout(shared.limits.handshake, acceptor.accept(stream)).await??;
    let header = shared.limits.header;
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header)
        .serve_connection(TokioIo::new(stream), service)
        .await
        .map_err(io::Error::other)
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let Some(question) = Question::of(request.uri().path()) else {
        let paths = Question::ALL.map(Question::path).join(", ");
        return plain(StatusCode::NOT_FOUND, format!("there are {paths}\n"));
    };
    if request.method() != Method::POST {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only POST is served here\n");
    }
    let (body, _held) = match timeout(shared.limits.body, shared.read(request.into_body())).await {
        Ok(Ok(read)) => read,
        Ok(Err(refused)) => return refused.response(),
        Err(_) => return Refused::Slow.response(),
    };
    match shared.reviewer.answer(question, &body).await {
        Ok(answer) => {
            let mut response = Response::new(Full::from(answer));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => plain(error.status(), format!("{error}\n")),
    }
}

/// Why a body was not read.
enum Refused {
    /// For a limit of so many bytes.
    TooLarge(usize),
    TooMany,
    Slow,
    Broken(hyper::Error),
}

impl Refused {
    /// What is left of the body is not read, so that the connection can't be used again.
    fn response(&self) -> Response<Full<Bytes>> {
        let (status, text) = match self {
            Self::TooLarge(max) => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("a body may have {max} bytes\n"),
            ),
            Self::TooMany => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too many large bodies at once\n".to_owned(),
            ),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "the body took too long\n".to_owned()),
            Self::Broken(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
        };
        let mut response = plain(status, text);
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
        response
    }
}

impl Shared {
    /// The body, and the permits for what it takes. They are for what came, not for what was announced: to announce much
    /// costs nothing.
    async fn read(&self, mut body: Incoming) -> Result<(Vec<u8>, OwnedSemaphorePermit), Refused> {
        let max = self.limits.body_bytes;
        if usize::try_from(body.size_hint().lower()).map_or(true, |announced| announced > max) {
            return Err(Refused::TooLarge(max));
        }
        let acquire = |bytes: usize| {
            let bytes = u32::try_from(bytes).map_err(|_| Refused::TooLarge(max))?;
            let permit = Arc::clone(&self.bodies).try_acquire_many_owned(bytes);
            permit.map_err(|_| Refused::TooMany)
        };
        let (mut content, mut held) = (Vec::new(), acquire(0)?);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(Refused::Broken)?.into_data() else {
                continue;
            };
            if content.len() + data.len() > max {
                return Err(Refused::TooLarge(max));
            }
            held.merge(acquire(data.len())?);
            content.extend_from_slice(&data);
        }
        Ok((content, held))
    }
}

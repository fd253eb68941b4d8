//! Asks an origin over HTTP.
//!
//! Nodes open connections to where tenants say. The operator decides which names may be in a group; here, what such a name
//! stands for is looked at: never the machine's own addresses, loopback and link-local, where whoever runs beside a node
//! listens, and a cloud tells its secrets. Redirects are not followed.

use std::sync::Arc;
use std::time::Duration;

use annulus_proto::groups::Origin;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::lane::Lane;
use super::resolver::{LOCAL, Resolver, is_local};
use crate::buffers::make_room;
use crate::charge::Charge;
use crate::stats::ThreadStats;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_PER_HOST_MAX: usize = 64;
/// So much of an answer is received before anybody has looked at it; its head is no longer.
const BUFFER_BYTES_MAX: usize = 64 << 10;
const USER_AGENT: &str = concat!("annulus/", env!("CARGO_PKG_VERSION"));

/// What an origin answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The value.
    Value(Bytes),
    /// It has none.
    Absent,
    /// Nothing that could be used.
    Failed {
        /// Why, without the URL.
        reason: String,
        /// Whether it may be otherwise the next time.
        is_transient: bool,
    },
}

impl Fetched {
    fn transient(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            is_transient: true,
        }
    }

    fn permanent(reason: impl Into<String>) -> Self {
        Self::Failed {
            reason: reason.into(),
            is_transient: false,
        }
    }
}

type HttpClient = Client<HttpsConnector<HttpConnector<Resolver>>, Empty<Bytes>>;

/// How a group's origin is asked.
pub struct OriginClient {
    client: Result<HttpClient, String>,
    headers: HeaderMap,
    timeout: Duration,
    may_be_local: bool,
    lane: Lane,
}

impl OriginClient {
    /// A client for that origin; what is wrong with it is said with every request.
    pub fn new(origin: &Origin) -> Self {
        let (headers, lane) = (headers(origin), Lane::new());
        let client = headers
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|_| client(origin, &lane));
        Self {
            client,
            headers: headers.unwrap_or_default(),
            timeout: Duration::from_millis(origin.timeout_ms),
            may_be_local: origin.may_be_local,
            lane,
        }
    }

    /// Where its connections are worked on, and so what else is done for its group.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Asks once for a value of at most so many bytes, which are charged as they come and for as long as they are there.
    pub async fn fetch(&self, url: Uri, bytes_max: usize, charge: Charge, thread: &ThreadStats) -> Fetched {
        let answer = tokio::time::timeout(self.timeout, async {
            match self.get(url).await {
                Ok(response) => value(response, bytes_max, charge, thread).await,
                Err(failed) => failed,
            }
        });
        answer.await.unwrap_or_else(|_| self.too_late())
    }

    /// Begins to read something that may be long; the caller bounds it.
    pub async fn open(&self, url: Uri) -> Result<Incoming, Fetched> {
        let response = tokio::time::timeout(self.timeout, self.get(url)).await;
        let response = response.unwrap_or_else(|_| Err(self.too_late()))?;
        if response.status() == StatusCode::OK {
            Ok(response.into_body())
        } else {
            Err(refused(response.status()))
        }
    }

    fn too_late(&self) -> Fetched {
        Fetched::transient(format!(
            "gave no whole answer within {} ms",
            self.timeout.as_millis()
        ))
    }

    async fn get(&self, url: Uri) -> Result<Response<Incoming>, Fetched> {
        let client = self.client.as_ref().map_err(Fetched::permanent)?;
        let literal = url
            .host()
            .and_then(|host| host.trim_matches(['[', ']']).parse().ok());
        if literal.is_some_and(|address| !self.may_be_local && is_local(address)) {
            return Err(Fetched::permanent(LOCAL));
        }
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = url;
        *request.headers_mut() = self.headers.clone();
        client.request(request).await.map_err(|error| {
            // The innermost cause says what happened: refused, reset, not resolved.
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            Fetched::transient(format!("can't be asked: {cause}"))
        })
    }
}

fn headers(origin: &Origin) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    headers.insert(hyper::header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    for (name, value) in &origin.headers {
        let valid_name: HeaderName = name
            .parse()
            .map_err(|_| format!("{name:?} is no header's name"))?;
        // The value may be a secret.
        let mut valid: HeaderValue = value
            .parse()
            .map_err(|_| format!("the value of header {name} can't be sent"))?;
        valid.set_sensitive(true);
        headers.insert(valid_name, valid);
    }
    Ok(headers)
}

fn client(origin: &Origin, lane: &Lane) -> Result<HttpClient, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))?;
    let tls = match &origin.ca_pem {
        None => tls.with_webpki_roots(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let added = certificate.map_err(|error| error.to_string());
                let added = added.and_then(|der| roots.add(der).map_err(|error| error.to_string()));
                added.map_err(|error| format!("caBundle can't be read: {error}"))?;
            }
            tls.with_root_certificates(roots)
        }
    };
    let mut connector = HttpConnector::new_with_resolver(Resolver::new(origin.may_be_local));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls.with_no_client_auth())
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(lane.clone())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        .http1_max_buf_size(BUFFER_BYTES_MAX)
        .build(connector))
}

async fn value(
    response: Response<Incoming>,
    bytes_max: usize,
    mut charge: Charge,
    thread: &ThreadStats,
) -> Fetched {
    match response.status() {
        StatusCode::OK | StatusCode::NON_AUTHORITATIVE_INFORMATION => {}
        StatusCode::NOT_FOUND | StatusCode::GONE => return Fetched::Absent,
        status => return refused(status),
    }
    let too_long = || {
        Fetched::permanent(format!(
            "has a value longer than maxValueBytes, {bytes_max} bytes"
        ))
    };
    let no_room =
        || Fetched::permanent("has a value for which this node has no memory now, with others under way");
    let mut body = response.into_body();
    if body.size_hint().lower() > bytes_max as u64 {
        return too_long();
    }
    let mut value = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Fetched::transient("ended its answer half-way");
        };
        let Ok(piece) = frame.into_data() else { continue };
        if piece.len() > bytes_max - value.len() {
            return too_long();
        }
        make_room(
            &mut value,
            piece.len(),
            body.size_hint().upper().unwrap_or(u64::MAX),
        );
        if !charge.set(value.capacity(), thread) {
            return no_room();
        }
        value.extend_from_slice(&piece);
    }
    let whole = if value.capacity() / 2 > value.len() {
        // Nobody had said how short it is.
        Bytes::copy_from_slice(&value)
    } else {
        value.freeze()
    };
    if !charge.set(whole.len(), thread) {
        return no_room();
    }
    Fetched::Value(charge.around(whole))
}

fn refused(status: StatusCode) -> Fetched {
    if status.is_redirection() {
        return Fetched::permanent(format!(
            "answered {status}: redirects are not followed, write the last address into urlTemplate"
        ));
    }
    Fetched::Failed {
        reason: format!("answered {status}"),
        is_transient: status.is_server_error()
            || matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
            ),
    }
}

//! What each path answers.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Response, StatusCode};

/// Whether the node should get traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It should.
    Ready,
    /// Not now, for this reason.
    NotReady(String),
}

/// What there is to tell.
pub struct Subject {
    /// Whether the node should get traffic.
    pub readiness: Box<dyn Fn() -> Readiness + Send + Sync>,
    /// The metrics in the `OpenMetrics` text format.
    pub metrics: Box<dyn Fn() -> Result<String, std::fmt::Error> + Send + Sync>,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

const HELP: &str = "This is a node of an Annulus cache. It answers GET /healthz (it is alive), /readyz (it should get \
                    traffic) and /metrics (for Prometheus). Data is served to Redis clients on another port.\n";

/// Answers one request.
pub(super) fn answer(
    subject: &Subject,
    method: &Method,
    path: &str,
    has_body: bool,
) -> Response<Full<Bytes>> {
    if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return text(StatusCode::NOT_FOUND, HELP.to_owned());
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{path} answers GET and HEAD, not {method}.\n"),
        );
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    if has_body {
        let mut response = text(StatusCode::PAYLOAD_TOO_LARGE, format!("{path} takes no body.\n"));
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    match path {
        "/healthz" => text(StatusCode::OK, "alive\n".to_owned()),
        "/readyz" => match (subject.readiness)() {
            Readiness::Ready => text(StatusCode::OK, "ready\n".to_owned()),
            Readiness::NotReady(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        },
        _ => match (subject.metrics)() {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                response.headers_mut().insert(CONTENT_TYPE, OPEN_METRICS);
                response
            }
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("the metrics can't be written: {error}\n"),
            ),
        },
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, TEXT);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn every_path_and_method_has_its_answer() {
        let subject = |readiness: Readiness| Subject {
            readiness: Box::new(move || readiness.clone()),
            metrics: Box::new(|| Ok("# EOF\n".to_owned())),
        };
        let waiting = Readiness::NotReady("no ring yet".to_owned());
        let table = [
            (Method::GET, "/healthz", waiting.clone(), false, 200, "alive\n"),
            (Method::HEAD, "/healthz", waiting.clone(), false, 200, "alive\n"),
            (Method::GET, "/readyz", Readiness::Ready, false, 200, "ready\n"),
            (
                Method::GET,
                "/readyz",
                waiting,
                false,
                503,
                "not ready: no ring yet\n",
            ),
            (Method::GET, "/metrics", Readiness::Ready, false, 200, "# EOF\n"),
            (
                Method::POST,
                "/metrics",
                Readiness::Ready,
                true,
                405,
                "/metrics answers GET and HEAD, not POST.\n",
            ),
            (
                Method::GET,
                "/healthz",
                Readiness::Ready,
                true,
                413,
                "/healthz takes no body.\n",
            ),
            (Method::GET, "/", Readiness::Ready, false, 404, HELP),
            (Method::DELETE, "/healthz/", Readiness::Ready, false, 404, HELP),
        ];
        for (method, path, readiness, has_body, status, body) in table {
            let response = answer(&subject(readiness), &method, path, has_body);
            assert_eq!(response.status(), status, "{method} {path}");
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                body,
                "{method} {path}"
            );
        }
    }
}

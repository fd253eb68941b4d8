//! The webhook over HTTPS on the loopback, asked by a client that trusts its authorities alone; its certificate, which all
//! replicas share; and what the API server is told of it.
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside of test functions")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheCluster, CacheTenant};
use annulus_operator::caches::Namespaces;
use annulus_operator::http::Readiness;
use annulus_operator::metrics::Metrics;
use annulus_operator::pki::Files;
use annulus_operator::validate::Installation;
use annulus_operator::webhook::certificate::{KeepError, Keeper, LiveCertificate};
use annulus_operator::webhook::known::{Known, Scope};
use annulus_operator::webhook::review::{Question, Reviewer};
use annulus_operator::webhook::server::{Limits, serve};
use annulus_operator::webhook::{Settings, bundle, run};
use annulus_proto::certificate::authorities;
use annulus_proto::credentials::provider;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use kube::runtime::reflector::{self, Lookup, Store};
use kube::runtime::watcher::Event;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use support::api::FakeApi;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const NAME: &str = "annulus-webhook";
const HOST: &str = "annulus-webhook.annulus-system.svc";
const SECRET: &str = "/api/v1/namespaces/annulus-system/secrets/annulus-webhook";
const CLUSTER: &str = "/apis/annulus.dev/v1alpha1/namespaces/n/cacheclusters/c";
const DAY_S: i64 = 24 * 3600;
/// Everything here takes a moment; what takes this long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

fn now_s() -> i64 {
    Timestamp::now().as_second()
}

/// A replica's keeper of the certificate.
fn keeper(client: Client) -> Keeper {
    Keeper {
        client,
        namespace: "annulus-system".to_owned(),
        secret: NAME.to_owned(),
        hosts: vec![HOST.to_owned()],
        live: Arc::new(LiveCertificate::default()),
        authorities: watch::Sender::new(None),
        metrics: Metrics::default(),
    }
}

fn store<K>(objects: Vec<Value>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Lookup<DynamicType = ()> + Clone + DeserializeOwned + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(serde_json::from_value(object).unwrap()));
    }
    writer.apply_watcher_event(&Event::InitDone);
    store
}

fn cluster(spec: &str) -> Value {
    let text = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheCluster, metadata: {{name: c, namespace: n, uid: u-1}}, spec: {{{spec}}}}}"
    );
    serde_yaml::from_str(&text).unwrap()
}

fn tenant(name: &str, spec: &str) -> Value {
    let text = format!(
        "{{apiVersion: annulus.dev/v1alpha1, kind: CacheTenant, metadata: {{name: {name}, namespace: blog}}, spec: {{clusterRef: {{name: c, namespace: n}}, {spec}}}}}"
    );
    serde_yaml::from_str(&text).unwrap()
}

fn bound(name: &str, spec: &str) -> Value {
    let mut tenant = tenant(name, spec);
    tenant["status"] = json!({"tenantId": 1});
    tenant
}

/// What is cached: a cluster for namespaces with a label, which the tenants' namespace has, and a tenant with most of it.
fn known(api: &FakeApi) -> Known {
    let chosen = "nodes: 1, memory: {max: 100Mi}, tenancy: {allowedNamespaces: {from: Selector, selector: {matchLabels: {team: a}}}}";
    api.put(CLUSTER, cluster(chosen));
    let namespace = json!({"metadata": {"name": "blog", "labels": {"team": "a"}}});
    api.put("/api/v1/namespaces/blog", namespace.clone());
    // Who is on the way out doesn't count.
    let mut leaving = bound("second", "quota: {guaranteedMemory: 30Mi}");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    Known {
        client: api.client(),
        scopes: vec![Scope {
            clusters: store::<CacheCluster>(vec![cluster(chosen)]),
            tenants: store::<CacheTenant>(vec![bound("first", "quota: {guaranteedMemory: 60Mi}"), leaving]),
        }],
        namespaces: Namespaces::new(store(vec![namespace])),
        installation: Installation {
            node_image: Some("annulus-node:1".to_owned()),
            ..Installation::default()
        },
    }
}

/// A webhook that serves.
struct Served {
    api: FakeApi,
    keeper: Keeper,
    shown: Files,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    async fn start(limits: Limits) -> Self {
        let api = FakeApi::default();
        let known = known(&api);
        Self::of(api, known, limits).await
    }

    async fn of(api: FakeApi, known: Known, limits: Limits) -> Self {
        let keeper = keeper(api.client());
        let mut shown = Files::new();
        keeper.look(&mut shown, now_s()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let reviewer = Reviewer::new(known, Metrics::default());
        let task = tokio::spawn(serve(listener, Arc::clone(&keeper.live), reviewer, limits));
        Self {
            api,
            keeper,
            shown,
            address,
            task,
        }
    }

    /// Whom the API server is told to trust now.
    fn bundle(&self) -> String {
        self.keeper.authorities.borrow().clone().unwrap()
    }

    /// Looks at the Secret at that time.
    async fn look(&mut self, now_s: i64) {
        self.keeper.look(&mut self.shown, now_s).await.unwrap();
    }

    /// A connection of a client that trusts that bundle.
    async fn connect_trusting(&self, bundle: &str) -> std::io::Result<Connection> {
        connect(self.address, bundle).await
    }

    async fn connect(&self) -> Connection {
        self.connect_trusting(&self.bundle()).await.unwrap()
    }

    /// What is answered to a review.
    async fn ask(&self, question: Question, request: &Value) -> Value {
        let body = review(request);
        let answer = self.connect().await.post(question.path(), body.as_bytes()).await;
        assert_eq!(answer.0, 200, "{}", answer.1);
        let review: Value = serde_json::from_str(&answer.1).unwrap();
        assert_eq!(review["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(review["response"]["uid"], "r-1");
        review["response"].clone()
    }
}

/// The body of a review with these parts of a request.
fn review(request: &Value) -> String {
    let mut whole = json!({
        "uid": "r-1", "kind": {"group": "", "version": "v1", "kind": "Any"},
        "resource": {"group": "", "version": "v1", "resource": "any"},
        "name": "x", "namespace": "blog", "operation": "CREATE", "userInfo": {}, "dryRun": false,
    });
    for (key, value) in request.as_object().unwrap() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": whole}).to_string()
}

async fn connect(address: SocketAddr, bundle: &str) -> std::io::Result<Connection> {
    let roots = authorities("the bundle", bundle.as_bytes()).unwrap();
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = HOST.try_into().unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(Connection(stream))
}

struct Connection(TlsStream<TcpStream>);

impl Connection {
    async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// The next answer: status and body. 0 where the connection is closed without one.
    async fn answer(&mut self) -> (u16, String) {
        let read = async {
            let mut text = Vec::new();
            loop {
                let seen = String::from_utf8_lossy(&text).into_owned();
                if let Some((head, body)) = seen.split_once("\r\n\r\n") {
                    let length = head.lines().find_map(|line| {
                        line.to_ascii_lowercase()
                            .strip_prefix("content-length: ")
                            .map(str::to_owned)
                    });
                    if body.len() >= length.unwrap().parse().unwrap() {
                        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                        return (status, body.to_owned());
                    }
                }
                let mut part = [0; 4096];
                match self.0.read(&mut part).await {
                    Ok(0) | Err(_) => return (0, String::new()),
                    Ok(count) => text.extend_from_slice(&part[..count]),
                }
            }
        };
        timeout(PATIENCE, read).await.unwrap()
    }

    async fn post(&mut self, path: &str, body: &[u8]) -> (u16, String) {
        let head = format!(
            "POST {path}?timeout=3s HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat()).await;
        self.answer().await
    }
}

#[tokio::test]
async fn the_api_server_gets_its_answers() {
    let served = Served::start(Limits::default()).await;
    let allowed = served
        .ask(
            Question::CheckTenant,
            &json!({"object": tenant("t", "quota: {guaranteedMemory: 40Mi}")}),
        )
        .await;
    assert_eq!(allowed["allowed"], true);
    assert!(
        allowed.get("warnings").is_none() && allowed.get("patch").is_none(),
        "{allowed}"
    );

    let denied = served
        .ask(
            Question::CheckTenant,
            &json!({"object": tenant("t", "quota: {guaranteedMemory: 41Mi}")}),
        )
        .await;
    assert_eq!(
        (&denied["allowed"], &denied["status"]["code"]),
        (&json!(false), &json!(403))
    );
    let message = denied["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("MemoryOvercommitted: quota.guaranteedMemory is 42991616 bytes"),
        "{message}"
    );

    // A group that is just being made has no namespace yet.
    let group = |template: &str| {
        let text = format!(
            "{{apiVersion: annulus.dev/v1alpha1, kind: CacheGroup, metadata: {{name: users}}, spec: {{clusterRef: {{name: c, namespace: n}}, keyPrefix: 'user:', ttl: {{hard: 10m}}, origin: {{http: {{urlTemplate: '{template}'}}}}}}}}"
        );
        let object: Value = serde_yaml::from_str(&text).unwrap();
        json!({"object": object})
    };
    let allowed = served
        .ask(Question::CheckGroup, &group("http://users.blog.svc/{key}"))
        .await;
    assert_eq!(allowed["allowed"], true, "{allowed}");
    let denied = served
        .ask(Question::CheckGroup, &group("http://users.blog.svc/"))
        .await;
    assert_eq!(denied["allowed"], false);
    let message = denied["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("InvalidSpec: spec.origin.http.urlTemplate: must have {key}"),
        "{message}"
    );

    let patch_of = |response: &Value| -> json_patch::Patch {
        assert_eq!(
            (&response["allowed"], &response["patchType"]),
            (&json!(true), &json!("JSONPatch"))
        );
        let bytes: Vec<u8> = serde_json::from_value(response["patch"].clone()).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let mut object = tenant("t", "");
    let labelled = served
        .ask(Question::LabelTenant, &json!({"object": object}))
        .await;
    json_patch::patch(&mut object, &patch_of(&labelled)).unwrap();
    assert_eq!(object["metadata"]["labels"]["annulus.dev/cluster"], "c");

    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "annotations": {"annulus.dev/tenant": "first"}},
        "spec": {"containers": [{"name": "a", "image": "i"}]},
    });
    let injected = served.ask(Question::InjectPod, &json!({"object": pod})).await;
    assert!(
        injected.get("warnings").is_none(),
        "the tenant is known: {injected}"
    );
    json_patch::patch(&mut pod, &patch_of(&injected)).unwrap();
    assert_eq!(
        pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"],
        "/bindings/first"
    );

    pod["metadata"]["annotations"]["annulus.dev/inject-as"] = json!("both");
    let refused = served.ask(Question::InjectPod, &json!({"object": pod})).await;
    assert_eq!(refused["allowed"], false);

    let (before, after) = (
        cluster("nodes: 1, memory: {max: 100Mi}"),
        cluster("nodes: 1, memory: {max: 50Mi}"),
    );
    let request = json!({"object": after, "oldObject": before, "operation": "UPDATE", "namespace": "n"});
    let shrunk = served.ask(Question::CheckCluster, &request).await;
    assert_eq!(shrunk["allowed"], true);
    let warning = shrunk["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("the cluster is left with 52428800 bytes"),
        "{warning}"
    );
}

#[tokio::test]
async fn a_cache_that_is_behind_refuses_nobody() {
    let api = FakeApi::default();
    let known = known(&api);
    // The caches know neither the namespace's new label nor the cluster's new memory.
    let namespaces = Namespaces::new(store(vec![json!({"metadata": {"name": "blog"}})]));
    let served = Served::of(api, Known { namespaces, ..known }, Limits::default()).await;
    let object = json!({"object": tenant("t", "quota: {guaranteedMemory: 41Mi}")});
    served.api.take_reads();
    let denied = served.ask(Question::CheckTenant, &object).await;
    let message = denied["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("MemoryOvercommitted"),
        "the label is seen: {message}"
    );
    assert_eq!(served.api.take_reads(), 2, "the cluster and the namespace");
    served.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["memory"]["max"] = json!("101Mi");
    });
    let allowed = served.ask(Question::CheckTenant, &object).await;
    assert_eq!(allowed["allowed"], true, "{allowed}");
    // A cluster that goes is none, and no reason to refuse.
    served.api.edit(CLUSTER, |cluster| {
        cluster["spec"]["memory"]["max"] = json!("100Mi");
        cluster["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    });
    let allowed = served.ask(Question::CheckTenant, &object).await;
    assert_eq!(allowed["allowed"], true, "{allowed}");
    // A mistake of the tenant's own needs no look.
    served.api.take_reads();
    let mistaken = json!({"object": tenant("t", "rotation: {interval: 1s}")});
    let denied = served.ask(Question::CheckTenant, &mistaken).await;
    assert_eq!((&denied["allowed"], served.api.take_reads()), (&json!(false), 0));
}

#[tokio::test]
async fn an_api_server_that_hangs_holds_up_two_answers_for_a_second() {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let hangs = tower::service_fn(move |_: http::Request<Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<Result<http::Response<Body>, std::convert::Infallible>>()
    });
    let client = Client::new(hangs, "default");
    let known = Known {
        client,
        ..known(&FakeApi::default())
    };
    let reviewer = Reviewer::new(known, Metrics::default());
    let body = review(&json!({"object": tenant("t", "quota: {guaranteedMemory: 41Mi}")}));
    let ask = || reviewer.answer(Question::CheckTenant, body.as_bytes());
    let denied = |answer: Result<Vec<u8>, _>| {
        let answer: Value = serde_json::from_slice(&answer.unwrap()).unwrap();
        let message = answer["response"]["status"]["message"].as_str().unwrap();
        message.starts_with("MemoryOvercommitted")
    };
    // Twice: what was given up on is free again.
    for round in 1..=2 {
        let (first, second) = (ask(), ask());
        let mut waiting = std::pin::pin!(async { tokio::join!(first, second) });
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("the API server hangs"),
            third = timeout(PATIENCE, ask()) => assert!(denied(third.unwrap()), "at once, by the caches"),
        }
        let (first, second) = timeout(PATIENCE, waiting).await.unwrap();
        assert!(denied(first) && denied(second), "by the caches");
        assert_eq!(reads.load(Ordering::Relaxed), 2 * round);
    }
}

#[tokio::test]
async fn what_is_no_question_gets_an_error() {
    let limits = Limits {
        body_bytes: 2_000,
        ..Limits::default()
    };
    let served = Served::start(limits).await;
    let path = Question::CheckTenant.path();
    let no_object = review(&json!({"object": null}));
    let no_before = review(&json!({"object": cluster("nodes: 1")}));
    let rows: [(&str, &str, &str, u16, &str); 8] = [
        (
            "another path",
            "/validate",
            "{}",
            404,
            "there are /validate/cachetenants",
        ),
        ("nothing", path, "", 400, "the body is no AdmissionReview"),
        (
            "no JSON",
            path,
            "{\"request\":",
            400,
            "the body is no AdmissionReview",
        ),
        (
            "no request",
            path,
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#,
            400,
            "the AdmissionReview has no request",
        ),
        (
            "no object",
            path,
            &no_object,
            400,
            "the AdmissionReview has no object",
        ),
        (
            "no former object",
            Question::CheckCluster.path(),
            &no_before,
            400,
            "the AdmissionReview has no oldObject",
        ),
        (
            "another kind",
            path,
            &review(&json!({"object": {"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []}}})),
            400,
            "the body is no",
        ),
        (
            "too large",
            path,
            &"x".repeat(2_001),
            413,
            "a body may have 2000 bytes",
        ),
    ];
    for (what, path, body, status, text) in rows {
        let answer = served.connect().await.post(path, body.as_bytes()).await;
        assert_eq!(answer.0, status, "{what}: {}", answer.1);
        assert!(answer.1.starts_with(text), "{what}: {}", answer.1);
    }
    let mut connection = served.connect().await;
    connection
        .send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .await;
    assert_eq!(connection.answer().await.0, 405);

    // One that doesn't say how large it is, either.
    let mut connection = served.connect().await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1_000));
    connection
        .send(format!("{head}{chunk}{chunk}{chunk}").as_bytes())
        .await;
    assert_eq!(connection.answer().await.0, 413);

    // Whoever speaks no TLS hears nothing but that.
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain
        .write_all(b"GET /validate HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, plain.read_to_end(&mut received))
        .await
        .unwrap()
        .unwrap();
    assert!(!received.starts_with(b"HTTP"), "{received:?}");

    // After all of that it answers.
    let object = json!({"object": tenant("t", "")});
    assert_eq!(served.ask(Question::CheckTenant, &object).await["allowed"], true);
}

#[tokio::test]
async fn an_object_of_the_largest_size_is_read() {
    let served = Served::start(Limits::default()).await;
    let mut object = tenant("t", "");
    object["metadata"]["annotations"] = json!({"much": "x".repeat(3 << 20)});
    let request = json!({"object": object, "oldObject": object, "operation": "UPDATE"});
    assert_eq!(served.ask(Question::CheckTenant, &request).await["allowed"], true);
}

#[tokio::test]
async fn slow_clients_are_shown_out() {
    let soon = Duration::from_millis(100);
    let served = Served::start(Limits {
        handshake: soon,
        header: soon,
        body: soon,
        ..Limits::default()
    })
    .await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut heard = Vec::new();
    let closed = timeout(PATIENCE, silent.read_to_end(&mut heard)).await;
    assert_eq!(closed.expect("it stays open").unwrap(), 0);

    let mut half_a_head = served.connect().await;
    half_a_head.send(b"POST /mutate/pods HTT").await;
    assert!(matches!(half_a_head.answer().await.0, 0 | 408));

    let mut half_a_body = served.connect().await;
    half_a_body
        .send(b"POST /mutate/pods HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        .await;
    assert_eq!(half_a_body.answer().await.0, 408);
}

#[tokio::test]
async fn many_bodies_at_once_are_bounded_together() {
    let served = Served::start(Limits {
        body_bytes: 1_000,
        bodies_bytes: 1_000,
        ..Limits::default()
    })
    .await;
    let path = Question::InjectPod.path();
    let body = review(
        &json!({"object": {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": []}}}),
    );
    let (sent, rest) = body.as_bytes().split_at(body.len() - 1);
    let mut first = served.connect().await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    first.send(&[head.as_bytes(), sent].concat()).await;
    // Until the first one's bytes have arrived the second one has room.
    let large = " ".repeat(1_000 - sent.len() + 1);
    let refused = async {
        while served.connect().await.post(path, large.as_bytes()).await.0 != 503 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused)
        .await
        .expect("the second one is never refused");
    first.send(rest).await;
    assert_eq!(first.answer().await.0, 200);
    assert_eq!(
        served.connect().await.post(path, large.as_bytes()).await.0,
        400,
        "there is room again"
    );
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_break() {
    let mut served = Served::start(Limits::default()).await;
    let body = review(&json!({"object": tenant("t", "")}));
    let path = Question::CheckTenant.path();
    let shown = |connection: &Connection| {
        let certificates = connection.0.get_ref().1.peer_certificates().unwrap();
        certificates[0].to_vec()
    };
    let (bundle, mut open) = (served.bundle(), served.connect().await);
    assert_eq!(open.post(path, body.as_bytes()).await.0, 200);
    served.look(now_s()).await;
    assert_eq!(shown(&served.connect().await), shown(&open), "nothing is due");

    // It is gone, and made anew: the same authority has signed it.
    served.api.edit(SECRET, |secret| {
        secret["data"].as_object_mut().unwrap().remove("tls.crt");
    });
    served.look(now_s()).await;
    let next = served.connect_trusting(&bundle).await.unwrap();
    assert_ne!(shown(&next), shown(&open));
    assert_eq!(
        open.post(path, body.as_bytes()).await.0,
        200,
        "open connections stay"
    );
}

/// Somebody who learns of a new authority as late as a day after it was made is never shown anything that they can't check.
#[tokio::test]
async fn authorities_follow_each_other_with_an_overlap() {
    let mut served = Served::start(Limits::default()).await;
    served.api.remove(SECRET);
    served.look(now_s() - 2 * 365 * DAY_S - 10 * DAY_S).await;
    let first = served.bundle();
    served.look(now_s() - 2 * DAY_S).await;
    let both = served.bundle();
    assert_eq!(both.matches("BEGIN CERTIFICATE").count(), 2);
    assert!(
        served.connect_trusting(&first).await.is_ok(),
        "the first one signs still"
    );
    assert!(served.connect_trusting(&both).await.is_ok());
    served.look(now_s()).await;
    assert_eq!(served.bundle(), both);
    assert!(served.connect_trusting(&both).await.is_ok());
    assert!(
        served.connect_trusting(&first).await.is_err(),
        "the second one signs"
    );
    let stranger = Served::start(Limits::default()).await.bundle();
    assert!(served.connect_trusting(&stranger).await.is_err());
}

/// A client of that API server whose requests take turns with others.
fn interleaved(api: &FakeApi) -> Client {
    let api = api.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let client = api.client();
        async move {
            tokio::task::yield_now().await;
            client.send(request).await
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn replicas_that_start_together_show_the_same() {
    let api = FakeApi::default();
    let (first, second) = (keeper(interleaved(&api)), keeper(interleaved(&api)));
    let (mut of_first, mut of_second) = (Files::new(), Files::new());
    let now_s = now_s();
    let (one, other) = tokio::join!(
        first.look(&mut of_first, now_s),
        second.look(&mut of_second, now_s)
    );
    one.unwrap();
    other.unwrap();
    let writes = api.take_writes();
    assert_eq!(writes.len(), 2, "both wanted to make it: {writes:?}");
    assert!(!of_first.is_empty() && of_first == of_second);
    assert_eq!(*first.authorities.borrow(), *second.authorities.borrow());

    // The same when it is to be renewed.
    let later_s = now_s + 21 * DAY_S;
    let (one, other) = tokio::join!(
        first.look(&mut of_first, later_s),
        second.look(&mut of_second, later_s)
    );
    one.unwrap();
    other.unwrap();
    assert_eq!(api.take_writes().len(), 2);
    assert!(of_first == of_second);

    // Nothing is written while nothing is due.
    first.look(&mut of_first, later_s).await.unwrap();
    assert_eq!(api.take_writes(), [""; 0]);
}

#[tokio::test]
async fn a_secret_of_somebody_else_stays_as_it_is() {
    let api = FakeApi::default();
    api.put(
        SECRET,
        json!({"metadata": {"name": NAME, "namespace": "annulus-system"}, "data": {}}),
    );
    let taken = keeper(api.client()).look(&mut Files::new(), now_s()).await;
    assert!(matches!(taken, Err(KeepError::NameTaken(_))), "{taken:?}");
    assert_eq!(api.take_writes(), [""; 0]);
}

#[tokio::test]
async fn the_api_server_is_told_whom_to_trust_and_nothing_else() {
    let (api, metrics) = (FakeApi::default(), Metrics::default());
    let client = api.client();
    let put = async |bundle: &str| {
        bundle::put::<ValidatingWebhookConfiguration>(&client, NAME, bundle, &metrics)
            .await
            .unwrap();
        bundle::put::<MutatingWebhookConfiguration>(&client, NAME, bundle, &metrics)
            .await
            .unwrap();
    };
    put("one").await;
    assert_eq!(
        api.take_writes(),
        [""; 0],
        "nothing is installed, and nothing is made"
    );

    let path = |kind: &str| format!("/apis/admissionregistration.k8s.io/v1/{kind}/{NAME}");
    let paths = [
        path("validatingwebhookconfigurations"),
        path("mutatingwebhookconfigurations"),
    ];
    for path in &paths {
        let webhooks = json!([{"name": "a.annulus.dev", "clientConfig": {}}, {"name": "b.annulus.dev", "clientConfig": {}}]);
        api.put(path, json!({"metadata": {"name": NAME}, "webhooks": webhooks}));
    }
    put("one").await;
    assert_eq!(
        api.take_writes(),
        paths.each_ref().map(|path| format!("PATCH {path}"))
    );
    for path in &paths {
        let webhooks = api.get(path).unwrap()["webhooks"].clone();
        let config = json!({"caBundle": "b25l"});
        assert_eq!(
            webhooks,
            json!([{"name": "a.annulus.dev", "clientConfig": config}, {"name": "b.annulus.dev", "clientConfig": config}])
        );
    }
    put("one").await;
    assert_eq!(api.take_writes(), [""; 0], "it is right");
    api.edit(&paths[0], |object| {
        object["webhooks"][1]["clientConfig"]["caBundle"] = json!("c3BvaWx0");
    });
    put("one").await;
    assert_eq!(
        api.take_writes(),
        [format!("PATCH {}", paths[0])],
        "somebody changed one"
    );
    put("two").await;
    assert_eq!(api.take_writes().len(), 2);
}

/// A client of that API server with lists of what is stored, and watches in which nothing happens.
fn watched(api: &FakeApi) -> Client {
    let api = api.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let api = api.clone();
        async move {
            let collection = request.uri().path().to_owned();
            let is_list = ["/cacheclusters", "/cachetenants", "/namespaces"]
                .iter()
                .any(|end| collection.ends_with(end));
            if !is_list {
                let answer = api.client().send(request).await?;
                return Ok::<_, kube::Error>(
                    answer.map(|body| UnsyncBoxBody::new(body.map_err(BoxError::from))),
                );
            }
            let is_watch = request.uri().query().unwrap_or_default().contains("watch=true");
            let body = if is_watch {
                let nothing = futures::stream::pending::<Result<Frame<Bytes>, std::io::Error>>();
                UnsyncBoxBody::new(StreamBody::new(nothing).map_err(BoxError::from))
            } else {
                let kind = collection.rsplit('/').next().unwrap();
                let items = match kind {
                    "namespaces" => vec![api.get("/api/v1/namespaces/blog").unwrap()],
                    _ => api.list(&format!("/{kind}/")),
                };
                let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
                UnsyncBoxBody::new(Full::from(list.to_string()).map_err(BoxError::from))
            };
            Ok(http::Response::new(body))
        }
    });
    Client::new(service, "default")
}

#[tokio::test]
async fn a_replica_serves_once_it_knows_what_it_needs() {
    let api = FakeApi::default();
    api.put(
        CLUSTER,
        cluster(
            "nodes: 1, tenancy: {allowedNamespaces: {from: Selector, selector: {matchLabels: {team: a}}}}",
        ),
    );
    let namespace = json!({"metadata": {"name": "blog", "labels": {"team": "b"}}});
    api.put("/api/v1/namespaces/blog", namespace);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let readiness = Readiness::default();
    readiness.set(true);
    let settings = Settings {
        name: NAME.to_owned(),
        namespace: "annulus-system".to_owned(),
        watched: Vec::new(),
        installation: Installation {
            node_image: Some("annulus-node:1".to_owned()),
            ..Installation::default()
        },
    };
    let (authorities, mut bundle) = watch::channel(None::<String>);
    let (client, metrics) = (watched(&api), Metrics::default());
    let running = tokio::spawn(run(
        listener,
        settings,
        client,
        metrics,
        readiness.clone(),
        authorities,
    ));
    assert!(!readiness.get());
    let told = timeout(PATIENCE, bundle.wait_for(Option::is_some))
        .await
        .unwrap()
        .unwrap()
        .clone();
    let ask = async {
        let body = review(&json!({"object": tenant("t", "")}));
        let mut connection = connect(address, &told.unwrap()).await.unwrap();
        connection
            .post(Question::CheckTenant.path(), body.as_bytes())
            .await
    };
    let (status, answer) = timeout(PATIENCE, ask).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(
        answer.contains("NamespaceNotAllowed: namespace blog has not the labels"),
        "{answer}"
    );
    assert!(readiness.get());
    running.abort();
}

//! An API server in memory: enough of get, create, replace, server-side apply and delete to reconcile against,
//! and a record of every write.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, OnceLock};

use annulus_crds::v1alpha1::defaults::CLIENT_PORT;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// The API server. Cloning shares it.
#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    writes: Vec<String>,
    reads: u64,
    refused: Option<String>,
    unreadable: Option<(String, u16)>,
    hanging: Option<String>,
    changes: u64,
}

impl FakeApi {
    /// A client of it.
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move {
                let (parts, body) = request.into_parts();
                if parts.method == Method::GET && api.hangs(parts.uri.path()) {
                    std::future::pending::<()>().await;
                }
                let bytes = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let (code, answer) = api.answer(&parts.method, parts.uri.path(), body);
                let response = Response::builder()
                    .status(code)
                    .body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// What was written since the last call, as `VERB path`.
    pub fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().writes)
    }

    /// How many reads there were since the last call.
    pub fn take_reads(&self) -> u64 {
        std::mem::take(&mut self.0.lock().reads)
    }

    /// Refuses to create anything at that path, or again nothing.
    pub fn refuse(&self, path: Option<&str>) {
        self.0.lock().refused = path.map(str::to_owned);
    }

    /// Answers reads of paths with that part with that code, or again none.
    pub fn fail_reads(&self, part: Option<(&str, u16)>) {
        self.0.lock().unreadable = part.map(|(part, code)| (part.to_owned(), code));
    }

    /// Never answers reads of paths with that part, or again all.
    pub fn hang_reads(&self, part: Option<&str>) {
        self.0.lock().hanging = part.map(str::to_owned);
    }

    /// The object at that path.
    pub fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().objects.get(path).cloned()
    }

    /// All objects whose path has that part.
    pub fn list(&self, part: &str) -> Vec<Value> {
        self.0
            .lock()
            .objects
            .iter()
            .filter(|(path, _)| path.contains(part))
            .map(|(_, object)| object.clone())
            .collect()
    }

    /// Puts an object there by hand.
    pub fn put(&self, path: &str, object: Value) {
        self.0.lock().store(path, object);
    }

    /// Changes an object by hand.
    pub fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut state = self.0.lock();
        let mut object = state.objects[path].clone();
        edit(&mut object);
        state.store(path, object);
    }

    /// Deletes an object by hand.
    pub fn remove(&self, path: &str) {
        assert!(
            self.0.lock().objects.remove(path).is_some(),
            "{path} is not there"
        );
    }

    fn hangs(&self, path: &str) -> bool {
        let state = self.0.lock();
        state.hanging.as_ref().is_some_and(|part| path.contains(part))
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let mut state = self.0.lock();
        if *method == Method::GET {
            state.reads += 1;
            let unreadable = state.unreadable.as_ref();
            if let Some((_, code)) = unreadable.filter(|(part, _)| path.contains(part)) {
                return failure(*code, "Unreadable");
            }
        } else {
            state.writes.push(format!("{method} {path}"));
        }
        match method.as_str() {
            "GET" => state
                .objects
                .get(path)
                .cloned()
                .map_or_else(|| failure(404, "NotFound"), |object| (200, object)),
            "POST" if state.refused.as_deref() == Some(path) => failure(403, "Forbidden"),
            "POST" => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if state.objects.contains_key(&path) {
                    failure(409, "AlreadyExists")
                } else {
                    (201, state.store(&path, body))
                }
            }
            "PUT" => {
                let known = state
                    .objects
                    .get(path)
                    .map(|object| object["metadata"]["resourceVersion"].clone());
                let given = &body["metadata"]["resourceVersion"];
                match known {
                    None => failure(404, "NotFound"),
                    Some(known) if !given.is_null() && *given != known => failure(409, "Conflict"),
                    Some(_) => (200, state.store(path, body)),
                }
            }
            "PATCH" if path.ends_with("/status") => {
                let path = path.trim_end_matches("/status");
                let Some(mut object) = state.objects.get(path).cloned() else {
                    return failure(404, "NotFound");
                };
                object["status"] = body["status"].clone();
                (200, state.store(path, object))
            }
            "PATCH" => {
                let mut object = state.objects.get(path).cloned().unwrap_or_else(|| json!({}));
                merge(&mut object, body);
                (200, state.store(path, object))
            }
            "DELETE" => match state.objects.remove(path) {
                Some(object) => (200, object),
                None => failure(404, "NotFound"),
            },
            other => panic!("{other} {path}"),
        }
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        self.changes += 1;
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.changes));
        }
        object["metadata"]["resourceVersion"] = json!(self.changes.to_string());
        if path.contains("/services/") && object["spec"]["clusterIP"].is_null() {
            object["spec"]["clusterIP"] = json!(service_ip());
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

/// What server-side apply does to an object with one manager, as far as it matters here: maps are merged,
/// everything else is replaced.
fn merge(object: &mut Value, applied: Value) {
    match (object, applied) {
        (Value::Object(object), Value::Object(applied)) => {
            for (key, value) in applied {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, applied) => *object = applied,
    }
}

/// The address of every Service: of this process alone, and somebody listens there for clients.
fn service_ip() -> String {
    static LISTENER: OnceLock<TcpListener> = OnceLock::new();
    let listener = LISTENER.get_or_init(|| {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        TcpListener::bind((Ipv4Addr::new(127, high | 1, low, 255), CLIENT_PORT)).unwrap()
    });
    listener.local_addr().unwrap().ip().to_string()
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    (code, status)
}

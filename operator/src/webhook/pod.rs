//! Pods that want a tenant's credentials: the binding as files after the Service Binding specification, or as variables.
//!
//! A pod asks by an annotation, in a namespace that opted in by a label; who asks nothing is never looked at. Nothing that
//! the pod has already is overwritten. A tenant that is not there yet is no reason to refuse: the pod waits for the Secret
//! by itself, so that both can be applied in any order. Only what can never become right is refused.

use std::sync::Arc;

use annulus_crds::v1alpha1::CacheTenant;
use json_patch::PatchOperation;
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::decision::Decision;
use super::tenant::add;
use crate::build::binding::TENANT_LABEL;
use crate::key::TenantKey;
use crate::tenants::validate::{NAME_LENGTH_MAX, USER_LENGTH_MAX, binding_name, user_binding_name};
use crate::validate::is_label;

/// Annotation of a pod: the `CacheTenant` of its namespace whose credentials it wants.
pub const TENANT_ANNOTATION: &str = "annulus.dev/tenant";
/// Annotation of a pod: one of the tenant's further users, by the name in `spec.access.users`.
pub const USER_ANNOTATION: &str = "annulus.dev/tenant-user";
/// Annotation of a pod: `files` (the default) or `env`.
pub const INJECT_AS_ANNOTATION: &str = "annulus.dev/inject-as";

/// Name of the volume.
const VOLUME: &str = "annulus-binding";
/// Where bindings are, as the Service Binding specification calls it.
const ROOT_VARIABLE: &str = "SERVICE_BINDING_ROOT";
const ROOT: &str = "/bindings";
/// Variables, and the keys of the Secret that they are from.
pub const VARIABLES: [(&str, &str); 5] = [
    ("CACHE_HOST", "host"),
    ("CACHE_PORT", "port"),
    ("CACHE_USERNAME", "username"),
    ("CACHE_PASSWORD", "password"),
    ("CACHE_URI", "uri"),
];

/// What a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asks {
    /// Which tenant.
    pub tenant: TenantKey,
    /// Which of its further users; `None` for the first one.
    pub user: Option<String>,
    /// How.
    pub inject_as: InjectAs,
}

/// How a pod gets its credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectAs {
    /// As files, which follow when a password is replaced.
    Files,
    /// As environment variables, which stay as they were when the container started.
    Env,
}

impl Asks {
    /// The Secret with the credentials.
    fn secret(&self) -> String {
        match &self.user {
            None => binding_name(&self.tenant.name),
            Some(user) => user_binding_name(&self.tenant.name, user),
        }
    }
}

/// What a pod of that namespace asks for, if anything; or what is wrong with it.
pub fn asks(pod: &Pod, namespace: &str) -> Result<Option<Asks>, String> {
    let annotation = |key: &str| pod.annotations().get(key).map(String::as_str);
    let Some(tenant) = annotation(TENANT_ANNOTATION) else {
        return Ok(None);
    };
    if !is_label(tenant, NAME_LENGTH_MAX) {
        return Err(format!(
            "annotation {TENANT_ANNOTATION} is {tenant:?}: write the name of a CacheTenant of namespace {namespace}"
        ));
    }
    let user = annotation(USER_ANNOTATION);
    if let Some(user) = user.filter(|user| !is_label(user, USER_LENGTH_MAX)) {
        return Err(format!(
            "annotation {USER_ANNOTATION} is {user:?}: write a name of spec.access.users of CacheTenant {tenant}, or leave \
             it out for the first user"
        ));
    }
    let inject_as = match annotation(INJECT_AS_ANNOTATION) {
        None | Some("files") => InjectAs::Files,
        Some("env") => InjectAs::Env,
        Some(other) => {
            return Err(format!(
                "annotation {INJECT_AS_ANNOTATION} is {other:?}: write files or env"
            ));
        }
    };
    Ok(Some(Asks {
        tenant: TenantKey::new(namespace, tenant),
        user: user.map(str::to_owned),
        inject_as,
    }))
}

/// Gives the pod what it asks for. `tenant` is what is known of the tenant.
pub fn inject(pod: &Pod, asks: &Asks, tenant: Option<&Arc<CacheTenant>>) -> Decision {
    let mut injection = Injection {
        pod,
        patch: Vec::new(),
        warnings: missing(asks, tenant.map(AsRef::as_ref)).into_iter().collect(),
    };
    injection.label(&asks.tenant.name);
    match asks.inject_as {
        InjectAs::Files => injection.files(asks),
        InjectAs::Env => injection.variables(&asks.secret()),
    }
    Decision::Allow {
        patch: injection.patch,
        warnings: injection.warnings,
    }
}

/// What the pod will wait for.
fn missing(asks: &Asks, tenant: Option<&CacheTenant>) -> Option<String> {
    let (key, secret) = (&asks.tenant, asks.secret());
    let Some(tenant) = tenant else {
        return Some(format!(
            "CacheTenant {key} does not exist yet: the pod waits for its Secret {secret}"
        ));
    };
    let user = asks.user.as_deref()?;
    let users = tenant.spec.access.iter().flat_map(|access| &access.users);
    let is_there = users.into_iter().any(|one| one.name == user);
    (!is_there).then(|| {
        format!("CacheTenant {key} has no user {user} in spec.access.users yet: the pod waits for its Secret {secret}")
    })
}

/// The lists of containers that get the credentials.
const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

struct Injection<'a> {
    pod: &'a Pod,
    patch: Vec<PatchOperation>,
    warnings: Vec<String>,
}

impl<'a> Injection<'a> {
    fn label(&mut self, tenant: &str) {
        if self.pod.labels().contains_key(TENANT_LABEL) {
            return;
        }
        if self.pod.metadata.labels.is_none() {
            self.patch.push(add(["metadata", "labels"], json!({})));
        }
        self.patch
            .push(add(["metadata", "labels", TENANT_LABEL], json!(tenant)));
    }

    fn containers(&self) -> impl Iterator<Item = (&'static str, String, &'a Container)> + use<'a> {
        let spec = self.pod.spec.as_ref();
        let init = spec.and_then(|spec| spec.init_containers.as_deref());
        let main = spec.map(|spec| spec.containers.as_slice());
        let lists = [init, main].map(Option::unwrap_or_default);
        CONTAINERS.into_iter().zip(lists).flat_map(|(list, containers)| {
            let numbered = containers.iter().enumerate();
            numbered.map(move |(index, container)| (list, index.to_string(), container))
        })
    }

    fn files(&mut self, asks: &Asks) {
        let spec = self.pod.spec.as_ref();
        let volumes = spec.and_then(|spec| spec.volumes.as_deref());
        let volume = json!({
            "name": VOLUME,
            "projected": {"sources": [{"secret": {"name": asks.secret()}}]},
        });
        match volumes
            .unwrap_or_default()
            .iter()
            .find(|volume| volume.name == VOLUME)
        {
            None => self.append(&["spec", "volumes"], volumes.is_some(), vec![volume]),
            // A second look at a pod that has it already.
            Some(found) if projects(found, &asks.secret()) => {}
            Some(_) => {
                self.warnings.push(format!(
                    "the pod has a volume {VOLUME} of its own, so it gets no binding: give it another name"
                ));
                return;
            }
        }
        for (list, index, container) in self.containers() {
            let env = container.env.as_deref();
            let root = match env
                .unwrap_or_default()
                .iter()
                .find(|one| one.name == ROOT_VARIABLE)
            {
                None => {
                    let variable = json!({"name": ROOT_VARIABLE, "value": ROOT});
                    self.append(&["spec", list, &index, "env"], env.is_some(), vec![variable]);
                    ROOT.to_owned()
                }
                Some(EnvVar {
                    value: Some(root), ..
                }) if root.starts_with('/') => root.clone(),
                Some(_) => {
                    self.warnings.push(format!(
                        "container {} sets {ROOT_VARIABLE} to something that is no path, so it gets no binding: write a path \
                         or leave it out",
                        container.name
                    ));
                    continue;
                }
            };
            let path = format!("{}/{}", root.trim_end_matches('/'), asks.tenant.name);
            let mounts = container.volume_mounts.as_deref();
            let is_taken = mounts
                .unwrap_or_default()
                .iter()
                .any(|mount| mount.mount_path.trim_end_matches('/') == path);
            if !is_taken {
                let mount = json!({"name": VOLUME, "mountPath": path, "readOnly": true});
                self.append(
                    &["spec", list, &index, "volumeMounts"],
                    mounts.is_some(),
                    vec![mount],
                );
            }
        }
    }

    fn variables(&mut self, secret: &str) {
        for (list, index, container) in self.containers() {
            let env = container.env.as_deref();
            let is_free = |name: &str| env.unwrap_or_default().iter().all(|one| one.name != name);
            let variables = VARIABLES.into_iter().filter(|(name, _)| is_free(name));
            let variables = variables.map(|(name, key)| {
                json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
            });
            let variables: Vec<Value> = variables.collect();
            self.append(&["spec", list, &index, "env"], env.is_some(), variables);
        }
    }

    /// Puts the values at the end of the list, which may not be there yet.
    fn append(&mut self, list: &[&str], is_there: bool, values: Vec<Value>) {
        if values.is_empty() {
            return;
        }
        if !is_there {
            self.patch.push(add(list.iter().copied(), json!([])));
        }
        for value in values {
            self.patch.push(add(list.iter().copied().chain(["-"]), value));
        }
    }
}

fn projects(volume: &k8s_openapi::api::core::v1::Volume, secret: &str) -> bool {
    let sources = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten());
    sources
        .filter_map(|source| source.secret.as_ref())
        .any(|source| source.name == secret)
}

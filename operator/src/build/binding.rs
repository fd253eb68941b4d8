//! A tenant's binding: a Secret in its namespace after the Service Binding specification, with what a client needs.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use annulus_crds::v1alpha1::CacheTenant;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;

use super::MANAGED_BY;
use super::secret::Password;
use crate::key::TenantKey;
use crate::pki::Files;

/// The Secret's type, as the specification forms it.
pub const BINDING_TYPE: &str = "servicebinding.io/redis";
/// The key of the password.
pub const PASSWORD_KEY: &str = "password";
/// Label of a binding: the name of its `CacheTenant`.
pub const TENANT_LABEL: &str = "annulus.dev/tenant";

/// Where clients of a cluster connect first, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The name or address.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Whether that one is with TLS.
    pub secure: bool,
    /// What TLS asks for: `ca.crt`, and `tls.crt` and `tls.key` where clients are to show a certificate.
    pub files: Files,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            host,
            port,
            secure,
            files,
        } = self;
        // A key is not for logs.
        let files: Vec<&String> = files.keys().collect();
        write!(formatter, "{host}:{port} secure={secure} {files:?}")
    }
}

/// Whom a binding lets in, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The tenant.
    pub tenant: TenantKey,
    /// Which one of that name.
    pub tenant_uid: String,
    /// The Secret's name.
    pub secret: String,
    /// The name to give with `AUTH`.
    pub user: String,
    /// Where.
    pub endpoint: Arc<Endpoint>,
}

/// The Secret with the password.
pub fn build(binding: &Binding, password: &Password) -> Secret {
    let labels = [
        ("app.kubernetes.io/name", "annulus"),
        MANAGED_BY,
        (TENANT_LABEL, &binding.tenant.name),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(binding.secret.clone()),
            namespace: Some(binding.tenant.namespace.clone()),
            labels: Some(
                labels
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            ),
            owner_references: Some(vec![owner(binding)]),
            ..ObjectMeta::default()
        },
        type_: Some(BINDING_TYPE.to_owned()),
        data: Some(data(binding, password)),
        ..Secret::default()
    }
}

/// What stands in the Secret.
pub fn data(binding: &Binding, password: &Password) -> BTreeMap<String, ByteString> {
    let Binding { user, endpoint, .. } = binding;
    let Endpoint {
        host,
        port,
        secure,
        files,
    } = endpoint.as_ref();
    let password = password.text();
    let scheme = if *secure { "rediss" } else { "redis" };
    let entries = [
        ("type", "redis".to_owned()),
        ("provider", "annulus".to_owned()),
        ("host", host.clone()),
        ("port", port.to_string()),
        ("username", user.clone()),
        (PASSWORD_KEY, password.to_owned()),
        ("uri", format!("{scheme}://{user}:{password}@{host}:{port}")),
    ];
    let entries = entries.into_iter();
    let entries = entries.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
    let files = files.iter();
    entries
        .chain(files.map(|(key, value)| (key.clone(), ByteString(value.clone()))))
        .collect()
}

/// The garbage collector removes the Secret with its `CacheTenant`, whose deletion waits for nothing.
fn owner(binding: &Binding) -> OwnerReference {
    OwnerReference {
        api_version: CacheTenant::api_version(&()).into_owned(),
        kind: CacheTenant::kind(&()).into_owned(),
        name: binding.tenant.name.clone(),
        uid: binding.tenant_uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

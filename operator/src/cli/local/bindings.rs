//! The credentials of tenants as files of a folder, one for each user, as the Secrets that they would be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::TLS_PORT_OFFSET;
use super::replace::replace;
use crate::build::binding::{self, Binding, Endpoint, PASSWORD_KEY};
use crate::build::secret::Password;
use crate::key::TenantKey;
use crate::pki::{AUTHORITIES, CERTIFICATE, Files, KEY};
use crate::tenants::plan::BindingSeen;
use crate::tenants::validate::{ValidTenant, ValidUser};
use crate::validate::ValidTls;

/// The bindings of a folder.
pub(super) struct Bindings {
    /// Where they are, in `bindings`, beside everything else that is kept.
    pub(super) folder: PathBuf,
    /// Where clients connect first.
    pub(super) port: u16,
}

impl Bindings {
    /// What is seen of a user's binding.
    pub(super) fn see(&self, tenant: &TenantKey, user: &ValidUser) -> BindingSeen {
        let found = self.read(tenant, &user.name);
        found.map_or(BindingSeen::Missing, |(password, _)| {
            BindingSeen::Holds(password.digest())
        })
    }

    /// The password of a user and what else stands beside it, where there is one.
    fn read(&self, tenant: &TenantKey, user: &str) -> Option<(Password, BTreeMap<String, ByteString>)> {
        let text = std::fs::read_to_string(self.file(tenant, user)).ok()?;
        let secret: Secret = serde_yaml::from_str(&text).ok()?;
        let data = secret.data?;
        // Two tenants whose names run together have the same file.
        let is_ours = data.get("username").is_some_and(|name| name.0 == user.as_bytes());
        let password = data.get(PASSWORD_KEY).filter(|_| is_ours)?;
        Some((Password::known(std::str::from_utf8(&password.0).ok()?)?, data))
    }

    /// Writes a binding.
    pub(super) fn write(&self, binding: &Binding, password: &Password) -> Result<(), String> {
        let secret = serde_yaml::to_string(&binding::build(binding, password))
            .map_err(|error| format!("a binding does not serialize: {error}"))?;
        let path = self.file(&binding.tenant, &binding.user);
        replace(&path, secret.as_bytes()).map_err(|error| format!("can't write {}: {error}", path.display()))
    }

    /// Writes a binding again that leads elsewhere, or has other certificates.
    pub(super) fn follow_endpoint(&self, binding: &Binding) -> Result<(), String> {
        match self.read(&binding.tenant, &binding.user) {
            Some((password, data)) if data != binding::data(binding, &password) => {
                self.write(binding, &password)
            }
            _ => Ok(()),
        }
    }

    /// Where clients connect. Certificates that are not made yet come with a later step.
    pub(super) fn endpoint(&self, tls: &ValidTls) -> Result<Endpoint, String> {
        let mut files = Files::new();
        let Some(clients) = &tls.clients else {
            return Ok(Endpoint {
                host: Ipv4Addr::LOCALHOST.to_string(),
                port: self.port,
                secure: false,
                files,
            });
        };
        let mut wanted = vec![("server", AUTHORITIES)];
        if clients.auth.asks() {
            wanted.extend([("client", CERTIFICATE), ("client", KEY)]);
        }
        for (folder, name) in wanted {
            let path = self.folder.join("tls").join(folder).join(name);
            match std::fs::read(&path) {
                Ok(content) => drop(files.insert(name.to_owned(), content)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("can't read {}: {error}", path.display())),
            }
        }
        Ok(Endpoint {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.port + TLS_PORT_OFFSET,
            secure: true,
            files,
        })
    }

    /// Where the binding of a user is.
    pub(super) fn file(&self, tenant: &TenantKey, user: &str) -> PathBuf {
        let first = format!("{}.{}", tenant.namespace, tenant.name);
        let further = user.strip_prefix(&first).unwrap_or_default();
        self.folder
            .join("bindings")
            .join(format!("{}-{}{further}.yaml", tenant.namespace, tenant.name))
    }

    /// Removes the bindings of tenants and users that are gone.
    pub(super) fn remove_leftovers<'a>(
        &self,
        tenants: impl Iterator<Item = &'a ValidTenant>,
    ) -> Result<(), String> {
        let wanted: BTreeSet<PathBuf> = tenants
            .flat_map(|asks| asks.users.iter().map(|user| self.file(&asks.key, &user.name)))
            .collect();
        let folder = self.folder.join("bindings");
        let failed = |error: std::io::Error| format!("can't clean up {}: {error}", folder.display());
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_binding = path.extension().is_some_and(|extension| extension == "yaml");
            if is_binding && !wanted.contains(&path) {
                std::fs::remove_file(&path).map_err(failed)?;
            }
        }
        Ok(())
    }
}

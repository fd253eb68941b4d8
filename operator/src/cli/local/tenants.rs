//! Tenants and groups without Kubernetes: the same decisions, with files of a folder where Secrets would be. Without a folder
//! there are only groups of the cluster's own keyspace, and the document is in memory alone.
//!
//! | file | what |
//! | --- | --- |
//! | `tenants.json` | the document, which nodes read when they start |
//! | `notes.json` | what the operator notes beside it |
//! | `bindings/<namespace>-<name>.yaml` | a tenant's binding, as a Secret; those of further users end with `.<user>` |
//! | `password` | the cluster's own password, unless `auth.disabled` is true |

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use annulus_crds::v1alpha1::{CacheTenant, defaults};
use annulus_proto::tenants::{TENANTS_DOCUMENT_KEY, TenantsDocument};
use annulus_ring::ClusterUid;
use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::bindings::Bindings;
use super::file::File;
use super::groups;
use super::replace::replace;
use crate::build::secret::Password;
use crate::groups::plan::Reach;
use crate::key::{ClusterKey, TenantKey};
use crate::tenants::ledger::{Ledger, NOTES_KEY};
use crate::tenants::plan::{Seen, SeenTenant, TenantsPlan, plan};
use crate::tenants::validate::{ValidTenant, validate};
use crate::validate::ValidAuth;

/// What a person is told who wants tenants and gives no folder.
pub(super) const WITHOUT_FOLDER: &str =
    "say with --state-dir DIR where the CacheTenants' credentials are to be written";

/// How often the bindings are looked at without a cause.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The tenants of the one cluster.
pub(super) struct Tenants {
    bindings: Option<Bindings>,
    ledger: Ledger,
    looked_at: Option<Instant>,
    /// When time alone changes something, in milliseconds since 1970.
    look_again_ms: Option<u64>,
}

impl Tenants {
    /// None yet, and no folder for what they would be given.
    pub(super) fn in_memory(cluster: &ClusterUid) -> Self {
        Self {
            bindings: None,
            ledger: Ledger::empty(cluster.clone()),
            looked_at: None,
            look_again_ms: None,
        }
    }

    /// Tenants in that folder, which is made if it is missing. Clients connect to `port` first.
    pub(super) fn open(folder: &Path, port: u16, cluster: &ClusterUid) -> Result<Self, String> {
        let bindings = folder.join("bindings");
        std::fs::create_dir_all(&bindings)
            .map_err(|error| format!("can't make --state-dir {}: {error}", bindings.display()))?;
        let folder = std::path::absolute(folder)
            .map_err(|error| format!("can't use --state-dir {}: {error}", folder.display()))?;
        let mut data = BTreeMap::new();
        for key in [TENANTS_DOCUMENT_KEY, NOTES_KEY] {
            if let Ok(content) = std::fs::read(folder.join(key)) {
                data.insert(key.to_owned(), ByteString(content));
            }
        }
        let stored = Ledger::read(&data).map_err(|error| format!("{}: {error}", folder.display()))?;
        let ledger = stored.unwrap_or_else(|| Ledger::empty(cluster.clone()));
        if ledger.document.cluster_uid != *cluster {
            return Err(format!(
                "{} has the tenants of {}: name another --state-dir",
                folder.display(),
                ledger.document.cluster_uid
            ));
        }
        Ok(Self {
            bindings: Some(Bindings { folder, port }),
            ledger,
            looked_at: None,
            look_again_ms: None,
        })
    }

    /// Where nodes read their tenants when they start, if anywhere.
    pub(super) fn document_file(&self) -> Option<PathBuf> {
        Some(self.bindings.as_ref()?.folder.join(TENANTS_DOCUMENT_KEY))
    }

    /// Where nodes read the cluster's password, which is drawn once; `None` where the file asks for none, or there is no folder.
    pub(super) fn password_file(&self, auth: &ValidAuth) -> Result<Option<PathBuf>, String> {
        let bindings = self.bindings.as_ref();
        let Some(bindings) = bindings.filter(|_| *auth != ValidAuth::Disabled) else {
            return Ok(None);
        };
        let path = bindings.folder.join(defaults::AUTH_SECRET_KEY);
        if !path.exists() {
            write(&path, draw()?.text().as_bytes())?;
        }
        Ok(Some(path))
    }

    /// What nodes are to know.
    pub(super) fn document(&self) -> &TenantsDocument {
        &self.ledger.document
    }

    /// Has the bindings looked at next time.
    pub(super) fn look_soon(&mut self) {
        self.looked_at = None;
    }

    /// Brings documents and bindings to what the file says. Returns what there is to be said to a person.
    pub(super) fn step(&mut self, file: &File, versions_told: &[u64]) -> Result<Vec<String>, String> {
        let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let is_due = self.look_again_ms.is_some_and(|at_ms| at_ms <= now_ms);
        let is_fresh = self.looked_at.is_some_and(|at| at.elapsed() < LOOK_AGAIN);
        if is_fresh && !is_due {
            return Ok(Vec::new());
        }
        self.looked_at = Some(Instant::now());
        let named = |tenant: &&CacheTenant| ClusterKey::of_tenant(tenant) == file.cluster.key;
        let (ours, others): (Vec<_>, Vec<_>) = file.tenants.iter().partition(named);
        let mut said: Vec<String> = others
            .into_iter()
            .map(|tenant| {
                let cluster = ClusterKey::of_tenant(tenant);
                format!(
                    "CacheTenant {}: there is no CacheCluster {cluster} in the file",
                    TenantKey::from(tenant)
                )
            })
            .collect();
        let tenants: Vec<SeenTenant> = if let Some(bindings) = &self.bindings {
            let tenants = ours.into_iter();
            tenants.map(|tenant| see(bindings, file, tenant)).collect()
        } else {
            said.extend((!ours.is_empty()).then(|| WITHOUT_FOLDER.to_owned()));
            Vec::new()
        };
        let (groups, unknown) = groups::see(file);
        said.extend(unknown);
        let TenantsPlan {
            next,
            verdicts,
            groups: of_groups,
            writes,
            look_again_ms,
        } = plan(
            &Seen {
                cluster: &file.cluster,
                ledger: &self.ledger,
                tenants: &tenants,
                groups: &groups,
                reach: Reach::Anywhere,
                watched: None,
                versions_told,
                last_id_told: 0,
                now_ms,
            },
            draw,
        )?;
        self.look_again_ms = look_again_ms;
        if let Some(next) = next {
            if let Some(Bindings { folder, .. }) = &self.bindings {
                write(&folder.join(NOTES_KEY), &next.notes_json())?;
                write(&folder.join(TENANTS_DOCUMENT_KEY), &next.document.to_json())?;
            }
            self.ledger = next;
        }
        said.extend(of_groups.iter().map(|(key, verdict)| groups::say(key, verdict)));
        let Some(bindings) = &self.bindings else {
            return Ok(said);
        };
        let asks: BTreeMap<&TenantKey, &ValidTenant> = tenants
            .iter()
            .filter_map(|tenant| Some((&tenant.key, tenant.asks.as_ref().ok()?)))
            .collect();
        let endpoint = Arc::new(bindings.endpoint(&file.cluster.tls)?);
        for one in writes {
            if let Some(asks) = asks.get(&one.tenant) {
                bindings.write(&asks.binding(&one.user, &endpoint), &one.password)?;
                said.push(format!(
                    "CacheTenant {}: user {}, see {}",
                    one.tenant,
                    one.user.name,
                    bindings.file(&one.tenant, &one.user.name).display()
                ));
            }
        }
        for binding in asks.values().flat_map(|asks| {
            let users = asks.users.iter();
            users.map(|user| asks.binding(user, &endpoint))
        }) {
            bindings.follow_endpoint(&binding)?;
        }
        bindings.remove_leftovers(asks.values().copied())?;
        for (key, verdict) in verdicts {
            if let Some(refusal) = verdict.refused.or(verdict.unbound) {
                said.push(format!(
                    "CacheTenant {key}: {}: {}",
                    refusal.reason.as_str(),
                    refusal.message
                ));
            }
        }
        Ok(said)
    }
}

fn see(bindings: &Bindings, file: &File, tenant: &CacheTenant) -> SeenTenant {
    let (key, asks) = (TenantKey::from(tenant), validate(tenant));
    let users = asks.iter().flat_map(|asks| &asks.users);
    SeenTenant {
        labels: Some(file.namespaces.get(&key.namespace).cloned().unwrap_or_default()),
        created_ms: 0,
        told_id: None,
        bindings: users
            .map(|user| (user.name.clone(), bindings.see(&key, user)))
            .collect(),
        asks,
        key,
    }
}

fn draw() -> Result<Password, String> {
    Password::draw(getrandom::fill).map_err(|error| format!("can't make a password: {error}"))
}

fn write(path: &Path, content: &[u8]) -> Result<(), String> {
    replace(path, content).map_err(|error| format!("can't write {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use k8s_openapi::api::core::v1::Secret;

    use super::super::file::parse;
    use super::*;

    const CLUSTER: &str = "
kind: CacheCluster
metadata: {name: demo, namespace: platform}
spec: {nodes: 1, tenancy: {allowedNamespaces: {from: Selector, selector: {matchLabels: {cache: shared}}}}}
---
kind: Namespace
metadata: {name: blog, labels: {cache: shared}}
";
    const TENANT: &str = "
---
kind: CacheTenant
metadata: {name: cache, namespace: blog}
spec: {clusterRef: {name: demo, namespace: platform}, access: {users: [{name: reader, permissions: ReadOnly}]}}
";

    /// A folder of this test's own, which is removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("annulus-{name}-{}", std::process::id())))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let removed = std::fs::remove_dir_all(&self.0);
            assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
        }
    }

    fn binding(folder: &Folder, name: &str) -> Option<BTreeMap<String, String>> {
        let text = std::fs::read_to_string(folder.0.join("bindings").join(name)).ok()?;
        let secret: Secret = serde_yaml::from_str(&text).unwrap();
        assert_eq!(secret.type_.as_deref(), Some("servicebinding.io/redis"));
        let data = secret.data.unwrap().into_iter();
        Some(
            data.map(|(key, value)| (key, String::from_utf8(value.0).unwrap()))
                .collect(),
        )
    }

    #[test]
    fn bindings_and_documents_follow_the_file_and_outlive_the_process() {
        let folder = Folder::new("tenants");
        let both = parse(&format!("{CLUSTER}{TENANT}")).unwrap();
        let open = || Tenants::open(&folder.0, 7_001, &both.cluster.uid).unwrap();
        let mut tenants = open();
        let said = tenants.step(&both, &[]).unwrap();
        assert!(
            said.iter().any(|line| line.contains("user blog.cache.reader")),
            "{said:?}"
        );
        let first = binding(&folder, "blog-cache.yaml").unwrap();
        let uri = format!("redis://blog.cache:{}@127.0.0.1:7001", first["password"]);
        assert_eq!(first["uri"], uri);
        assert!(!said.join(" ").contains(&first["password"]));
        let reader = binding(&folder, "blog-cache.reader.yaml").unwrap();
        assert_eq!(reader["username"], "blog.cache.reader");
        let document =
            TenantsDocument::from_json(&std::fs::read(tenants.document_file().unwrap()).unwrap()).unwrap();
        assert_eq!(&document, tenants.document());
        let digest = Password::known(&first["password"]).unwrap().digest();
        assert_eq!(document.tenants[0].users[0].passwords, [digest]);
        for file in ["tenants.json", "notes.json", "bindings/blog-cache.yaml"] {
            let mode = std::fs::metadata(folder.0.join(file))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }

        // The next run goes on with the same passwords, and without a new document.
        let mut tenants = open();
        assert_eq!(tenants.step(&both, &[]).unwrap(), Vec::<String>::new());
        assert_eq!(tenants.document(), &document);
        assert_eq!(binding(&folder, "blog-cache.yaml").unwrap(), first);

        // With TLS it leads to the other port, with what was made for clients and the same password.
        let server = folder.0.join("tls/server");
        std::fs::create_dir_all(&server).unwrap();
        std::fs::write(server.join("ca.crt"), "an authority").unwrap();
        let secure = CLUSTER.replace("spec: {", "spec: {tls: {enabled: true}, ");
        tenants.look_soon();
        tenants
            .step(&parse(&format!("{secure}{TENANT}")).unwrap(), &[])
            .unwrap();
        let told = binding(&folder, "blog-cache.yaml").unwrap();
        let uri = format!("rediss://blog.cache:{}@127.0.0.1:12001", first["password"]);
        assert_eq!((&told["uri"], told["ca.crt"].as_str()), (&uri, "an authority"));

        // Without the label nobody gets in, and without the tenant there is no binding.
        let unlabelled = parse(&format!(
            "{}{TENANT}",
            CLUSTER.replace("{cache: shared}}\n", "{}}\n")
        ))
        .unwrap();
        tenants.look_soon();
        let said = tenants.step(&unlabelled, &[]).unwrap();
        assert!(said[0].contains("NamespaceNotAllowed"), "{said:?}");
        assert!(tenants.document().tenants[0].users.is_empty());
        tenants.look_soon();
        tenants.step(&parse(CLUSTER).unwrap(), &[]).unwrap();
        assert_eq!(tenants.document().tenants, []);
        assert_eq!(binding(&folder, "blog-cache.yaml"), None);
        assert_eq!(binding(&folder, "blog-cache.reader.yaml"), None);
    }

    #[test]
    fn the_clusters_own_password_is_drawn_once_unless_none_is_asked_for() {
        let folder = Folder::new("password");
        let file = parse(CLUSTER).unwrap();
        let tenants = Tenants::open(&folder.0, 7_001, &file.cluster.uid).unwrap();
        assert_eq!(tenants.password_file(&ValidAuth::Disabled).unwrap(), None);
        let read = || {
            let path = tenants.password_file(&file.cluster.auth).unwrap().unwrap();
            std::fs::read_to_string(path).unwrap()
        };
        assert_eq!((read().len(), read() == read()), (32, true));
    }
}

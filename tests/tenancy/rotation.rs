//! New passwords and certificates every 30 seconds under redis-py and go-redis, which read the binding's files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use annulus_tests::{LoadProgram, Section, Tenant, Test, TestNamespace, env_number};
use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;
use tokio::time::{Instant, sleep, sleep_until};

const EVERY: Duration = Duration::from_secs(30);
const CLIENTS: [&str; 2] = ["redis-py", "go-redis"];
const SECRET: &str = "own-tls";

/// An authority that is made anew with each certificate would need an overlap; so this one stays, and signs each.
struct Authority {
    folder: PathBuf,
}

impl Authority {
    async fn new(folder: &Path) -> Result<Self> {
        let this = Self {
            folder: folder.to_owned(),
        };
        std::fs::create_dir_all(folder)?;
        this.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=authority")
            .await?;
        Ok(this)
    }

    async fn openssl(&self, arguments: &str) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(&self.folder);
        let said = command.output().await?;
        ensure!(
            said.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&said.stderr)
        );
        Ok(())
    }

    /// A new key with a certificate, into the Secret.
    async fn sign(&self, namespace: &TestNamespace<'_>) -> Result<()> {
        self.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout tls.key -out tls.crt -days 1 -subj /CN=shared -CA ca.crt -CAkey ca.key -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:shared")
            .await?;
        let file = |key: &str| -> String { format!("--from-file={key}={}", self.folder.join(key).display()) };
        let made = namespace
            .kubectl(&[
                "create",
                "secret",
                "generic",
                SECRET,
                &file("tls.crt"),
                &file("tls.key"),
                &file("ca.crt"),
                "--dry-run=client",
                "--output=yaml",
            ])
            .await?;
        namespace
            .test
            .kubernetes
            .apply(&namespace.name, &made)
            .await?
            .success()?;
        Ok(())
    }
}

/// Brings the files up to date with the Secret, as a kubelet does.
async fn project(tenant: &Tenant<'_>, authority: &Authority, folder: &Path) -> Result<()> {
    let binding = tenant.binding().await?;
    binding.project(folder)?;
    std::fs::copy(authority.folder.join("ca.crt"), folder.join("ca.crt"))?;
    Ok(())
}

pub async fn run(test: &Test) -> Result<Section> {
    let seconds = env_number("TENANCY_ROTATION_SECONDS", 600)?;
    let folder = std::env::temp_dir().join(format!("annulus-rotation-{}", std::process::id()));
    let outcome = rotate(test, seconds, &folder).await;
    std::fs::remove_dir_all(&folder).ok();
    outcome
}

async fn rotate(test: &Test, seconds: u64, folder: &Path) -> Result<Section> {
    let platform = test.namespace().await?;
    let authority = Authority::new(&folder.join("authority")).await?;
    authority.sign(&platform).await?;
    let spec = format!(
        "{{nodes: 3, resources: {{requests: {{cpu: 300m, memory: 256Mi}}, limits: {{memory: 512Mi}}}}, tenancy: {{allowedNamespaces: {{from: All}}}}, tls: {{enabled: true, secretRef: {{name: {SECRET}}}}}}}"
    );
    let cache = platform.ready_cache("shared", &spec).await?;
    let namespace = test.namespace().await?;
    let tenant = namespace.tenant("cache");
    tenant
        .apply(&cache, "quota: {memory: 32Mi}, rotation: {overlap: 60s}")
        .await?;
    tenant.ready().await?;
    let files = folder.join("binding");
    project(&tenant, &authority, &files).await?;
    let mut clients = Vec::new();
    for name in CLIENTS {
        clients.push(LoadProgram::start_bound(&cache, name, &files).await?);
    }
    let begin = Instant::now();
    let mut rotations = 0_u32;
    let mut passwords = std::collections::BTreeSet::new();
    while begin.elapsed() < Duration::from_secs(seconds) {
        let next = Instant::now() + EVERY;
        rotations += 1;
        tenant.rotate(&rotations.to_string()).await?;
        authority.sign(&platform).await?;
        while Instant::now() + Duration::from_secs(1) < next {
            project(&tenant, &authority, &files).await?;
            sleep(Duration::from_secs(1)).await;
        }
        passwords.insert(tenant.binding().await?.password);
        sleep_until(next).await;
    }
    let mut section = Section::new(
        "New passwords and certificates under load",
        format!(
            "3 nodes with TLS, {rotations} rotations of password and certificate in {seconds} s, each 30 s after the one before; {} passwords \
             were seen. The old password works for a minute more. Clients read the files of the binding when they connect.",
            passwords.len()
        ),
        &["client", "operations", "failed (goal 0)", "p99", "max"],
    );
    for (name, client) in CLIENTS.iter().zip(clients) {
        let figures = client.finish().await?;
        let phase = figures.phases.get("start").context("nothing was done")?;
        section.row([
            format!("{name} {}", figures.version),
            phase.operations.to_string(),
            phase.errors.to_string(),
            format!("{:.1} ms", phase.p99_ms),
            format!("{:.0} ms", phase.max_ms),
        ]);
        if phase.errors > 0 {
            section.problems.push(format!(
                "{name}: {} failed operations: {:?}",
                phase.errors, figures.errors
            ));
        }
    }
    let wanted = usize::try_from(rotations)?;
    if passwords.len() < wanted {
        section.problems.push(format!(
            "only {} passwords in {rotations} rotations",
            passwords.len()
        ));
    }
    Ok(section)
}

//! Which Kubernetes the tests use, and the ways to talk to it: `kube`, `kubectl` and `helm`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const NONE_REACHABLE: &str = "these tests need a Kubernetes: start the development one with `make cluster-up`, or point \
    KUBECONFIG at a cluster of yours that holds the two images";

/// The root of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Where failed tests leave what they saw; it is made when it is missing.
pub fn results_dir() -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from);
    let folder = target.join("e2e");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// The state folder of the development cluster.
pub(crate) fn cluster_dir() -> PathBuf {
    std::env::var_os("CLUSTER_DIR").map_or_else(|| repository().join(".cluster"), PathBuf::from)
}

/// A cluster that answers.
#[derive(Clone)]
pub struct Kubernetes {
    /// To the API server; belongs to the runtime of the test that made it.
    pub client: Client,
    kubeconfig: PathBuf,
    /// Whether it is the development cluster of this repository, on this machine.
    pub is_development: bool,
}

/// What a program answered.
#[derive(Debug)]
pub struct Answer {
    /// Whether it ended with 0.
    pub succeeded: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Answer {
    /// The output, or an error with everything that the program said.
    pub fn success(self) -> Result<String> {
        ensure!(self.succeeded, "{}{}", self.stderr, self.stdout);
        Ok(self.stdout)
    }
}

impl Kubernetes {
    /// The cluster of KUBECONFIG, else the development cluster.
    pub async fn connect() -> Result<Self> {
        let own = cluster_dir().join("kubeconfig");
        let kubeconfig = match std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
            Some(path) => PathBuf::from(path),
            None if own.exists() => own.clone(),
            None => bail!("{NONE_REACHABLE}"),
        };
        let is_development = own
            .canonicalize()
            .ok()
            .is_some_and(|own| kubeconfig.canonicalize().ok() == Some(own));
        let file = Kubeconfig::read_from(&kubeconfig).context(NONE_REACHABLE)?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.proxy_url = None;
        let client = Client::try_from(config)?;
        client.apiserver_version().await.with_context(|| {
            format!(
                "the cluster of {} does not answer; {NONE_REACHABLE}",
                kubeconfig.display()
            )
        })?;
        Ok(Self {
            client,
            kubeconfig,
            is_development,
        })
    }

    /// Runs kubectl, as a user would.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<Answer> {
        self.program("kubectl", arguments, "").await
    }

    /// Runs `kubectl apply` on the YAML in that namespace.
    pub async fn apply(&self, namespace: &str, yaml: &str) -> Result<Answer> {
        self.program(
            "kubectl",
            &["apply", "--namespace", namespace, "--filename", "-"],
            yaml,
        )
        .await
    }

    /// Runs one of the tools with that standard input.
    pub(crate) async fn program(&self, name: &str, arguments: &[&str], stdin: &str) -> Result<Answer> {
        let own = cluster_dir().join("bin").join(name);
        let program = if own.exists() { own } else { PathBuf::from(name) };
        self.run(Command::new(&program).args(arguments), stdin)
            .await
            .with_context(|| format!("running {}", program.display()))
    }

    /// Runs a command with this cluster's kubeconfig.
    pub(crate) async fn run(&self, command: &mut Command, stdin: &str) -> Result<Answer> {
        let mut path = OsString::from(cluster_dir().join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut child = command
            .env("KUBECONFIG", &self.kubeconfig)
            .env("PATH", path)
            .env_remove("HTTPS_PROXY")
            .env_remove("https_proxy")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(stdin.as_bytes()).await?;
        }
        let output = child.wait_with_output().await?;
        Ok(Answer {
            succeeded: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

//! The real program as a child process, with ports and a folder of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use annulus_proto::v1;
use annulus_proto::v1::peer_client::PeerClient;
use annulus_ring::{Incarnation, Member, RingDocument};
use tempfile::TempDir;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::documents::{CLUSTER, member};
use crate::member::{connect, operator};

pub const PATIENCE: Duration = Duration::from_mins(1);

/// Looks again and again until there is something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    #[expect(clippy::disallowed_methods, reason = "a deadline, not a schedule")]
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        #[expect(clippy::disallowed_methods, reason = "between two looks")]
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A running `annulus-node serve`; it is killed when the test ends.
pub struct Process {
    child: Child,
    dir: TempDir,
    pub client: SocketAddr,
    pub http: SocketAddr,
    pub api: Option<SocketAddr>,
    pub peer: Option<SocketAddr>,
}

impl Process {
    pub fn standalone(arguments: &[&str]) -> Self {
        Self::start(arguments)
    }

    pub fn member(number: usize, arguments: &[&str]) -> Self {
        let name = format!("n{number}");
        let identity = [
            "--cluster-uid",
            CLUSTER,
            "--node-id",
            &name,
            "--peer-bind",
            "127.0.0.1:0",
        ];
        Self::start(&[&identity, arguments].concat())
    }

    fn start(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let addresses = dir.path().join("addresses.json");
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_annulus-node"))
            .args([
                "serve",
                "--bind",
                "127.0.0.1:0",
                "--http-bind",
                "127.0.0.1:0",
                "--threads",
                "1",
            ])
            .args(["--max-memory", "256MiB", "--addresses-file"])
            .arg(&addresses)
            .env("ANNULUS_LOG_LEVEL", "info,annulus_node=debug")
            .args(arguments)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let addresses = wait_for("the addresses file", || {
            assert_eq!(
                child.try_wait().unwrap(),
                None,
                "{}",
                std::fs::read_to_string(dir.path().join("log")).unwrap()
            );
            std::fs::read(&addresses).ok()
        });
        let addresses: serde_json::Value = serde_json::from_slice(&addresses).unwrap();
        let address = |name: &str| addresses[name].as_str().map(|address| address.parse().unwrap());
        Self {
            child,
            dir,
            client: address("client").unwrap(),
            http: address("http").unwrap(),
            api: address("api"),
            peer: address("peer"),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        let status = response.split(' ').nth(1).unwrap().parse().unwrap();
        (status, response.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    pub fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(
            Command::new("sh")
                .args(["-c", &command])
                .status()
                .unwrap()
                .success()
        );
        if name == "STOP" {
            wait_for("every thread to stop", || self.is_stopped().then_some(()));
        }
    }

    /// Whether no thread of it goes on: the signal reaches one after the other.
    fn is_stopped(&self) -> bool {
        let mut threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        threads.all(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        })
    }

    pub fn wait_for_exit(&mut self) -> ExitStatus {
        wait_for("the end of the process", || self.child.try_wait().unwrap())
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// A connection as the operator has one; `None` when the process doesn't answer.
    pub async fn try_operator(&self) -> Option<PeerClient<Channel>> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.peer?)).unwrap();
        let connected = tokio::time::timeout(Duration::from_secs(1), endpoint.connect()).await;
        Some(PeerClient::new(connected.ok()?.ok()?))
    }

    pub async fn operator(&self) -> PeerClient<Channel> {
        connect(self.peer.unwrap()).await
    }

    /// Its reports, as the operator gets them.
    pub async fn watch(&self, interval_ms: u32) -> Streaming<v1::NodeReport> {
        let request = v1::WatchRequest {
            sender: operator(CLUSTER),
            interval_ms,
        };
        self.operator().await.watch(request).await.unwrap().into_inner()
    }

    /// The process as a ring lists it, by what it reports itself.
    pub async fn listed(&self, number: usize) -> Member {
        let mut reports = self.watch(60_000).await;
        let sender = reports.message().await.unwrap().unwrap().sender.unwrap();
        let incarnation = Incarnation::from_bytes(&sender.incarnation).unwrap();
        member(number, incarnation, self.client.port(), self.peer.unwrap().port())
    }

    pub async fn push(&self, document: &RingDocument) -> v1::NodeReport {
        let request = v1::PushRingRequest {
            sender: operator(CLUSTER),
            document: document.to_json().into(),
        };
        self.operator()
            .await
            .push_ring(request)
            .await
            .unwrap()
            .into_inner()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of {}:\n{}", self.client, self.log());
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

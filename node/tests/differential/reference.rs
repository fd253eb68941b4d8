//! A Redis server for the time of a test, and its replies as a tree.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::print_stderr,
    dead_code,
    reason = "tests fail where they stand, and not every test file needs all of this"
)]

use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::Client;

/// A running `redis-server` that keeps nothing.
pub struct Reference {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Reference {
    /// Starts one; `None`, with a word about it, when none is installed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same as a cluster of this one node.
    pub fn start_cluster() -> Option<Self> {
        let reference = Self::start_with(&["--cluster-enabled", "yes"])?;
        let mut client = Client::connect(reference.addr());
        client.check("CLUSTER ADDSLOTSRANGE 0 16383", "+OK\r\n");
        while !client.ask("CLUSTER INFO").contains("cluster_state:ok") {
            std::thread::yield_now();
        }
        Some(reference)
    }

    fn start_with(options: &[&str]) -> Option<Self> {
        const TRIES: u32 = 50;
        let mut ports = ports();
        for _ in 0..TRIES {
            let port = ports.next().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let spawned = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--save", "", "--appendonly", "no"])
                .args(options)
                .arg("--dir")
                .arg(folder.path())
                .stdout(Stdio::null())
                .spawn();
            let child = match spawned {
                Ok(child) => child,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    eprintln!("skipped: no redis-server is installed to compare with");
                    return None;
                }
                Err(error) => panic!("redis-server doesn't start: {error}"),
            };
            let mut reference = Self {
                child,
                port,
                _folder: folder,
            };
            if reference.answers() {
                return Some(reference);
            }
        }
        panic!("redis-server found no free port")
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Waits until it serves its port; `false` when it ended, because somebody else has the port.
    #[expect(
        clippy::disallowed_methods,
        reason = "another program's start can only be waited for by trying"
    )]
    fn answers(&mut self) -> bool {
        let begin = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(self.addr()).is_ok() {
                // Another server may have answered while this one was giving up.
                let mut client = Client::connect(self.addr());
                let own = format!("process_id:{}\r\n", self.child.id());
                return client.ask("INFO server").contains(&own);
            }
            assert!(
                begin.elapsed() < Duration::from_secs(20),
                "redis-server doesn't answer"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

/// Ports to try: below those that the kernel gives away, and with room for a cluster's second port, which is 10,000
/// higher. Each test begins elsewhere.
fn ports() -> impl Iterator<Item = u16> {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 10_000;
    let begin = u16::from_le_bytes(
        RandomState::new().hash_one(std::process::id()).to_le_bytes()[..2]
            .try_into()
            .unwrap(),
    );
    (0..COUNT).map(move |step| FIRST + (begin % COUNT + step) % COUNT)
}

impl Drop for Reference {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A reply in RESP2: a line, or an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Text(String),
    Items(Vec<Reply>),
}

impl Reply {
    /// Reads one reply.
    pub fn read(client: &mut Client) -> Self {
        let bytes = client.reply();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.split("\r\n");
        Self::parse(&mut lines)
    }

    fn parse<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Self {
        let line = lines.next().unwrap();
        match (line.as_bytes()[0], line[1..].parse::<i64>()) {
            (b'*', Ok(len)) => Self::Items((0..len).map(|_| Self::parse(lines)).collect()),
            (b'$', Ok(0..)) => Self::Text(lines.next().unwrap().to_owned()),
            _ => Self::Text(line.to_owned()),
        }
    }

    /// The same without the notes that key specifications may begin with.
    pub fn without_notes(&self) -> Self {
        match self {
            Self::Items(items) => {
                let notes = items.first().is_some_and(|first| first.text() == "notes");
                let kept = &items[if notes { 2 } else { 0 }..];
                Self::Items(kept.iter().map(Self::without_notes).collect())
            }
            Self::Text(text) => Self::Text(text.clone()),
        }
    }

    pub fn items(&self) -> &[Self] {
        match self {
            Self::Items(items) => items,
            Self::Text(_) => &[],
        }
    }

    pub fn text(&self) -> &str {
        match self {
            Self::Items(_) => "",
            Self::Text(text) => text,
        }
    }
}

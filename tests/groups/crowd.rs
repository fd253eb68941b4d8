//! Many connections that all ask for the same key at the same moment.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use annulus_tests::wire::{command, reply};
use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

const PORT: u16 = 6379;
/// Whoever isn't answered within this counts as lost.
const PATIENCE: Duration = Duration::from_mins(1);
/// Connections that are made at the same time.
const CONNECTING_MAX: usize = 128;

/// What the crowd was told.
#[derive(Debug, Default)]
pub struct Told {
    /// How often each reply came, errors by their first words.
    pub replies: BTreeMap<String, u64>,
    /// How long each waited, sorted.
    pub waited_ms: Vec<u64>,
}

/// Who asks.
pub struct Crowd {
    pub size: usize,
    pub nodes: Vec<Ipv4Addr>,
    pub password: String,
}

impl Crowd {
    /// Connects everybody, spread over the nodes, has all ask for the key at once, and waits for all answers. `meanwhile` runs
    /// from that moment on.
    pub async fn ask(&self, key: &str, meanwhile: impl Future<Output = Result<()>>) -> Result<Told> {
        let start = Arc::new(Barrier::new(self.size + 1));
        let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
        let mut clients = JoinSet::new();
        for number in 0..self.size {
            let nodes = self.nodes.clone();
            let client = Client {
                auth: command(&[b"AUTH", self.password.as_bytes()]),
                get: command(&[b"GET", key.as_bytes()]),
                connecting: Arc::clone(&connecting),
                nodes,
                number,
            };
            let start = Arc::clone(&start);
            clients.spawn(async move {
                let stream = client.connect(client.nodes[number % client.nodes.len()]).await;
                start.wait().await;
                let began = Instant::now();
                let told = timeout(PATIENCE, client.ask(stream)).await;
                let told = told.unwrap_or_else(|_| Ok("no answer".to_owned()));
                (
                    told,
                    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                )
            });
        }
        start.wait().await;
        let told = async {
            let mut told = Told::default();
            while let Some(ended) = clients.join_next().await {
                let (reply, waited_ms) = ended?;
                let reply = reply.unwrap_or_else(|error| format!("error: {error:#}"));
                *told.replies.entry(reply).or_default() += 1;
                told.waited_ms.push(waited_ms);
            }
            told.waited_ms.sort_unstable();
            Ok::<_, anyhow::Error>(told)
        };
        let (told, ended) = tokio::join!(told, meanwhile);
        ended?;
        told
    }
}

struct Client {
    nodes: Vec<Ipv4Addr>,
    number: usize,
    auth: Vec<u8>,
    get: Vec<u8>,
    connecting: Arc<Semaphore>,
}

impl Client {
    async fn connect(&self, node: Ipv4Addr) -> Result<TcpStream> {
        let _place = self.connecting.acquire().await?;
        let mut stream = timeout(Duration::from_secs(5), TcpStream::connect((node, PORT))).await??;
        // Closed connections keep no port of this machine: there are not enough of them for several crowds a minute.
        stream.set_zero_linger()?;
        stream.write_all(&self.auth).await?;
        let said = receive(&mut stream).await?;
        ensure!(said == "+OK", "AUTH: {said}");
        Ok(stream)
    }

    /// Asks until there is an answer: goes where it is sent, and to another node when one goes away.
    async fn ask(&self, mut stream: Result<TcpStream>) -> Result<String> {
        let mut tries = 0;
        loop {
            let answer = match &mut stream {
                Ok(stream) => self.get(stream).await,
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            tries += 1;
            match answer {
                Ok(answer) if answer.starts_with("-MOVED") => {
                    let owner = answer.rsplit(' ').next().context("MOVED to nowhere")?;
                    let owner: SocketAddr = owner.parse()?;
                    let std::net::IpAddr::V4(owner) = owner.ip() else {
                        bail!("{answer}");
                    };
                    stream = self.connect(owner).await;
                }
                Ok(answer) if answer.starts_with("-CLUSTERDOWN") || answer.starts_with("-TRYAGAIN") => {
                    pause().await;
                }
                Ok(answer) => return Ok(shortened(&answer)),
                Err(error) if tries > 1000 => return Err(error),
                Err(_) => {
                    pause().await;
                    let node = self.nodes[(self.number + tries) % self.nodes.len()];
                    stream = self.connect(node).await;
                }
            }
        }
    }

    async fn get(&self, stream: &mut TcpStream) -> Result<String> {
        stream.write_all(&self.get).await?;
        receive(stream).await
    }
}

/// Between two tries.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

async fn receive(stream: &mut TcpStream) -> Result<String> {
    let mut received = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let len = stream.read(&mut chunk).await?;
        ensure!(len > 0, "the connection ended");
        received.extend_from_slice(&chunk[..len]);
        if let Some((reply, _)) = reply(&received) {
            return Ok(String::from_utf8_lossy(reply).into_owned());
        }
    }
}

/// What tells answers apart.
fn shortened(answer: &str) -> String {
    answer.trim().chars().take(160).collect()
}

//! A noisy tenant at full speed, in a process of its own: `annulus-tenancy noise KIND SECONDS USER PASSWORD NODE…`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use annulus_tests::Binding;
use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use crate::resp::{self, Numbers, command};

/// What a noisy tenant does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Writes small values without a pause, 64 at a time.
    Writes,
    /// Pipelines of large values, of commands that don't exist and of large replies.
    Junk,
    /// Ten thousand connections, each with a command now and then.
    Connections,
    /// Scripts that never end.
    Scripts,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Writes, Self::Junk, Self::Connections, Self::Scripts];

    pub fn name(self) -> &'static str {
        match self {
            Self::Writes => "writes",
            Self::Junk => "junk",
            Self::Connections => "connections",
            Self::Scripts => "scripts",
        }
    }

    fn connections(self) -> usize {
        match self {
            Self::Writes => 48,
            Self::Junk => 8,
            Self::Connections => 10_000,
            Self::Scripts => 24,
        }
    }

    /// What one connection says over and over, and how long it rests in between.
    fn said(self, numbers: &mut Numbers) -> (Vec<u8>, Duration) {
        let key = |numbers: &mut Numbers| format!("noise:{}", numbers.below(1_000_000)).into_bytes();
        let mut bytes = Vec::new();
        match self {
            Self::Writes => {
                for _ in 0..64 {
                    bytes.extend(command(&[b"SET", &key(numbers), &[b'x'; 100]]));
                }
            }
            Self::Junk => {
                bytes.extend(command(&[b"SET", &key(numbers), &vec![b'j'; 1 << 20]]));
                for _ in 0..1000 {
                    bytes.extend(command(&[b"JUNK", &[b'j'; 200]]));
                }
                bytes.extend(command(&[b"ECHO", &vec![b'j'; 1 << 18]]));
                bytes.extend(command(&[b"KEYS", b"*"]));
            }
            Self::Connections => {
                bytes.extend(command(&[b"GET", &key(numbers)]));
                return (bytes, Duration::from_millis(500 + numbers.below(1000)));
            }
            Self::Scripts => {
                bytes.extend(command(&[b"EVAL", b"while true do end", b"0"]));
            }
        }
        (bytes, Duration::ZERO)
    }
}

/// The other side of [`Kind`]: the process. Bytes that were sent and received, for its standard output.
pub async fn make(arguments: &[String]) -> Result<String> {
    let [kind, seconds, username, password, nodes @ ..] = arguments else {
        bail!("usage: annulus-tenancy noise KIND SECONDS USER PASSWORD NODE…")
    };
    let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
    let kind = kind.context("no such noise")?;
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let nodes: Vec<SocketAddr> = nodes.iter().map(|node| node.parse()).collect::<Result<_, _>>()?;
    let binding = Binding {
        username: username.clone(),
        password: password.clone(),
        host: String::new(),
        authorities: None,
    };
    let counted = Arc::new(Counted::default());
    let mut tasks = Vec::new();
    for (number, node) in (0..kind.connections()).zip(nodes.iter().cycle()) {
        let (node, binding, counted) = (*node, binding.clone(), Arc::clone(&counted));
        tasks.push(tokio::spawn(async move {
            let mut numbers = Numbers::new(number as u64 + 1);
            while Instant::now() < end {
                // Whoever is thrown out comes back, but not in a busy loop.
                if one(kind, node, &binding, &mut numbers, &counted, end)
                    .await
                    .is_err()
                {
                    counted.broken.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    Ok(format!(
        "{} {} {}\n",
        counted.sent_bytes.load(Ordering::Relaxed),
        counted.received_bytes.load(Ordering::Relaxed),
        counted.broken.load(Ordering::Relaxed)
    ))
}

#[derive(Default)]
struct Counted {
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
    broken: AtomicU64,
}

/// One connection, until it breaks or the time is over.
async fn one(
    kind: Kind,
    node: SocketAddr,
    binding: &Binding,
    numbers: &mut Numbers,
    counted: &Counted,
    end: Instant,
) -> Result<()> {
    let Ok(stream) = timeout_at(end, resp::connect(node, binding)).await else {
        return Ok(());
    };
    let (mut input, mut output) = stream?.into_split();
    let reading = async {
        let mut part = vec![0; 1 << 16];
        loop {
            let len = input.read(&mut part).await?;
            if len == 0 {
                bail!("closed");
            }
            counted.received_bytes.fetch_add(len as u64, Ordering::Relaxed);
        }
    };
    let writing = async {
        loop {
            let (bytes, rest) = kind.said(numbers);
            output.write_all(&bytes).await?;
            counted
                .sent_bytes
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if !rest.is_zero() {
                tokio::time::sleep(rest).await;
            }
        }
    };
    // Both end by an error only.
    tokio::select! {
        broken = reading => broken,
        broken = writing => broken,
        () = tokio::time::sleep_until(end) => Ok(()),
    }
}

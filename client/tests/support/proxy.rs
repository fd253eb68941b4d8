//! Between the client and a node: passes everything on, and can lose invalidations, stall, or cut all connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::sleep;

/// What the proxies do now, and have done.
#[derive(Default)]
pub struct Faults {
    /// So many of a hundred invalidations are lost.
    pub lost_percent: AtomicU32,
    pub lost: AtomicU64,
}

pub struct Proxy {
    pub address: String,
    state: Arc<State>,
}

struct State {
    target: String,
    faults: Arc<Faults>,
    stalled: AtomicBool,
    cut: Notify,
}

impl Proxy {
    pub async fn start(target: String, faults: Arc<Faults>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            target,
            faults,
            stalled: AtomicBool::new(false),
            cut: Notify::new(),
        });
        tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state }
    }

    /// Ends all connections.
    pub fn cut(&self) {
        self.state.cut.notify_waiters();
    }

    /// Whether nothing passes, in either direction, until said otherwise.
    pub fn stall(&self, stalled: bool) {
        self.state.stalled.store(stalled, Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(&state.target).await else {
                return;
            };
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            let ((client_in, client_out), (server_in, server_out)) =
                (client.into_split(), server.into_split());
            tokio::select! {
                () = pass(client_in, server_out, &state, false) => {}
                () = pass(server_in, client_out, &state, true) => {}
                () = state.cut.notified() => {}
            }
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, loses: bool) {
    let (mut held, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let Ok(count @ 1..) = from.read(&mut chunk).await else {
            return;
        };
        while state.stalled.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(5)).await;
        }
        held.extend_from_slice(&chunk[..count]);
        let sent = if loses {
            let (passed, rest) = without_lost(&held, &state.faults);
            held.drain(..held.len() - rest);
            to.write_all(&passed).await
        } else {
            let sent = to.write_all(&held).await;
            held.clear();
            sent
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The complete messages but invalidations that are lost, and how many bytes are left over.
fn without_lost(bytes: &[u8], faults: &Faults) -> (Vec<u8>, usize) {
    let (mut passed, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(len) = message_len(rest) {
        let (message, behind) = rest.split_at(len);
        let percent = faults.lost_percent.load(Ordering::Relaxed);
        let is_lost = message.starts_with(b">2\r\n$10\r\ninvalidate\r\n")
            && percent > 0
            && u32::from(rand_byte(message)) % 100 < percent;
        if is_lost {
            faults.lost.fetch_add(1, Ordering::Relaxed);
        } else {
            passed.extend_from_slice(message);
        }
        rest = behind;
    }
    (passed, rest.len())
}

/// Chance enough for this: from an address's hash and a counter.
fn rand_byte(message: &[u8]) -> u8 {
    use std::hash::{BuildHasher as _, RandomState};
    thread_local!(static HASHER: RandomState = RandomState::new());
    static COUNT: AtomicU64 = AtomicU64::new(0);
    HASHER.with(|hasher| {
        hasher
            .hash_one((message, COUNT.fetch_add(1, Ordering::Relaxed)))
            .to_le_bytes()[0]
    })
}

/// How long the first RESP3 message is; `None` while it isn't complete.
pub fn message_len(bytes: &[u8]) -> Option<usize> {
    let line_end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let number = || std::str::from_utf8(&bytes[1..line_end]).ok()?.parse::<i64>().ok();
    let mut len = line_end + 2;
    match bytes[0] {
        b'$' | b'=' | b'!' => {
            if let Ok(size) = usize::try_from(number()?) {
                len += size + 2;
            }
        }
        kind @ (b'*' | b'>' | b'~' | b'%') => {
            let parts = number()?.max(0) * if kind == b'%' { 2 } else { 1 };
            for _ in 0..parts {
                len += message_len(bytes.get(len..)?)?;
            }
        }
        _ => {}
    }
    (len <= bytes.len()).then_some(len)
}

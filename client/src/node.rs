//! The client's side of one node: keeps a connection to it, as long as it is wanted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::settings::{Counters, Shared};
use crate::stream::{Answer, Handshake, Request};

/// Reads that wait to be sent; more go another way.
const WAITING_MAX: usize = 4096;

/// Between two attempts to connect, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A node that serves nothing any more is kept connected to for so long: while slots move, not all nodes say the same.
const UNNAMED_MAX_NS: u64 = 60_000_000_000;

/// One node. Its connection ends when this is dropped.
pub struct Node {
    unnamed_since_ns: Option<u64>,
    requests: mpsc::Sender<Request>,
    task: AbortHandle,
}

impl Node {
    /// Begins to connect to `host:port`.
    pub fn start(shared: Arc<Shared>, address: Arc<str>) -> Self {
        let (requests, receiver) = mpsc::channel(WAITING_MAX);
        let task = tokio::spawn(keep_connected(shared, address, receiver)).abort_handle();
        Self {
            unnamed_since_ns: None,
            requests,
            task,
        }
    }

    /// Whether to stay connected, by whether it serves slots.
    pub fn is_wanted(&mut self, is_named: bool, now_ns: u64) -> bool {
        let since_ns = *self.unnamed_since_ns.get_or_insert(now_ns);
        if is_named {
            self.unnamed_since_ns = None;
        }
        is_named || now_ns.saturating_sub(since_ns) < UNNAMED_MAX_NS
    }

    /// Sends a read; `false` when too many wait.
    pub fn send(&self, request: Request) -> bool {
        self.requests.try_send(request).is_ok()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep_connected(shared: Arc<Shared>, address: Arc<str>, mut requests: mpsc::Receiver<Request>) {
    let mut pause = PAUSE_MIN;
    loop {
        // What a broken connection says doesn't matter: reads go another way until there is a new one.
        let connected = timeout(
            shared.settings.read_timeout,
            Handshake::connect(&shared, &address),
        )
        .await;
        if let Ok(Ok(handshake)) = connected {
            Counters::add(&shared.counters.connections);
            pause = PAUSE_MIN;
            let ended = handshake.serve(&shared, &mut requests).await;
            Counters::add(&shared.counters.connections_lost);
            if ended.is_ok() {
                return;
            }
        }
        let pausing = sleep(pause);
        tokio::pin!(pausing);
        loop {
            tokio::select! {
                () = &mut pausing => break,
                request = requests.recv() => {
                    let Some(request) = request else { return };
                    // Who has stopped waiting needs no answer.
                    drop(request.answer.send(Answer::Refused));
                }
            }
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

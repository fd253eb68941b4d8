//! The threads that serve clients.
//!
//! Each thread has a runtime, a listener and counters of its own; a connection lives and dies on the thread
//! that accepted it. Several threads listen on one port by `SO_REUSEPORT`, and the kernel spreads the
//! connections. The threads' timers also give back the memory of expired entries.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clients::{Full, Stop};
use crate::clock;
use crate::connection::Connection;
use crate::node::Node;
use crate::stats::ThreadStats;
use crate::timing::Event;

const BACKLOG: i32 = 1024;

/// How often a thread sweeps expired entries, and how many it looks at each time.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);
const SWEEP_ENTRIES_MAX: usize = 20_000;

/// How many entries of tenants that are gone a thread drops each time.
const DROPPED_ENTRIES_MAX: usize = 5000;

/// How many entries a thread evicts each time of tenants that are above their limits and don't write.
const EVICTED_ENTRIES_MAX: u64 = 2000;

/// How often clients are looked at that may have been silent, or not reading, for too long.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long a thread pauses when the process has no file descriptors left to accept with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where and with what to serve.
#[derive(Debug, Clone, Copy)]
pub struct ServerOptions {
    /// Address for clients; port 0 for any free one.
    pub addr: SocketAddr,
    /// Threads.
    pub threads: NonZeroUsize,
}

/// The running threads.
pub struct Server {
    local_addr: SocketAddr,
    node: Arc<Node>,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens, and serves from now on.
    pub fn bind(options: ServerOptions, node: Arc<Node>) -> io::Result<Self> {
        let listeners = listen(options)?;
        let local_addr = listeners[0].local_addr()?;
        let stop = CancellationToken::new();
        let mut server = Self {
            local_addr,
            node,
            stop,
            threads: Vec::with_capacity(listeners.len()),
        };
        for (index, listener) in listeners.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let worker = Worker {
                index,
                stats: server.node.stats.register_thread(),
                node: Arc::clone(&server.node),
                stop: server.stop.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("client-{index}"));
            server
                .threads
                .push(thread.spawn(move || runtime.block_on(worker.run(listener)))?);
        }
        Ok(server)
    }

    /// The address that clients connect to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Accepts no more, lets every connection answer the commands that it has received, and ends; what isn't
    /// done after `grace` is cut off. Returns how many connections those were.
    pub async fn shutdown(self, grace: Duration) -> usize {
        self.stop.cancel();
        let deadline = tokio::time::Instant::now() + grace;
        // A connection that was being accepted when the threads stopped is caught by the next look.
        while !self.node.clients.is_empty() && tokio::time::Instant::now() < deadline {
            self.node.clients.stop_all(Stop::Drain);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cut_off = self.node.clients.len();
        self.node.clients.stop_all(Stop::Kill);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                if thread.join().is_err() {
                    tracing::error!("a server thread panicked");
                }
            }
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "the server's threads could not be joined");
        }
        cut_off
    }
}

/// A listener for each thread.
fn listen(options: ServerOptions) -> io::Result<Vec<std::net::TcpListener>> {
    let threads = options.threads.get();
    let first = open(options.addr, false)?;
    if threads == 1 {
        return Ok(vec![first]);
    }
    // Sockets that share a port share it with any process of the same user. The first one, opened without
    // sharing, made sure that nobody else has it.
    let addr = first.local_addr()?;
    drop(first);
    (0..threads).map(|_| open(addr, true)).collect()
}

fn open(addr: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What a server thread has.
struct Worker {
    index: usize,
    node: Arc<Node>,
    stats: Arc<ThreadStats>,
    stop: CancellationToken,
}

impl Worker {
    async fn run(self, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "a server thread can't use its listener");
                return;
            }
        };
        let connections = TaskTracker::new();
        let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut client_check = tokio::time::interval(CLIENT_CHECK_INTERVAL);
        client_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, remote)) => self.serve(stream, remote, &connections),
                    // Most often the process is out of file descriptors; those in use are freed by and by.
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                _ = sweep.tick() => {
                    let now_ms = clock::now_ms();
                    let begun = clock::monotonic();
                    self.stats.expired_keys.add(self.node.store.sweep(now_ms, SWEEP_ENTRIES_MAX));
                    let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let (tenants, store) = (&self.node.tenants, &self.node.store);
                    tenants.drop_some(store, DROPPED_ENTRIES_MAX);
                    self.stats.evicted_keys.add(store.enforce_limits(now_ms, EVICTED_ENTRIES_MAX));
                    self.node.timing.note_event(Event::ExpireCycle, took_ms, now_ms);
                    if self.node.pause.end_when_over(now_ms) {
                        self.node.clients.wake_all();
                    }
                }
                _ = client_check.tick(), if self.index == 0 => self.check_clients(),
            }
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    fn serve(&self, stream: TcpStream, remote: SocketAddr, connections: &TaskTracker) {
        let now_ms = clock::now_ms();
        let prepared = prepare(&stream, self.node.settings.keepalive_s()).and_then(|()| stream.local_addr());
        let Ok(local) = prepared else {
            // It is gone already.
            return;
        };
        let clients_max = self.node.settings.clients_max();
        let needs_password = self.node.password.is_some();
        let admitted = self
            .node
            .clients
            .admit((remote, local), now_ms, clients_max, needs_password);
        let client = match admitted {
            Ok(client) => client,
            Err(full) => {
                self.stats.connections_rejected.add(1);
                connections.spawn(refuse(stream, full));
                return;
            }
        };
        let socket = &client.usage.socket;
        socket.store(stream.as_raw_fd(), Ordering::Relaxed);
        self.stats.connections_accepted.add(1);
        let connection = Connection::new(stream, Arc::clone(&self.node), Arc::clone(&self.stats), client);
        connections.spawn(connection.run());
    }

    fn check_clients(&self) {
        let now_ms = clock::now_ms();
        self.node.clients.stop_slow(now_ms);
        self.node.clients.stop_strangers(now_ms);
        let idle_timeout_s = self.node.settings.idle_timeout_s();
        if idle_timeout_s > 0 {
            self.node
                .clients
                .stop_idle(now_ms, idle_timeout_s.saturating_mul(1000));
        }
    }
}

fn prepare(stream: &TcpStream, keepalive_s: u64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if keepalive_s > 0 {
        let interval = Duration::from_secs((keepalive_s / 3).max(1));
        let keepalive = TcpKeepalive::new()
            .with_time(Duration::from_secs(keepalive_s))
            .with_interval(interval)
            .with_retries(3);
        SockRef::from(stream).set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

async fn refuse(mut stream: TcpStream, full: Full) {
    // Whether the client hears it is its own affair: it is refused either way.
    if stream.write_all(format!("-{full}\r\n").as_bytes()).await.is_ok() {
        stream.shutdown().await.unwrap_or_default();
    }
}

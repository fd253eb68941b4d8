//! The threads that serve clients.
//!
//! Each thread has a runtime, a listener and counters of its own; a connection lives and dies on the thread
//! that accepted it. Several threads listen on one port by `SO_REUSEPORT`, and the kernel spreads the
//! connections. A client with TLS has a port of its own, and its handshake is done on the thread that accepted it. The
//! threads' timers also give back the memory of expired entries.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api;
use crate::clients::{Client, Full, Stop};
use crate::clock;
use crate::connection::Connection;
use crate::node::Node;
use crate::peer::Forwarder;
use crate::stats::ThreadStats;
use crate::timing::Event;
use crate::tls::{ClientStream, ClientTls};

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
pub struct ServerOptions {
    /// Address for clients without TLS; port 0 for any free one.
    pub addr: Option<SocketAddr>,
    /// Address for clients with TLS, and what they are shown.
    pub tls: Option<(SocketAddr, Arc<ClientTls>)>,
    /// What is served over HTTP.
    pub api: ApiOptions,
    /// Threads.
    pub threads: NonZeroUsize,
}

/// Where to serve over HTTP.
#[derive(Default)]
pub struct ApiOptions {
    /// Address without TLS; port 0 for any free one.
    pub addr: Option<SocketAddr>,
    /// Address with TLS; clients are shown the same as elsewhere.
    pub tls_addr: Option<SocketAddr>,
    /// The way to other nodes.
    pub forwarder: Option<Forwarder>,
}

/// Why a server can't listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Not at that address.
    #[error("can't listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The system gives no thread, or what a thread needs.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// The running threads.
pub struct Server {
    local_addr: Option<SocketAddr>,
    tls_addr: Option<SocketAddr>,
    api_addr: Option<SocketAddr>,
    api_tls_addr: Option<SocketAddr>,
    node: Arc<Node>,
    stop: CancellationToken,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Listens, and serves from now on.
    pub fn bind(options: ServerOptions, node: Arc<Node>) -> Result<Self, BindError> {
        let ServerOptions {
            addr,
            tls,
            api,
            threads,
        } = options;
        let mut plain = Listeners::open(addr, threads)?;
        let mut secure = Listeners::open(tls.as_ref().map(|(addr, _)| *addr), threads)?;
        let mut api_plain = Listeners::open(api.addr, threads)?;
        let mut api_secure = Listeners::open(api.tls_addr, threads)?;
        let tls = tls.map(|(_, tls)| tls);
        let stop = CancellationToken::new();
        let mut server = Self {
            local_addr: plain.addr,
            tls_addr: secure.addr,
            api_addr: api_plain.addr,
            api_tls_addr: api_secure.addr,
            node,
            stop,
            threads: Vec::with_capacity(threads.get()),
        };
        for index in 0..threads.get() {
            let listeners =
                [&mut plain, &mut secure, &mut api_plain, &mut api_secure].map(|kind| kind.of_threads.pop());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let worker = Worker {
                index,
                stats: server.node.stats.register_thread(),
                node: Arc::clone(&server.node),
                tls: tls.clone(),
                forwarder: api
                    .forwarder
                    .as_ref()
                    .map(|forwarder| Arc::new(forwarder.another())),
                stop: server.stop.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("client-{index}"));
            server
                .threads
                .push(thread.spawn(move || runtime.block_on(worker.run(listeners)))?);
        }
        Ok(server)
    }

    /// The address that clients connect to without TLS.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// The address that clients connect to with TLS.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls_addr
    }

    /// The address for HTTP without TLS.
    pub fn api_addr(&self) -> Option<SocketAddr> {
        self.api_addr
    }

    /// The address for HTTP with TLS.
    pub fn api_tls_addr(&self) -> Option<SocketAddr> {
        self.api_tls_addr
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

/// A listener for each thread, or none.
#[derive(Default)]
struct Listeners {
    addr: Option<SocketAddr>,
    of_threads: Vec<std::net::TcpListener>,
}

impl Listeners {
    fn open(addr: Option<SocketAddr>, threads: NonZeroUsize) -> Result<Self, BindError> {
        let Some(addr) = addr else {
            return Ok(Self::default());
        };
        let opened = listen(addr, threads.get()).and_then(|of_threads| {
            Ok(Self {
                addr: Some(of_threads[0].local_addr()?),
                of_threads,
            })
        });
        opened.map_err(|error| BindError::Listen(addr, error))
    }
}

fn listen(addr: SocketAddr, threads: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let first = open(addr, false)?;
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
    tls: Option<Arc<ClientTls>>,
    forwarder: Option<Arc<Forwarder>>,
    stop: CancellationToken,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Resp,
    Http,
}

impl Worker {
    async fn run(self, listeners: [Option<std::net::TcpListener>; 4]) {
        let usable =
            |listener: Option<std::net::TcpListener>| listener.map(TcpListener::from_std).transpose();
        let [plain, secure, api_plain, api_secure] = listeners.map(usable);
        let (plain, secure, api_plain, api_secure) = match (plain, secure, api_plain, api_secure) {
            (Ok(plain), Ok(secure), Ok(api_plain), Ok(api_secure)) => (plain, secure, api_plain, api_secure),
            (Err(error), ..) | (_, Err(error), ..) | (_, _, Err(error), _) | (.., Err(error)) => {
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
                accepted = accept(plain.as_ref()) => {
                    self.serve(accepted, (Speaks::Resp, None), &connections).await;
                }
                accepted = accept(secure.as_ref()) => {
                    self.serve(accepted, (Speaks::Resp, self.tls.as_ref()), &connections).await;
                }
                accepted = accept(api_plain.as_ref()) => {
                    self.serve(accepted, (Speaks::Http, None), &connections).await;
                }
                accepted = accept(api_secure.as_ref()) => {
                    self.serve(accepted, (Speaks::Http, self.tls.as_ref()), &connections).await;
                }
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
        drop((plain, secure, api_plain, api_secure));
        connections.close();
        connections.wait().await;
    }

    async fn serve(
        &self,
        accepted: io::Result<(TcpStream, SocketAddr)>,
        (speaks, tls): (Speaks, Option<&Arc<ClientTls>>),
        connections: &TaskTracker,
    ) {
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            // Most often the process is out of file descriptors; those in use are freed by and by.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return;
            }
        };
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
                match (speaks, tls) {
                    (Speaks::Resp, None) => drop(connections.spawn(refuse(stream, full))),
                    (Speaks::Http, None) => drop(connections.spawn(api::refuse(stream, full))),
                    (_, Some(_)) => {}
                }
                return;
            }
        };
        let socket = &client.usage.socket;
        socket.store(stream.as_raw_fd(), Ordering::Relaxed);
        self.stats.connections_accepted.add(1);
        let served = Served {
            node: Arc::clone(&self.node),
            stats: Arc::clone(&self.stats),
            client,
            speaks,
            forwarder: self.forwarder.clone(),
        };
        if let Some(tls) = tls {
            served.client.secure.store(true, Ordering::Relaxed);
            connections.spawn(serve_secure(Arc::clone(tls), stream, served));
        } else {
            connections.spawn(served.run(stream));
        }
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

/// The next connection; never, where there is no listener.
async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// A client that was admitted.
struct Served {
    node: Arc<Node>,
    stats: Arc<ThreadStats>,
    client: Arc<Client>,
    speaks: Speaks,
    forwarder: Option<Arc<Forwarder>>,
}

impl Served {
    async fn run<S: ClientStream>(self, stream: S) {
        let Self {
            node,
            stats,
            client,
            speaks,
            forwarder,
        } = self;
        match speaks {
            Speaks::Resp => Connection::new(stream, node, stats, client).run().await,
            // In a box: it is larger, and there are many of the others.
            Speaks::Http => Box::pin(api::serve(stream, node, stats, client, forwarder)).await,
        }
    }
}

/// Does the handshake, unless the client is to end, and serves the connection. The client was admitted already: it counts
/// while its handshake lasts.
async fn serve_secure(tls: Arc<ClientTls>, stream: TcpStream, served: Served) {
    let mut handshake = pin!(tls.accept(stream));
    let stream = poll_fn(|context| match served.client.poll_stop(context.waker()) {
        Stop::No => handshake.as_mut().poll(context),
        Stop::Drain | Stop::Kill => Poll::Ready(None),
    });
    if let Some(stream) = stream.await {
        served.run(stream).await;
    } else {
        served.stats.tls_handshakes_failed.add(1);
        served.stats.connections_closed.add(1);
        served.node.clients.dismiss(served.client.id);
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

//! A node that serves on loopback, and a client that speaks bytes.
#![allow(
    clippy::allow_attributes,
    clippy::expect_used,
    clippy::unwrap_used,
    dead_code,
    reason = "tests fail where they stand, and not every test file needs all of this"
)]

pub mod http;
pub mod transcript;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use annulus_node::node::{Node, NodeOptions};
use annulus_node::routing::{Routing, Standalone};
use annulus_node::secret::Secret;
use annulus_node::server::{ApiOptions, Server, ServerOptions};
use annulus_node::store::{EvictionPolicy, Store, StoreOptions};
use annulus_node::tls::ClientTls;

/// What a test may choose.
pub struct Options {
    pub routing: Arc<dyn Routing>,
    pub password: Option<&'static str>,
    pub budget_bytes: u64,
    pub eviction: EvictionPolicy,
    pub clients_max: usize,
    pub threads: usize,
    pub tls: Option<Arc<ClientTls>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            routing: Arc::new(Standalone::new(
                "test".parse().unwrap(),
                "node-0".parse().unwrap(),
            )),
            password: None,
            budget_bytes: 64 << 20,
            eviction: EvictionPolicy::Lru,
            clients_max: 1000,
            threads: 1,
            tls: None,
        }
    }
}

pub fn node(options: &Options) -> Arc<Node> {
    Arc::new(Node::new(NodeOptions {
        store: Arc::new(Store::new(StoreOptions {
            budget_bytes: options.budget_bytes,
            eviction: options.eviction,
        })),
        routing: Arc::clone(&options.routing),
        password: options
            .password
            .map(|text| Secret::from_file_content(text.as_bytes()).unwrap()),
        clients_max: options.clients_max,
        threads: options.threads,
        started_at_ms: annulus_node::clock::now_ms(),
        run_id: 1,
    }))
}

/// A running node.
pub struct TestServer {
    pub node: Arc<Node>,
    pub addr: SocketAddr,
    pub tls_addr: Option<SocketAddr>,
    pub api_addr: SocketAddr,
    pub api_tls_addr: Option<SocketAddr>,
    server: Option<Server>,
}

impl TestServer {
    pub fn start(options: &Options) -> Self {
        let node = node(options);
        let options = ServerOptions {
            addr: Some("127.0.0.1:0".parse().unwrap()),
            tls: options
                .tls
                .clone()
                .map(|tls| ("127.0.0.1:0".parse().unwrap(), tls)),
            api: ApiOptions {
                addr: Some("127.0.0.1:0".parse().unwrap()),
                tls_addr: options.tls.is_some().then(|| "127.0.0.1:0".parse().unwrap()),
                forwarder: None,
            },
            threads: NonZeroUsize::new(options.threads).unwrap(),
        };
        let server = Server::bind(options, Arc::clone(&node)).unwrap();
        Self {
            node,
            addr: server.local_addr().unwrap(),
            tls_addr: server.tls_addr(),
            api_addr: server.api_addr().unwrap(),
            api_tls_addr: server.api_tls_addr(),
            server: Some(server),
        }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.addr)
    }

    /// Ends the server, and says how many connections were cut off.
    pub fn shutdown(&mut self, grace: Duration) -> usize {
        let server = self.server.take().expect("the server was ended already");
        tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(server.shutdown(grace))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if self.server.is_some() {
            self.shutdown(Duration::ZERO);
        }
    }
}

/// A connection to it, with TLS or without.
pub struct Client<S = TcpStream> {
    pub stream: S,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    /// The same, where nobody may be listening.
    pub fn try_connect(addr: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }
}

impl<S: Read + Write> Client<S> {
    /// Sends a command and reads one line, where the connection may end.
    pub fn try_ask(&mut self, args: &[&[u8]]) -> std::io::Result<Vec<u8>> {
        self.stream.write_all(&encode(args))?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") {
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        Ok(line)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends a command given as words.
    pub fn command(&mut self, words: &str) {
        self.send(encode(
            &words.split_whitespace().map(str::as_bytes).collect::<Vec<_>>(),
        ));
    }

    /// Reads exactly what is expected.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        let mut found = vec![0; expected.len()];
        let mut len = 0;
        while len < found.len() {
            match self.stream.read(&mut found[len..]) {
                Ok(read @ 1..) => len += read,
                Ok(0) => break,
                // Reads with a timeout aren't taken up again by the kernel, as when a process of another test ends.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!(
                    "{error} behind {}, instead of {}",
                    show(&found[..len]),
                    show(expected)
                ),
            }
            if found[..len] != expected[..len] {
                break;
            }
        }
        assert_eq!(show(&found[..len]), show(expected));
    }

    /// Sends a command and reads exactly what is expected.
    #[track_caller]
    pub fn check(&mut self, words: &str, expected: impl AsRef<[u8]>) {
        self.command(words);
        self.expect(expected);
    }

    /// Reads until the end of the connection.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(len @ 1..) => rest.extend_from_slice(&chunk[..len]),
                Ok(0) => return rest,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return rest,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("the connection doesn't end: {error}, after {}", show(&rest)),
            }
        }
    }

    /// Reads one reply of any kind, as it is.
    pub fn reply(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        let mut left = 1;
        while left > 0 {
            left -= 1;
            let line = self.line();
            let number = || {
                std::str::from_utf8(&line[1..line.len() - 2])
                    .unwrap()
                    .parse::<i64>()
                    .unwrap()
            };
            match line[0] {
                b'*' | b'~' | b'>' => left += number().max(0),
                b'%' => left += 2 * number(),
                b'$' | b'=' if number() >= 0 => {
                    let mut bulk = vec![0; usize::try_from(number()).unwrap() + 2];
                    self.stream.read_exact(&mut bulk).unwrap();
                    reply.extend_from_slice(&line);
                    reply.extend_from_slice(&bulk);
                    continue;
                }
                _ => {}
            }
            reply.extend_from_slice(&line);
        }
        reply
    }

    fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            self.stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        line
    }

    /// The reply to a command, as text.
    pub fn ask(&mut self, words: &str) -> String {
        self.command(words);
        String::from_utf8(self.reply()).unwrap()
    }
}

pub fn encode(args: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

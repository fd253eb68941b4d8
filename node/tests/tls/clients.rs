//! Clients with TLS: who gets in, what they are told, and that they are served as others are.

use std::io::Read;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use annulus_node::routing::{Access, ClusterView, Routing, Standalone};
use annulus_node::tls::{ClientAuth, ClientTls, HANDSHAKE_TIMEOUT};
use annulus_ring::{Address, Slot};

use crate::authority::{Authority, Mounted, Pem, client_config, connect};
use crate::support::http::HttpClient;
use crate::support::{Options, TestServer};

fn mounted(authority: &Authority, clients: &Authority) -> Mounted {
    let Pem { certificate, key } = authority.sign(&["localhost"]);
    Mounted::new(&[
        ("tls.crt", &certificate),
        ("tls.key", &key),
        ("ca.crt", &clients.certificate),
    ])
}

fn options(mounted: &Mounted, auth: ClientAuth) -> Options {
    Options {
        tls: Some(Arc::new(ClientTls::load(mounted.client_files(auth)).unwrap())),
        ..Options::default()
    }
}

#[test]
fn with_tls_and_without_the_same_node_is_served() {
    let authority = Authority::new("servers");
    let server = TestServer::start(&options(&mounted(&authority, &authority), ClientAuth::None));
    let config = client_config(&authority, None);
    let mut secure = connect(server.tls_addr.unwrap(), &config).unwrap();
    let mut plain = server.connect();
    secure.check("SET key with-tls", "+OK\r\n");
    plain.check("GET key", "$8\r\nwith-tls\r\n");
    // More than any buffer on the way, both ways, and many replies at once.
    let large = vec![b'x'; 20 << 20];
    secure.send(crate::support::encode(&[b"SET", b"large", &large]));
    secure.expect("+OK\r\n");
    secure.command("GET large");
    secure.expect(format!("${}\r\n", large.len()));
    secure.expect(&large);
    secure.expect("\r\n");
    secure.send(b"PING\r\n".repeat(100_000));
    secure.expect(b"+PONG\r\n".repeat(100_000));
    // What others send comes by itself.
    secure.check("SUBSCRIBE news", "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    plain.check("PUBLISH news hello", ":1\r\n");
    secure.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n");
}

#[test]
fn a_closed_connection_says_goodbye() {
    let authority = Authority::new("servers");
    let mut server = TestServer::start(&options(&mounted(&authority, &authority), ClientAuth::None));
    let config = client_config(&authority, None);
    let addr = server.tls_addr.unwrap();
    let mut quitting = connect(addr, &config).unwrap();
    quitting.check("QUIT", "+OK\r\n");
    // rustls takes an end without the alert for an error: somebody may have cut the rest off.
    assert_eq!(quitting.stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    let mut draining = connect(addr, &config).unwrap();
    draining.check("PING", "+PONG\r\n");
    assert_eq!(server.shutdown(Duration::from_secs(10)), 0);
    assert_eq!(draining.stream.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn who_speaks_without_tls_is_closed_and_the_other_way_round() {
    let authority = Authority::new("servers");
    let server = TestServer::start(&options(&mounted(&authority, &authority), ClientAuth::None));
    let mut stranger = TcpStream::connect(server.tls_addr.unwrap()).unwrap();
    std::io::Write::write_all(&mut stranger, b"PING\r\n").unwrap();
    let mut answer = Vec::new();
    // An alert of TLS may come, a reply never.
    stranger.read_to_end(&mut answer).unwrap_or_default();
    assert!(!answer.starts_with(b"+"), "{answer:?}");
    assert!(connect(server.addr, &client_config(&authority, None)).is_err());
    while server.node.stats.connections_open() > 0 {
        std::thread::yield_now();
    }
    assert_eq!(server.node.stats.totals().tls_handshakes_failed, 1);
}

#[test]
fn http_with_tls_is_served_like_http_without() {
    let authority = Authority::new("servers");
    let server = TestServer::start(&options(&mounted(&authority, &authority), ClientAuth::None));
    let config = client_config(&authority, None);
    let addr = server.api_tls_addr.unwrap();
    let mut secure = HttpClient::over(connect(addr, &config).unwrap().stream);
    let mut plain = HttpClient::connect(server.api_addr);
    assert_eq!(secure.put("/v1/keys/key", &[], b"with-tls").status, 204);
    assert_eq!(plain.ask("GET", "/v1/keys/key", &[]).body, b"with-tls");
    let large = vec![b'x'; 8 << 20];
    assert_eq!(secure.put("/v1/keys/large", &[], &large).status, 204);
    assert!(secure.ask("GET", "/v1/keys/large", &[]).body == large);
    assert_eq!(secure.ask("GET", "/v1/keys/none", &[]).problem(), "no-such-key");
    // Who speaks the other of the two on a port gets no answer there.
    let mut stranger = TcpStream::connect(addr).unwrap();
    std::io::Write::write_all(&mut stranger, b"GET /v1/keys/key HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stranger.read_to_end(&mut answer).unwrap_or_default();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert!(connect(server.api_addr, &config).is_err());
    let other = client_config(&Authority::new("servers"), None);
    assert!(connect(addr, &other).is_err());
    while server.node.stats.totals().tls_handshakes_failed < 2 {
        std::thread::yield_now();
    }
    assert_eq!(secure.ask("DELETE", "/v1/keys/key", &[]).status, 204);
}

#[test]
fn a_client_refuses_a_node_that_another_authority_signed() {
    let authority = Authority::new("servers");
    let server = TestServer::start(&options(&mounted(&authority, &authority), ClientAuth::None));
    let other = client_config(&Authority::new("servers"), None);
    let error = connect(server.tls_addr.unwrap(), &other).err().unwrap();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
}

/// What a client shows, and whether it gets in where that is optional, and where it is required.
#[test]
fn clients_show_certificates_as_the_node_wants() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let mounted = mounted(&servers, &clients);
    let (good, strange) = (clients.sign(&["app"]), Authority::new("clients").sign(&["app"]));
    for (auth, shown, gets_in) in [
        (ClientAuth::None, None, true),
        (ClientAuth::None, Some(&strange), true),
        (ClientAuth::Optional, None, true),
        (ClientAuth::Optional, Some(&good), true),
        (ClientAuth::Optional, Some(&strange), false),
        (ClientAuth::Required, None, false),
        (ClientAuth::Required, Some(&good), true),
        (ClientAuth::Required, Some(&strange), false),
    ] {
        let server = TestServer::start(&options(&mounted, auth));
        let config = client_config(&servers, shown);
        // With TLS 1.3 the client is through before the server has looked at its certificate.
        let answer =
            connect(server.tls_addr.unwrap(), &config).and_then(|mut client| client.try_ask(&[b"PING"]));
        let what = format!("{auth:?}, {}", shown.map_or("nothing", |_| "something"));
        assert_eq!(answer.is_ok_and(|line| line == b"+PONG\r\n"), gets_in, "{what}");
    }
}

#[test]
fn a_slow_handshake_is_ended_and_counts_while_it_lasts() {
    let authority = Authority::new("servers");
    let server = TestServer::start(&Options {
        clients_max: 2,
        ..options(&mounted(&authority, &authority), ClientAuth::None)
    });
    let addr = server.tls_addr.unwrap();
    let slow: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(addr).unwrap()).collect();
    while server.node.clients.len() < slow.len() {
        std::thread::yield_now();
    }
    let mut refused = server.connect();
    refused.expect("-ERR max number of clients reached\r\n");
    for mut stream in slow {
        stream
            .set_read_timeout(Some(HANDSHAKE_TIMEOUT + Duration::from_secs(5)))
            .unwrap();
        assert_eq!(
            stream.read_to_end(&mut Vec::new()).unwrap(),
            0,
            "closed without an answer"
        );
    }
    server.connect().check("PING", "+PONG\r\n");
    assert_eq!(server.node.stats.totals().tls_handshakes_failed, 2);
}

#[test]
fn a_node_that_ends_waits_for_no_handshake() {
    let authority = Authority::new("servers");
    let mut server = TestServer::start(&options(&mounted(&authority, &authority), ClientAuth::None));
    let _slow = TcpStream::connect(server.tls_addr.unwrap()).unwrap();
    while server.node.clients.is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(server.shutdown(HANDSHAKE_TIMEOUT / 2), 0);
}

/// Another member serves every slot.
struct Elsewhere {
    view: Arc<ClusterView>,
    address: Address,
}

impl Routing for Elsewhere {
    fn access(&self, _: Slot) -> Access {
        Access::Elsewhere
    }

    fn moved_to(&self, _: Slot) -> Option<Address> {
        Some(self.address.clone())
    }

    fn view(&self) -> Arc<ClusterView> {
        Arc::clone(&self.view)
    }
}

#[test]
fn each_client_is_sent_to_a_port_that_it_can_use() {
    let authority = Authority::new("servers");
    let mounted = mounted(&authority, &authority);
    // The ports of the member that serves the slot, and where clients without and with TLS are sent.
    for (client_port, client_tls_port, plain_port, secure_port) in [
        (6379, Some(6380), 6379, 6380),
        (6379, None, 6379, 6379),
        (0, Some(6380), 6380, 6380),
    ] {
        let address = Address {
            host: "b.example".to_owned(),
            client_host: None,
            client_port,
            client_tls_port,
            peer_port: 16_379,
        };
        let view = ClusterView::without_ring("test".parse().unwrap(), "a".parse().unwrap());
        let server = TestServer::start(&Options {
            routing: Arc::new(Elsewhere {
                view: Arc::new(view),
                address,
            }),
            ..options(&mounted, ClientAuth::None)
        });
        let moved = |port: u16| format!("-MOVED 12182 b.example:{port}\r\n");
        let mut secure = connect(server.tls_addr.unwrap(), &client_config(&authority, None)).unwrap();
        server.connect().check("GET foo", moved(plain_port));
        secure.check("GET foo", moved(secure_port));
        secure.check("MULTI", "+OK\r\n");
        secure.check("GET foo", moved(secure_port));
    }
}

#[test]
fn each_client_is_told_the_ports_that_it_can_use() {
    let authority = Authority::new("servers");
    let address = Address {
        host: "node.example".to_owned(),
        client_host: None,
        client_port: 6379,
        client_tls_port: Some(6380),
        peer_port: 16_379,
    };
    let routing = Standalone::new("test".parse().unwrap(), "node-0".parse().unwrap());
    let server = TestServer::start(&Options {
        routing: Arc::new(routing.announcing(Some(&address), None)),
        ..options(&mounted(&authority, &authority), ClientAuth::None)
    });
    let mut secure = connect(server.tls_addr.unwrap(), &client_config(&authority, None)).unwrap();
    let mut plain = server.connect();
    let own_ports = (server.addr.port(), server.tls_addr.unwrap().port());
    for (words, in_plain, in_secure) in [
        ("CLUSTER SLOTS", ":6379\r\n", ":6380\r\n"),
        (
            "CLUSTER NODES",
            "node.example:6379@16379",
            "node.example:6380@16379",
        ),
    ] {
        let (plain, secure) = (plain.ask(words), secure.ask(words));
        assert!(plain.contains(in_plain) && !plain.contains(in_secure), "{plain}");
        assert!(
            secure.contains(in_secure) && !secure.contains(in_plain),
            "{secure}"
        );
    }
    let both = "$4\r\nport\r\n:6379\r\n$8\r\ntls-port\r\n:6380\r\n";
    for shards in [plain.ask("CLUSTER SHARDS"), secure.ask("CLUSTER SHARDS")] {
        assert!(shards.contains(both), "{shards}");
    }
    let port = |port: u16| format!("${}\r\n{port}\r\n", port.to_string().len());
    let pair = |name: &str, value: u16| format!("*2\r\n${}\r\n{name}\r\n{}", name.len(), port(value));
    plain.check("CONFIG GET port", pair("port", own_ports.0));
    plain.check("CONFIG GET tls-port", pair("tls-port", 6380));
    secure.check("CONFIG GET tls-port", pair("tls-port", own_ports.1));
    secure.check("CONFIG GET port", pair("port", 6379));
    let secured = server.node.clients.all();
    let secured = secured
        .iter()
        .filter(|client| client.secure.load(Ordering::Relaxed));
    assert_eq!(secured.count(), 1);
}

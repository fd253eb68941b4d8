//! What goes over the socket, byte by byte.

mod support;

use std::io::Write;
use std::time::Duration;

use annulus_node::resp::Limits;
use annulus_node::server::BindError;
use support::{Client, Options, TestServer, encode};

#[test]
fn a_pipeline_is_answered_in_order_however_it_is_cut() {
    let server = TestServer::start(&Options::default());
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    for number in 0..50 {
        let value = format!("value-{number}");
        bytes.extend(encode(&[b"SET", b"key", value.as_bytes()]));
        bytes.extend(b"GET key\r\n");
        expected.extend(b"+OK\r\n");
        expected.extend(format!("${}\r\n{value}\r\n", value.len()).into_bytes());
    }
    for piece_len in [1, 7, 100, bytes.len()] {
        let mut client = server.connect();
        for piece in bytes.chunks(piece_len) {
            client.send(piece);
        }
        client.expect(&expected);
    }
}

#[test]
fn what_is_not_the_protocol_is_told_so_and_closed() {
    let server = TestServer::start(&Options::default());
    let long_line = vec![b'x'; 70_000];
    let table: [(&[u8], &str); 8] = [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*1048577\r\n", "invalid multibulk length"),
        (b"*1\r\n:4\r\n", "expected '$', got ':'"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$4\r\nPINGPING\r\n", "expected CRLF"),
        (b"set \"a\r\n", "unbalanced quotes in request"),
        (&long_line, "too big inline request"),
    ];
    for (bytes, error) in table {
        let mut client = server.connect();
        client.send(b"PING\r\n");
        client.send(bytes);
        client.expect("+PONG\r\n");
        assert_eq!(
            String::from_utf8_lossy(&client.rest()),
            format!("-ERR Protocol error: {error}\r\n")
        );
    }
    assert_eq!(server.node.stats.totals().protocol_errors, 8);
}

#[test]
fn strangers_get_tight_limits() {
    let server = TestServer::start(&Options {
        password: Some("sesame"),
        ..Options::default()
    });
    let table: [(&[u8], &str); 2] = [
        (
            b"*11\r\n",
            "-ERR Protocol error: unauthenticated multibulk length\r\n",
        ),
        (
            b"*1\r\n$16385\r\n",
            "-ERR Protocol error: unauthenticated bulk length\r\n",
        ),
    ];
    for (bytes, error) in table {
        let mut client = server.connect();
        client.send(bytes);
        assert_eq!(String::from_utf8_lossy(&client.rest()), error);
    }
    let mut client = server.connect();
    client.check("GET key", "-NOAUTH Authentication required.\r\n");
    client.check(
        "AUTH wrong",
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    );
    client.check(
        "AUTH other sesame",
        "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
    );
    client.check("AUTH default sesame", "+OK\r\n");
    client.check(
        "DEL a b c d e f g h i j k",
        "-CROSSSLOT Keys in request don't hash to the same slot\r\n",
    );
    client.check("RESET", "+RESET\r\n");
    client.check("GET key", "-NOAUTH Authentication required.\r\n");
    client.check("AUTH sesame", "+OK\r\n");
    client.check("GET key", "$-1\r\n");
    let mut client = server.connect();
    assert!(client.ask("HELLO 3").starts_with("-NOAUTH HELLO must be called"));
    assert!(
        client
            .ask("HELLO 3 AUTH default sesame SETNAME me")
            .starts_with("%7\r\n")
    );
    client.check("CLIENT GETNAME", "$2\r\nme\r\n");
}

#[test]
fn hello_says_what_clients_ask_for() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    let id = client.ask("CLIENT ID");
    let fields = |proto: u8| {
        format!(
            "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n$5\r\nproto\r\n:{proto}\r\n\
             $2\r\nid\r\n{id}$4\r\nmode\r\n$7\r\ncluster\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
        )
    };
    client.check("HELLO", format!("*14\r\n{}", fields(2)));
    client.check("HELLO 3", format!("%7\r\n{}", fields(3)));
    client.check("GET none", "_\r\n");
    client.check("HELLO 2", format!("*14\r\n{}", fields(2)));
    client.check("GET none", "$-1\r\n");
    client.check("HELLO 4", "-NOPROTO unsupported protocol version\r\n");
}

#[test]
fn replies_can_be_turned_off() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.send(b"CLIENT REPLY SKIP\r\nPING lost\r\nPING one\r\nCLIENT REPLY OFF\r\nPING lost\r\nFOO\r\n");
    client.send(b"CLIENT REPLY SKIP\r\nPING lost\r\nPING lost\r\nCLIENT REPLY ON\r\nPING two\r\n");
    client.expect("$3\r\none\r\n+OK\r\n$3\r\ntwo\r\n");
}

#[test]
fn quit_and_half_closed_connections_still_get_their_replies() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.send(b"PING\r\nQUIT\r\nPING\r\n");
    assert_eq!(client.rest(), b"+PONG\r\n+OK\r\n");
    let mut client = server.connect();
    client.send(b"SET key value\r\nGET key\r\nGET ke");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"+OK\r\n$5\r\nvalue\r\n");
}

#[test]
fn a_client_that_does_not_read_is_not_executed_for() {
    let server = TestServer::start(&Options {
        budget_bytes: 256 << 20,
        ..Options::default()
    });
    let mut client = server.connect();
    let value = vec![b'x'; 1 << 20];
    client.send(encode(&[b"SET", b"key", &value]));
    client.expect("+OK\r\n");
    let gets = 200;
    for _ in 0..gets {
        client.send(b"GET key\r\n");
    }
    // The replies are 200 MiB; what is executed ahead of the reader is a small part of that.
    let reply = [format!("${}\r\n", value.len()).as_bytes(), &value, b"\r\n"].concat();
    client.expect(&reply);
    let executed = server.node.stats.totals().commands_processed;
    assert!(
        executed < 60,
        "{executed} commands were executed for a client that had read one reply"
    );
    for _ in 1..gets {
        client.expect(&reply);
    }
}

#[test]
fn a_pipeline_that_is_written_before_it_is_read_gets_through() {
    let server = TestServer::start(&Options {
        budget_bytes: 256 << 20,
        ..Options::default()
    });
    let mut client = server.connect();
    let value = vec![b'x'; 10_000];
    client.send(encode(&[b"SET", b"key", &value]));
    client.expect("+OK\r\n");
    // 4 MB of commands and 20 MB of replies: more than both sockets hold, and more than the node prepares.
    let gets = 2_000;
    let padding = "x".repeat(2_000);
    let command = encode(&[b"MGET", b"key", format!("{{key}}{padding}").as_bytes()]);
    client.stream.write_all(&command.repeat(gets)).unwrap();
    let reply = [
        format!("*2\r\n${}\r\n", value.len()).as_bytes(),
        &value,
        b"\r\n$-1\r\n",
    ]
    .concat();
    for _ in 0..gets {
        client.expect(&reply);
    }
}

#[test]
fn a_large_value_comes_and_goes_in_pieces() {
    let server = TestServer::start(&Options::default());
    let mut client = server.connect();
    let value: Vec<u8> = (0..20_000_000u32).map(|number| (number % 251) as u8).collect();
    let sent = value.clone();
    let mut writer = client.stream.try_clone().unwrap();
    let thread = std::thread::spawn(move || {
        for piece in encode(&[b"SET", b"key", &sent]).chunks(100_000) {
            writer.write_all(piece).unwrap();
        }
    });
    client.expect("+OK\r\n");
    thread.join().unwrap();
    client.command("GET key");
    assert_eq!(client.reply()[11..][..value.len()], value);
    client.check("STRLEN key", format!(":{}\r\n", value.len()));
}

#[test]
fn a_claimed_length_takes_no_memory() {
    let server = TestServer::start(&Options::default());
    let mut clients: Vec<Client> = (0..50).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send(format!(
            "*{}\r\n${}\r\nabc",
            Limits::ARGS_MAX,
            Limits::BULK_BYTES_MAX_DEFAULT
        ));
    }
    let mut other = server.connect();
    for line in other
        .ask("CLIENT LIST")
        .lines()
        .filter(|line| line.contains("id="))
    {
        let memory = line
            .split(' ')
            .find_map(|field| field.strip_prefix("tot-mem="))
            .unwrap();
        assert!(memory.parse::<usize>().unwrap() < 100_000, "{line}");
    }
}

#[test]
fn there_are_no_more_clients_than_allowed() {
    let server = TestServer::start(&Options {
        clients_max: 2,
        ..Options::default()
    });
    let (mut first, mut second) = (server.connect(), server.connect());
    first.check("PING", "+PONG\r\n");
    second.check("PING", "+PONG\r\n");
    let mut third = server.connect();
    assert_eq!(third.rest(), b"-ERR max number of clients reached\r\n");
    second.send(b"QUIT\r\n");
    second.rest();
    // The place is free once the server has noticed.
    let mut again = loop {
        let mut again = server.connect();
        again.stream.write_all(b"PING\r\n").unwrap();
        if again.reply() == b"+PONG\r\n" {
            break again;
        }
    };
    again.check("CLIENT KILL ID 1", ":1\r\n");
    assert_eq!(first.rest(), b"");
    assert!(server.node.stats.totals().connections_rejected >= 1);
}

#[test]
fn clients_see_and_end_each_other() {
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    let (mut first, mut second) = (server.connect(), server.connect());
    first.check("CLIENT SETNAME one", "+OK\r\n");
    second.check("CLIENT SETINFO LIB-NAME lib", "+OK\r\n");
    let addr = first.stream.local_addr().unwrap();
    let list = second.ask("CLIENT LIST");
    assert!(
        list.contains(&format!("addr={addr} laddr={} fd=", server.addr)) && list.contains(" name=one "),
        "{list}"
    );
    assert!(
        list.contains("lib-name=lib") && list.contains("cmd=client|list"),
        "{list}"
    );
    second.check(&format!("CLIENT KILL ADDR {addr}"), ":1\r\n");
    assert_eq!(first.rest(), b"");
    second.check("CLIENT KILL SKIPME yes", ":0\r\n");
    second.check("CLIENT KILL SKIPME no", ":1\r\n");
    assert_eq!(second.rest(), b"");
}

#[test]
fn shutdown_answers_what_has_arrived() {
    let mut server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    let mut idle: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    for client in &mut idle {
        client.check("PING", "+PONG\r\n");
    }
    idle[0].send(b"PING last\r\n");
    assert_eq!(server.shutdown(Duration::from_secs(5)), 0);
    assert_eq!(idle[0].rest(), b"$4\r\nlast\r\n");
    for client in &mut idle[1..] {
        assert_eq!(client.rest(), b"");
    }
    assert!(std::net::TcpStream::connect(server.addr).is_err());
}

#[test]
fn shutdown_cuts_off_who_does_not_read() {
    let mut server = TestServer::start(&Options::default());
    let mut client = server.connect();
    client.send(encode(&[b"SET", b"key", &vec![b'x'; 8 << 20]]));
    client.expect("+OK\r\n");
    client.send(b"GET key\r\n".repeat(20));
    client.expect("$8388608\r\nx");
    assert_eq!(server.shutdown(Duration::from_millis(100)), 1);
}

#[test]
fn a_port_is_not_shared_with_another_node() {
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    let options = annulus_node::server::ServerOptions {
        addr: Some(server.addr),
        tls: None,
        api: annulus_node::server::ApiOptions::default(),
        threads: std::num::NonZeroUsize::new(2).unwrap(),
    };
    let other = annulus_node::server::Server::bind(options, support::node(&Options::default()));
    let Err(BindError::Listen(_, error)) = other else {
        panic!("two nodes share a port");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn silent_clients_are_ended_when_a_timeout_is_set() {
    let server = TestServer::start(&Options::default());
    let mut silent = server.connect();
    silent.check("PING", "+PONG\r\n");
    silent.check("CONFIG SET timeout 1", "+OK\r\n");
    assert_eq!(silent.rest(), b"");
}

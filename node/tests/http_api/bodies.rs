//! Large values, chunked ones, and those that nobody reads.

use std::io::Write;

use crate::support::http::HttpClient;
use crate::support::{Options, TestServer};

const MIB: usize = 1 << 20;

fn large(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn a_value_of_64_mib_goes_in_and_out() {
    let server = TestServer::start(&Options {
        budget_bytes: 512 << 20,
        ..Options::default()
    });
    let mut http = HttpClient::connect(server.api_addr);
    let value = large(64 * MIB);
    let put = http.put("/v1/keys/large", &[], &value);
    assert_eq!(put.status, 204);
    let got = http.ask("GET", "/v1/keys/large", &[]);
    assert_eq!(got.status, 200);
    assert!(got.body == value);
    assert_eq!(got.tag(), put.tag());
    let range = http.ask("GET", "/v1/keys/large", &["Range: bytes=67000000-67000099"]);
    assert!(range.body == value[67_000_000..67_000_100]);
    let condition = format!("If-Match: {}", put.tag());
    assert_eq!(http.put("/v1/keys/large", &[&condition], b"small").status, 204);
    assert_eq!(http.ask("GET", "/v1/keys/large", &[]).body, b"small");
    // Whatever was held is given back.
    assert_eq!(server.node.store.connection_bytes(), 0);
}

#[test]
fn what_a_request_holds_is_charged_and_bounded() {
    let server = TestServer::start(&Options {
        budget_bytes: 16 << 20,
        ..Options::default()
    });
    let mut http = HttpClient::connect(server.api_addr);
    // Longer than the budget: refused before all of it has come, or as an entry.
    let value = large(40 * MIB);
    http.send_head(
        "PUT",
        "/v1/keys/large",
        &[&format!("Content-Length: {}", value.len())],
    );
    for piece in value.chunks(MIB) {
        if http.try_send(piece).is_err() {
            break;
        }
    }
    let response = http.receive(false);
    assert_eq!((response.status, response.problem().as_str()), (503, "no-room"));
    drop(http);

    let mut http = HttpClient::connect(server.api_addr);
    let response = http.put("/v1/keys/large", &[], &value[..16 * MIB]);
    assert_eq!((response.status, response.problem().as_str()), (413, "too-large"));
    let mut http = HttpClient::connect(server.api_addr);
    assert_eq!(http.ask("GET", "/v1/keys/large", &[]).status, 404);
    assert_eq!(server.node.store.connection_bytes(), 0);
}

#[test]
fn a_value_may_come_in_chunks_of_unknown_number() {
    let server = TestServer::start(&Options::default());
    let mut http = HttpClient::connect(server.api_addr);
    let value = large(3 * MIB + 17);
    for lines in [&[][..], &["If-None-Match: \"x\""], &["If-Match: *"]] {
        http.send_head(
            "PUT",
            "/v1/keys/k?ttl_ms=100000",
            &[&["Transfer-Encoding: chunked"], lines].concat(),
        );
        for piece in value.chunks(100_001) {
            http.send(format!("{:x}\r\n", piece.len()).as_bytes());
            http.send(piece);
            http.send(b"\r\n");
        }
        http.send(b"0\r\n\r\n");
        assert_eq!(http.receive(false).status, 204);
        assert!(http.ask("GET", "/v1/keys/k", &[]).body == value);
    }
    // Nothing at all is a value too.
    http.send_head("PUT", "/v1/keys/empty", &["Transfer-Encoding: chunked"]);
    http.send(b"0\r\n\r\n");
    assert_eq!(http.receive(false).status, 204);
    http.ask("PUT", "/v1/keys/empty2", &[]);
    for key in ["empty", "empty2"] {
        let got = http.ask("GET", &format!("/v1/keys/{key}"), &[]);
        assert_eq!((got.status, got.body.len()), (200, 0));
    }
    assert_eq!(
        http.ask("GET", "/v1/keys/empty", &["Range: bytes=0-"]).status,
        416
    );
}

#[test]
fn a_body_that_breaks_off_changes_nothing() {
    let server = TestServer::start(&Options::default());
    let mut redis = server.connect();
    redis.check("SET k old", "+OK\r\n");
    for half in [
        "PUT /v1/keys/k HTTP/1.1\r\nHost: n\r\nContent-Length: 10\r\n\r\nnew",
        "PUT /v1/keys/k HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nnew\r\n",
    ] {
        let mut http = std::net::TcpStream::connect(server.api_addr).unwrap();
        http.write_all(half.as_bytes()).unwrap();
        http.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut http, &mut rest).unwrap();
        redis.check("GET k", "$3\r\nold\r\n");
    }
    let mut http = HttpClient::connect(server.api_addr);
    http.send_head("PUT", "/v1/keys/k", &["Transfer-Encoding: chunked"]);
    http.send(b"zz\r\nnew\r\n0\r\n\r\n");
    assert_eq!(http.receive(false).status, 400);
    redis.check("GET k", "$3\r\nold\r\n");
}

#[test]
fn a_body_is_asked_for_only_when_it_is_wanted() {
    let server = TestServer::start(&Options {
        password: Some("sesame"),
        ..Options::default()
    });
    let expect = ["Content-Length: 3", "Expect: 100-continue"];
    let mut stranger = HttpClient::connect(server.api_addr);
    stranger.send_head("PUT", "/v1/keys/k", &expect);
    assert_eq!(stranger.receive(false).status, 401);
    assert!(stranger.is_over());

    let mut known = HttpClient::connect(server.api_addr);
    known.authorization = Some("Basic ZGVmYXVsdDpzZXNhbWU=".to_owned());
    known.send_head("PUT", "/v1/keys/k", &expect);
    assert_eq!(known.receive(false).status, 100);
    known.send(b"new");
    assert_eq!(known.receive(false).status, 204);
    known.send_head(
        "PUT",
        "/v1/keys/k",
        &[&expect[..], &["If-None-Match: *"]].concat(),
    );
    // Decided with the write alone.
    assert_eq!(known.receive(false).status, 100);
    known.send(b"new");
    assert_eq!(known.receive(false).status, 412);
    known.send_head("PUT", "/v1/keys/k", &[&expect[..], &["If-Match: \"x\""]].concat());
    assert_eq!(known.receive(false).status, 412);
    assert!(known.is_over());
}

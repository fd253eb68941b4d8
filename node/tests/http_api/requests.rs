//! Requests one by one: what is asked, and what comes back.

use crate::support::http::HttpClient;
use crate::support::{Options, TestServer};

#[test]
fn a_value_is_put_read_and_deleted() {
    let server = TestServer::start(&Options::default());
    let mut http = HttpClient::connect(server.api_addr);
    let mut redis = server.connect();

    assert_eq!(http.ask("GET", "/v1/keys/k", &[]).problem(), "no-such-key");
    let put = http.put("/v1/keys/k", &[], b"hello");
    assert_eq!((put.status, put.body.len()), (204, 0));
    redis.check("GET k", "$5\r\nhello\r\n");

    let got = http.ask("GET", "/v1/keys/k", &[]);
    assert_eq!((got.status, &got.body[..]), (200, &b"hello"[..]));
    assert_eq!(got.tag(), put.tag());
    for (name, value) in [
        ("content-type", Some("application/octet-stream")),
        ("content-length", Some("5")),
        ("accept-ranges", Some("bytes")),
        ("x-content-type-options", Some("nosniff")),
        ("cache-control", Some("private, no-cache")),
        ("annulus-ttl-ms", None),
    ] {
        assert_eq!(got.header(name), value, "{name}");
    }

    let head = http.ask("HEAD", "/v1/keys/k", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    assert_eq!(head.tag(), got.tag());

    assert_eq!(http.ask("DELETE", "/v1/keys/k", &[]).status, 204);
    assert_eq!(http.ask("DELETE", "/v1/keys/k", &[]).problem(), "no-such-key");
    let head = http.ask("HEAD", "/v1/keys/k", &[]);
    assert_eq!(head.status, 404);
    // The connection is still in step.
    assert_eq!(http.ask("GET", "/v1/keys/k", &[]).status, 404);
    redis.check("EXISTS k", ":0\r\n");
}

#[test]
fn statuses_and_problems() {
    let server = TestServer::start(&Options::default());
    let mut redis = server.connect();
    redis.check("HSET hash f v", ":1\r\n");
    redis.check("SET k v", "+OK\r\n");
    redis.check("SET number 42", "+OK\r\n");
    let table: [(&str, &str, u16, &str); 21] = [
        ("GET", "/v1/keys/hash", 409, "wrong-type"),
        ("GET", "/", 404, "no-such-path"),
        ("GET", "/v1/keys", 404, "no-such-path"),
        ("POST", "/v2", 404, "no-such-path"),
        ("GET", "/v1/keys/", 400, "bad-request"),
        ("GET", "/v1/keys/%", 400, "bad-request"),
        ("GET", "/v1/keys/%zz", 400, "bad-request"),
        ("GET", "/v1/keys/k?ttl_ms=1", 400, "bad-request"),
        ("GET", "/v1/keys/k?x", 400, "bad-request"),
        ("DELETE", "/v1/keys/k?ttl_ms=1", 400, "bad-request"),
        ("PUT", "/v1/keys/k?ttl=1", 400, "bad-request"),
        ("PUT", "/v1/keys/k?ttl_ms=0", 400, "bad-request"),
        ("POST", "/v1/keys/k", 405, "method-not-allowed"),
        ("PATCH", "/v1/keys/k", 405, "method-not-allowed"),
        ("OPTIONS", "/v1/keys/k", 405, "method-not-allowed"),
        ("PUT", "/v1/groups/g/k", 405, "method-not-allowed"),
        ("DELETE", "/v1/openapi.json", 405, "method-not-allowed"),
        ("GET", "/v1/groups/g/k", 404, "no-such-group"),
        ("GET", "/v1/groups/g", 404, "no-such-path"),
        ("GET", "/v1/groups/g/", 400, "bad-request"),
        ("GET", "/v1/openapi.json?x=1", 400, "bad-request"),
    ];
    let mut http = HttpClient::connect(server.api_addr);
    for (method, target, status, problem) in table {
        let response = http.ask(method, target, &[]);
        assert_eq!(
            (response.status, response.problem().as_str()),
            (status, problem),
            "{method} {target}"
        );
        let allow = response.header("allow");
        match status {
            405 if target.starts_with("/v1/keys") => assert_eq!(allow, Some("GET, HEAD, PUT, DELETE")),
            405 => assert_eq!(allow, Some("GET, HEAD")),
            _ => assert_eq!(allow, None),
        }
    }
    assert_eq!(http.ask("GET", "/v1/keys/number", &[]).body, b"42");
    // What isn't HTTP, or too much of it, is refused before anybody looks at it.
    let long = format!(
        "GET /v1/keys/{} HTTP/1.1\r\nHost: n\r\n\r\n",
        "k".repeat(80 << 10)
    );
    for (head, status) in [
        ("GET  HTTP/1.1\r\n\r\n", 400),
        ("GET /v1/keys/k HTTP/1.1\r\nHost : n\r\n\r\n", 400),
        (
            "PUT /v1/keys/k HTTP/1.1\r\nHost: n\r\nContent-Length: 1, 2\r\n\r\n",
            400,
        ),
        (
            "PUT /v1/keys/k HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            400,
        ),
        (
            "PUT /v1/keys/k HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked, x\r\n\r\n",
            400,
        ),
        (&long, 414),
    ] {
        let mut http = HttpClient::connect(server.api_addr);
        http.send(head.as_bytes());
        assert_eq!(
            http.receive(false).status,
            status,
            "{}",
            &head[..head.len().min(100)]
        );
        assert!(http.is_over());
    }
    redis.check("GET k", "$1\r\nv\r\n");
}

#[test]
fn any_bytes_may_be_a_key() {
    let server = TestServer::start(&Options::default());
    let mut http = HttpClient::connect(server.api_addr);
    let mut redis = server.connect();
    for (path, key) in [
        ("a%2Fb", &b"a/b"[..]),
        ("a/b", b"a/b"),
        ("..", b".."),
        ("%00%FF%0D%0A%2525", b"\0\xff\r\n%25"),
        ("a+b%20c", b"a+b c"),
        ("user:42;x=y@z", b"user:42;x=y@z"),
    ] {
        let target = format!("/v1/keys/{path}");
        assert_eq!(http.put(&target, &[], path.as_bytes()).status, 204);
        redis.send(crate::support::encode(&[b"GETDEL", key]));
        redis.expect(format!("${}\r\n{path}\r\n", path.len()));
        assert_eq!(http.ask("GET", &target, &[]).status, 404);
    }
    let long = "k".repeat(32 << 10);
    assert_eq!(http.put(&format!("/v1/keys/{long}"), &[], b"v").status, 204);
    assert_eq!(redis.ask(&format!("GET {long}")), "$1\r\nv\r\n");
}

#[test]
fn a_time_to_live_is_asked_for_and_told() {
    let server = TestServer::start(&Options::default());
    let mut http = HttpClient::connect(server.api_addr);
    let mut redis = server.connect();
    assert_eq!(http.put("/v1/keys/k?ttl_ms=90500", &[], b"v").status, 204);
    let got = http.ask("GET", "/v1/keys/k", &[]);
    let ttl_ms: u64 = got.header("annulus-ttl-ms").unwrap().parse().unwrap();
    assert!((60_000..=90_500).contains(&ttl_ms), "{ttl_ms}");
    let max_age = got
        .header("cache-control")
        .unwrap()
        .strip_prefix("private, max-age=");
    assert_eq!(max_age.unwrap().parse(), Ok(ttl_ms / 1000));
    assert_eq!(http.put("/v1/keys/k", &[], b"v").status, 204);
    redis.check("TTL k", ":-1\r\n");
    assert_eq!(
        http.put("/v1/keys/k?ttl_ms=9007199254740991", &[], b"v").status,
        204
    );
    assert_eq!(http.ask("GET", "/v1/keys/k", &[]).status, 200);
}

#[test]
fn a_connection_is_a_client_among_the_others() {
    let server = TestServer::start(&Options {
        clients_max: 3,
        ..Options::default()
    });
    let mut redis = server.connect();
    redis.check("PING", "+PONG\r\n");
    let mut http = HttpClient::connect(server.api_addr);
    assert_eq!(http.put("/v1/keys/k", &[], b"v").status, 204);
    let list = redis.ask("CLIENT LIST");
    let line = list.lines().find(|line| line.contains("cmd=set")).expect(&list);
    let id = line
        .split(' ')
        .next()
        .unwrap()
        .split('=')
        .nth(1)
        .unwrap()
        .to_owned();

    let mut third = HttpClient::connect(server.api_addr);
    assert_eq!(third.ask("GET", "/v1/keys/k", &[]).status, 200);
    let mut refused = HttpClient::connect(server.api_addr);
    let response = refused.receive(false);
    assert_eq!(
        (response.status, response.header("retry-after")),
        (503, Some("1"))
    );

    assert_eq!(redis.ask(&format!("CLIENT KILL ID {id}")), ":1\r\n");
    assert!(http.is_over());
}

#[test]
fn a_server_that_stops_answers_what_it_has_received() {
    let mut server = TestServer::start(&Options::default());
    let mut idle = HttpClient::connect(server.api_addr);
    assert_eq!(idle.ask("GET", "/v1/keys/k", &[]).status, 404);
    let mut half = HttpClient::connect(server.api_addr);
    half.send_head(
        "PUT",
        "/v1/keys/k",
        &["Content-Length: 3", "Expect: 100-continue"],
    );
    assert_eq!(half.receive(false).status, 100);
    half.send(b"ab");
    let cut_off = server.shutdown(std::time::Duration::from_millis(300));
    assert_eq!(cut_off, 1, "the one that is in the middle of a body");
    assert!(idle.is_over());
}

//! Conditions and ranges.

use crate::support::http::HttpClient;
use crate::support::{Options, TestServer};

#[test]
fn whoever_has_the_value_is_told_so() {
    let server = TestServer::start(&Options::default());
    let mut http = HttpClient::connect(server.api_addr);
    let tag = http.put("/v1/keys/k?ttl_ms=90000", &[], b"hello").tag();
    for (line, status) in [
        (format!("If-None-Match: {tag}"), 304),
        (format!("If-None-Match: W/{tag}"), 304),
        (format!("If-None-Match: \"x\", {tag}"), 304),
        ("If-None-Match: *".to_owned(), 304),
        ("If-None-Match: \"x\"".to_owned(), 200),
        (format!("If-Match: {tag}"), 200),
        ("If-Match: *".to_owned(), 200),
        ("If-Match: \"x\"".to_owned(), 412),
        (format!("If-Match: W/{tag}"), 412),
        ("If-None-Match: x".to_owned(), 400),
    ] {
        for method in ["GET", "HEAD"] {
            let response = http.ask(method, "/v1/keys/k", &[&line]);
            assert_eq!(response.status, status, "{method} {line}");
            if status == 304 {
                assert_eq!(response.tag(), tag);
                assert!(response.header("annulus-ttl-ms").is_some());
                assert!(
                    response
                        .header("cache-control")
                        .unwrap()
                        .starts_with("private, max-age=")
                );
            }
        }
    }
    assert_eq!(http.ask("GET", "/v1/keys/none", &["If-Match: *"]).status, 412);
    assert_eq!(
        http.ask("GET", "/v1/keys/none", &["If-None-Match: *"]).status,
        404
    );
}

#[test]
fn changes_are_made_under_conditions() {
    let server = TestServer::start(&Options::default());
    let mut http = HttpClient::connect(server.api_addr);
    let target = "/v1/keys/k";
    // Nothing there yet.
    assert_eq!(
        http.put(target, &["If-Match: *"], b"1").problem(),
        "precondition-failed"
    );
    assert_eq!(http.put(target, &["If-Match: \"x\""], b"1").status, 412);
    assert_eq!(http.ask("DELETE", target, &["If-Match: *"]).status, 412);
    assert_eq!(http.ask("DELETE", target, &["If-None-Match: *"]).status, 404);
    assert_eq!(http.ask("DELETE", target, &["If-None-Match: \"x\""]).status, 404);
    assert_eq!(http.put(target, &["If-None-Match: *"], b"1").status, 201);
    assert_eq!(http.put(target, &["If-None-Match: *"], b"2").status, 412);
    let one = http.ask("GET", target, &[]);
    assert_eq!(one.body, b"1");

    let if_one = format!("If-Match: {}", one.tag());
    let two = http.put("/v1/keys/k?ttl_ms=90000", &[&if_one], b"2");
    assert_eq!(two.status, 204);
    assert!(http.ask("GET", target, &[]).header("annulus-ttl-ms").is_some());
    assert_eq!(http.put(target, &[&if_one], b"3").status, 412);
    assert_eq!(http.ask("DELETE", target, &[&if_one]).status, 412);
    assert_eq!(http.ask("GET", target, &[]).tag(), two.tag());
    assert_eq!(http.put(target, &["If-Match: *"], b"3").status, 204);

    let three = http.ask("GET", target, &[]).tag();
    let unless_three = format!("If-None-Match: {three}");
    assert_eq!(http.put(target, &[&unless_three], b"4").status, 412);
    assert_eq!(http.ask("DELETE", target, &[&unless_three]).status, 412);
    assert_eq!(http.put(target, &["If-None-Match: \"x\""], b"4").status, 204);
    assert_eq!(
        http.put("/v1/keys/new", &["If-None-Match: \"x\""], b"4").status,
        204
    );
    assert_eq!(http.ask("DELETE", target, &["If-None-Match: \"x\""]).status, 204);
    let five = http.put(target, &[], b"5").tag();
    let if_either = format!("If-Match: \"x\", {five}");
    assert_eq!(http.ask("DELETE", target, &[&if_either]).status, 204);
    assert_eq!(http.ask("GET", target, &[]).status, 404);
}

#[test]
fn of_many_who_change_the_same_value_none_is_lost() {
    const CLIENTS: usize = 8;
    const CHANGES: usize = 50;
    let server = TestServer::start(&Options {
        threads: 2,
        ..Options::default()
    });
    HttpClient::connect(server.api_addr).put("/v1/keys/sum", &[], b"0");
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut http = HttpClient::connect(server.api_addr);
                let mut done = 0;
                while done < CHANGES {
                    let now = http.ask("GET", "/v1/keys/sum", &[]);
                    let sum: usize = std::str::from_utf8(&now.body).unwrap().parse().unwrap();
                    let condition = format!("If-Match: {}", now.tag());
                    let next = (sum + 1).to_string();
                    match http.put("/v1/keys/sum", &[&condition], next.as_bytes()).status {
                        204 => done += 1,
                        status => assert_eq!(status, 412),
                    }
                }
            });
        }
    });
    let sum = HttpClient::connect(server.api_addr)
        .ask("GET", "/v1/keys/sum", &[])
        .body;
    assert_eq!(sum, (CLIENTS * CHANGES).to_string().into_bytes());
}

#[test]
fn ranges() {
    type Row<'a> = (&'a [&'a str], u16, Option<&'a str>, &'a [u8]);
    let server = TestServer::start(&Options::default());
    let mut http = HttpClient::connect(server.api_addr);
    let tag = http.put("/v1/keys/k", &[], b"0123456789").tag();
    let same = format!("If-Range: {tag}");
    let not_match = format!("If-None-Match: {tag}");
    let table: [Row<'_>; 9] = [
        (&["Range: bytes=2-4"], 206, Some("bytes 2-4/10"), b"234"),
        (&["Range: bytes=7-"], 206, Some("bytes 7-9/10"), b"789"),
        (&["Range: bytes=-2"], 206, Some("bytes 8-9/10"), b"89"),
        (&["Range: bytes=0-0,2-2"], 200, None, b"0123456789"),
        (&["Range: lines=1-2"], 200, None, b"0123456789"),
        (&["Range: bytes=2-4", &same], 206, Some("bytes 2-4/10"), b"234"),
        (&["Range: bytes=2-4", "If-Range: \"x\""], 200, None, b"0123456789"),
        (
            &["Range: bytes=50-60", "If-Range: \"x\""],
            200,
            None,
            b"0123456789",
        ),
        (&["Range: bytes=2-4", &not_match], 304, None, b""),
    ];
    for (lines, status, content_range, body) in table {
        let response = http.ask("GET", "/v1/keys/k", lines);
        assert_eq!(response.status, status, "{lines:?}");
        assert_eq!(response.header("content-range"), content_range, "{lines:?}");
        assert_eq!(response.body, body, "{lines:?}");
    }
    let beyond = http.ask("GET", "/v1/keys/k", &["Range: bytes=10-"]);
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */10"))
    );
    assert_eq!(beyond.problem(), "range-not-satisfiable");
    // Ranges are of GET alone, and a value is put as a whole.
    let head = http.ask("HEAD", "/v1/keys/k", &["Range: bytes=2-4"]);
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    assert_eq!(
        http.put("/v1/keys/k", &["Content-Range: bytes 0-0/10"], b"x")
            .status,
        400
    );
}

//! A client that speaks HTTP/1.1 by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What came back.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    #[track_caller]
    pub fn tag(&self) -> String {
        self.header("etag").expect("a response with a tag").to_owned()
    }

    /// The last part of a problem's type.
    #[track_caller]
    pub fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(body["status"], self.status);
        assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
        let kind = body["type"]
            .as_str()
            .unwrap()
            .strip_prefix("tag:annulus.dev,2026:http/");
        kind.unwrap().to_owned()
    }
}

/// A connection.
pub struct HttpClient<S: Read + Write = TcpStream> {
    stream: BufReader<S>,
    /// Sent with each request.
    pub authorization: Option<String>,
}

impl HttpClient {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> HttpClient<S> {
    pub fn over(stream: S) -> Self {
        Self {
            stream: BufReader::new(stream),
            authorization: None,
        }
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    /// The same, where nobody may want them any more.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends a head, with these lines, each `Name: value`.
    pub fn send_head(&mut self, method: &str, target: &str, lines: &[&str]) {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: node\r\n");
        if let Some(authorization) = &self.authorization {
            head.extend(["Authorization: ", authorization, "\r\n"]);
        }
        for line in lines {
            head.push_str(line);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.send(head.as_bytes());
    }

    /// A request without a body.
    #[track_caller]
    pub fn ask(&mut self, method: &str, target: &str, lines: &[&str]) -> Response {
        self.send_head(method, target, lines);
        self.receive(method == "HEAD")
    }

    /// A request with one.
    #[track_caller]
    pub fn put(&mut self, target: &str, lines: &[&str], body: &[u8]) -> Response {
        let length = format!("Content-Length: {}", body.len());
        self.send_head("PUT", target, &[&[length.as_str()], lines].concat());
        self.send(body);
        self.receive(false)
    }

    /// Reads a response; to `HEAD` there is no body.
    #[track_caller]
    pub fn receive(&mut self, is_head: bool) -> Response {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            assert!(line.ends_with("\r\n"), "cut off behind {lines:?}: {line:?}");
            if line == "\r\n" {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let status: u16 = lines[0].split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines[1..].iter().map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        });
        let mut response = Response {
            status,
            headers: headers.collect(),
            body: Vec::new(),
        };
        if status == 100 {
            return response;
        }
        if !is_head && status != 204 && status != 304 {
            let len = response
                .header("content-length")
                .expect("a length")
                .parse()
                .unwrap();
            response.body.resize(len, 0);
            self.stream.read_exact(&mut response.body).unwrap();
        }
        response
    }

    /// Whether the connection has ended, with nothing more to read.
    pub fn is_over(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        let is_reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        read.as_ref().is_ok_and(|_| rest.is_empty()) || read.as_ref().is_err_and(is_reset)
    }
}

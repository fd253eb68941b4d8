//! Who sends or takes nothing any more is not waited for.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::mpsc;

use super::problem::Problem;
use super::protocol;
use super::socket::Socket;
use super::upload::Upload;
use crate::clients::Clients;
use crate::stats::Stats;

/// Nobody who is in time is that late.
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_mins(10);

/// Serves one connection by which `request` comes, and then nothing; returns what came of reading its body, where there is
/// one, and what was answered until the connection ended.
async fn outcome_of(
    request: &[u8],
    head: Duration,
    body: Duration,
) -> (Option<Result<usize, Problem>>, String) {
    let (mut client, server) = duplex(1 << 20);
    let (tell, mut told) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Incoming>| {
        let tell = tell.clone();
        async move {
            let mut upload = Upload::with_patience(request.into_body(), body);
            let mut bytes = 0;
            let outcome = loop {
                match upload.next().await {
                    Ok(Some(piece)) => bytes += piece.len(),
                    Ok(None) => break Ok(bytes),
                    Err(problem) => break Err(problem),
                }
            };
            tell.send(outcome).unwrap();
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let serving = tokio::spawn(protocol(head).serve_connection(TokioIo::new(server), service));
    client.write_all(request).await.unwrap();
    let outcome = if head == LONG { told.recv().await } else { None };
    if head == LONG {
        client.shutdown().await.unwrap();
    }
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    // Whether it calls that an error is its own affair.
    drop(serving.await.unwrap());
    (outcome, answer)
}

#[tokio::test]
async fn a_head_that_doesnt_come_ends_the_connection() {
    for request in [&b""[..], b"GET /v1/keys/a HTTP/1.1\r\nHost: no"] {
        let (outcome, answer) = outcome_of(request, SHORT, LONG).await;
        assert!(outcome.is_none());
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_doesnt_come_is_given_up() {
    let request = |body: &str| {
        format!("PUT /v1/keys/a HTTP/1.1\r\nHost: node\r\nContent-Length: 10\r\n\r\n{body}").into_bytes()
    };
    let (outcome, _) = outcome_of(&request("01234"), LONG, SHORT).await;
    assert_eq!(outcome.unwrap().unwrap_err().status, 408);
    let (outcome, _) = outcome_of(&request("0123456789"), LONG, LONG).await;
    assert_eq!(outcome.unwrap().unwrap(), 10);
}

#[tokio::test]
async fn whoever_takes_nothing_loses_the_answer() {
    let (stats, clients) = (Stats::new(1), Clients::default());
    for (patience, takes) in [(SHORT, false), (LONG, true)] {
        let (server, mut client) = duplex(16);
        let (of_thread, known) = (stats.register_thread(), clients.of_peer(0));
        let mut socket = Socket::with_patience(server, known, Arc::clone(&of_thread), patience);
        let writing = tokio::spawn(async move { socket.write_all(&[b'x'; 100]).await });
        if takes {
            let mut taken = [0; 100];
            client.read_exact(&mut taken).await.unwrap();
            writing.await.unwrap().unwrap();
            assert_eq!(of_thread.net_output_bytes.get(), 100);
        } else {
            let error = writing.await.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TimedOut);
            assert_eq!(of_thread.net_output_bytes.get(), 16);
        }
    }
}

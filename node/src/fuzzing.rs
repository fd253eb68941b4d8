//! What the fuzz targets check, shared with a property test that runs it on every build.

mod ring;

use std::sync::{Arc, OnceLock};

pub use ring::{ring_document, ring_documents};

use crate::clients::Clients;
use crate::connection::Pipeline;
use crate::node::{Node, NodeOptions};
use crate::resp::{Limits, Parser, ProtocolError};
use crate::routing::Standalone;
use crate::secret::Secret;
use crate::stats::ThreadStats;
use crate::store::{EvictionPolicy, Store, StoreOptions};

const BUDGET_BYTES: u64 = 1 << 20;

/// The commands in the pieces and the error that ends them.
fn parse<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<Vec<u8>>>, Option<ProtocolError>) {
    let limits = Limits {
        authenticated: true,
        bulk_bytes_max: Limits::BULK_BYTES_MAX_DEFAULT,
    };
    let (mut parser, mut buffer, mut commands) = (Parser::new(), Vec::new(), Vec::new());
    let mut received = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        received += piece.len();
        loop {
            match parser.advance(&buffer, limits) {
                Ok(Some(consumed)) => {
                    commands.push(parser.args(&buffer).from(0).map(<[u8]>::to_vec).collect());
                    parser.finish();
                    buffer.drain(..consumed);
                }
                Ok(None) => break,
                Err(error) => return (commands, Some(error)),
            }
        }
        assert!(
            parser.held_bytes() <= 64 * received + 4096,
            "the parser holds more than it was given"
        );
    }
    (commands, None)
}

/// Any bytes give the same commands, or the same error, however they are cut. The first byte says how.
pub fn parser(data: &[u8]) {
    let Some((&cut, bytes)) = data.split_first() else {
        return;
    };
    let whole = parse(std::iter::once(bytes));
    let pieces = parse(bytes.chunks(usize::from(cut) + 1));
    assert_eq!(whole, pieces, "the cut changed the meaning");
}

/// A node for all runs of a process: what one run leaves behind, the next one finds.
fn node(needs_password: bool) -> &'static (Arc<Node>, Arc<ThreadStats>) {
    static NODES: [OnceLock<(Arc<Node>, Arc<ThreadStats>)>; 2] = [OnceLock::new(), OnceLock::new()];
    NODES[usize::from(needs_password)].get_or_init(|| {
        let (Ok(cluster_uid), Ok(node_id)) = ("fuzz".parse(), "node-0".parse()) else {
            unreachable!("both are valid names");
        };
        let node = Arc::new(Node::new(NodeOptions {
            store: Arc::new(Store::new(StoreOptions {
                budget_bytes: BUDGET_BYTES,
                eviction: EvictionPolicy::Lru,
            })),
            routing: Arc::new(Standalone::new(cluster_uid, node_id)),
            password: if needs_password {
                Secret::from_file_content(b"pw").ok()
            } else {
                None
            },
            clients_max: 10,
            threads: 1,
            started_at_ms: 0,
            run_id: 0,
        }));
        let stats = node.stats.register_thread();
        (node, stats)
    })
}

/// A script runs, and then one that must find nothing of it. The first byte says how long the program is, whether it
/// comes in RESP3, and whether it is cut off soon; what is behind the program is its argument.
pub fn script(data: &[u8]) {
    const CHECK: &[u8] =
        b"return {#KEYS, #ARGV, type(string.find), tostring(rawget(_G, 'x')), tostring(string[1])}";
    const FRESH: &[u8] = b"*5\r\n:0\r\n:0\r\n$8\r\nfunction\r\n$3\r\nnil\r\n$3\r\nnil\r\n";
    let Some((&how, bytes)) = data.split_first() else {
        return;
    };
    let (program, argument) = bytes.split_at(bytes.len() * usize::from(how >> 1) / 127);
    let (node, stats) = node(false);
    node.settings.set_script_ms_max(100);
    let clients = Clients::default();
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 6379));
    let Ok(client) = clients.admit((addr, addr), 0, 1, false) else {
        unreachable!("it is the only one")
    };
    let mut pipeline = Pipeline::new(Arc::clone(node), Arc::clone(stats), client);
    let mut ask = |args: &[&[u8]]| {
        pipeline.receive(format!("*{}\r\n", args.len()).as_bytes());
        for arg in args {
            pipeline.receive(format!("${}\r\n", arg.len()).as_bytes());
            pipeline.receive(arg);
            pipeline.receive(b"\r\n");
        }
        pipeline.process(1_000_000);
        let reply = pipeline.unsent().to_vec();
        pipeline.mark_sent(reply.len());
        reply
    };
    if how & 1 == 1 {
        ask(&[b"HELLO", b"3"]);
    }
    check_replies(&ask(&[b"EVAL", program, b"1", b"{t}k", argument]));
    // Time goes on while the machine does something else; only the fuzzed script is to be cut off.
    node.settings.set_script_ms_max(60_000);
    assert_eq!(ask(&[b"EVAL", CHECK, b"0"]), FRESH, "the script left something");
    assert!(
        !node.store.is_over_budget(),
        "{} bytes used",
        node.store.used_bytes()
    );
}

/// A connection receives any bytes. The first byte says whether it must authenticate and how the bytes are cut.
pub fn pipeline(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else {
        return;
    };
    let (node, stats) = node(how & 1 == 1);
    let clients = Clients::default();
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 6379));
    let Ok(client) = clients.admit((addr, addr), 0, 1, false) else {
        unreachable!("it is the only one")
    };
    // What one input has paused is none of the next one's.
    node.pause.end();
    let mut pipeline = Pipeline::new(Arc::clone(node), Arc::clone(stats), client);
    let mut now_ms = 1_000_000;
    for piece in bytes.chunks(usize::from(how >> 1) + 1) {
        pipeline.receive(piece);
        loop {
            pipeline.process(now_ms);
            let unsent = pipeline.unsent().len();
            if pipeline.is_broken() {
                return;
            }
            check_replies(pipeline.unsent());
            pipeline.mark_sent(unsent);
            if !pipeline.is_blocked() {
                break;
            }
        }
        assert!(
            !node.store.is_over_budget(),
            "{} bytes used",
            node.store.used_bytes()
        );
        if pipeline.is_closing() {
            break;
        }
        now_ms += 10;
    }
}

/// Checks that bytes are whole replies, one behind the other.
fn check_replies(mut bytes: &[u8]) {
    let mut left: u64 = 0;
    while !bytes.is_empty() || left > 0 {
        left = left.saturating_sub(1);
        let end = bytes.windows(2).position(|pair| pair == b"\r\n");
        let Some(end) = end else {
            panic!("a reply without end: {}", bytes.escape_ascii())
        };
        let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
        bytes = rest;
        let Some((kind, text)) = line.split_first() else {
            panic!("a reply without kind")
        };
        let number = crate::resp::number::parse_i64(text);
        match (kind, number) {
            (b'+' | b'-' | b',' | b'(' | b'#', _)
            | (b'_', None)
            | (b':', Some(_))
            | (b'$' | b'*', Some(-1)) => {}
            (b'$' | b'=', Some(len @ 0..)) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                assert_eq!(
                    bytes.get(len..len + 2),
                    Some(b"\r\n".as_slice()),
                    "a string of another length"
                );
                bytes = &bytes[len + 2..];
            }
            (b'*' | b'~' | b'>', Some(len @ 0..)) => left += len.unsigned_abs(),
            (b'%', Some(pairs @ 0..)) => left += 2 * pairs.unsigned_abs(),
            _ => panic!("not a reply: {}", line.escape_ascii()),
        }
    }
}

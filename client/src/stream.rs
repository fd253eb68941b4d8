//! One connection to one node: reads and checks go out, replies and invalidations come in, and are put into the near cache in
//! the order in which they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use redis::{Cmd, ErrorKind, PushKind, RedisError, ServerErrorKind, Value, cmd, parse_redis_value_async};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use crate::near::Reading;
use crate::settings::Shared;
use crate::slots::Moved;
use crate::source::{CheckAnswer, Checked, Source};

/// Requests that are written together at most.
const BATCH_MAX: usize = 128;

/// A read of one key.
pub struct Request {
    /// Which, and where the reply is to be kept.
    pub reading: Reading,
    /// Who waits for the reply.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The value, if there is one.
    Value(Option<Bytes>),
    /// Another node has the key.
    Moved(Moved),
    /// The node couldn't say; the whole cluster may be asked.
    Refused,
}

/// What a reply is expected for, in the order of the requests.
enum Expected {
    Read { request: Request, sent_ns: u64 },
    Check { sent_ns: u64 },
}

/// A connection on which one command is asked after the other, before anything is tracked.
pub struct Handshake {
    read: OwnedReadHalf,
    write: OwnedWriteHalf,
    decoder: Decoder,
}

type Decoder = combine::stream::Decoder<
    combine::parser::combinator::AnySendSyncPartialState,
    combine::stream::PointerOffset<[u8]>,
>;

fn malformed(what: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Client, what))
}

impl Handshake {
    /// Connects to `host:port`, and says who it is.
    pub async fn connect(shared: &Shared, address: &str) -> Result<Self, RedisError> {
        let stream = TcpStream::connect(&*shared.settings.address_of(address)).await?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let mut handshake = Self {
            read,
            write,
            decoder: Decoder::new(),
        };
        let mut hello = cmd("HELLO");
        hello.arg(3);
        if let Some(password) = &shared.settings.password {
            let user = shared.settings.user.as_deref().unwrap_or("default");
            hello.arg("AUTH").arg(user).arg(password);
        }
        handshake.ask(&hello).await?;
        Ok(handshake)
    }

    /// Sends a command and returns its reply.
    pub async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        self.write.write_all(&command.get_packed_command()).await?;
        parse_redis_value_async(&mut self.decoder, &mut self.read)
            .await?
            .extract_error()
    }

    /// Begins to track, and serves requests until the connection breaks, or `requests` ends (then there is no error).
    pub async fn serve(
        mut self,
        shared: &Shared,
        requests: &mut mpsc::Receiver<Request>,
    ) -> Result<(), RedisError> {
        self.ask(cmd("CLIENT").arg("TRACKING").arg("ON")).await?;
        let source = Arc::new(if shared.settings.checks {
            Source::new(shared.settings.lease_ns())
        } else {
            Source::unchecked()
        });
        let _ending = Ending(&source);
        let (expect, expected) = mpsc::unbounded_channel();
        let unanswered_since_ns = AtomicU64::new(u64::MAX);
        let incoming = Incoming {
            shared,
            source: &source,
            read: self.read,
            decoder: self.decoder,
            unanswered_since_ns: &unanswered_since_ns,
        };
        let outgoing = Outgoing {
            shared,
            write: self.write,
            expect,
            unanswered_since_ns: &unanswered_since_ns,
        };
        tokio::select! {
            ended = incoming.run(expected) => ended,
            ended = outgoing.run(requests) => ended,
        }
    }
}

/// Whatever ends the connection, its entries end with it.
struct Ending<'a>(&'a Source);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Outgoing<'a> {
    shared: &'a Shared,
    write: OwnedWriteHalf,
    expect: mpsc::UnboundedSender<Expected>,
    unanswered_since_ns: &'a AtomicU64,
}

impl Outgoing<'_> {
    async fn run(mut self, requests: &mut mpsc::Receiver<Request>) -> Result<(), RedisError> {
        let check = cmd("CLIENT").arg("TRACKINGINFO").get_packed_command();
        let mut checks = interval(self.shared.settings.check_interval());
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut batch, mut bytes) = (Vec::with_capacity(BATCH_MAX), Vec::new());
        loop {
            bytes.clear();
            tokio::select! {
                _ = checks.tick(), if self.shared.settings.checks => self.add_check(&check, &mut bytes)?,
                count = requests.recv_many(&mut batch, BATCH_MAX) => {
                    if count == 0 {
                        return Ok(());
                    }
                    let sent_ns = self.shared.clock.now_ns();
                    for request in batch.drain(..) {
                        let key: &[u8] = request.reading.key();
                        // The value comes last, so that what changes it comes behind it.
                        cmd("PTTL").arg(key).write_packed_command(&mut bytes);
                        cmd("GET").arg(key).write_packed_command(&mut bytes);
                        self.expect(Expected::Read { request, sent_ns })?;
                    }
                }
            }
            self.write.write_all(&bytes).await?;
        }
    }

    /// The moment is taken before the check is sent: what the answer vouches for begins then.
    fn add_check(&self, check: &[u8], bytes: &mut Vec<u8>) -> Result<(), RedisError> {
        let sent_ns = self.shared.clock.now_ns();
        let since_ns = self.unanswered_since_ns.load(Ordering::Relaxed);
        if sent_ns.saturating_sub(since_ns) > self.shared.settings.silence_max_ns() {
            return Err(malformed("the node doesn't answer"));
        }
        if since_ns == u64::MAX {
            self.unanswered_since_ns.store(sent_ns, Ordering::Relaxed);
        }
        bytes.extend_from_slice(check);
        self.expect(Expected::Check { sent_ns })
    }

    fn expect(&self, expected: Expected) -> Result<(), RedisError> {
        self.expect
            .send(expected)
            .map_err(|_| malformed("the connection has ended"))
    }
}

struct Incoming<'a> {
    shared: &'a Shared,
    source: &'a Arc<Source>,
    read: OwnedReadHalf,
    decoder: Decoder,
    unanswered_since_ns: &'a AtomicU64,
}

impl Incoming<'_> {
    async fn run(mut self, mut expected: mpsc::UnboundedReceiver<Expected>) -> Result<(), RedisError> {
        loop {
            let first = self.reply().await?;
            // What is expected was noted before it was asked for.
            match expected.try_recv().map_err(|_| malformed("a reply to nothing"))? {
                Expected::Check { sent_ns } => self.checked(sent_ns, first)?,
                Expected::Read { request, sent_ns } => {
                    let received = self.source.received();
                    let value = self.reply().await?;
                    // A change between the two makes the time to live another one's.
                    let is_one = received == self.source.received();
                    self.answer(request, sent_ns, (first, value), is_one);
                }
            }
        }
    }

    /// The next reply; what is pushed before it takes effect before it is returned.
    async fn reply(&mut self) -> Result<Value, RedisError> {
        loop {
            match parse_redis_value_async(&mut self.decoder, &mut self.read).await? {
                Value::Push {
                    kind: PushKind::Invalidate,
                    data,
                } => self.invalidate(data),
                Value::Push { .. } => {}
                reply => return Ok(reply),
            }
        }
    }

    fn invalidate(&self, data: Vec<Value>) {
        self.shared.counters.invalidations.fetch_add(1, Ordering::Relaxed);
        self.source.count_invalidation();
        match data.into_iter().next() {
            Some(Value::Array(keys)) => {
                for key in keys {
                    if let Value::BulkString(key) = key {
                        self.shared.near.invalidate(&key);
                    }
                }
            }
            // All keys.
            _ => self.flush(),
        }
    }

    fn flush(&self) {
        self.source.flush();
        self.shared.counters.flushes.fetch_add(1, Ordering::Relaxed);
    }

    fn checked(&self, sent_ns: u64, reply: Value) -> Result<(), RedisError> {
        self.unanswered_since_ns.store(u64::MAX, Ordering::Relaxed);
        let answer = check_answer(reply.extract_error()?);
        let counters = &self.shared.counters;
        counters.checks.fetch_add(1, Ordering::Relaxed);
        if answer.invalidations.is_none() {
            counters.uncounted_checks.fetch_add(1, Ordering::Relaxed);
        }
        match self.source.check(sent_ns, answer) {
            Checked::Well => {}
            Checked::Lost(count) => {
                counters.lost_invalidations.fetch_add(count, Ordering::Relaxed);
                counters.flushes.fetch_add(1, Ordering::Relaxed);
            }
            Checked::MayBeReplaced => {
                counters.refused_checks.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Keeps the value, if it may be kept, before anything that comes later on the connection is looked at.
    fn answer(&self, request: Request, sent_ns: u64, (ttl, value): (Value, Value), is_one: bool) {
        let value = match value {
            Value::Nil => None,
            Value::BulkString(bytes) => Some(Bytes::from(bytes)),
            Value::ServerError(error) => {
                let moved = (error.kind() == Some(ServerErrorKind::Moved))
                    .then(|| Moved::parse(error.details()?))
                    .flatten();
                // Who has stopped waiting needs no answer.
                drop(request.answer.send(moved.map_or(Answer::Refused, Answer::Moved)));
                return;
            }
            _ => {
                drop(request.answer.send(Answer::Refused));
                return;
            }
        };
        if is_one && let Some(kept_ns) = kept_ns(&ttl, value.is_some(), self.shared.settings.ttl_max_ns()) {
            let until_ns = sent_ns.saturating_add(kept_ns);
            request.reading.keep(value.clone(), self.source, until_ns);
        }
        drop(request.answer.send(Answer::Value(value)));
    }
}

/// For how long a value may be kept, by what `PTTL` said of its key just before.
fn kept_ns(ttl: &Value, exists: bool, max_ns: u64) -> Option<u64> {
    match (ttl, exists) {
        (Value::Int(-2), false) | (Value::Int(-1), true) => Some(max_ns),
        (Value::Int(ms), true) => {
            let ttl_ns = u64::try_from(*ms).ok()?.saturating_mul(1_000_000);
            Some(ttl_ns.min(max_ns))
        }
        _ => None,
    }
}

/// What `CLIENT TRACKINGINFO` says. A server that is no Annulus node counts nothing, and is believed.
fn check_answer(reply: Value) -> CheckAnswer {
    let mut answer = CheckAnswer {
        invalidations: None,
        leases: true,
    };
    let Value::Map(fields) = reply else { return answer };
    for field in fields {
        match field {
            (Value::BulkString(name), Value::Int(count)) if name == b"invalidations" => {
                answer.invalidations = u64::try_from(count).ok();
            }
            (Value::BulkString(name), Value::Int(holds)) if name == b"leases" => answer.leases = holds == 1,
            _ => {}
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_time_to_live_and_the_cap_bound_what_is_kept() {
        let table = [
            (Value::Int(-1), true, Some(5_000_000)),
            (Value::Int(3), true, Some(3_000_000)),
            (Value::Int(9), true, Some(5_000_000)),
            (Value::Int(-2), false, Some(5_000_000)),
            // The two replies are not about the same.
            (Value::Int(-2), true, None),
            (Value::Int(-1), false, None),
            (Value::Int(3), false, None),
            (Value::Nil, true, None),
        ];
        for (ttl, exists, expected) in table {
            assert_eq!(kept_ns(&ttl, exists, 5_000_000), expected, "{ttl:?} {exists}");
        }
    }

    #[test]
    fn a_server_that_counts_nothing_is_believed() {
        let parse = |text: &str| check_answer(redis::parse_redis_value(text.as_bytes()).unwrap());
        let redis = "%3\r\n$5\r\nflags\r\n~1\r\n$2\r\non\r\n$8\r\nredirect\r\n:0\r\n$8\r\nprefixes\r\n*0\r\n";
        assert_eq!(
            parse(redis),
            CheckAnswer {
                invalidations: None,
                leases: true
            }
        );
        let own = "%2\r\n$13\r\ninvalidations\r\n:7\r\n$6\r\nleases\r\n:0\r\n";
        assert_eq!(
            parse(own),
            CheckAnswer {
                invalidations: Some(7),
                leases: false
            }
        );
    }
}

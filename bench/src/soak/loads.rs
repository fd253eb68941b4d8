//! The kinds of load. Each runs until it is told to stop, checks what comes back, and counts what should not be.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use super::wire::{Reply, Wire};
use crate::random::Random;

/// Small values together are several times the budget.
const SMALL_KEYS: u64 = 2_000_000;
const SMALL_BYTES_MAX: u64 = 16 << 10;
const BIG_KEYS: u64 = 120;
const BIG_BYTES_MIN: u64 = 64 << 10;
/// The largest value.
pub const BIG_BYTES_MAX: u64 = 8 << 20;
const COLLECTIONS: u64 = 3_000;
/// Channels that are published to; the last one's subscribers never read.
const CHANNELS: u64 = 8;
const ERRORS_KEPT: usize = 10;

/// What all loads share.
pub struct Shared {
    /// The node.
    pub address: SocketAddr,
    /// Set at the end.
    pub stop: AtomicBool,
    /// Replies that were as they should be.
    pub operations: AtomicU64,
    /// Connections that were made.
    pub connections: AtomicU64,
    /// Messages that subscribers got.
    pub messages: AtomicU64,
    /// Subscribers that never read and were closed for it, as they should be.
    pub closed_for_not_reading: AtomicU64,
    /// Everything else.
    pub errors: AtomicU64,
    /// The first errors.
    pub first_errors: Mutex<Vec<String>>,
    padding: Vec<u8>,
}

impl Shared {
    /// Nothing has happened yet.
    pub fn new(address: SocketAddr) -> Self {
        let mut random = Random::new(1);
        let words = (0..=BIG_BYTES_MAX / 8).map(|_| random.next().to_le_bytes());
        Self {
            address,
            stop: AtomicBool::new(false),
            operations: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            closed_for_not_reading: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            first_errors: Mutex::default(),
            padding: words.flatten().collect(),
        }
    }

    /// Whether loads are to go on.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Something is not as it should be.
    pub fn fail(&self, what: String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first_errors.lock().unwrap_or_else(PoisonError::into_inner);
        if first.len() < ERRORS_KEPT {
            first.push(what);
        }
    }

    async fn connect(&self) -> io::Result<Wire> {
        let wire = Wire::connect(self.address, None).await?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        Ok(wire)
    }

    /// Counts a reply that is right, or says what it is instead.
    fn check(&self, what: &str, reply: &Reply, is_right: impl FnOnce(&Reply) -> bool) {
        if is_right(reply) {
            self.operations.fetch_add(1, Ordering::Relaxed);
        } else {
            let mut shown = format!("{reply:?}");
            shown.truncate(200);
            self.fail(format!("{what}: {shown}"));
        }
    }

    /// A value that says which key it is of and how long it is.
    fn value(&self, key: u64, bytes: u64, into: &mut Vec<u8>) {
        into.clear();
        into.extend_from_slice(format!("{key}:{bytes}:").as_bytes());
        let len = usize::try_from(bytes).unwrap_or(usize::MAX).max(into.len());
        into.extend_from_slice(&self.padding[into.len()..len]);
    }

    /// Whether a reply is nothing, or a value of that key, whole.
    fn is_value(&self, key: u64, reply: &Reply) -> bool {
        let Reply::Text(text) = reply else {
            return *reply == Reply::Nil;
        };
        let mut parts = text.splitn(3, |&byte| byte == b':');
        let number = |part: Option<&[u8]>| std::str::from_utf8(part?).ok()?.parse::<u64>().ok();
        let (found, bytes, rest) = (number(parts.next()), number(parts.next()), parts.next());
        let Some(rest) = rest else { return false };
        let header = text.len() - rest.len();
        found == Some(key)
            && bytes.is_some_and(|bytes| bytes.max(header as u64) == text.len() as u64)
            && *rest == self.padding[header..text.len()]
    }
}

/// From `min` to `max`, every magnitude as often as any other.
fn length(random: &mut Random, min: u64, max: u64) -> u64 {
    let doublings = u64::from((max / min).ilog2());
    let base = min << (random.next() % doublings.max(1));
    base + random.next() % base
}

fn is_ok(reply: &Reply) -> bool {
    *reply == Reply::Text(b"OK".to_vec())
}

fn is_integer(reply: &Reply) -> bool {
    matches!(reply, Reply::Integer(_))
}

/// Small values in pipelines: two writes to a read, one write of four with a time to live.
pub async fn small(shared: Arc<Shared>, mut random: Random) -> io::Result<()> {
    let mut wire = shared.connect().await?;
    let mut value = Vec::new();
    while shared.goes_on() {
        let mut reads = Vec::new();
        for _ in 0..=random.next() % 64 {
            let number = random.next() % SMALL_KEYS;
            let key = format!("small:{number}");
            if random.next().is_multiple_of(3) {
                wire.queue(&[b"GET", key.as_bytes()]);
                reads.push(Some(number));
                continue;
            }
            shared.value(number, length(&mut random, 16, SMALL_BYTES_MAX), &mut value);
            if random.next().is_multiple_of(4) {
                let ttl_ms = (100 + random.next() % 30_000).to_string();
                wire.queue(&[b"SET", key.as_bytes(), &value, b"PX", ttl_ms.as_bytes()]);
            } else {
                wire.queue(&[b"SET", key.as_bytes(), &value]);
            }
            reads.push(None);
        }
        wire.flush().await?;
        for read in reads {
            let reply = wire.reply().await?;
            match read {
                Some(number) => shared.check("GET small", &reply, |reply| shared.is_value(number, reply)),
                None => shared.check("SET small", &reply, is_ok),
            }
        }
    }
    Ok(())
}

/// Values of up to 8 MiB, written, read whole, grown in place and deleted.
pub async fn big(shared: Arc<Shared>, mut random: Random) -> io::Result<()> {
    let mut wire = shared.connect().await?;
    let mut value = Vec::new();
    while shared.goes_on() {
        let number = random.next() % BIG_KEYS;
        let key = format!("big:{number}");
        match random.next() % 8 {
            0..=3 => {
                shared.value(
                    number,
                    length(&mut random, BIG_BYTES_MIN, BIG_BYTES_MAX),
                    &mut value,
                );
                let reply = wire.ask(&[b"SET", key.as_bytes(), &value]).await?;
                shared.check("SET big", &reply, is_ok);
            }
            4..=5 => {
                let reply = wire.ask(&[b"GET", key.as_bytes()]).await?;
                shared.check("GET big", &reply, |reply| shared.is_value(number, reply));
            }
            6 => {
                // Grown bit by bit: each step needs another piece of memory.
                let key = format!("grown:{}", number % 10);
                shared.value(number, BIG_BYTES_MIN, &mut value);
                for _ in 0..8 {
                    wire.queue(&[b"APPEND", key.as_bytes(), &value]);
                }
                wire.queue(&[b"PEXPIRE", key.as_bytes(), b"2000"]);
                wire.flush().await?;
                for _ in 0..9 {
                    shared.check("APPEND", &wire.reply().await?, is_integer);
                }
            }
            _ => {
                let reply = wire.ask(&[b"DEL", key.as_bytes()]).await?;
                shared.check("DEL big", &reply, is_integer);
            }
        }
        // Leaves most of the node's time to the others.
        sleep(Duration::from_millis(random.next() % 20)).await;
    }
    Ok(())
}

/// Hashes, lists, sets and sorted sets that grow, are trimmed, read and deleted.
pub async fn collections(shared: Arc<Shared>, mut random: Random) -> io::Result<()> {
    let mut wire = shared.connect().await?;
    let mut value = Vec::new();
    while shared.goes_on() {
        let number = random.next() % COLLECTIONS;
        let kind = ["hash", "list", "set", "sorted"][usize::try_from(number % 4).unwrap_or_default()];
        let key = format!("{kind}:{number}");
        let key = key.as_bytes();
        let mut asked = 0;
        for _ in 0..=random.next() % 50 {
            shared.value(number, length(&mut random, 8, 1024), &mut value);
            let member = (random.next() % 2_000).to_string();
            let member = member.as_bytes();
            match kind {
                "hash" => wire.queue(&[b"HSET", key, member, &value]),
                "list" => wire.queue(&[b"LPUSH", key, &value]),
                "set" => wire.queue(&[b"SADD", key, member]),
                _ => wire.queue(&[b"ZADD", key, member, &value[..value.len().min(64)]]),
            }
            asked += 1;
        }
        match (kind, random.next() % 10) {
            (_, 0) => wire.queue(&[b"DEL", key]),
            (_, 1) => wire.queue(&[b"PEXPIRE", key, b"3000"]),
            ("hash", 2) => wire.queue(&[b"HGETALL", key]),
            ("hash", _) => wire.queue(&[b"HDEL", key, b"1", b"2", b"3"]),
            ("list", 2) => wire.queue(&[b"LRANGE", key, b"0", b"-1"]),
            ("list", _) => wire.queue(&[b"LTRIM", key, b"0", b"500"]),
            ("set", _) => wire.queue(&[b"SMEMBERS", key]),
            _ => wire.queue(&[b"ZRANGE", key, b"0", b"100", b"WITHSCORES"]),
        }
        asked += 1;
        wire.flush().await?;
        for _ in 0..asked {
            let reply = wire.reply().await?;
            shared.check(kind, &reply, |reply| {
                is_integer(reply) || is_ok(reply) || matches!(reply, Reply::List(_))
            });
        }
    }
    Ok(())
}

/// A connection that comes, does a little, waits and goes: politely, by a reset, or in the middle of a command.
pub async fn visitor(shared: Arc<Shared>, mut random: Random) -> io::Result<()> {
    // They don't all come at once.
    sleep(Duration::from_millis(random.next() % 4_000)).await;
    let mut value = Vec::new();
    while shared.goes_on() {
        let mut wire = shared.connect().await?;
        for _ in 0..=random.next() % 4 {
            let number = random.next() % SMALL_KEYS;
            let key = format!("small:{number}");
            shared.value(number, length(&mut random, 16, 2048), &mut value);
            let reply = wire.ask(&[b"SET", key.as_bytes(), &value]).await?;
            shared.check("visitor's SET", &reply, is_ok);
            let reply = wire.ask(&[b"GET", key.as_bytes()]).await?;
            shared.check("visitor's GET", &reply, |reply| shared.is_value(number, reply));
            sleep(Duration::from_millis(random.next() % 3_000)).await;
            if !shared.goes_on() {
                return Ok(());
            }
        }
        match random.next() % 3 {
            0 => {
                let reply = wire.ask(&[b"QUIT"]).await?;
                shared.check("QUIT", &reply, is_ok);
            }
            1 => {
                shared.value(0, length(&mut random, 16, BIG_BYTES_MIN * 4), &mut value);
                wire.queue(&[b"SET", b"never", &value]);
                wire.cut(value.len() / 2);
                wire.flush().await?;
            }
            _ => {}
        }
        if random.next().is_multiple_of(2) {
            wire.stream().set_zero_linger()?;
        }
    }
    Ok(())
}

/// Asks for several big values at once and reads them a little at a time; sometimes it goes in the middle.
pub async fn slow_reader(shared: Arc<Shared>, mut random: Random) -> io::Result<()> {
    const RECEIVE_BYTES: u32 = 32 << 10;
    let mut part = vec![0; 128 << 10];
    while shared.goes_on() {
        let mut wire = Wire::connect(shared.address, Some(RECEIVE_BYTES)).await?;
        shared.connections.fetch_add(1, Ordering::Relaxed);
        for _ in 0..4 {
            let key = format!("big:{}", random.next() % BIG_KEYS);
            wire.queue(&[b"GET", key.as_bytes()]);
        }
        wire.flush().await?;
        let mut left = random.next() % (4 * BIG_BYTES_MAX);
        while left > 0 && shared.goes_on() {
            // Nothing may be left to come: values are evicted.
            let read = tokio::time::timeout(Duration::from_secs(1), wire.stream().read(&mut part)).await;
            match read {
                Ok(Ok(1..)) => {}
                Ok(Ok(0)) => {
                    shared.fail("a slow reader was closed".to_owned());
                    break;
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
            left = left.saturating_sub(part.len() as u64);
            sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

fn channel(number: u64) -> String {
    format!("channel:{number}")
}

/// Messages of up to 256 KiB on all channels.
pub async fn publisher(shared: Arc<Shared>, mut random: Random) -> io::Result<()> {
    let mut wire = shared.connect().await?;
    let mut value = Vec::new();
    while shared.goes_on() {
        let number = random.next() % CHANNELS;
        shared.value(number, length(&mut random, 64, 256 << 10), &mut value);
        let reply = wire
            .ask(&[b"PUBLISH", channel(number).as_bytes(), &value])
            .await?;
        shared.check("PUBLISH", &reply, is_integer);
        sleep(Duration::from_millis(random.next() % 10)).await;
    }
    Ok(())
}

/// Hears all channels but the last and checks what it hears.
pub async fn subscriber(shared: Arc<Shared>, _: Random) -> io::Result<()> {
    let mut wire = shared.connect().await?;
    for number in 0..CHANNELS - 1 {
        wire.queue(&[b"SUBSCRIBE", channel(number).as_bytes()]);
    }
    wire.flush().await?;
    for _ in 0..CHANNELS - 1 {
        let reply = wire.reply().await?;
        shared.check("SUBSCRIBE", &reply, |reply| matches!(reply, Reply::List(_)));
    }
    while shared.goes_on() {
        let Ok(reply) = tokio::time::timeout(Duration::from_secs(1), wire.reply()).await else {
            continue;
        };
        let reply = reply?;
        let is_right = |reply: &Reply| {
            let Reply::List(parts) = reply else { return false };
            let [Reply::Text(kind), Reply::Text(on), message] = parts.as_slice() else {
                return false;
            };
            let number = (0..CHANNELS).find(|&number| channel(number).as_bytes() == on);
            kind == b"message" && number.is_some_and(|number| shared.is_value(number, message))
        };
        shared.check("message", &reply, is_right);
        shared.messages.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Subscribes to the last channel and never reads: the node is to close it once too much waits for it.
pub async fn deaf_subscriber(shared: Arc<Shared>, _: Random) -> io::Result<()> {
    while shared.goes_on() {
        let mut wire = Wire::connect(shared.address, Some(16 << 10)).await?;
        shared.connections.fetch_add(1, Ordering::Relaxed);
        wire.queue(&[b"SUBSCRIBE", channel(CHANNELS - 1).as_bytes()]);
        wire.flush().await?;
        // What can't be read any more is seen only by a write.
        loop {
            sleep(Duration::from_secs(1)).await;
            if !shared.goes_on() {
                return Ok(());
            }
            wire.queue(&[b"PING"]);
            if wire.flush().await.is_err() {
                shared.closed_for_not_reading.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    }
    Ok(())
}

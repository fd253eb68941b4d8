//! The connected clients, as `CLIENT LIST` shows them and `CLIENT KILL` ends them.
//!
//! A connection writes what others may want to know of it into its [`Client`]; nobody but its own thread ever
//! touches its buffers or its socket. To end it from elsewhere is to ask: [`Client::stop`]; to send it something is to
//! put that into its mailbox: [`Client::post`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::mailbox::{Mailbox, Posted};
use crate::pubsub::Subscriptions;
use crate::stats::Counter;
use crate::tracking::{Mode, TrackingOptions};

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stop {
    /// It isn't.
    No = 0,
    /// Commands that have arrived are executed and their replies sent.
    Drain = 1,
    /// At once.
    Kill = 2,
}

/// What a client says about itself.
#[derive(Debug, Clone, Default)]
pub struct Introduction {
    /// `CLIENT SETNAME`.
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`.
    pub lib_name: String,
    /// `CLIENT SETINFO LIB-VER`.
    pub lib_version: String,
}

/// Figures about a connection, as of its last batch of commands.
#[derive(Debug, Default)]
pub struct Usage {
    /// Its socket's number in the process.
    pub socket: AtomicI32,
    /// Room behind what has arrived.
    pub input_free_bytes: AtomicUsize,
    /// The buffer that replies are written to.
    pub reply_buffer_bytes: AtomicUsize,
    /// The largest that it was.
    pub reply_buffer_bytes_max: AtomicUsize,
    /// Commands since `MULTI`, and `MULTI` itself; 0 without it.
    pub queued: AtomicUsize,
    /// What they take.
    pub queued_bytes: AtomicUsize,
    /// Keys that it watches.
    pub watched: AtomicUsize,
    /// Commands that it has sent.
    pub commands: Counter,
    /// Bytes that it has sent.
    pub received_bytes: Counter,
    /// Bytes that it was sent.
    pub sent_bytes: Counter,
}

/// One connected client.
pub struct Client {
    /// Its number, never used again.
    pub id: u64,
    /// Its own address.
    pub remote: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// When it connected.
    pub connected_at_ms: u64,
    /// When it last sent something.
    pub active_at_ms: AtomicU64,
    /// The index of its last command in the table.
    pub last_command: AtomicU16,
    /// Whether it speaks RESP3.
    pub resp3: AtomicBool,
    /// `CLIENT NO-EVICT`.
    pub no_evict: AtomicBool,
    /// `CLIENT NO-TOUCH`.
    pub no_touch: AtomicBool,
    /// Whether it sent `READONLY`.
    pub readonly: AtomicBool,
    /// Whether it is connected with TLS; said once, before its first command.
    pub secure: AtomicBool,
    /// Bytes that arrived and are no complete command yet.
    pub input_bytes: AtomicUsize,
    /// Bytes of replies that it hasn't taken yet.
    pub output_bytes: AtomicUsize,
    /// What it takes and has done, apart from that.
    pub usage: Usage,
    /// What it says about itself.
    pub introduction: Mutex<Introduction>,
    /// What other threads send it.
    pub mailbox: Mailbox,
    /// What it is subscribed to.
    pub subscriptions: Subscriptions,
    /// How it wants to be told of changed keys.
    pub tracking: Mutex<TrackingOptions>,
    stop: AtomicU8,
    waker: AtomicWaker,
}

impl Client {
    /// Asks the connection to end.
    pub fn stop(&self, how: Stop) {
        self.stop.fetch_max(how as u8, Ordering::Release);
        self.waker.wake();
    }

    /// Sends it a push that is encoded in its protocol. Never waits; a client that doesn't read is ended.
    pub fn post(&self, letter: Bytes) {
        match self.mailbox.post(letter) {
            Posted::First => self.waker.wake(),
            Posted::Overflowed => self.stop(Stop::Kill),
            Posted::Behind | Posted::Refused => {}
        }
    }

    /// How the connection is to end; `waker` will be woken when that changes, and by the first letter
    /// in the mailbox.
    pub fn poll_stop(&self, waker: &std::task::Waker) -> Stop {
        self.waker.register(waker);
        match self.stop.load(Ordering::Acquire) {
            0 => Stop::No,
            1 => Stop::Drain,
            _ => Stop::Kill,
        }
    }

    /// Whether the connection was told to end at once: for others it is gone already.
    fn is_killed(&self) -> bool {
        self.stop.load(Ordering::Acquire) == Stop::Kill as u8
    }

    /// Its line in `CLIENT LIST`, without line end. `command` is the name of its last command.
    pub fn describe(&self, now_ms: u64, command: &str) -> String {
        let seconds_since = |then_ms: u64| now_ms.saturating_sub(then_ms) / 1000;
        let introduction = self.introduction.lock().clone();
        let (input, output) = (
            self.input_bytes.load(Ordering::Relaxed),
            self.output_bytes.load(Ordering::Relaxed) + self.mailbox.bytes(),
        );
        let [channels, patterns, sharded] = self.subscriptions.counts();
        let tracking = self.tracking.lock().clone();
        let mut flags = String::new();
        for (is_set, flag) in [
            (self.subscriptions.is_any(), 'P'),
            (tracking.mode != Mode::Off, 't'),
            (tracking.is_broken, 'R'),
            (tracking.mode == Mode::Broadcast, 'B'),
        ] {
            if is_set {
                flags.push(flag);
            }
        }
        for (is_set, flag) in [
            (&self.readonly, 'r'),
            (&self.no_evict, 'e'),
            (&self.no_touch, 'T'),
        ] {
            if is_set.load(Ordering::Relaxed) {
                flags.push(flag);
            }
        }
        if flags.is_empty() {
            flags.push('N');
        }
        let usage = &self.usage;
        let count = |figure: &AtomicUsize| figure.load(Ordering::Relaxed);
        let mut line = format!(
            "id={} addr={} laddr={} fd={}",
            self.id,
            self.remote,
            self.local,
            usage.socket.load(Ordering::Relaxed)
        );
        // Writing to a String can't fail.
        write!(
            line,
            " name={} age={} idle={} flags={flags} db=0 sub={channels} psub={patterns} ssub={sharded} multi={} watch={} \
             qbuf={input} qbuf-free={} argv-mem=0 multi-mem={} rbs={} rbp={} obl={} oll={} omem={output} tot-mem={} \
             events=r cmd={command} user=default redir={} resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} \
             tot-cmds={}",
            introduction.name,
            seconds_since(self.connected_at_ms),
            seconds_since(self.active_at_ms.load(Ordering::Relaxed)),
            i64::try_from(count(&usage.queued)).unwrap_or(i64::MAX) - 1,
            count(&usage.watched),
            count(&usage.input_free_bytes),
            count(&usage.queued_bytes),
            count(&usage.reply_buffer_bytes),
            count(&usage.reply_buffer_bytes_max),
            count(&self.output_bytes),
            self.mailbox.len(),
            size_of::<Self>()
                + input
                + count(&usage.input_free_bytes)
                + count(&usage.queued_bytes)
                + count(&usage.reply_buffer_bytes)
                + self.mailbox.bytes(),
            tracking.redirect_id(),
            if self.resp3.load(Ordering::Relaxed) { 3 } else { 2 },
            introduction.lib_name,
            introduction.lib_version,
            usage.received_bytes.get(),
            usage.sent_bytes.get(),
            usage.commands.get(),
        )
        .unwrap_or_default();
        line
    }
}

/// All connected clients.
#[derive(Default)]
pub struct Clients {
    by_id: Mutex<BTreeMap<u64, Arc<Client>>>,
    last_id: AtomicU64,
}

impl Clients {
    /// Admits a client, unless there are `clients_max` already.
    pub fn admit(
        &self,
        remote: SocketAddr,
        local: SocketAddr,
        now_ms: u64,
        clients_max: usize,
    ) -> Option<Arc<Client>> {
        let mut by_id = self.by_id.lock();
        if by_id.len() >= clients_max {
            return None;
        }
        let client = Arc::new(Client {
            id: self.last_id.fetch_add(1, Ordering::Relaxed) + 1,
            remote,
            local,
            connected_at_ms: now_ms,
            active_at_ms: AtomicU64::new(now_ms),
            last_command: AtomicU16::new(u16::MAX),
            resp3: AtomicBool::new(false),
            no_evict: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            readonly: AtomicBool::new(false),
            secure: AtomicBool::new(false),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            usage: Usage::default(),
            introduction: Mutex::default(),
            mailbox: Mailbox::default(),
            subscriptions: Subscriptions::default(),
            tracking: Mutex::default(),
            stop: AtomicU8::new(Stop::No as u8),
            waker: AtomicWaker::new(),
        });
        by_id.insert(client.id, Arc::clone(&client));
        Some(client)
    }

    /// Forgets a client that is gone.
    pub fn dismiss(&self, id: u64) {
        self.by_id.lock().remove(&id);
    }

    /// All clients, by id, but those that were killed and whose connections are about to end.
    pub fn all(&self) -> Vec<Arc<Client>> {
        let by_id = self.by_id.lock();
        by_id
            .values()
            .filter(|client| !client.is_killed())
            .cloned()
            .collect()
    }

    /// The client of that number, while it is connected.
    pub fn find(&self, id: u64) -> Option<Arc<Client>> {
        self.by_id.lock().get(&id).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Has every connection look whether there is something to do.
    pub fn wake_all(&self) {
        for client in self.by_id.lock().values() {
            client.waker.wake();
        }
    }

    /// Asks every connection to end.
    pub fn stop_all(&self, how: Stop) {
        for client in self.all() {
            client.stop(how);
        }
    }

    /// Ends the clients whose mailboxes have been too full for too long. To be called about once a second.
    pub fn stop_slow(&self, now_ms: u64) {
        for client in self.by_id.lock().values() {
            if client.mailbox.check_soft_limit(now_ms) {
                client.stop(Stop::Kill);
            }
        }
    }

    /// Ends the clients that have sent nothing for that long. Who is subscribed may listen in silence.
    pub fn stop_idle(&self, now_ms: u64, idle_ms_max: u64) {
        for client in self.all() {
            let is_listening = client.subscriptions.is_any();
            if !is_listening
                && now_ms.saturating_sub(client.active_at_ms.load(Ordering::Relaxed)) > idle_ms_max
            {
                client.stop(Stop::Kill);
            }
        }
    }
}

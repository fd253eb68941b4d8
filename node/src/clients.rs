//! The connected clients, as `CLIENT LIST` shows them and `CLIENT KILL` ends them.
//!
//! A connection writes what others may want to know of it into its [`Client`]; nobody but its own thread ever
//! touches its buffers or its socket. To end it from elsewhere is to ask: [`Client::stop`]; to send it something is to
//! put that into its mailbox: [`Client::post`].

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering,
};

use annulus_proto::tenants::TenantId;
use bytes::Bytes;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use crate::mailbox::{Mailbox, Posted};
use crate::pubsub::Subscriptions;
use crate::stats::Counter;
use crate::tenants::Login;
use crate::tracking::{Mode, TrackingOptions};

/// The user of whoever is no tenant's.
pub const DEFAULT_USER: &str = "default";

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
    /// Which tenant's user it has logged in as.
    login: Mutex<Option<Arc<Login>>>,
    tenant: AtomicU32,
    is_known: AtomicBool,
    stranger_since_ms: AtomicU64,
    stop: AtomicU8,
    waker: AtomicWaker,
}

impl Client {
    /// Which tenant's user it has logged in as; `None` for the user `default`, and before any login.
    pub fn login(&self) -> Option<Arc<Login>> {
        self.login.lock().clone()
    }

    /// Whose it is; the cluster's own unless it has logged in.
    pub fn tenant(&self) -> TenantId {
        TenantId(self.tenant.load(Ordering::Relaxed))
    }

    /// It has logged in, or is nobody's any more.
    pub fn set_login(&self, login: Option<Arc<Login>>) {
        let tenant = login
            .as_ref()
            .map_or(TenantId::CLUSTER, |login| login.tenant().id());
        self.tenant.store(tenant.0, Ordering::Relaxed);
        // The former one's drop is none of this lock's business.
        let former = std::mem::replace(&mut *self.login.lock(), login);
        drop(former);
    }

    /// Whether it is that tenant's; the cluster itself has all clients.
    pub fn is_of(&self, tenant: TenantId) -> bool {
        tenant == TenantId::CLUSTER || self.tenant() == tenant
    }

    /// The name of its user.
    pub fn user_name(&self) -> String {
        let login = self.login.lock();
        login
            .as_ref()
            .map_or_else(|| DEFAULT_USER.to_owned(), |login| login.user().name().to_owned())
    }

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
             events=r cmd={command} user={} redir={} resp={} lib-name={} lib-ver={} tot-net-in={} tot-net-out={} \
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
            self.user_name(),
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
    /// Those that have not said who they are, by address. Locked behind `by_id`.
    strangers: Mutex<Strangers>,
}

/// How many connections may be open that have not said who they are: of so many in all, and from one address.
const STRANGERS_SHARE: usize = 2;
const STRANGERS_OF_ADDRESS_SHARE: usize = 8;
/// From one address so many may, however few may be connected.
const STRANGERS_OF_ADDRESS_MIN: usize = 16;

/// How long a connection may take to say who it is.
const INTRODUCTION_MS_MAX: u64 = 10_000;

/// Connections whose users are not known.
#[derive(Default)]
struct Strangers {
    by_address: HashMap<IpAddr, usize>,
    count: usize,
}

impl Strangers {
    fn may_come(&self, address: IpAddr, clients_max: usize) -> bool {
        let from_address = self.by_address.get(&address).copied().unwrap_or_default();
        let of_address_max = (clients_max / STRANGERS_OF_ADDRESS_SHARE).max(STRANGERS_OF_ADDRESS_MIN);
        from_address < of_address_max && self.count < clients_max.div_ceil(STRANGERS_SHARE)
    }

    fn come(&mut self, address: IpAddr) {
        self.count += 1;
        *self.by_address.entry(address).or_default() += 1;
    }

    fn go(&mut self, address: IpAddr) {
        self.count -= 1;
        if let Some(count) = self.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

/// Why a client was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// There are `maxclients` already.
    #[error("ERR max number of clients reached")]
    Clients,
    /// There are too many of which nobody knows who they are.
    #[error("ERR too many connections that have not authenticated")]
    Strangers,
}

impl Clients {
    /// Admits a client, unless there are `clients_max` already; `needs_password` says whether it has yet to say who it is.
    pub fn admit(
        &self,
        (remote, local): (SocketAddr, SocketAddr),
        now_ms: u64,
        clients_max: usize,
        needs_password: bool,
    ) -> Result<Arc<Client>, Full> {
        let mut by_id = self.by_id.lock();
        if by_id.len() >= clients_max {
            return Err(Full::Clients);
        }
        if needs_password {
            let mut strangers = self.strangers.lock();
            if !strangers.may_come(remote.ip(), clients_max) {
                return Err(Full::Strangers);
            }
            strangers.come(remote.ip());
        }
        let client = Arc::new(self.new_client((remote, local), now_ms, !needs_password));
        by_id.insert(client.id, Arc::clone(&client));
        Ok(client)
    }

    /// Another node, which speaks for a client of its own. It is not counted, and nobody finds it by its number.
    pub fn of_peer(&self, now_ms: u64) -> Arc<Client> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Arc::new(self.new_client((nowhere, nowhere), now_ms, true))
    }

    fn new_client(&self, (remote, local): (SocketAddr, SocketAddr), now_ms: u64, is_known: bool) -> Client {
        Client {
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
            login: Mutex::default(),
            tenant: AtomicU32::new(0),
            is_known: AtomicBool::new(is_known),
            stranger_since_ms: AtomicU64::new(now_ms),
            stop: AtomicU8::new(Stop::No as u8),
            waker: AtomicWaker::new(),
        }
    }

    /// Forgets a client that is gone.
    pub fn dismiss(&self, id: u64) {
        let client = self.by_id.lock().remove(&id);
        if let Some(client) = client {
            self.note_known(&client, true);
            client.set_login(None);
        }
    }

    /// It is known, or is not any more, who the client is.
    pub fn note_known(&self, client: &Client, is_known: bool) {
        match (client.is_known.swap(is_known, Ordering::Relaxed), is_known) {
            (false, true) => self.strangers.lock().go(client.remote.ip()),
            (true, false) => {
                self.strangers.lock().come(client.remote.ip());
                let now_ms = client.active_at_ms.load(Ordering::Relaxed);
                client.stranger_since_ms.store(now_ms, Ordering::Relaxed);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Ends the clients that take too long to say who they are. To be called about once a second.
    pub fn stop_strangers(&self, now_ms: u64) {
        for client in self.by_id.lock().values() {
            let since_ms = client.stranger_since_ms.load(Ordering::Relaxed);
            if !client.is_known.load(Ordering::Relaxed)
                && now_ms.saturating_sub(since_ms) > INTRODUCTION_MS_MAX
            {
                client.stop(Stop::Kill);
            }
        }
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

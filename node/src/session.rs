//! What the node remembers of a connection between two commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use annulus_ring::Slot;

use crate::clients::{Client, Introduction};
use crate::groups::Awaited;
use crate::journal::Unsettled;
use crate::node::Node;
use crate::resp::Reply;
use crate::store::{Keyspace, Store};
use crate::tenants::Login;
use crate::tracking::Consent;
use crate::transaction::{Transaction, Watched};

/// Which replies a client gets: `CLIENT REPLY`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    /// All.
    On,
    /// None.
    Off,
    /// All but that of the next command.
    SkipNext,
    /// All but that of the command that runs.
    SkipThis,
}

/// The state of a connection, apart from its socket and buffers.
pub struct Session {
    /// What others may know of it.
    pub client: Arc<Client>,
    /// Whether its user is known.
    pub authenticated: bool,
    /// Which tenant's user it is; `None` for the user `default`.
    pub login: Option<Arc<Login>>,
    /// Whose entries, channels and scripts it works with.
    pub keyspace: Keyspace,
    /// Whether the connection ends once the replies are sent.
    pub closing: bool,
    /// Which replies it gets.
    pub reply_mode: ReplyMode,
    /// What was queued since `MULTI`.
    pub transaction: Option<Transaction>,
    /// What was watched since the last transaction.
    pub watched: Option<Watched>,
    /// Which of its reads are remembered, for it to be told of changes.
    pub tracked_reads: Option<Consent>,
    /// `CLIENT CACHING` was said of the command that follows.
    pub caching_said: bool,
    /// The slot that it wrote to last, where that has copies.
    pub last_write: Option<Slot>,
    /// Commands whose replies wait for copies.
    pub unsettled: Unsettled,
    /// What the command in front waits for, or has waited for.
    pub awaited: Awaited,
}

impl Session {
    /// The state of a new connection. Where there is no password, everybody is known.
    pub fn new(client: Arc<Client>, needs_password: bool) -> Self {
        Self {
            client,
            authenticated: !needs_password,
            login: None,
            keyspace: Keyspace::default(),
            closing: false,
            reply_mode: ReplyMode::On,
            transaction: None,
            watched: None,
            tracked_reads: None,
            caching_said: false,
            last_write: None,
            unsettled: Unsettled::default(),
            awaited: Awaited::default(),
        }
    }

    /// Whether the keys of a reading command are to be remembered.
    #[inline]
    pub fn tracks_read(&self) -> bool {
        match self.tracked_reads {
            None => false,
            Some(Consent::Always) => true,
            Some(Consent::OptIn) => self.caching_said,
            Some(Consent::OptOut) => !self.caching_said,
        }
    }

    /// Is told of no changed keys any more.
    pub fn end_tracking(&mut self, store: &Store) {
        self.keyspace.space(store).tracking.disable(&self.client);
        self.tracked_reads = None;
        self.caching_said = false;
    }

    /// It has said who it is: a tenant's user, or `default`. What it has in one keyspace it doesn't take into another.
    pub fn enter(&mut self, node: &Node, login: Option<Arc<Login>>) {
        let keyspace = login
            .as_ref()
            .map_or_else(Keyspace::default, |login| login.tenant().keyspace().clone());
        if keyspace.id() != self.keyspace.id() {
            self.leave(&node.store);
            self.client.mailbox.discard();
            self.last_write = None;
        }
        self.keyspace = keyspace;
        self.client.set_login(login.clone());
        self.login = login;
        self.authenticated = true;
        node.clients.note_known(&self.client, true);
    }

    /// Lets go of everything that it has in its keyspace.
    pub fn leave(&mut self, store: &Store) {
        self.forget_transaction(store);
        self.keyspace.space(store).pubsub.forget(&self.client);
        self.end_tracking(store);
    }

    /// Puts what waits in the mailbox before the reply that is about to be written, unless that is a part of another
    /// one, or not to be sent.
    pub fn collect_before_reply(&self, reply: &mut Reply) {
        if !reply.is_part() && self.reply_mode == ReplyMode::On {
            self.client.mailbox.collect_all(reply);
        }
    }

    /// Drops what was queued, and watches nothing any more.
    pub fn forget_transaction(&mut self, store: &Store) {
        self.transaction = None;
        if let Some(watched) = self.watched.take() {
            watched.end(store);
        }
    }

    /// `RESET`: back to the state of a new connection.
    pub fn reset(&mut self, node: &Node) {
        self.enter(node, None);
        self.authenticated = node.password.is_none();
        node.clients.note_known(&self.client, self.authenticated);
        self.reply_mode = ReplyMode::On;
        let client = &self.client;
        for flag in [
            &client.resp3,
            &client.no_evict,
            &client.no_touch,
            &client.readonly,
        ] {
            flag.store(false, Ordering::Relaxed);
        }
        let mut introduction = client.introduction.lock();
        *introduction = Introduction {
            name: String::new(),
            ..std::mem::take(&mut *introduction)
        };
    }
}

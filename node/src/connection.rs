//! One connection: bytes in, commands executed, bytes out.
//!
//! What has arrived is read into one buffer, every complete command in it is executed in place, and the replies
//! go out with one write. No task, channel or allocation is made for a command.
//!
//! Memory is bounded: while [`OUTPUT_BYTES_SOFT_MAX`] of replies wait for the client to read them, nothing more
//! is executed; what the client sends meanwhile is received up to [`READ_AHEAD_BYTES_MAX`] and waits (a client
//! that writes a long pipeline before it reads would otherwise never come to read), and beyond that it stays
//! with the sender. A single command that is larger than [`INPUT_BYTES_MAX`] ends the connection.
//!
//! What other threads have put into the client's mailbox goes out between replies: behind each command, and whenever
//! all replies are sent.

mod detached;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant as StdInstant};

use annulus_proto::tenants::TenantId;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::buffers::{self, READ_BYTES};
use crate::clients::{Client, Stop};
use crate::clock;
use crate::command::Command;
use crate::error::CommandError;
use crate::execute::{Context, Executed, execute, resolve, slot_of};
use crate::journal::{ACKS_TIMEOUT, Wait};
use crate::look_ahead::LookAhead;
use crate::node::Node;
use crate::pause::Waiting;
use crate::resp::{Args, Limits, Parser, Reply};
use crate::routing::Access;
use crate::script::may_write;
use crate::session::Session;
use crate::stats::ThreadStats;
use crate::store::Keyspace;
use crate::store::limits::Rate;
use crate::tenants::{TURN_MAX, Turn, take_turn};
use crate::tls::ClientStream;
use crate::transaction::{Transaction, Watched};

pub use detached::Answered;

/// No command is executed while the client has so many bytes of replies to read.
pub const OUTPUT_BYTES_SOFT_MAX: usize = 1 << 20;

/// So much is received and kept while the client doesn't read.
pub const READ_AHEAD_BYTES_MAX: usize = 32 << 20;

/// A command may take so many bytes.
pub const INPUT_BYTES_MAX: usize = 1 << 30;

/// A command may take so many bytes before anybody has said who it is from.
pub const STRANGER_INPUT_BYTES_MAX: usize = 32 << 10;

/// A single reply may take so many bytes, and no more than half of the memory budget.
pub const OUTPUT_BYTES_MAX: usize = 1 << 30;

/// A connection may hold so much without being charged for it: the headroom over the budget has room for many.
const HELD_BYTES_FREE: usize = 128 << 10;

/// A command waits so long at most until it is known who serves its slot; moving one takes milliseconds.
const SLOT_PATIENCE_MS: u64 = 1000;
const SLOT_LOOK: Duration = Duration::from_millis(2);

/// Small letters from the mailbox are copied together up to about so much at a time.
const COLLECTED_BYTES_MAX: usize = 64 << 10;

/// Before a connection that ends in error is closed, so much of what the client still sends is read, or the
/// kernel would discard the error reply on its way.
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What is left to send of a connection that ends may take so long: only with TLS is there anything.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// Executes what is in a buffer of received bytes: the whole state of a connection except its socket.
pub struct Pipeline {
    node: Arc<Node>,
    stats: Arc<ThreadStats>,
    session: Session,
    parser: Parser,
    input: BytesMut,
    reply: Reply,
    /// Bytes of `reply` that were sent.
    sent: usize,
    /// What is left to send of a large letter. It was begun when all replies were sent, so it comes before them.
    letter: Bytes,
    /// Commands may wait in `input` for this.
    waits_for: Option<WaitsFor>,
    /// What the store was told that the connection holds.
    charged_bytes: u64,
    /// It is counted among those that wait for the end of a pause.
    waiting: Option<Waiting>,
    /// Whose entries make room for that.
    charged_to: Keyspace,
    /// The command in front of `input` has waited for the tenant's rate.
    is_throttled: bool,
    /// The command in front of `input` has waited for its slot since then.
    slot_awaited_since_ms: Option<u64>,
    /// The connection can't go on: not even the replies are to be sent.
    broken: bool,
    /// No command is executed while so many bytes of replies wait to be sent.
    output_bytes_soft_max: usize,
    /// Executed commands stay in front of `input`: somebody may have to send them on, or have them executed again.
    keeps_executed: bool,
    /// How many bytes of `input` those are.
    executed_bytes: usize,
}

/// What complete commands wait for before they are executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WaitsFor {
    /// The client is to read its replies.
    Client,
    /// The end of a pause.
    Pause,
    /// It is to be known who serves the slot.
    Slot,
    /// Other tenants' commands come first.
    Turn,
    /// The tenant's commands come too fast: for so many milliseconds.
    Rate(u64),
    /// Keys are being loaded from their group's origin.
    Load,
}

impl WaitsFor {
    /// When to look again whether it is over, if nobody is told of that.
    fn look_again(self) -> Option<Duration> {
        match self {
            // One slot's end of a move takes milliseconds.
            Self::Slot => Some(SLOT_LOOK),
            Self::Rate(ms) => Some(Duration::from_millis(ms)),
            Self::Client | Self::Pause | Self::Turn | Self::Load => None,
        }
    }
}

impl Pipeline {
    /// The state of a new connection.
    pub fn new(node: Arc<Node>, stats: Arc<ThreadStats>, client: Arc<Client>) -> Self {
        let session = Session::new(client, node.password.is_some());
        let reply_bytes_max = usize::try_from(node.store.connection_bytes_max() / 2).unwrap_or(usize::MAX);
        Self {
            node,
            stats,
            session,
            parser: Parser::new(),
            input: BytesMut::new(),
            reply: Reply::new(reply_bytes_max.min(OUTPUT_BYTES_MAX)),
            sent: 0,
            letter: Bytes::new(),
            waits_for: None,
            charged_bytes: 0,
            charged_to: Keyspace::default(),
            is_throttled: false,
            waiting: None,
            slot_awaited_since_ms: None,
            broken: false,
            output_bytes_soft_max: OUTPUT_BYTES_SOFT_MAX,
            keeps_executed: false,
            executed_bytes: 0,
        }
    }

    /// Takes bytes as if they were received.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Executes the complete commands that have arrived, as far as the client reads its replies.
    pub fn process(&mut self, now_ms: u64) {
        if self.is_loading() && !self.session.awaited.is_over() {
            return;
        }
        self.waits_for = None;
        if self.input.len() == self.executed_bytes || !self.session.unsettled.is_empty() {
            return;
        }
        self.session.client.active_at_ms.store(now_ms, Ordering::Relaxed);
        self.make_room_for_replies();
        let bulk_bytes_max = self.node.settings.bulk_bytes_max();
        let (mut consumed, mut commands, mut ahead) = (self.executed_bytes, 0, LookAhead::new());
        let begun = self.session.login.is_some().then(clock::monotonic);
        let tenant = self.session.keyspace.id();
        while !self.session.closing {
            if self.unsent_replies().len() >= self.output_bytes_soft_max {
                self.waits_for = Some(WaitsFor::Client);
                break;
            }
            let limits = Limits {
                authenticated: self.session.authenticated,
                bulk_bytes_max,
            };
            match ahead.next(
                &mut self.parser,
                &self.input[consumed..],
                limits,
                (&self.node.store, &self.session.keyspace),
            ) {
                Ok(None) => break,
                Ok(Some(command)) => {
                    let args = command.args(&self.parser, &self.input[consumed..]);
                    if self.node.pause.is_on() && self.is_held(args, now_ms) {
                        self.waits_for = Some(WaitsFor::Pause);
                        break;
                    }
                    if self.node.store.moving.is_on() {
                        let is_moving = self.is_slot_moving(args);
                        if has_patience(&mut self.slot_awaited_since_ms, is_moving, now_ms) {
                            self.waits_for = Some(WaitsFor::Slot);
                            break;
                        }
                    }
                    if let Some(begun) = begun {
                        let (node, keyspace) = (&self.node, &self.session.keyspace);
                        let has_begun = (begun, commands > 0);
                        // What has waited for a load was counted when it began to.
                        let is_counted = !self.session.awaited.is_empty();
                        self.waits_for = if is_counted {
                            None
                        } else {
                            waits_for_others(node, keyspace, has_begun, &mut self.is_throttled, now_ms)
                        };
                        if self.waits_for.is_some() {
                            break;
                        }
                    }
                    // An empty line, or an array of nothing, asks for nothing.
                    if !args.is_empty() {
                        let (node, stats, session) = (&*self.node, &*self.stats, &mut self.session);
                        let executed = run(
                            &mut Context {
                                node,
                                stats,
                                session,
                                now_ms,
                            },
                            (args, command.len),
                            &mut self.reply,
                        );
                        if executed == Executed::Waits {
                            self.waits_for = Some(WaitsFor::Load);
                            break;
                        }
                    }
                    consumed += command.len;
                    commands += 1;
                    ahead.done(&mut self.parser);
                    if self.session.client.mailbox.has_letters() {
                        self.collect_letters();
                    }
                    // Whoever has become somebody else goes on in that one's turn, at that one's rate.
                    if self.session.keyspace.id() != tenant {
                        self.waits_for = Some(WaitsFor::Turn);
                        break;
                    }
                }
                Err(error) => {
                    self.stats.protocol_errors.add(1);
                    self.stats.error_replies.add(1);
                    self.reply.error(&error);
                    self.session.closing = true;
                }
            }
        }
        ahead.end(&mut self.parser);
        self.note_consumed(consumed);
        self.make_room_for_held(now_ms);
        self.broken |= self.reply.overflowed()
            || (self.waits_for.is_none() && self.input.len() > self.input_bytes_max());
        self.note_usage(commands);
        self.note_pause();
    }

    /// So much of the input was executed.
    fn note_consumed(&mut self, bytes: usize) {
        if self.session.closing {
            self.input.clear();
            self.executed_bytes = 0;
        } else if self.keeps_executed {
            self.executed_bytes = bytes;
        } else {
            self.input.advance(bytes);
        }
    }

    /// Has the entries make room for what the connection holds, or ends it.
    fn make_room_for_held(&mut self, now_ms: u64) {
        if !self.charge() {
            self.broken = true;
            self.stats.clients_evicted.add(1);
        } else if self.charged_bytes > 0 && self.node.store.is_over_budget() {
            self.stats.evicted_keys.add(self.node.store.evict(now_ms));
        }
    }

    fn make_room_for_replies(&mut self) {
        if self.sent >= OUTPUT_BYTES_SOFT_MAX / 2 {
            self.reply.discard_front(self.sent);
            self.sent = 0;
        }
        if !self.reply.has_buffer() {
            self.reply.use_buffer(buffers::take_output());
        }
    }

    /// Counts the connection among those that wait for the end of a pause, or not.
    fn note_pause(&mut self) {
        if self.waits_for == Some(WaitsFor::Pause) {
            self.waiting.get_or_insert_with(|| self.node.pause.wait());
        } else {
            self.waiting = None;
        }
    }

    /// Of a stranger less is taken: it has only to say who it is.
    fn input_bytes_max(&self) -> usize {
        if self.session.authenticated {
            INPUT_BYTES_MAX
        } else {
            STRANGER_INPUT_BYTES_MAX
        }
    }

    /// Writes down what others may want to know.
    fn note_usage(&self, commands: u64) {
        let Session {
            client,
            transaction,
            watched,
            ..
        } = &self.session;
        let usage = &client.usage;
        client.input_bytes.store(self.input.len(), Ordering::Relaxed);
        let reply_bytes = self.reply.held_bytes();
        for (figure, value) in [
            (&usage.input_free_bytes, self.input.capacity() - self.input.len()),
            (&usage.reply_buffer_bytes, reply_bytes),
            (
                &usage.queued,
                transaction.as_ref().map_or(0, |queued| queued.len() + 1),
            ),
            (
                &usage.queued_bytes,
                transaction.as_ref().map_or(0, Transaction::bytes),
            ),
            (&usage.watched, watched.as_ref().map_or(0, Watched::len)),
        ] {
            figure.store(value, Ordering::Relaxed);
        }
        let largest = usage
            .reply_buffer_bytes_max
            .load(Ordering::Relaxed)
            .max(reply_bytes);
        usage.reply_buffer_bytes_max.store(largest, Ordering::Relaxed);
        usage.commands.add(commands);
    }

    /// The command, and whether it may write, or `EXEC` what it would run. `None` for what would be refused anyway: that is
    /// to be refused at once.
    fn command_in_front(&self, args: Args<'_>) -> Option<(&'static Command, bool)> {
        if args.is_empty() {
            return None;
        }
        let command = resolve(args).ok()?.command;
        let scripts = &self.session.keyspace.space(&self.node.store).scripts;
        let transaction = self.session.transaction.as_ref();
        let exec_writes = || transaction.is_some_and(|queued| queued.writes(scripts));
        let writes = may_write(scripts, command, args) || (command.name == "exec" && exec_writes());
        command.accepts(args.len()).then_some((command, writes))
    }

    /// Whether the command has to wait for the end of a pause.
    #[cold]
    fn is_held(&self, args: Args<'_>, now_ms: u64) -> bool {
        self.command_in_front(args)
            .is_some_and(|(command, writes)| self.node.pause.holds(command, writes, now_ms))
    }

    /// Whether the command is about a slot that is just changing hands.
    #[cold]
    fn is_slot_moving(&self, args: Args<'_>) -> bool {
        let Some((command, writes)) = self.command_in_front(args) else {
            return false;
        };
        let (slot, writes) = match &self.session.transaction {
            Some(queued) if command.name == "exec" => (queued.slot(), writes),
            // What is queued is not written yet.
            Some(_) => (slot_of(command, args), false),
            None => (slot_of(command, args), writes),
        };
        let Ok(Some(slot)) = slot else {
            return false;
        };
        match self.node.routing.access(slot) {
            Access::ReadOnly => writes,
            Access::Elsewhere => self.node.store.moving.is_arriving(slot),
            Access::ReadWrite | Access::Down => false,
        }
    }

    /// Whether the command in front waits for keys to be loaded.
    fn is_loading(&self) -> bool {
        self.waits_for == Some(WaitsFor::Load)
    }

    /// Ready when what the command in front waits for is loaded; pending when it waits for no load.
    pub fn poll_load(&mut self, context: &mut TaskContext<'_>) -> Poll<()> {
        if self.is_loading() {
            self.session.awaited.poll(context)
        } else {
            Poll::Pending
        }
    }

    fn note_received(&self, bytes: usize) {
        self.stats.net_input_bytes.add(bytes as u64);
        self.session.client.usage.received_bytes.add(bytes as u64);
    }

    fn note_sent(&self, bytes: usize) {
        self.stats.net_output_bytes.add(bytes as u64);
        self.session.client.usage.sent_bytes.add(bytes as u64);
    }

    /// Executes what has arrived, in the tenant's turn, and waits until the copies have it. `Kill`: the connection ends at
    /// once.
    async fn execute(&mut self) -> Stop {
        let tenant = self.session.keyspace.id();
        if tenant == TenantId::CLUSTER {
            self.process(clock::now_ms());
        } else {
            let Some(turn) = self.wait_for_turn(tenant).await else {
                return Stop::Kill;
            };
            self.process(clock::now_ms());
            turn.end(self.waits_for == Some(WaitsFor::Turn)).await;
        }
        if self.broken {
            return Stop::Kill;
        }
        self.settle().await
    }

    /// The tenant's turn; `None` when the connection is to end before that, without executing anything more. Who drains
    /// doesn't wait.
    async fn wait_for_turn(&self, tenant: TenantId) -> Option<Turn> {
        let client = &self.session.client;
        let mut turn = pin!(take_turn(tenant));
        poll_fn(|context| match client.poll_stop(context.waker()) {
            Stop::Kill => Poll::Ready(None),
            Stop::Drain => Poll::Ready(Some(Turn::at_once(tenant))),
            Stop::No => turn.as_mut().poll(context).map(Some),
        })
        .await
    }

    /// Waits, if there is anything to wait for, until the copies have what was read and written. Replies of commands of which
    /// that isn't known in time, or whose slot was taken away, are replaced by errors.
    pub async fn settle(&mut self) -> Stop {
        if self.session.unsettled.is_empty() {
            return Stop::No;
        }
        let journal = &self.node.store.journal;
        let deadline = journal.clock().moment(self.session.unsettled.since_ms()) + ACKS_TIMEOUT;
        let mut timer = pin!(tokio::time::sleep_until(deadline));
        let (client, unsettled) = (&self.session.client, &mut self.session.unsettled);
        let stop = poll_fn(|context| {
            if client.poll_stop(context.waker()) == Stop::Kill {
                return Poll::Ready(Stop::Kill);
            }
            loop {
                let Wait::For(moment) = unsettled.poll(journal, context.waker()) else {
                    return Poll::Ready(Stop::No);
                };
                if Instant::now() >= deadline {
                    return Poll::Ready(Stop::No);
                }
                let look_again = moment.map_or(deadline, |ms| journal.clock().moment(ms).min(deadline));
                timer.as_mut().reset(look_again);
                if timer.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
        for failed in unsettled.take_failed() {
            let error = if failed.writes {
                CommandError::Uncertain
            } else {
                CommandError::LeaseLost
            };
            self.stats.error_replies.add(1);
            self.reply.replace(failed.place, &error);
        }
        stop
    }

    /// What is to be sent next.
    pub fn unsent(&self) -> &[u8] {
        if self.letter.is_empty() {
            self.unsent_replies()
        } else {
            &self.letter
        }
    }

    fn unsent_replies(&self) -> &[u8] {
        &self.reply.as_bytes()[self.sent..]
    }

    /// Puts small letters behind the replies.
    fn collect_letters(&mut self) {
        if !self.reply.has_buffer() {
            self.reply.use_buffer(buffers::take_output());
        }
        let (mailbox, begin) = (&self.session.client.mailbox, self.reply.len());
        mailbox.collect(&mut self.reply, self.sent + COLLECTED_BYTES_MAX);
        self.pay_for_letters(self.reply.len() - begin);
    }

    /// Messages are not refused: the tenant's next commands are.
    fn pay_for_letters(&self, bytes: usize) {
        pay(&self.node, &self.session.keyspace, bytes, clock::now_ms);
    }

    /// Takes letters to be sent, now that all replies are. Says whether there are any.
    fn take_letters(&mut self) -> bool {
        let mailbox = &self.session.client.mailbox;
        if !mailbox.has_letters() {
            return false;
        }
        if let Some(letter) = mailbox.take_large() {
            self.letter = letter;
            self.pay_for_letters(self.letter.len());
        } else {
            self.collect_letters();
        }
        true
    }

    /// Counts bytes as sent.
    pub fn mark_sent(&mut self, bytes: usize) {
        if !self.letter.is_empty() {
            self.letter.advance(bytes);
            return;
        }
        self.sent += bytes;
        self.session
            .client
            .output_bytes
            .store(self.unsent_replies().len(), Ordering::Relaxed);
        if self.sent == self.reply.len() {
            self.sent = 0;
            buffers::give_output(self.reply.take_buffer());
            self.charge();
            let usage = &self.session.client.usage;
            usage.reply_buffer_bytes.store(0, Ordering::Relaxed);
        }
    }

    /// Tells the store what the connection holds; `false` when there is no room for it.
    #[inline]
    fn charge(&mut self) -> bool {
        let held_bytes = self.held_bytes().saturating_sub(HELD_BYTES_FREE) as u64;
        if held_bytes == self.charged_bytes {
            return true;
        }
        let before = std::mem::replace(&mut self.charged_bytes, held_bytes);
        let has_room = self.node.store.note_connection_bytes(before, held_bytes);
        has_room & self.charge_tenant(before, held_bytes)
    }

    /// The same for its tenant.
    fn charge_tenant(&mut self, before: u64, held_bytes: u64) -> bool {
        let keyspace = &self.session.keyspace;
        if self.charged_to.id() == keyspace.id() {
            let Some(space) = keyspace.tenant() else {
                return true;
            };
            let all = space.note_connection_bytes(before, held_bytes);
            return held_bytes <= before || all <= self.node.store.connection_bytes_max_of(space);
        }
        if let Some(former) = self.charged_to.tenant() {
            former.note_connection_bytes(before, 0);
        }
        self.charged_to = keyspace.clone();
        self.charge_tenant(0, held_bytes)
    }

    /// Whether the connection is to end once everything is sent.
    pub fn is_closing(&self) -> bool {
        self.session.closing
    }

    /// Whether commands may be waiting for the client to read its replies.
    pub fn is_blocked(&self) -> bool {
        self.waits_for == Some(WaitsFor::Client)
    }

    /// Whether the connection is to end at once.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Bytes of the buffers that it holds.
    pub fn held_bytes(&self) -> usize {
        let queued = self.session.transaction.as_ref().map_or(0, Transaction::bytes);
        self.input.capacity()
            + self.parser.held_bytes()
            + self.reply.held_bytes()
            + self.letter.len()
            + queued
    }

    fn may_receive(&self) -> bool {
        !self.session.closing && (self.waits_for.is_none() || self.input.len() < READ_AHEAD_BYTES_MAX)
    }

    /// Makes room for a read: twice what has arrived at most, whatever lengths the client claims.
    fn make_room(&mut self) {
        const ROOM_MIN_BYTES: usize = 4 << 10;
        if self.input.capacity() == 0 {
            self.input = buffers::take_input();
        } else if self.input.capacity() - self.input.len() < ROOM_MIN_BYTES {
            let missing = self.parser.needed_bytes().saturating_sub(self.input.len());
            self.input
                .reserve(missing.clamp(READ_BYTES, self.input.len().max(READ_BYTES)));
        }
    }

    fn release_input(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            buffers::give_input(std::mem::take(&mut self.input));
            self.charge();
            let usage = &self.session.client.usage;
            usage.input_free_bytes.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let Self { node, session, .. } = self;
        session.leave(&node.store);
        node.store.note_connection_bytes(self.charged_bytes, 0);
        if let Some(space) = self.charged_to.tenant() {
            space.note_connection_bytes(self.charged_bytes, 0);
        }
    }
}

/// What a tenant's next command waits for: its turn has begun then, and something was executed in it or not.
fn waits_for_others(
    node: &Node,
    keyspace: &Keyspace,
    (begun, has_worked): (StdInstant, bool),
    is_throttled: &mut bool,
    now_ms: u64,
) -> Option<WaitsFor> {
    if has_worked && begun.elapsed() > TURN_MAX {
        return Some(WaitsFor::Turn);
    }
    match ask_for_rate(node, keyspace, is_throttled, now_ms) {
        Rate::Wait(ms) => Some(WaitsFor::Rate(ms)),
        Rate::Within | Rate::Refused(_) => None,
    }
}

/// Whether the tenant's next command may be executed, where those beyond its rate wait; each is counted once.
fn ask_for_rate(node: &Node, keyspace: &Keyspace, is_throttled: &mut bool, now_ms: u64) -> Rate {
    let Some(space) = keyspace.tenant() else {
        return Rate::Within;
    };
    let rate = space.limits.operate(node.store.slots(), now_ms, true);
    let waits = matches!(rate, Rate::Wait(_));
    if waits && !*is_throttled {
        space.counters.throttled.add(1);
    }
    *is_throttled = waits;
    rate
}

/// Executes a command that takes so many bytes of the input, and has its tenant pay for it.
fn run(context: &mut Context<'_>, (args, request_bytes): (Args<'_>, usize), reply: &mut Reply) -> Executed {
    let reply_begin = reply.len();
    let executed = execute(context, args, reply);
    // What is refused is free, or those that try again would never get out of debt.
    if executed == Executed::Answered {
        let (bytes, now_ms) = (request_bytes + reply.len() - reply_begin, context.now_ms);
        pay(context.node, &context.session.keyspace, bytes, || now_ms);
    }
    executed
}

/// Counts bytes that a tenant sent or is sent; nothing of the cluster's own clients.
#[inline]
fn pay(node: &Node, keyspace: &Keyspace, bytes: usize, now_ms: impl FnOnce() -> u64) {
    if let Some(space) = keyspace.tenant() {
        space.limits.pay(bytes, node.store.slots(), now_ms());
    }
}

/// Whether the command in front, whose slot is or isn't moving, goes on waiting for it; it has waited since `since_ms`.
fn has_patience(since_ms: &mut Option<u64>, is_moving: bool, now_ms: u64) -> bool {
    let waits = is_moving && now_ms.saturating_sub(*since_ms.get_or_insert(now_ms)) < SLOT_PATIENCE_MS;
    if !waits {
        *since_ms = None;
    }
    waits
}

/// What came of waiting for the socket.
enum Io {
    /// Something was received, or sent.
    Progress,
    /// The connection is over.
    Over,
}

/// A connection that a server thread has accepted.
pub struct Connection<S: ClientStream> {
    stream: S,
    pipeline: Pipeline,
    /// The client sends no more.
    input_ended: bool,
    /// What has arrived is answered, and then the connection ends.
    draining: bool,
}

impl<S: ClientStream> Connection<S> {
    /// A connection that was just accepted.
    pub fn new(stream: S, node: Arc<Node>, stats: Arc<ThreadStats>, client: Arc<Client>) -> Self {
        Self {
            stream,
            pipeline: Pipeline::new(node, stats, client),
            input_ended: false,
            draining: false,
        }
    }

    /// Serves the connection until it ends.
    pub async fn run(mut self) {
        while self.pipeline.execute().await != Stop::Kill {
            let look_again = self.pipeline.waits_for.and_then(WaitsFor::look_again);
            let io = if let Some(look_again) = look_again {
                let io = timeout(look_again, poll_fn(|context| self.poll_io(context)));
                io.await.unwrap_or(Io::Progress)
            } else {
                poll_fn(|context| self.poll_io(context)).await
            };
            if let Io::Over = io {
                break;
            }
        }
        self.close().await;
    }

    /// Sends and receives what can be sent and received now.
    fn poll_io(&mut self, context: &mut TaskContext<'_>) -> Poll<Io> {
        match self.pipeline.session.client.poll_stop(context.waker()) {
            Stop::No => {}
            Stop::Drain => self.draining = true,
            Stop::Kill => return Poll::Ready(Io::Over),
        }
        let Ok(all_sent) = self.poll_send(context) else {
            return Poll::Ready(Io::Over);
        };
        // Going on only when half of it is sent: each step then has something to do.
        if self.pipeline.is_blocked() && self.pipeline.unsent_replies().len() <= OUTPUT_BYTES_SOFT_MAX / 2 {
            return Poll::Ready(Io::Progress);
        }
        if self.pipeline.waits_for == Some(WaitsFor::Turn) {
            return Poll::Ready(Io::Progress);
        }
        if self.pipeline.poll_load(context).is_ready() {
            return Poll::Ready(Io::Progress);
        }
        if self.pipeline.waits_for == Some(WaitsFor::Pause) && !self.pipeline.node.pause.is_on() {
            return Poll::Ready(Io::Progress);
        }
        let is_loading = self.pipeline.is_loading();
        if all_sent && !is_loading && (self.pipeline.is_closing() || self.input_ended) {
            return Poll::Ready(Io::Over);
        }
        if self.input_ended || !self.pipeline.may_receive() {
            return Poll::Pending;
        }
        self.pipeline.make_room();
        match pin!(self.stream.read_buf(&mut self.pipeline.input)).poll(context) {
            Poll::Ready(Ok(0)) => {
                self.input_ended = true;
                if all_sent && !is_loading {
                    Poll::Ready(Io::Over)
                } else {
                    Poll::Pending
                }
            }
            Poll::Ready(Ok(len)) => {
                self.pipeline.note_received(len);
                Poll::Ready(Io::Progress)
            }
            Poll::Ready(Err(_)) => Poll::Ready(Io::Over),
            Poll::Pending if self.draining && all_sent && !is_loading => Poll::Ready(self.receive_the_last()),
            Poll::Pending => {
                self.pipeline.release_input();
                Poll::Pending
            }
        }
    }

    /// Receives what the runtime may not have noticed yet: it learns of new bytes only when it next asks the
    /// kernel, and a connection that drains doesn't wait for that.
    fn receive_the_last(&mut self) -> Io {
        let mut bytes = [0; 4096];
        match self.stream.receive_now(&mut bytes) {
            Ok(len @ 1..) => {
                self.pipeline.note_received(len);
                self.pipeline.receive(&bytes[..len]);
                Io::Progress
            }
            Ok(0) | Err(_) => Io::Over,
        }
    }

    /// Sends until everything is sent or the client doesn't take more. Whether all is sent.
    fn poll_send(&mut self, context: &mut TaskContext<'_>) -> io::Result<bool> {
        while !self.pipeline.unsent().is_empty() || self.pipeline.take_letters() {
            match Pin::new(&mut self.stream).poll_write(context, self.pipeline.unsent()) {
                Poll::Ready(Ok(len)) => {
                    self.pipeline.note_sent(len);
                    self.pipeline.mark_sent(len);
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(false),
            }
        }
        if !S::BUFFERS {
            return Ok(true);
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(flushed) => flushed.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    async fn close(mut self) {
        if self.pipeline.is_broken() {
            return;
        }
        let goodbye = timeout(GOODBYE_TIMEOUT, self.stream.shutdown());
        if !matches!(goodbye.await, Ok(Ok(()))) {
            return;
        }
        let mut lingering = 0;
        let mut discarded = [0; 4096];
        while lingering < LINGER_BYTES_MAX {
            match self.stream.socket().try_read(&mut discarded) {
                Ok(len @ 1..) => lingering += len,
                Ok(0) | Err(_) => break,
            }
        }
    }
}

impl<S: ClientStream> Drop for Connection<S> {
    fn drop(&mut self) {
        let Pipeline {
            node, session, stats, ..
        } = &self.pipeline;
        node.clients.dismiss(session.client.id);
        stats.connections_closed.add(1);
        if session.client.mailbox.is_closed() {
            stats.slow_clients_closed.add(1);
        }
    }
}

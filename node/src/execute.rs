//! From arguments to a reply: finds the command, checks what its row asks for, takes its slot, runs it.
//!
//! Order of the checks, as in Redis: known, complete, authenticated, keys in one slot, memory, slot served here. The
//! last one is asked while the slot is locked. Nothing here reads a socket, nor a clock but for how long commands take.

use std::sync::atomic::Ordering;

use annulus_ring::{Epoch, Slot};

use crate::command::{Command, Entry, Flags, Run, table};
use crate::commands::{command_info, strings};
use crate::copy_reads;
use crate::error::{CommandError, Outcome};
use crate::exclusive::Exclusive;
use crate::groups::{self, Awaited, Reading};
use crate::hot_keys::is_sampled;
use crate::node::Node;
use crate::resp::{Args, Reply};
use crate::routing::Access;
use crate::script::may_write;
use crate::session::{ReplyMode, Session};
use crate::stats::{Ending, ThreadStats};
use crate::store::limits::Rate;
use crate::store::{EvictionPolicy, SlotGuard, Space};
use crate::tracking::TENANT_KEYS_MAX;

/// What a command on the connection or the node works with.
pub struct Context<'a> {
    /// What all connections share.
    pub node: &'a Node,
    /// The thread's counters.
    pub stats: &'a ThreadStats,
    /// The connection's state.
    pub session: &'a mut Session,
    /// The time, in milliseconds since the Unix epoch: the same for a whole batch of commands.
    pub now_ms: u64,
}

impl Context<'_> {
    /// What the client's tenant has, or the cluster itself.
    #[inline]
    pub fn space(&self) -> &Space {
        self.session.keyspace.space(&self.node.store)
    }
}

/// What a command on keys works with: all of them are in one slot, which it has to itself.
pub struct Keyed<'a, 'store> {
    /// The slot.
    pub slot: &'a mut SlotGuard<'store>,
    /// The command's arguments, its name included; as many as its arity asks for.
    pub args: Args<'a>,
    /// The time, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The longest value that it may build.
    pub value_bytes_max: usize,
    /// Where the reply goes.
    pub reply: &'a mut Reply,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executed {
    /// It is answered.
    Answered,
    /// It is answered that the tenant's rates refuse it.
    Throttled,
    /// It waits for what the session awaits, and is to be executed again when that is over.
    Waits,
}

/// Executes one command; `args` are not empty. Its reply, an error too, is at the end of `reply`.
pub fn execute(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Executed {
    let (start, errors, waiting) = (reply.len(), reply.errors(), context.session.unsettled.len());
    let mode = context.session.reply_mode;
    if mode == ReplyMode::SkipNext {
        context.session.reply_mode = ReplyMode::SkipThis;
    }
    let mut is_throttled = false;
    let ending = match dispatch(context, args, reply) {
        Ok(Some(WAITS)) => return Executed::Waits,
        Ok(None) => None,
        Ok(Some(index)) => Some((
            index,
            if reply.errors() == errors {
                Ending::Done
            } else {
                Ending::Failed
            },
        )),
        Err(Failed {
            entry,
            mut error,
            ending,
        }) => {
            if let (Ending::Rejected, Some(transaction)) = (ending, &mut context.session.transaction) {
                transaction.abort();
            }
            if let CommandError::Moved { secure, .. } = &mut error {
                *secure = context.session.client.secure.load(Ordering::Relaxed);
                context.stats.moved_replies.add(1);
            }
            is_throttled = matches!(error, CommandError::Throttled { .. });
            // A command may fail half-way through its reply.
            reply.truncate(start);
            reply.error(&error);
            entry.map(|entry| (entry.index, ending))
        }
    };
    if !context.session.awaited.is_empty() {
        context.session.awaited = Awaited::default();
    }
    // What was said of a command holds for a whole transaction.
    if context.session.caching_said
        && context.session.transaction.is_none()
        && !args.at(0).eq_ignore_ascii_case(b"client")
    {
        context.session.caching_said = false;
    }
    context.stats.commands_processed.add(1);
    if reply.errors() > errors {
        context.stats.error_replies.add(reply.errors() - errors);
        context.stats.count_error(&reply.as_bytes()[start..]);
    }
    if let Some((index, ending)) = ending {
        context.stats.count_command(index.into(), ending);
    }
    match mode {
        ReplyMode::On => {}
        // CLIENT REPLY ON answers, although its reply was not wanted when it came.
        _ if context.session.reply_mode == ReplyMode::On => {}
        ReplyMode::Off => reply.truncate(start),
        ReplyMode::SkipNext | ReplyMode::SkipThis => {
            reply.truncate(start);
            if context.session.reply_mode == ReplyMode::SkipThis {
                context.session.reply_mode = ReplyMode::On;
            }
        }
    }
    context
        .session
        .unsettled
        .place_reply(waiting, &(start..reply.len()));
    if is_throttled {
        Executed::Throttled
    } else {
        Executed::Answered
    }
}

/// In the place of a command's number: it waits.
const WAITS: u16 = u16::MAX;

/// A command that answers an error.
struct Failed {
    entry: Option<&'static Entry>,
    error: CommandError,
    ending: Ending,
}

impl Failed {
    fn rejected(entry: &'static Entry, error: CommandError) -> Self {
        Self {
            entry: Some(entry),
            error,
            ending: Ending::Rejected,
        }
    }

    fn ended(entry: &'static Entry, error: CommandError) -> Self {
        Self {
            entry: Some(entry),
            error,
            ending: Ending::Failed,
        }
    }
}

/// Runs the command and returns its number, or queues it; [`WAITS`] when it waits.
#[inline]
fn dispatch(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Result<Option<u16>, Failed> {
    let entry = resolve(args).map_err(|error| Failed {
        entry: None,
        error,
        ending: Ending::Rejected,
    })?;
    context
        .session
        .client
        .last_command
        .store(entry.index, Ordering::Relaxed);
    let command = entry.command;
    if !command.accepts(args.len()) {
        return Err(Failed::rejected(
            entry,
            CommandError::Arity(entry.full_name.clone()),
        ));
    }
    if !context.session.authenticated && !command.flags.has(Flags::NO_AUTH) {
        return Err(Failed::rejected(entry, CommandError::NoAuth));
    }
    if context.session.login.is_some() {
        check_tenant(context, entry, args).map_err(|error| Failed::rejected(entry, error))?;
    }
    if !reply.is_resp3()
        && context.session.client.subscriptions.is_any()
        && !command.flags.has(Flags::WHILE_SUBSCRIBED)
    {
        let error = CommandError::Subscribed(entry.full_name.clone());
        return Err(Failed::rejected(entry, error));
    }
    if context.session.transaction.is_some() && !command.flags.has(Flags::IMMEDIATE) {
        return match queue(context, entry, args, reply) {
            Ok(()) => Ok(None),
            Err(error) => Err(Failed::rejected(entry, error)),
        };
    }
    let begun = context.node.timing.begin(entry);
    let outcome = match command.run {
        Run::Keyed(run) => {
            let slot = one_slot(command, args).map_err(|error| Failed::rejected(entry, error))?;
            match run_keyed(context, entry, slot, args, reply, run)? {
                Some(outcome) => outcome,
                None => return Ok(Some(WAITS)),
            }
        }
        Run::Plain(run) => run(context, args, reply),
        Run::Script(run) => {
            let rejected = |error| Failed::rejected(entry, error);
            let slot = slot_of(command, args).map_err(rejected)?;
            let only_reads = || !may_write(&context.space().scripts, command, args);
            let mut exclusive =
                Exclusive::new(context, slot, command.may_write(), only_reads).map_err(rejected)?;
            let outcome = run(context, &mut exclusive, args, reply);
            exclusive.end(context);
            outcome
        }
        // A family is only ever run by its own name where that means something: `COMMAND`.
        Run::Container(_) => command_info::all(context, args, reply),
    };
    context.node.timing.end(begun, context, entry, args);
    match outcome {
        Ok(()) => Ok(Some(entry.index)),
        Err(error) => Err(Failed::ended(entry, error)),
    }
}

/// What a tenant's limits say of a command, and what its user may do.
fn check_tenant(context: &Context<'_>, entry: &Entry, args: Args<'_>) -> Outcome {
    let Context { node, session, .. } = context;
    let Some(login) = &session.login else {
        return Ok(());
    };
    let (tenant, command) = (login.tenant(), entry.command);
    let (limits, counters) = (&tenant.space().limits, &tenant.space().counters);
    if session.awaited.is_empty() {
        counters.commands.add(1);
    }
    // Who one is can always be said anew, and that one goes.
    if command.flags.has(Flags::NO_AUTH) {
        return Ok(());
    }
    if !login.user().may(entry) {
        return Err(CommandError::NoPermission {
            user: login.user().name().to_owned(),
            command: entry.full_name.clone(),
        });
    }
    // It was counted when it began to wait.
    if !session.awaited.is_empty() {
        return Ok(());
    }
    // Those that are to wait have waited before they came here.
    if let Rate::Refused(limit) = limits.operate(node.store.slots(), context.now_ms, false) {
        counters.throttled.add(1);
        return Err(CommandError::Throttled {
            tenant: tenant.label().to_owned(),
            limit,
        });
    }
    if command.flags.has(Flags::WRITE.and(Flags::DENY_OOM)) {
        tenant.check_values(args)?;
    }
    Ok(())
}

/// The row of the command, or of its subcommand.
#[inline]
pub fn resolve(args: Args<'_>) -> Result<&'static Entry, CommandError> {
    let name = args.at(0);
    let entry = table().find(name).ok_or_else(|| unknown(args))?;
    match (entry.command.run, args.get(1)) {
        (Run::Container(_), Some(subcommand)) => {
            entry
                .find(subcommand)
                .ok_or_else(|| CommandError::UnknownSubcommand {
                    command: entry.command.name.to_uppercase(),
                    subcommand: excerpt(subcommand, EXCERPT_LEN_MAX),
                })
        }
        _ => Ok(entry),
    }
}

const EXCERPT_LEN_MAX: usize = 128;

/// What a client sent, for an error that quotes it.
fn excerpt(bytes: &[u8], len_max: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(len_max)]).into_owned()
}

fn unknown(args: Args<'_>) -> CommandError {
    let mut quoted = String::new();
    for arg in args.from(1) {
        if quoted.len() >= EXCERPT_LEN_MAX {
            break;
        }
        let arg = excerpt(arg, EXCERPT_LEN_MAX - quoted.len());
        quoted.extend(["'", arg.as_str(), "' "]);
    }
    CommandError::UnknownCommand {
        name: excerpt(args.at(0), EXCERPT_LEN_MAX),
        args: quoted,
    }
}

/// The slot that all keys of the command are in.
#[inline]
fn one_slot(command: &Command, args: Args<'_>) -> Result<Slot, CommandError> {
    let keys = command.keys;
    if i16::from(keys.first) == i16::from(keys.last) && keys.counted.is_none() {
        return Ok(Slot::for_key(args.at(keys.first.into())));
    }
    let mut slots = keys.of(command.name, args)?.map(Slot::for_key);
    let slot = slots.next().ok_or(CommandError::Syntax)?;
    if slots.all(|other| other == slot) {
        Ok(slot)
    } else {
        Err(CommandError::CrossSlot)
    }
}

/// The slot of a command that may be one without keys.
pub fn slot_of(command: &Command, args: Args<'_>) -> Result<Option<Slot>, CommandError> {
    match command.run {
        Run::Keyed(_) => one_slot(command, args).map(Some),
        Run::Script(_) if command.keys.of(command.name, args)?.next().is_some() => {
            one_slot(command, args).map(Some)
        }
        // A sharded channel is where a key of its name would be.
        Run::Plain(_) if !command.keys.is_empty() && args.len() > 1 => one_slot(command, args).map(Some),
        Run::Script(_) | Run::Plain(_) | Run::Container(_) => Ok(None),
    }
}

/// Checks a command between `MULTI` and `EXEC` as far as it can be checked now, and keeps it.
#[cold]
fn queue(
    context: &mut Context<'_>,
    entry: &'static Entry,
    args: Args<'_>,
    reply: &mut Reply,
) -> Result<(), CommandError> {
    let slot = slot_of(entry.command, args)?;
    check_memory(context, entry.command)?;
    if let Some(slot) = slot
        && matches!(
            context.node.routing.access(slot),
            Access::Elsewhere | Access::Down
        )
        && (may_write(&context.space().scripts, entry.command, args)
            || !copy_reads::may_answer(context, slot))
    {
        return Err(elsewhere(context.node, slot));
    }
    if let Some(transaction) = &mut context.session.transaction {
        transaction.push(entry, slot, args)?;
    }
    reply.simple("QUEUED");
    Ok(())
}

/// Refuses a command that may need memory when there is none and nothing may be evicted.
#[inline]
fn check_memory(context: &Context<'_>, command: &Command) -> Result<(), CommandError> {
    let store = &context.node.store;
    let may_need_memory = command.flags.has(Flags::WRITE.and(Flags::DENY_OOM));
    if may_need_memory && store.eviction() == EvictionPolicy::NoEviction {
        let tenant = context.session.keyspace.tenant();
        if store.is_over_budget() || tenant.is_some_and(|space| store.is_over_limits(space, 0)) {
            return Err(CommandError::OutOfMemory);
        }
    }
    Ok(())
}

/// Why a slot may not be used.
enum Refused<'a> {
    Here(CommandError),
    /// It is not served here; it is locked still.
    NotHere(SlotGuard<'a>),
}

impl Refused<'_> {
    fn into_error(self, node: &Node) -> CommandError {
        match self {
            Self::Here(error) => error,
            Self::NotHere(guard) => {
                let slot = guard.slot();
                drop(guard);
                elsewhere(node, slot)
            }
        }
    }
}

#[inline]
fn lock<'a>(context: &Context<'a>, slot: Slot, writes: bool) -> Result<SlotGuard<'a>, Refused<'a>> {
    let node = context.node;
    let guard = node.store.lock_slot_of(slot, &context.session.keyspace);
    match node.routing.access(slot) {
        Access::ReadWrite if writes && !node.store.journal.may_write(slot) => {
            Err(Refused::Here(CommandError::NoReplicas))
        }
        Access::ReadWrite => Ok(guard),
        Access::ReadOnly if !writes => Ok(guard),
        Access::ReadOnly => Err(Refused::Here(CommandError::TryAgain(slot))),
        Access::Elsewhere | Access::Down => Err(Refused::NotHere(guard)),
    }
}

/// Locks a slot that is served here.
#[inline]
pub fn admit<'a>(context: &Context<'a>, slot: Slot, writes: bool) -> Result<SlotGuard<'a>, CommandError> {
    lock(context, slot, writes).map_err(|refused| refused.into_error(context.node))
}

/// A slot that is locked for a command.
pub struct Admitted<'a> {
    /// The slot.
    pub guard: SlotGuard<'a>,
    /// Another node serves it, and the copy of it is read.
    pub is_copy: bool,
}

/// Locks a slot that is served here, or one of which a copy is enough for a command that `only_reads`.
#[inline]
pub fn admit_reader<'a>(
    context: &Context<'a>,
    slot: Slot,
    writes: bool,
    only_reads: impl FnOnce() -> bool,
) -> Result<Admitted<'a>, CommandError> {
    match lock(context, slot, writes) {
        Ok(guard) => Ok(Admitted {
            guard,
            is_copy: false,
        }),
        Err(Refused::NotHere(mut guard)) if only_reads() && copy_reads::may_answer(context, slot) => {
            guard.read_as_copy();
            Ok(Admitted { guard, is_copy: true })
        }
        Err(refused) => Err(refused.into_error(context.node)),
    }
}

/// Runs a command in a slot that is locked, and counts what it met there.
#[inline]
pub fn run_in_slot(
    context: &Context<'_>,
    guard: &mut SlotGuard<'_>,
    args: Args<'_>,
    reply: &mut Reply,
    run: impl FnOnce(&mut Keyed<'_, '_>) -> Outcome,
) -> Outcome {
    let bulk_bytes_max = context.node.settings.bulk_bytes_max();
    let tenant = context.session.keyspace.tenant();
    guard.set_client(context.session.client.id);
    guard.set_touches(!context.session.client.no_touch.load(Ordering::Relaxed));
    let outcome = run(&mut Keyed {
        slot: guard,
        args,
        now_ms: context.now_ms,
        value_bytes_max: tenant.map_or(bulk_bytes_max, |space| {
            let bytes_max = usize::try_from(space.limits.value_bytes_max());
            bulk_bytes_max.min(bytes_max.unwrap_or(usize::MAX))
        }),
        reply,
    });
    let tally = guard.take_tally();
    context.stats.keyspace_hits.add(tally.hits);
    context.stats.keyspace_misses.add(tally.misses);
    if tally.expired > 0 {
        context.stats.expired_keys.add(tally.expired);
    }
    if let Some(space) = tenant {
        space.counters.hits.add(tally.hits);
        space.counters.misses.add(tally.misses);
        space.counters.expirations.add(tally.expired);
    }
    outcome
}

/// Remembers what the client has read, if it wants to be told of changes. The slot is held still.
#[inline]
pub fn track_reads(context: &Context<'_>, slot: Slot, command: &Command, args: Args<'_>) {
    let Context { node, session, .. } = context;
    if session.tracks_read()
        && command.flags.has(Flags::READ)
        && let Ok(keys) = command.keys.of(command.name, args)
    {
        let keys_max = match (session.keyspace.tenant(), node.settings.tracking_keys_max()) {
            (None, keys_max) => keys_max,
            (Some(_), 0) => TENANT_KEYS_MAX,
            (Some(_), keys_max) => keys_max.min(TENANT_KEYS_MAX),
        };
        context
            .space()
            .tracking
            .remember(slot, keys, &session.client, keys_max);
    }
}

/// Has the reply wait for what copies are to have of the slot, which is held still.
#[inline]
pub fn note_unsettled(context: &mut Context<'_>, slot: Slot, writes: bool) {
    let journal = &context.node.store.journal;
    if journal.is_on() {
        context.session.unsettled.note(journal, slot, writes);
        if writes {
            context.session.last_write = Some(slot);
        }
    }
}

/// Makes room after a write. The caller holds no slot.
#[inline]
pub fn evict(context: &Context<'_>) {
    let (store, keyspace) = (&context.node.store, &context.session.keyspace);
    if keyspace.tenant().is_some() {
        let evicted = store.evict_tenant(keyspace, 0, context.now_ms);
        context.stats.evicted_keys.add(evicted);
    }
    if store.is_over_budget() {
        context.stats.evicted_keys.add(store.evict(context.now_ms));
    }
}

#[inline]
fn run_keyed(
    context: &mut Context<'_>,
    entry: &'static Entry,
    slot: Slot,
    args: Args<'_>,
    reply: &mut Reply,
    run: fn(&mut Keyed<'_, '_>) -> Outcome,
) -> Result<Option<Outcome>, Failed> {
    let rejected = |error| Failed::rejected(entry, error);
    let writes = entry.command.flags.has(Flags::WRITE);
    check_memory(context, entry.command).map_err(rejected)?;
    if context.session.keyspace.tenant().is_some()
        && entry.command.flags.has(Flags::WRITE.and(Flags::DENY_OOM))
    {
        // Before, so that the tenant is never above its limit by a large value.
        let bytes: usize = args.from(1).map(<[u8]>::len).sum();
        let (store, keyspace) = (&context.node.store, &context.session.keyspace);
        let evicted = store.evict_tenant(keyspace, bytes as u64, context.now_ms);
        context.stats.evicted_keys.add(evicted);
    }
    let admitted = admit_reader(context, slot, writes, || !writes);
    if matches!(admitted, Err(CommandError::Moved { .. })) && read_mirror(context, entry.command, args, reply)
    {
        return Ok(Some(Ok(())));
    }
    let Admitted { mut guard, is_copy } = admitted.map_err(rejected)?;
    if is_sampled(context.stats.commands_processed.get()) {
        note_use(context, entry.command, args, writes);
    }
    let (mut given, mut writes_in_groups) = (groups::Given::new(), false);
    if context.node.groups.is_on() {
        if writes {
            writes_in_groups = true;
            guard.collect_changes();
        } else if matches!(entry.command.name, "get" | "mget") {
            let reading = groups::look(context, &guard, is_copy, args);
            match reading.map_err(|error| Failed::ended(entry, error))? {
                Reading::Reads(instead) => given = instead,
                Reading::Waits => return Ok(None),
                Reading::Elsewhere => {
                    drop(guard);
                    return Err(rejected(elsewhere(context.node, slot)));
                }
            }
        }
    }
    let outcome = if given.is_empty() {
        run_in_slot(context, &mut guard, args, reply, run)
    } else {
        let run = |call: &mut Keyed<'_, '_>| strings::get_given(call, &given);
        run_in_slot(context, &mut guard, args, reply, run)
    };
    if writes_in_groups {
        note_writes(context, &mut guard, entry.command, args);
    }
    if is_copy {
        context.stats.copy_reads.add(1);
        return Ok(Some(outcome));
    }
    track_reads(context, slot, entry.command, args);
    note_unsettled(context, slot, writes);
    drop(guard);
    if writes {
        evict(context);
    }
    Ok(Some(outcome))
}

/// Whether a read of a slot that another node serves could be answered from a mirror of the key.
fn read_mirror(context: &Context<'_>, command: &Command, args: Args<'_>, reply: &mut Reply) -> bool {
    let (store, session) = (&context.node.store, &context.session);
    if !store.mirrors.are_on() || command.name != "get" || !copy_reads::are_wanted(&session.client) {
        return false;
    }
    let now_ms = store.journal.clock().now_ms();
    match store.mirrors.read(session.keyspace.id(), args.at(1), now_ms) {
        Some(Some(value)) => reply.bulk(&value),
        Some(None) => reply.null(),
        None => return false,
    }
    true
}

/// One of the uses by which hot keys are found.
#[cold]
fn note_use(context: &Context<'_>, command: &Command, args: Args<'_>, writes: bool) {
    if let Ok(mut keys) = command.keys.of(command.name, args)
        && let Some(key) = keys.next()
    {
        context.space().hot_keys.note(key, writes, context.now_ms);
    }
}

/// Tells the groups of what a client has changed, which the guard has collected; the slot is locked still.
///
/// Whoever deletes a key says that what was known of it doesn't hold, there or not: that counts in any case.
#[cold]
pub fn note_writes(context: &Context<'_>, guard: &mut SlotGuard<'_>, command: &Command, args: Args<'_>) {
    let (groups, tenant) = (&context.node.groups, context.session.keyspace.id());
    let tenure = context.node.routing.tenure(guard.slot());
    let changed = guard.take_changes();
    if matches!(command.name, "del" | "unlink" | "getdel") {
        for key in command.keys.of(command.name, args).into_iter().flatten() {
            groups.note_write(tenant, key, tenure);
        }
        return;
    }
    for key in changed {
        groups.note_write(tenant, &key, tenure);
    }
}

/// What to tell a client that asks for a slot that is not served here.
pub fn elsewhere(node: &Node, slot: Slot) -> CommandError {
    match node.routing.moved_to(slot) {
        Some(address) => CommandError::Moved {
            slot,
            address,
            secure: false,
        },
        None if node.routing.view().epoch == Epoch::NONE => CommandError::ClusterDown,
        None => CommandError::SlotNotServed,
    }
}

//! Commands that run one after the other in a slot that is locked once: those of a transaction, those of a script.
//!
//! The slot is kept until the end, so that nobody sees them half done. A command that takes slots itself can't run
//! meanwhile: a thread never holds two.

use annulus_ring::Slot;

use crate::command::{Entry, Flags, Run};
use crate::commands::command_info;
use crate::error::{CommandError, Outcome};
use crate::execute::{
    Admitted, Context, admit, admit_reader, evict, note_unsettled, note_writes, run_in_slot, track_reads,
};
use crate::resp::{Args, Reply};
use crate::stats::Ending;
use crate::store::{EvictionPolicy, SlotGuard};

/// By how much a slot may grow at once: room is made only when it is free again.
const GROWTH_BYTES_MAX: u64 = 64 << 20;

/// The slot, once there is one.
pub struct Exclusive<'a> {
    guard: Option<SlotGuard<'a>>,
    /// Another node serves it, and the copy of it is read.
    is_copy: bool,
    /// Whether any of the commands may write, so that the slot must be one that takes writes.
    writes: bool,
    wrote: bool,
}

impl<'a> Exclusive<'a> {
    /// Locks a slot that is served here, or one of which a copy is enough for commands that `only_read`; none yet
    /// without one.
    pub fn new(
        context: &Context<'a>,
        slot: Option<Slot>,
        writes: bool,
        only_read: impl FnOnce() -> bool,
    ) -> Result<Self, CommandError> {
        let admitted = slot.map(|slot| admit_reader(context, slot, writes, only_read));
        let (guard, is_copy) = match admitted.transpose()? {
            Some(Admitted { guard, is_copy }) => (Some(guard), is_copy),
            None => (None, false),
        };
        Ok(Self {
            guard,
            is_copy,
            writes,
            wrote: false,
        })
    }

    /// Locks the slot if there is none yet.
    pub fn lock(&mut self, context: &Context<'a>, slot: Slot, writes: bool) -> Outcome {
        if self.guard.is_none() {
            self.guard = Some(admit(context, slot, writes || self.writes)?);
        }
        Ok(())
    }

    /// What is locked.
    pub fn guard(&self) -> Option<&SlotGuard<'a>> {
        self.guard.as_ref()
    }

    /// Runs a command that was checked, and whose keys are in the slot. Its reply, an error too, is at the end of
    /// `reply`.
    pub fn run(
        &mut self,
        context: &mut Context<'a>,
        entry: &'static Entry,
        args: Args<'_>,
        reply: &mut Reply,
    ) {
        let (begin, errors) = (reply.len(), reply.errors());
        let started = context.node.timing.begin(entry);
        if let Err(error) = self.try_run(context, entry, args, reply) {
            // A command may fail half-way through its reply.
            reply.truncate(begin);
            reply.error(&error);
        }
        context.node.timing.end(started, context, entry, args);
        let failed = reply.errors() > errors;
        if failed {
            context.stats.count_error(&reply.as_bytes()[begin..]);
        }
        let ending = if failed { Ending::Failed } else { Ending::Done };
        context.stats.count_command(entry.index.into(), ending);
    }

    fn try_run(
        &mut self,
        context: &mut Context<'a>,
        entry: &'static Entry,
        args: Args<'_>,
        reply: &mut Reply,
    ) -> Outcome {
        let flags = entry.command.flags;
        match (entry.command.run, &mut self.guard) {
            (Run::Keyed(run), Some(guard)) => {
                check_growth(context, guard, flags)?;
                check_value(context, flags, args)?;
                self.wrote |= flags.has(Flags::WRITE);
                let writes_in_groups = flags.has(Flags::WRITE) && context.node.groups.is_on();
                if writes_in_groups {
                    guard.collect_changes();
                }
                let outcome = run_in_slot(context, guard, args, reply, run);
                if writes_in_groups {
                    note_writes(context, guard, entry.command, args);
                }
                if self.is_copy {
                    context.stats.copy_reads.add(1);
                } else {
                    track_reads(context, guard.slot(), entry.command, args);
                }
                outcome
            }
            (Run::Plain(_), Some(_)) if !flags.has(Flags::NO_SLOT) => Err(CommandError::Fixed(
                "ERR a command that looks at many slots can't run while one is locked",
            )),
            (Run::Plain(run), _) => run(context, args, reply),
            (Run::Script(run), _) => run(context, self, args, reply),
            (Run::Keyed(_) | Run::Container(_), _) => command_info::all(context, args, reply),
        }
    }

    /// Frees the slot, and makes room after what was written.
    pub fn end(self, context: &mut Context<'_>) {
        if let Some(guard) = &self.guard
            && !self.is_copy
        {
            note_unsettled(context, guard.slot(), self.wrote);
        }
        drop(self.guard);
        if self.wrote {
            evict(context);
        }
    }
}

/// Refuses a longer value than a tenant may have: in a script nobody has looked at it before.
fn check_value(context: &Context<'_>, flags: Flags, args: Args<'_>) -> Outcome {
    match &context.session.login {
        Some(login) if flags.has(Flags::WRITE.and(Flags::DENY_OOM)) => login.tenant().check_values(args),
        _ => Ok(()),
    }
}

/// Refuses a command that may need memory where the slot has grown too much: nothing is evicted while it is locked.
fn check_growth(context: &Context<'_>, guard: &SlotGuard<'_>, flags: Flags) -> Outcome {
    let is_beyond_quota = guard.is_far_beyond_limits();
    let is_too_much = is_beyond_quota
        || if context.node.store.eviction() == EvictionPolicy::NoEviction {
            guard.excess_bytes() > 0
        } else {
            guard.grown_bytes() > GROWTH_BYTES_MAX
        };
    if is_too_much && flags.has(Flags::DENY_OOM) {
        return Err(CommandError::OutOfMemory);
    }
    Ok(())
}

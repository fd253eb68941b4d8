//! Transactions: `MULTI`, `EXEC`, `DISCARD`, `WATCH`, `UNWATCH`.

use annulus_ring::Slot;

use crate::error::{CommandError, Outcome};
use crate::execute::{Context, admit};
use crate::resp::{Args, Reply};
use crate::transaction::{self, Transaction, Watched};

/// `MULTI`
pub fn multi(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    if let Some(transaction) = &mut context.session.transaction {
        transaction.abort();
        return Err(CommandError::Fixed("ERR MULTI calls can not be nested"));
    }
    context.session.transaction = Some(Transaction::default());
    reply.ok();
    Ok(())
}

/// `EXEC`
pub fn exec(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let transaction = context
        .session
        .transaction
        .take()
        .ok_or(CommandError::Fixed("ERR EXEC without MULTI"))?;
    let watched = context.session.watched.take();
    let outcome = if transaction.is_aborted() {
        Err(CommandError::Fixed(
            "EXECABORT Transaction discarded because of previous errors.",
        ))
    } else {
        transaction::run(context, &transaction, watched.as_ref(), reply)
    };
    if let Some(watched) = watched {
        watched.end(&context.node.store);
    }
    outcome
}

/// `DISCARD`
pub fn discard(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    if context.session.transaction.is_none() {
        return Err(CommandError::Fixed("ERR DISCARD without MULTI"));
    }
    context.session.forget_transaction(&context.node.store);
    reply.ok();
    Ok(())
}

/// `WATCH key [key …]`
pub fn watch(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if context.session.transaction.is_some() {
        return Err(CommandError::Fixed("ERR WATCH inside MULTI is not allowed"));
    }
    let slot = Slot::for_key(args.at(1));
    if args.from(1).any(|key| Slot::for_key(key) != slot) {
        return Err(CommandError::CrossSlot);
    }
    let mut guard = admit(context, slot, false)?;
    let session = &mut *context.session;
    let watched = session
        .watched
        .get_or_insert_with(|| Watched::new(session.keyspace.clone()));
    for key in args.from(1) {
        watched.add(&mut guard, key, context.now_ms)?;
    }
    reply.ok();
    Ok(())
}

/// `UNWATCH`
pub fn unwatch(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    if let Some(watched) = context.session.watched.take() {
        watched.end(&context.node.store);
    }
    reply.ok();
    Ok(())
}

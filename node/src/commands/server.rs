//! Commands on the node.

use std::sync::atomic::Ordering;

use annulus_ring::NodeId;

use crate::clock;
use crate::commands::{integer, is_word};
use crate::error::{CommandError, Outcome};
use crate::execute::Context;
use crate::resp::{Args, Reply};

/// The version of Redis whose clients find what they expect.
pub const REDIS_VERSION: &str = "7.4.0";

/// The version of Annulus.
pub const ANNULUS_VERSION: &str = env!("CARGO_PKG_VERSION");

/// `TIME`
///
/// The one command that reads the clock itself: its microseconds are what it is asked for.
pub fn time(_: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let now_us = clock::now_us();
    reply.array(2);
    for part in [now_us / 1_000_000, now_us % 1_000_000] {
        reply.bulk_integer(i64::try_from(part).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// `ROLE`: every node is the master of what it owns; the replicas are the nodes that have copies of some of it.
pub fn role(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    if context.session.login.is_some() {
        // How much is replicated, and where to, tells of what others write.
        reply.array(3);
        reply.bulk(b"master");
        reply.integer(0);
        reply.array(0);
        return Ok(());
    }
    let journal = &context.node.store.journal;
    let view = context.node.routing.view();
    let address = |id: &NodeId| {
        let member = view.members.iter().find(|member| member.id == *id);
        member.and_then(|member| member.address.clone())
    };
    let links = journal.links();
    let copies = links
        .iter()
        .filter_map(|link| Some((address(&link.id)?, link.acked())));
    let copies: Vec<_> = copies.collect();
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(i64::try_from(journal.last_lsn()).unwrap_or(i64::MAX));
    reply.array(copies.len());
    for (address, acked) in copies {
        reply.array(3);
        reply.bulk(address.client_host().as_bytes());
        let port = address.port_for(context.session.client.secure.load(Ordering::Relaxed));
        reply.bulk(port.to_string().as_bytes());
        reply.bulk(acked.to_string().as_bytes());
    }
    Ok(())
}

/// `WAIT numreplicas timeout`: how many nodes have what this connection wrote last, and all before it in its slot. It
/// doesn't wait: with `acks`, the write was answered only when so many had it.
pub fn wait(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    integer(args.at(1))?;
    if integer(args.at(2))
        .map_err(|_| CommandError::Fixed("ERR timeout is not an integer or out of range"))?
        < 0
    {
        return Err(CommandError::Fixed("ERR timeout is negative"));
    }
    let journal = &context.node.store.journal;
    let last_write = context.session.last_write;
    reply.count(last_write.map_or(0, |slot| journal.copies_up_to_date(slot)));
    Ok(())
}

/// `INFO [section [section …]]`
pub fn info(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let text = super::info::render(context, |section, is_default| {
        let mut asked = args.from(1);
        if args.len() == 1 {
            return is_default;
        }
        asked.any(|word| {
            is_word(word, section)
                || is_word(word, "all")
                || is_word(word, "everything")
                || (is_word(word, "default") && is_default)
        })
    });
    reply.verbatim(&text);
    Ok(())
}

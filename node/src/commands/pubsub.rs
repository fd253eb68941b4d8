//! Publish and subscribe: `SUBSCRIBE`, `PUBLISH` and their kin.
//!
//! A confirmation is a push, not a reply: `CLIENT REPLY OFF` doesn't hold it back.

use annulus_ring::Slot;

use crate::commands::text;
use crate::error::{CommandError, Outcome};
use crate::execute::{Context, admit, elsewhere};
use crate::pubsub::relay::PUBLICATION_BYTES_MAX;
use crate::pubsub::{Channels, Kind, Push, SUBSCRIPTIONS_MAX};
use crate::resp::{Args, Reply};
use crate::routing::Access;
use crate::session::ReplyMode;

/// Tells the client how many subscriptions it has now.
fn confirm(context: &Context<'_>, reply: &mut Reply, word: &str, name: Option<&[u8]>, count: usize) {
    let write = |reply: &mut Reply| {
        reply.push(3);
        reply.bulk(word.as_bytes());
        match name {
            Some(name) => reply.bulk(name),
            None => reply.null(),
        }
        reply.count(count);
    };
    if context.session.reply_mode == ReplyMode::On {
        write(reply);
    } else {
        Push::new(write).post(&context.session.client);
    }
}

fn subscribe_to(context: &Context<'_>, kind: Kind, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (pubsub, client) = (&context.space().pubsub, &context.session.client);
    if client.subscriptions.total() + args.len() - 1 > SUBSCRIPTIONS_MAX {
        return Err(CommandError::Fixed(
            "ERR a connection may have 100000 subscriptions at most",
        ));
    }
    for name in args.from(1) {
        if client.subscriptions.add(kind, name) {
            pubsub.subscribe(kind, name, client);
        }
        let count = client.subscriptions.count(kind);
        confirm(context, reply, kind.subscribed(), Some(name), count);
    }
    Ok(())
}

fn unsubscribe_from(context: &Context<'_>, kind: Kind, args: Args<'_>, reply: &mut Reply) {
    let (pubsub, client) = (&context.space().pubsub, &context.session.client);
    let all = client.subscriptions.names(kind);
    let names: Vec<&[u8]> = if args.len() == 1 {
        all.iter().map(|name| &**name).collect()
    } else {
        args.from(1).collect()
    };
    let mut counts = Vec::with_capacity(names.len());
    for name in &names {
        if client.subscriptions.remove(kind, name).is_some() {
            pubsub.unsubscribe(kind, name, client);
        }
        counts.push(client.subscriptions.count(kind));
    }
    // What has come by these subscriptions must not come behind the confirmation. Where it can't come before it, a
    // client that would take it for a reply doesn't get it.
    let is_over = !client.subscriptions.is_any() && !reply.is_resp3();
    if is_over && reply.is_part() {
        client.mailbox.discard();
    } else {
        context.session.collect_before_reply(reply);
    }
    for (name, count) in names.iter().zip(counts) {
        confirm(context, reply, kind.unsubscribed(), Some(name), count);
    }
    if names.is_empty() {
        let count = client.subscriptions.count(kind);
        confirm(context, reply, kind.unsubscribed(), None, count);
    }
}

/// `SUBSCRIBE channel [channel …]`
pub fn subscribe(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    subscribe_to(context, Kind::Channel, args, reply)
}

/// `UNSUBSCRIBE [channel …]`
pub fn unsubscribe(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    unsubscribe_from(context, Kind::Channel, args, reply);
    Ok(())
}

/// `PSUBSCRIBE pattern [pattern …]`
pub fn psubscribe(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    subscribe_to(context, Kind::Pattern, args, reply)
}

/// `PUNSUBSCRIBE [pattern …]`
pub fn punsubscribe(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    unsubscribe_from(context, Kind::Pattern, args, reply);
    Ok(())
}

fn slot_of(mut channels: impl Iterator<Item = impl AsRef<[u8]>>) -> Result<Option<Slot>, CommandError> {
    let Some(slot) = channels.next().map(|name| Slot::for_key(name.as_ref())) else {
        return Ok(None);
    };
    if channels.any(|name| Slot::for_key(name.as_ref()) != slot) {
        return Err(CommandError::CrossSlot);
    }
    Ok(Some(slot))
}

/// Asks without the slot's lock: for those who do no harm when the slot leaves in this moment.
fn check_served(context: &Context<'_>, slot: Slot) -> Outcome {
    match context.node.routing.access(slot) {
        Access::ReadWrite | Access::ReadOnly => Ok(()),
        Access::Elsewhere | Access::Down => Err(elsewhere(context.node, slot)),
    }
}

/// `SSUBSCRIBE shardchannel [shardchannel …]`
pub fn ssubscribe(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if reply.is_part() {
        return Err(CommandError::Fixed(
            "ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client",
        ));
    }
    // With the slot's lock it can't leave before the subscription is where it is looked for.
    let guard = match slot_of(args.from(1))? {
        Some(slot) => Some(admit(context, slot, false)?),
        None => None,
    };
    let outcome = subscribe_to(context, Kind::Shard, args, reply);
    drop(guard);
    outcome
}

/// `SUNSUBSCRIBE [shardchannel …]`
pub fn sunsubscribe(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if let Some(slot) = slot_of(args.from(1))? {
        check_served(context, slot)?;
    }
    unsubscribe_from(context, Kind::Shard, args, reply);
    Ok(())
}

/// `PUBLISH channel message`: answers how many of this node's clients get it.
pub fn publish(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (channel, payload) = (args.at(1), args.at(2));
    if channel.len() + payload.len() > PUBLICATION_BYTES_MAX {
        return Err(CommandError::Fixed(
            "ERR a message and its channel may have 3 MiB at most, use SPUBLISH for more",
        ));
    }
    let receivers = context.space().pubsub.publish(channel, payload);
    let tenant = context.session.keyspace.id();
    context.node.relay.send(tenant, channel, payload);
    context.session.collect_before_reply(reply);
    reply.count(receivers);
    Ok(())
}

/// `SPUBLISH shardchannel message`
pub fn spublish(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let (channel, payload) = (args.at(1), args.at(2));
    check_served(context, Slot::for_key(channel))?;
    let receivers = context.space().pubsub.publish_sharded(channel, payload);
    context.session.collect_before_reply(reply);
    reply.count(receivers);
    Ok(())
}

fn list_channels(channels: &Channels, args: Args<'_>, reply: &mut Reply) -> Outcome {
    if args.len() > 3 {
        return Err(CommandError::Other(format!(
            "ERR unknown subcommand or wrong number of arguments for '{}'. Try PUBSUB HELP.",
            text(args.at(1))
        )));
    }
    let names = channels.names(args.get(2));
    reply.array(names.len());
    for name in names {
        reply.bulk(&name);
    }
    Ok(())
}

fn count_subscribers(channels: &Channels, args: Args<'_>, reply: &mut Reply) {
    let asked = args.from(2);
    reply.array(2 * asked.len());
    for name in asked {
        reply.bulk(name);
        reply.count(channels.subscribers(name));
    }
}

/// `PUBSUB CHANNELS [pattern]`
pub fn channels(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    list_channels(&context.space().pubsub.channels, args, reply)
}

/// `PUBSUB SHARDCHANNELS [pattern]`
pub fn shard_channels(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    list_channels(&context.space().pubsub.shards, args, reply)
}

/// `PUBSUB NUMSUB [channel …]`
pub fn numsub(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    count_subscribers(&context.space().pubsub.channels, args, reply);
    Ok(())
}

/// `PUBSUB SHARDNUMSUB [shardchannel …]`
pub fn shard_numsub(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    count_subscribers(&context.space().pubsub.shards, args, reply);
    Ok(())
}

/// `PUBSUB NUMPAT`
pub fn numpat(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    reply.count(context.space().pubsub.patterns());
    Ok(())
}

//! The rows of the commands that publish and subscribe.

use super::{PlainFn, container, helps, plain};
use crate::command::{Command, Flags, Group, KeyAccess, Keys};
use crate::commands::pubsub;

/// They take no slot's lock but that of a sharded channel, which they refuse to take in a transaction.
const P: Flags = Flags::PUB_SUB.and(Flags::NO_SLOT);
const PS: Flags = P.and(Flags::WHILE_SUBSCRIBED).and(Flags::NO_SCRIPT);
const PF: Flags = P.and(Flags::FAST);

const fn row(spec: (&'static str, i8, Flags), text: (&'static str, &'static str), run: PlainFn) -> Command {
    plain(Group::PubSub, spec, text, run)
}

pub(super) const PUBSUB: &[Command] = &[
    row(
        ("psubscribe", -2, PS),
        (
            "2.0.0",
            "Sends the connection what is published to channels that match patterns.",
        ),
        pubsub::psubscribe,
    ),
    row(
        ("publish", 3, PF),
        ("2.0.0", "Publishes a message to a channel, on all nodes."),
        pubsub::publish,
    ),
    container(
        Group::PubSub,
        "pubsub",
        ("2.8.0", "Shows what this node's clients are subscribed to."),
        SUBCOMMANDS,
    ),
    row(
        ("punsubscribe", -1, PS),
        ("2.0.0", "Ends subscriptions to patterns, or all of them."),
        pubsub::punsubscribe,
    ),
    Command {
        keys: Keys::one(KeyAccess::NotAKey),
        ..row(
            ("spublish", 3, PF),
            ("7.0.0", "Publishes a message to a channel of a slot."),
            pubsub::spublish,
        )
    },
    Command {
        keys: Keys::all(KeyAccess::NotAKey),
        ..row(
            ("ssubscribe", -2, PS),
            (
                "7.0.0",
                "Sends the connection what is published to channels of a slot.",
            ),
            pubsub::ssubscribe,
        )
    },
    row(
        ("subscribe", -2, PS),
        ("2.0.0", "Sends the connection what is published to channels."),
        pubsub::subscribe,
    ),
    Command {
        keys: Keys::all(KeyAccess::NotAKey),
        ..row(
            ("sunsubscribe", -1, PS),
            (
                "7.0.0",
                "Ends subscriptions to channels of a slot, or all of them.",
            ),
            pubsub::sunsubscribe,
        )
    },
    row(
        ("unsubscribe", -1, PS),
        ("2.0.0", "Ends subscriptions to channels, or all of them."),
        pubsub::unsubscribe,
    ),
];

const SUBCOMMANDS: &[Command] = &[
    row(
        ("channels", -2, P),
        ("2.8.0", "Returns the channels that have subscribers."),
        pubsub::channels,
    ),
    row(
        ("numpat", 2, P),
        ("2.8.0", "Returns how many patterns have subscribers."),
        pubsub::numpat,
    ),
    row(
        ("numsub", -2, P),
        ("2.8.0", "Returns how many subscribers channels have."),
        pubsub::numsub,
    ),
    row(
        ("shardchannels", -2, P),
        ("7.0.0", "Returns the channels of slots that have subscribers."),
        pubsub::shard_channels,
    ),
    row(
        ("shardnumsub", -2, P),
        ("7.0.0", "Returns how many subscribers channels of slots have."),
        pubsub::shard_numsub,
    ),
    helps(Group::PubSub, "6.2.0"),
];

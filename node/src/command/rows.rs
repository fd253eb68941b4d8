//! The rows of the command table.

mod hashes;
mod lists;
mod pubsub;
mod scripts;
mod sets;
mod sorted_sets;

use super::{Command, Flags, Group, KeyAccess, Keys, Run};
use crate::commands::{
    acl, client, cluster, command_info, config, connection, counters, expiry, help, hot_keys, keys, keyspace,
    latency, memory, server, slow_log, strings, tracking, transactions,
};
use crate::error::Outcome;
use crate::execute::{Context, Keyed};
use crate::resp::{Args, Reply};

/// All rows, by what they are for.
pub(super) const COMMANDS: [&[Command]; 12] = [
    STRINGS,
    hashes::HASHES,
    lists::LISTS,
    sets::SETS,
    sorted_sets::SORTED_SETS,
    KEYS,
    TRANSACTIONS,
    pubsub::PUBSUB,
    scripts::SCRIPTS,
    CONNECTION,
    SERVER,
    CONTAINERS,
];

type KeyedFn = fn(&mut Keyed<'_, '_>) -> Outcome;
type PlainFn = fn(&mut Context<'_>, Args<'_>, &mut Reply) -> Outcome;

const R: Flags = Flags::READ;
const W: Flags = Flags::WRITE;
const RF: Flags = R.and(Flags::FAST);
const WF: Flags = W.and(Flags::FAST);
const WD: Flags = W.and(Flags::DENY_OOM);
const WDF: Flags = WD.and(Flags::FAST);
const RM: Flags = R.and(Flags::MOVABLE_KEYS);
const WM: Flags = W.and(Flags::MOVABLE_KEYS);
const WDM: Flags = WD.and(Flags::MOVABLE_KEYS);
const F: Flags = Flags::FAST;
const FN: Flags = F.and(Flags::NO_AUTH);
const A: Flags = Flags::ADMIN;
const NONE: Flags = Flags::NONE;
/// Ends what a connection is in the middle of.
const FNI: Flags = FN.and(Flags::IMMEDIATE).and(Flags::WHILE_SUBSCRIBED).and(NS);
/// Can't be called by a script.
const NS: Flags = Flags::NO_SCRIPT;
const ANS: Flags = A.and(NS);
/// Takes no slot.
const N: Flags = Flags::NO_SLOT;
const AN: Flags = A.and(N);
const NSN: Flags = NS.and(N);
const ANSN: Flags = ANS.and(N);
/// Runs at once between MULTI and EXEC.
const FI: Flags = F.and(Flags::IMMEDIATE).and(NS);

/// A command on keys.
const fn keyed(
    group: Group,
    (name, arity, flags, keys): (&'static str, i8, Flags, Keys),
    (since, summary): (&'static str, &'static str),
    run: KeyedFn,
) -> Command {
    Command {
        name,
        arity,
        flags,
        keys,
        group,
        since,
        summary,
        run: Run::Keyed(run),
    }
}

/// A command on the connection or the node.
const fn plain(
    group: Group,
    (name, arity, flags): (&'static str, i8, Flags),
    (since, summary): (&'static str, &'static str),
    run: PlainFn,
) -> Command {
    Command {
        name,
        arity,
        flags,
        keys: Keys::NONE,
        group,
        since,
        summary,
        run: Run::Plain(run),
    }
}

/// A command that is a family.
const fn container(
    group: Group,
    name: &'static str,
    (since, summary): (&'static str, &'static str),
    subcommands: &'static [Command],
) -> Command {
    let run = Run::Container(subcommands);
    Command {
        name,
        arity: -2,
        flags: NONE,
        keys: Keys::NONE,
        group,
        since,
        summary,
        run,
    }
}

/// The `HELP` of a family.
const fn helps(group: Group, since: &'static str) -> Command {
    plain(group, ("help", 2, N), (since, "Describes the subcommands."), help)
}

const TRANSACTIONS: &[Command] = &[
    plain(
        Group::Transactions,
        ("discard", 1, FI),
        ("2.0.0", "Drops the commands that were queued since MULTI."),
        transactions::discard,
    ),
    plain(
        Group::Transactions,
        ("exec", 1, NS.and(Flags::IMMEDIATE)),
        (
            "1.2.0",
            "Runs the commands that were queued since MULTI, all at once.",
        ),
        transactions::exec,
    ),
    plain(
        Group::Transactions,
        ("multi", 1, FI),
        ("1.2.0", "Queues the commands that follow, until EXEC."),
        transactions::multi,
    ),
    plain(
        Group::Transactions,
        ("unwatch", 1, F.and(Flags::NO_SLOT).and(NS)),
        ("2.2.0", "Watches no keys any more."),
        transactions::unwatch,
    ),
    Command {
        keys: Keys::all(KeyAccess::Inspect),
        ..plain(
            Group::Transactions,
            ("watch", -2, FI),
            (
                "2.2.0",
                "Lets EXEC run nothing if one of the keys changes before it.",
            ),
            transactions::watch,
        )
    },
];

const STRINGS: &[Command] = &[
    keyed(
        Group::String,
        ("append", 3, WDF, Keys::one(KeyAccess::Insert)),
        ("2.0.0", "Appends to the string at a key, or creates it."),
        strings::append,
    ),
    keyed(
        Group::String,
        ("decr", 2, WDF, Keys::one(KeyAccess::Update)),
        ("1.0.0", "Subtracts one from the integer at a key."),
        counters::decr,
    ),
    keyed(
        Group::String,
        ("decrby", 3, WDF, Keys::one(KeyAccess::Update)),
        ("1.0.0", "Subtracts from the integer at a key."),
        counters::decrby,
    ),
    keyed(
        Group::String,
        ("get", 2, RF, Keys::one(KeyAccess::Read)),
        ("1.0.0", "Returns the string at a key."),
        strings::get,
    ),
    keyed(
        Group::String,
        ("delifeq", 3, WF, Keys::one(KeyAccess::Remove)),
        ("9.0.0", "Removes a key if its value is this string."),
        strings::delifeq,
    ),
    keyed(
        Group::String,
        ("getdel", 2, WF, Keys::one(KeyAccess::Take)),
        ("6.2.0", "Returns the string at a key and removes the key."),
        strings::getdel,
    ),
    keyed(
        Group::String,
        ("getex", -2, WF, Keys::one(KeyAccess::Update)),
        (
            "6.2.0",
            "Returns the string at a key and sets when the key expires.",
        ),
        strings::getex,
    ),
    keyed(
        Group::String,
        ("getrange", 4, R, Keys::one(KeyAccess::Read)),
        ("2.4.0", "Returns a part of the string at a key."),
        strings::getrange,
    ),
    keyed(
        Group::String,
        ("getset", 3, WDF, Keys::one(KeyAccess::Update)),
        ("1.0.0", "Sets the string at a key and returns the old one."),
        strings::getset,
    ),
    keyed(
        Group::String,
        ("incr", 2, WDF, Keys::one(KeyAccess::Update)),
        ("1.0.0", "Adds one to the integer at a key."),
        counters::incr,
    ),
    keyed(
        Group::String,
        ("incrby", 3, WDF, Keys::one(KeyAccess::Update)),
        ("1.0.0", "Adds to the integer at a key."),
        counters::incrby,
    ),
    keyed(
        Group::String,
        ("incrbyfloat", 3, WDF, Keys::one(KeyAccess::Update)),
        ("2.6.0", "Adds to the number at a key."),
        counters::incrbyfloat,
    ),
    keyed(
        Group::String,
        ("mget", -2, RF, Keys::all(KeyAccess::Read)),
        ("1.0.0", "Returns the strings at several keys of one slot."),
        strings::mget,
    ),
    keyed(
        Group::String,
        ("mset", -3, WD, Keys::alternate(KeyAccess::Overwrite)),
        ("1.0.1", "Sets the strings at several keys of one slot."),
        strings::mset,
    ),
    keyed(
        Group::String,
        ("msetnx", -3, WD, Keys::alternate(KeyAccess::Create)),
        (
            "1.0.1",
            "Sets the strings at several keys of one slot if none of the keys exists.",
        ),
        strings::msetnx,
    ),
    keyed(
        Group::String,
        ("psetex", 4, WD, Keys::one(KeyAccess::Overwrite)),
        ("2.6.0", "Sets the string at a key for a time in milliseconds."),
        strings::psetex,
    ),
    keyed(
        Group::String,
        ("set", -3, WD, Keys::one(KeyAccess::Update)),
        ("1.0.0", "Sets the string at a key."),
        strings::set,
    ),
    keyed(
        Group::String,
        ("setex", 4, WD, Keys::one(KeyAccess::Overwrite)),
        ("2.0.0", "Sets the string at a key for a time in seconds."),
        strings::setex,
    ),
    keyed(
        Group::String,
        ("setnx", 3, WDF, Keys::one(KeyAccess::Create)),
        ("1.0.0", "Sets the string at a key if the key doesn't exist."),
        strings::setnx,
    ),
    keyed(
        Group::String,
        ("setrange", 4, WD, Keys::one(KeyAccess::Change)),
        ("2.2.0", "Overwrites a part of the string at a key."),
        strings::setrange,
    ),
    keyed(
        Group::String,
        ("strlen", 2, RF, Keys::one(KeyAccess::Inspect)),
        ("2.2.0", "Returns the length of the string at a key."),
        strings::strlen,
    ),
    keyed(
        Group::String,
        ("substr", 4, R, Keys::one(KeyAccess::Read)),
        (
            "1.0.0",
            "Returns a part of the string at a key; the old name of GETRANGE.",
        ),
        strings::getrange,
    ),
];

const KEYS: &[Command] = &[
    keyed(
        Group::Generic,
        ("copy", -3, WD, Keys::two(KeyAccess::Read, KeyAccess::Overwrite)),
        ("6.2.0", "Copies a key to another of the same slot."),
        keys::copy,
    ),
    keyed(
        Group::Generic,
        ("del", -2, W, Keys::all(KeyAccess::Remove)),
        ("1.0.0", "Removes keys of one slot."),
        keys::del,
    ),
    keyed(
        Group::Generic,
        ("exists", -2, RF, Keys::all(KeyAccess::Inspect)),
        ("1.0.0", "Counts which of the keys of one slot exist."),
        keys::exists,
    ),
    keyed(
        Group::Generic,
        ("expire", -3, WF, Keys::one(KeyAccess::Change)),
        ("1.0.0", "Sets in how many seconds a key expires."),
        expiry::expire,
    ),
    keyed(
        Group::Generic,
        ("expireat", -3, WF, Keys::one(KeyAccess::Change)),
        ("1.2.0", "Sets at which second a key expires."),
        expiry::expireat,
    ),
    keyed(
        Group::Generic,
        ("expiretime", 2, RF, Keys::one(KeyAccess::Read)),
        ("7.0.0", "Returns the second at which a key expires."),
        expiry::expiretime,
    ),
    keyed(
        Group::Generic,
        ("persist", 2, WF, Keys::one(KeyAccess::Change)),
        ("2.2.0", "Makes a key live for ever."),
        expiry::persist,
    ),
    keyed(
        Group::Generic,
        ("pexpire", -3, WF, Keys::one(KeyAccess::Change)),
        ("2.6.0", "Sets in how many milliseconds a key expires."),
        expiry::pexpire,
    ),
    keyed(
        Group::Generic,
        ("pexpireat", -3, WF, Keys::one(KeyAccess::Change)),
        ("2.6.0", "Sets at which millisecond a key expires."),
        expiry::pexpireat,
    ),
    keyed(
        Group::Generic,
        ("pexpiretime", 2, RF, Keys::one(KeyAccess::Read)),
        ("7.0.0", "Returns the millisecond at which a key expires."),
        expiry::pexpiretime,
    ),
    keyed(
        Group::Generic,
        ("pttl", 2, RF, Keys::one(KeyAccess::Read)),
        ("2.6.0", "Returns in how many milliseconds a key expires."),
        expiry::pttl,
    ),
    keyed(
        Group::Generic,
        ("rename", 3, W, Keys::two(KeyAccess::Take, KeyAccess::Overwrite)),
        ("1.0.0", "Renames a key within its slot."),
        keys::rename,
    ),
    keyed(
        Group::Generic,
        ("renamenx", 3, WF, Keys::two(KeyAccess::Take, KeyAccess::Create)),
        ("1.0.0", "Renames a key within its slot if the new name is free."),
        keys::renamenx,
    ),
    keyed(
        Group::Generic,
        ("touch", -2, RF, Keys::all(KeyAccess::Inspect)),
        ("3.2.1", "Makes keys of one slot the most recently used ones."),
        keys::touch,
    ),
    keyed(
        Group::Generic,
        ("ttl", 2, RF, Keys::one(KeyAccess::Read)),
        ("1.0.0", "Returns in how many seconds a key expires."),
        expiry::ttl,
    ),
    keyed(
        Group::Generic,
        ("type", 2, RF, Keys::one(KeyAccess::Inspect)),
        ("1.0.0", "Returns what kind of value is at a key."),
        keys::type_of,
    ),
    keyed(
        Group::Generic,
        ("unlink", -2, WF, Keys::all(KeyAccess::Remove)),
        ("4.0.0", "Removes keys of one slot."),
        keys::del,
    ),
    plain(
        Group::Generic,
        ("keys", 2, R),
        ("1.0.0", "Returns the node's keys that match a pattern."),
        keyspace::keys,
    ),
    plain(
        Group::Generic,
        ("randomkey", 1, R),
        ("1.0.0", "Returns one of the node's keys."),
        keyspace::randomkey,
    ),
    plain(
        Group::Generic,
        ("scan", -2, R),
        ("2.8.0", "Goes through the node's keys step by step."),
        keyspace::scan,
    ),
    plain(
        Group::Generic,
        ("wait", 3, NS),
        ("3.0.0", "Returns how many replicas have the connection's writes."),
        server::wait,
    ),
];

const CONNECTION: &[Command] = &[
    plain(
        Group::Cluster,
        ("asking", 1, F.and(Flags::NO_SLOT)),
        (
            "3.0.0",
            "Answers clients that follow an ASK reply; this server gives none.",
        ),
        connection::asking,
    ),
    plain(
        Group::Connection,
        ("auth", -2, FN.and(NS)),
        ("1.0.0", "Tells the server who the client is."),
        connection::auth,
    ),
    plain(
        Group::Connection,
        ("echo", 2, F.and(Flags::NO_SLOT)),
        ("1.0.0", "Returns its argument."),
        connection::echo,
    ),
    plain(
        Group::Connection,
        ("hello", -1, FN.and(NS)),
        (
            "6.0.0",
            "Chooses the protocol and tells the server who the client is.",
        ),
        connection::hello,
    ),
    plain(
        Group::Connection,
        ("ping", -1, F.and(Flags::NO_SLOT).and(Flags::WHILE_SUBSCRIBED)),
        ("1.0.0", "Answers that the server is there."),
        connection::ping,
    ),
    plain(
        Group::Connection,
        ("quit", -1, FNI),
        ("1.0.0", "Ends the connection."),
        connection::quit,
    ),
    plain(
        Group::Cluster,
        ("readonly", 1, F.and(Flags::NO_SLOT)),
        ("3.0.0", "Allows reads from replicas."),
        connection::readonly,
    ),
    plain(
        Group::Cluster,
        ("readwrite", 1, F.and(Flags::NO_SLOT)),
        ("3.0.0", "Forbids reads from replicas."),
        connection::readwrite,
    ),
    plain(
        Group::Connection,
        ("reset", 1, FNI),
        ("6.2.0", "Brings the connection back to where it began."),
        connection::reset,
    ),
    plain(
        Group::Connection,
        ("select", 2, F.and(Flags::NO_SLOT)),
        ("1.0.0", "Chooses the database; there is only 0."),
        connection::select,
    ),
];

const SERVER: &[Command] = &[
    plain(
        Group::Server,
        ("dbsize", 1, RF.and(Flags::NO_SLOT)),
        ("1.0.0", "Returns how many keys the node has."),
        keyspace::dbsize,
    ),
    plain(
        Group::Server,
        ("hotkeys", -1, F.and(Flags::NO_SLOT)),
        (
            "1.0.0",
            "Returns the keys that clients of this node used most in the last second.",
        ),
        hot_keys::hot_keys,
    ),
    plain(
        Group::Server,
        ("flushall", -1, W),
        ("1.0.0", "Removes all keys of the node."),
        keyspace::flushall,
    ),
    plain(
        Group::Server,
        ("flushdb", -1, W),
        ("1.0.0", "Removes all keys of the node."),
        keyspace::flushall,
    ),
    plain(
        Group::Server,
        ("info", -1, NONE),
        ("1.0.0", "Returns facts and figures about the node."),
        server::info,
    ),
    plain(
        Group::Server,
        ("role", 1, F.and(NS)),
        ("2.8.12", "Returns the node's part in replication."),
        server::role,
    ),
    plain(
        Group::Server,
        ("time", 1, F.and(Flags::NO_SLOT)),
        ("2.6.0", "Returns the node's time."),
        server::time,
    ),
];

const CONTAINERS: &[Command] = &[
    container(
        Group::Server,
        "acl",
        ("6.0.0", "Shows users and what they may do."),
        ACL,
    ),
    container(
        Group::Connection,
        "client",
        ("2.4.0", "Shows and changes connections."),
        CLIENT,
    ),
    container(Group::Cluster, "cluster", ("3.0.0", "Shows the ring."), CLUSTER),
    Command {
        arity: -1,
        ..container(
            Group::Server,
            "command",
            ("2.8.13", "Describes the commands."),
            COMMAND,
        )
    },
    container(
        Group::Server,
        "config",
        ("2.0.0", "Shows and changes parameters."),
        CONFIG,
    ),
    container(
        Group::Server,
        "latency",
        ("2.8.13", "Shows what took long."),
        LATENCY,
    ),
    container(
        Group::Server,
        "memory",
        ("4.0.0", "Shows what entries cost."),
        MEMORY,
    ),
    container(
        Group::Generic,
        "object",
        ("2.2.3", "Shows what is known about a key."),
        OBJECT,
    ),
    container(
        Group::Scripting,
        "script",
        ("2.6.0", "Looks after the scripts that the node knows."),
        scripts::SCRIPT,
    ),
    container(
        Group::Server,
        "slowlog",
        ("2.2.12", "Shows the commands that took long."),
        SLOWLOG,
    ),
];

const ACL: &[Command] = &[
    plain(
        Group::Server,
        ("cat", -2, NSN),
        (
            "6.0.0",
            "Returns the categories of commands, or the commands of one.",
        ),
        acl::cat,
    ),
    plain(
        Group::Server,
        ("getuser", 3, NSN),
        ("6.0.0", "Returns the rules of the connection's own user."),
        acl::getuser,
    ),
    plain(
        Group::Server,
        ("whoami", 2, NSN),
        ("6.0.0", "Returns the connection's user."),
        acl::whoami,
    ),
    helps(Group::Server, "6.0.0"),
];

const CLIENT: &[Command] = &[
    plain(
        Group::Connection,
        ("caching", 3, NSN),
        ("6.0.0", "Chooses whether the next command's keys are tracked."),
        tracking::caching,
    ),
    plain(
        Group::Connection,
        ("getname", 2, NSN),
        ("2.6.9", "Returns the connection's name."),
        client::getname,
    ),
    plain(
        Group::Connection,
        ("getredir", 2, NSN),
        (
            "6.0.0",
            "Returns which connection is told of changed keys instead.",
        ),
        tracking::getredir,
    ),
    plain(
        Group::Connection,
        ("id", 2, NSN),
        ("5.0.0", "Returns the connection's number."),
        client::id,
    ),
    plain(
        Group::Connection,
        ("info", 2, NSN),
        ("6.2.0", "Describes the connection."),
        client::info,
    ),
    plain(
        Group::Connection,
        ("kill", -3, ANSN),
        ("2.4.0", "Ends connections."),
        client::kill,
    ),
    plain(
        Group::Connection,
        ("list", -2, ANSN),
        ("2.4.0", "Describes the connections."),
        client::list,
    ),
    plain(
        Group::Connection,
        ("no-evict", 3, ANSN),
        (
            "7.0.0",
            "Asks that the connection is not ended for want of memory.",
        ),
        client::no_evict,
    ),
    plain(
        Group::Connection,
        ("no-touch", 3, NSN),
        ("7.2.0", "Chooses whether reads make keys more recently used."),
        client::no_touch,
    ),
    plain(
        Group::Connection,
        ("pause", -3, ANSN),
        ("3.0.0", "Lets commands, or those that write, wait for a while."),
        client::pause,
    ),
    plain(
        Group::Connection,
        ("reply", 3, NSN),
        ("3.2.0", "Chooses which replies the connection gets."),
        client::reply_mode,
    ),
    plain(
        Group::Connection,
        ("setinfo", 4, NSN),
        ("7.2.0", "Tells the server which library the client uses."),
        client::setinfo,
    ),
    plain(
        Group::Connection,
        ("setname", 3, NSN),
        ("2.6.9", "Names the connection."),
        client::setname,
    ),
    plain(
        Group::Connection,
        ("tracking", -3, N),
        ("6.0.0", "Chooses whether the connection is told of changed keys."),
        tracking::tracking,
    ),
    plain(
        Group::Connection,
        ("trackinginfo", 2, N),
        ("6.2.0", "Returns of which changed keys the connection is told."),
        tracking::trackinginfo,
    ),
    plain(
        Group::Connection,
        ("unpause", 2, AN),
        ("6.2.0", "Lets commands wait no more."),
        client::unpause,
    ),
    helps(Group::Connection, "5.0.0"),
];

const CLUSTER: &[Command] = &[
    plain(
        Group::Cluster,
        ("countkeysinslot", 3, NONE),
        ("3.0.0", "Returns how many keys of a slot the node has."),
        cluster::count_keys_in_slot,
    ),
    plain(
        Group::Cluster,
        ("getkeysinslot", 4, NONE),
        ("3.0.0", "Returns keys of a slot that the node has."),
        cluster::get_keys_in_slot,
    ),
    plain(
        Group::Cluster,
        ("info", 2, NONE),
        ("3.0.0", "Returns the state of the ring."),
        cluster::info,
    ),
    plain(
        Group::Cluster,
        ("keyslot", 3, NONE),
        ("3.0.0", "Returns the slot of a key."),
        cluster::key_slot,
    ),
    plain(
        Group::Cluster,
        ("links", 2, NONE),
        (
            "7.0.0",
            "Returns the permanent links between nodes; there are none.",
        ),
        cluster::links,
    ),
    plain(
        Group::Cluster,
        ("myid", 2, NONE),
        ("3.0.0", "Returns the node's id."),
        cluster::my_id,
    ),
    plain(
        Group::Cluster,
        ("myshardid", 2, NONE),
        ("7.2.0", "Returns the id of the node's shard."),
        cluster::my_id,
    ),
    plain(
        Group::Cluster,
        ("nodes", 2, NONE),
        ("3.0.0", "Returns the ring as lines of text."),
        cluster::nodes,
    ),
    plain(
        Group::Cluster,
        ("replicas", 3, A),
        ("5.0.0", "Returns the replicas of a node; there are none."),
        cluster::replicas,
    ),
    plain(
        Group::Cluster,
        ("shards", 2, NONE),
        ("7.0.0", "Returns the ring by members."),
        cluster::shards,
    ),
    plain(
        Group::Cluster,
        ("slaves", 3, A),
        ("3.0.0", "Returns the replicas of a node; there are none."),
        cluster::replicas,
    ),
    plain(
        Group::Cluster,
        ("slots", 2, NONE),
        ("3.0.0", "Returns the ring by ranges of slots."),
        cluster::slots,
    ),
    helps(Group::Cluster, "5.0.0"),
];

const COMMAND: &[Command] = &[
    plain(
        Group::Server,
        ("count", 2, N),
        ("2.8.13", "Returns how many commands there are."),
        command_info::count,
    ),
    plain(
        Group::Server,
        ("docs", -2, N),
        ("7.0.0", "Describes commands."),
        command_info::docs,
    ),
    plain(
        Group::Server,
        ("getkeys", -3, N),
        ("2.8.13", "Returns the keys in a command."),
        command_info::get_keys,
    ),
    plain(
        Group::Server,
        ("getkeysandflags", -3, N),
        ("7.0.0", "Returns the keys in a command and what happens to them."),
        command_info::get_keys_and_flags,
    ),
    plain(
        Group::Server,
        ("info", -2, N),
        ("2.8.13", "Returns the table's rows of some commands."),
        command_info::info,
    ),
    plain(
        Group::Server,
        ("list", -2, N),
        ("7.0.0", "Returns the names of commands."),
        command_info::list,
    ),
    helps(Group::Server, "5.0.0"),
];

const CONFIG: &[Command] = &[
    plain(
        Group::Server,
        ("get", -3, ANSN),
        ("2.0.0", "Returns parameters."),
        config::get,
    ),
    plain(
        Group::Server,
        ("resetstat", 2, ANSN),
        ("2.0.0", "Sets the counters of INFO to zero."),
        config::reset_stat,
    ),
    plain(
        Group::Server,
        ("set", -4, ANSN),
        ("2.0.0", "Changes parameters."),
        config::set,
    ),
    helps(Group::Server, "5.0.0"),
];

const LATENCY: &[Command] = &[
    plain(
        Group::Server,
        ("doctor", 2, ANSN),
        ("2.8.13", "Says in words what took long."),
        latency::doctor,
    ),
    plain(
        Group::Server,
        ("histogram", -2, ANSN),
        (
            "7.0.0",
            "Returns how long commands take, while latency-tracking is on.",
        ),
        latency::histogram,
    ),
    plain(
        Group::Server,
        ("history", 3, ANSN),
        ("2.8.13", "Returns when something took long, and how long."),
        latency::history,
    ),
    plain(
        Group::Server,
        ("latest", 2, ANSN),
        ("2.8.13", "Returns what took long last."),
        latency::latest,
    ),
    plain(
        Group::Server,
        ("reset", -2, ANSN),
        ("2.8.13", "Forgets what took long."),
        latency::reset,
    ),
    helps(Group::Server, "2.8.13"),
];

const SLOWLOG: &[Command] = &[
    plain(
        Group::Server,
        ("get", -2, AN),
        ("2.2.12", "Returns the commands that took long."),
        slow_log::get,
    ),
    plain(
        Group::Server,
        ("len", 2, AN),
        ("2.2.12", "Returns how many commands took long."),
        slow_log::len,
    ),
    plain(
        Group::Server,
        ("reset", 2, AN),
        ("2.2.12", "Forgets the commands that took long."),
        slow_log::reset,
    ),
    helps(Group::Server, "6.2.0"),
];

const MEMORY: &[Command] = &[
    plain(
        Group::Server,
        ("doctor", 2, NONE),
        ("4.0.0", "Says in words what stands out."),
        memory::doctor,
    ),
    plain(
        Group::Server,
        ("malloc-stats", 2, NONE),
        ("4.0.0", "Returns the allocator's own figures; it gives none."),
        memory::malloc_stats,
    ),
    plain(
        Group::Server,
        ("purge", 2, NONE),
        ("4.0.0", "Gives memory back; there is none to give back."),
        memory::purge,
    ),
    plain(
        Group::Server,
        ("stats", 2, NONE),
        ("4.0.0", "Returns what takes memory."),
        memory::stats,
    ),
    keyed(
        Group::Server,
        ("usage", -3, R, Keys::of_subcommand(KeyAccess::Inspect)),
        ("4.0.0", "Returns how many bytes an entry costs."),
        memory::usage,
    ),
    helps(Group::Server, "4.0.0"),
];

const OBJECT: &[Command] = &[
    keyed(
        Group::Generic,
        ("encoding", 3, R, Keys::of_subcommand(KeyAccess::Inspect)),
        ("2.2.3", "Returns how a value is kept."),
        keys::object_encoding,
    ),
    keyed(
        Group::Generic,
        ("freq", 3, R, Keys::of_subcommand(KeyAccess::Inspect)),
        ("4.0.0", "Returns how often a key was used lately, at most 15."),
        keys::object_freq,
    ),
    keyed(
        Group::Generic,
        ("idletime", 3, R, Keys::of_subcommand(KeyAccess::Inspect)),
        ("2.2.3", "Returns for how many seconds a key was not used."),
        keys::object_idletime,
    ),
    keyed(
        Group::Generic,
        ("refcount", 3, R, Keys::of_subcommand(KeyAccess::Inspect)),
        ("2.2.3", "Returns how many keys share a value."),
        keys::object_refcount,
    ),
    helps(Group::Generic, "6.2.0"),
];

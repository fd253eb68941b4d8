//! The errors that commands answer, in the words that clients know.
//!
//! A client acts on the code that an error begins with, and libraries match some of the texts: they are those
//! of Redis 7, wherever it has one.

use annulus_ring::{Address, Slot};

use crate::store::limits::RateLimit;
use crate::store::{TooBig, WrongType};

/// Why a command was refused, or failed. Displayed as the error reply, without the leading `-`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such command in the table.
    #[error("ERR unknown command '{name}', with args beginning with: {args}")]
    UnknownCommand {
        /// What was asked for.
        name: String,
        /// The first arguments, quoted.
        args: String,
    },
    /// No such subcommand in the table.
    #[error("ERR unknown subcommand '{subcommand}'. Try {command} HELP.")]
    UnknownSubcommand {
        /// The command, in upper case.
        command: String,
        /// What was asked for.
        subcommand: String,
    },
    /// Fewer copies than a write must have before it is acknowledged could be made of it.
    #[error("NOREPLICAS Not enough good replicas to write.")]
    NoReplicas,
    /// A write was made, and copies didn't say in time that they have it.
    #[error(
        "UNCERTAIN the write was made here, but its copies did not confirm it in time: after a failure of this node it may be gone"
    )]
    Uncertain,
    /// This node doesn't know in time whether it may still answer for the slot.
    #[error(
        "TRYAGAIN this node has not heard from the slot's copies and can't tell whether it still owns the slot"
    )]
    LeaseLost,
    /// Too few or too many arguments.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(String),
    /// Arguments that don't fit together.
    #[error("ERR syntax error")]
    Syntax,
    /// Not an integer.
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    /// Not a number.
    #[error("ERR value is not a valid float")]
    NotAFloat,
    /// The sum doesn't fit.
    #[error("ERR increment or decrement would overflow")]
    IncrementOverflow,
    /// The sum isn't a number that could be stored.
    #[error("ERR increment would produce NaN or Infinity")]
    NotFinite,
    /// DECRBY of the number that has no opposite.
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    /// No such key.
    #[error("ERR no such key")]
    NoSuchKey,
    /// A time of expiry that can't be.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpireTime(&'static str),
    /// The number that has no opposite.
    #[error("ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807")]
    BeyondSymmetric,
    /// A negative offset.
    #[error("ERR offset is out of range")]
    OffsetOutOfRange,
    /// Longer than an argument may be.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    StringTooLong,
    /// More than the budget.
    #[error("ERR {0}")]
    TooBig(#[from] TooBig),
    /// The key holds a value of another type than the command works on.
    #[error(transparent)]
    WrongType(#[from] WrongType),
    /// No memory, and nothing may be evicted.
    #[error("OOM command not allowed when used memory > 'maxmemory'.")]
    OutOfMemory,
    /// Who are you?
    #[error("NOAUTH Authentication required.")]
    NoAuth,
    /// Not that password.
    #[error("WRONGPASS invalid username-password pair or user is disabled.")]
    WrongPass,
    /// The rules of the user don't allow the command, or it is not for tenants.
    #[error("NOPERM User {user} has no permissions to run the '{command}' command")]
    NoPermission {
        /// Who asked.
        user: String,
        /// For what.
        command: String,
    },
    /// The tenant does more than it may.
    #[error("THROTTLED tenant {tenant} may {limit} a second on this node; wait, or raise its quota")]
    Throttled {
        /// Its namespace and name.
        tenant: String,
        /// What it may do.
        limit: RateLimit,
    },
    /// Longer than the tenant's values may be.
    #[error("ERR a value of tenant {tenant} may have {bytes_max} bytes at most, by its quota")]
    ValueTooLong {
        /// Its namespace and name.
        tenant: String,
        /// Its longest value.
        bytes_max: u64,
    },
    /// In RESP2 a subscribed connection can't tell a reply from a message.
    #[error(
        "ERR Can't execute '{0}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
    )]
    Subscribed(String),
    /// Keys in several slots.
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    CrossSlot,
    /// Another member serves the slot.
    #[error("MOVED {slot} {}:{}", address.client_host(), address.port_for(*secure))]
    Moved {
        /// The slot.
        slot: Slot,
        /// Who serves it.
        address: Address,
        /// Whether the client is connected with TLS, and so wants to be sent to a port with TLS.
        secure: bool,
    },
    /// The slot is being handed over.
    #[error("TRYAGAIN Slot {0} is being handed over, its writes continue in a moment")]
    TryAgain(Slot),
    /// Nobody serves the slot.
    #[error("CLUSTERDOWN Hash slot not served")]
    SlotNotServed,
    /// There is no ring.
    #[error("CLUSTERDOWN The cluster is down")]
    ClusterDown,
    /// A key of a group has no value here, and can't be loaded.
    #[error("ORIGIN group {group}: {reason}")]
    Origin {
        /// The group's namespace and name.
        group: String,
        /// Why.
        reason: String,
    },
    /// Anything else; the text begins with its code.
    #[error("{0}")]
    Other(String),
    /// Anything else that is always the same.
    #[error("{0}")]
    Fixed(&'static str),
}

/// What a command's function returns. It has written its whole reply, or nothing and returns the error.
pub type Outcome = Result<(), CommandError>;

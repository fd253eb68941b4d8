//! How one client wants to be told of changes.

use std::collections::BTreeSet;
use std::sync::Weak;

use crate::clients::Client;

/// Of which reads a client's keys are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// All.
    Always,
    /// Those that follow `CLIENT CACHING YES`.
    OptIn,
    /// All but those that follow `CLIENT CACHING NO`.
    OptOut,
}

/// Of which keys a client is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// None.
    #[default]
    Off,
    /// Those that it has read.
    Keys(Consent),
    /// Those that begin as it likes.
    Broadcast,
}

/// The connection that is told instead.
#[derive(Debug, Clone)]
pub struct Redirect {
    /// Its number.
    pub id: u64,
    /// The connection, while it is there.
    pub target: Weak<Client>,
}

/// How one client wants to be told of changes.
#[derive(Debug, Clone, Default)]
pub struct TrackingOptions {
    /// Of which keys.
    pub mode: Mode,
    /// Not of what it changes itself.
    pub no_loop: bool,
    /// Through another connection.
    pub redirect: Option<Redirect>,
    /// That was found to be gone.
    pub is_broken: bool,
    /// How keys begin that it is told of.
    pub prefixes: BTreeSet<Box<[u8]>>,
    /// How many invalidations were posted since it began to track: who has counted fewer has lost some.
    pub invalidations: u64,
}

impl TrackingOptions {
    /// The number in `CLIENT GETREDIR`: -1 while nothing is tracked, 0 without redirection.
    pub fn redirect_id(&self) -> i64 {
        match (&self.mode, &self.redirect) {
            (Mode::Off, _) => -1,
            (_, None) => 0,
            (_, Some(redirect)) => i64::try_from(redirect.id).unwrap_or(i64::MAX),
        }
    }
}

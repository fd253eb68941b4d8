//! Whose Secrets are read in a pass: so many in a time, whatever groups there are. Pure.
//!
//! Namespaces take turns, and within each the oldest look comes first: nobody's groups keep those of others waiting for long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::validate::ValidGroup;

/// Secrets that are read within a [window](WINDOW). Not less than one group may name.
pub const READS_MAX: usize = 100;
/// How long a window is.
pub const WINDOW: Duration = Duration::from_secs(2);
/// After reads that took too long there are none for this time, so that few passes are held up by them.
pub const HOLD: Duration = Duration::from_secs(10);

/// A Secret: its namespace and its name.
pub type Place = (String, String);

/// A group whose Secrets are due.
#[derive(Debug, Clone, Copy)]
pub struct Due<'a> {
    /// Which one.
    pub group: &'a ValidGroup,
    /// When they were looked at; `None` for never, as it is now.
    pub looked_at: Option<Instant>,
}

/// How many may still be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allowance {
    /// When the window ends, and how many were read in it.
    window: Option<(Instant, usize)>,
}

impl Allowance {
    /// How many may be read now.
    pub fn left(&self, now: Instant) -> usize {
        match self.window {
            Some((ends_at, spent)) if now < ends_at => READS_MAX.saturating_sub(spent),
            _ => READS_MAX,
        }
    }

    /// So many are being read.
    pub fn spend(&mut self, reads: usize, now: Instant) {
        match &mut self.window {
            Some((ends_at, spent)) if now < *ends_at => *spent += reads,
            _ => self.window = Some((now + WINDOW, reads)),
        }
    }

    /// The API server doesn't keep up: nothing is read for a while.
    pub fn hold(&mut self, now: Instant) {
        self.window = Some((now + HOLD, READS_MAX));
    }

    /// When as many as ever may be read.
    pub fn renewed_at(&self, now: Instant) -> Instant {
        self.window.map_or(now, |(ends_at, _)| ends_at.max(now))
    }
}

/// Those whose turn it is, and which Secrets that makes: at most so many.
pub fn choose<'a>(due: &[Due<'a>], reads_max: usize) -> (Vec<&'a ValidGroup>, BTreeSet<Place>) {
    let mut by_age: Vec<&Due<'_>> = due.iter().collect();
    by_age.sort_by_key(|due| (due.looked_at, &due.group.key));
    let mut places_in_line = BTreeMap::<&str, usize>::new();
    let mut line: Vec<(usize, &Due<'_>)> = by_age
        .into_iter()
        .map(|due| {
            let before = places_in_line.entry(&due.group.key.namespace).or_default();
            *before += 1;
            (*before, due)
        })
        .collect();
    // Stable: of those at the same place of their namespaces' lines the oldest look comes first.
    line.sort_by_key(|(place, _)| *place);
    let (mut chosen, mut secrets, mut is_full) = (Vec::new(), BTreeSet::<Place>::new(), false);
    for (_, due) in line {
        let namespace = &due.group.key.namespace;
        let named = due.group.headers_from.iter();
        let new: BTreeSet<Place> = named
            .map(|from| (namespace.clone(), from.secret.clone()))
            .filter(|place| !secrets.contains(place))
            .collect();
        // Whoever names what is read anyhow needs no turn.
        is_full |= secrets.len() + new.len() > reads_max;
        if new.is_empty() || !is_full {
            secrets.extend(new);
            chosen.push(due.group);
        }
    }
    (chosen, secrets)
}

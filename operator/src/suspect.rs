//! Which nodes are taken for dead. Pure: the hub tells what it heard and when, and asks.
//!
//! A mistake costs a needless failover and no data: an owner that lives on can acknowledge nothing without its
//! copies. So the rules are quick where silence has a witness, and refuse where it has none: what this operator
//! alone does not hear proves nothing, and neither does what it missed while it was paused or cut off itself.

use std::collections::BTreeSet;
use std::time::Duration;

use annulus_ring::{Member, NodeId, RingDocument};
use tokio::time::Instant;

use crate::view::View;

/// How long a node may be silent while others are heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// A node that has been heard before.
    pub silence: Duration,
    /// A node that has yet to be heard for the first time.
    pub first_answer: Duration,
}

impl Patience {
    /// For nodes that report every `interval`: at least three reports must be missing.
    pub fn new(silence: Duration, interval: Duration) -> Self {
        let silence = silence.max(interval * 3);
        Self {
            silence,
            first_answer: silence * 2,
        }
    }

    /// A longer pause between two reports breaks off what a witness can say of others: it may have been the operator
    /// that did not listen.
    fn gap_max(self) -> Duration {
        self.silence / 2
    }
}

/// What is known of one node's voice.
#[derive(Debug, Clone)]
pub struct Voice {
    /// When it was last heard; of one that was never heard, when listening began.
    last: Instant,
    /// Since when it is heard without a gap.
    speaks_since: Option<Instant>,
    ever_heard: bool,
    /// Nobody listens at its address any more.
    refused: bool,
    dead: bool,
}

impl Voice {
    /// Of a node that is listened to from now on.
    pub fn new(now: Instant) -> Self {
        Self {
            last: now,
            speaks_since: None,
            ever_heard: false,
            refused: false,
            dead: false,
        }
    }

    /// It said something. Returns whether it had been taken for dead.
    pub fn heard(&mut self, now: Instant, patience: Patience) -> bool {
        let gap = now.duration_since(self.last) > patience.gap_max();
        self.speaks_since = self.speaks_since.filter(|_| !gap).or(Some(now));
        self.last = now;
        self.ever_heard = true;
        self.refused = false;
        std::mem::take(&mut self.dead)
    }

    /// Its connection broke, or could not be made; `refused` when its host says that nobody listens there.
    pub fn lost(&mut self, refused: bool) {
        self.speaks_since = None;
        self.refused |= refused;
    }

    /// Whether it is taken for dead: from the verdict on, until it is heard again.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// When it was last heard, or listening began.
    pub fn last(&self) -> Instant {
        self.last
    }
}

/// Passes verdicts on the nodes of one cluster. Returns whether there is a new one.
///
/// Dead is who refuses connections while somebody else is heard, and who was silent for so long while somebody else
/// was heard all that time.
pub fn judge<'a>(voices: impl IntoIterator<Item = &'a mut Voice>, patience: Patience, now: Instant) -> bool {
    let mut voices: Vec<&mut Voice> = voices.into_iter().collect();
    let suspicious =
        |voice: &Voice| !voice.dead && (voice.refused || now.duration_since(voice.last) >= patience.silence);
    if !voices.iter().any(|voice| suspicious(voice)) {
        return false;
    }
    let witnesses: Vec<(Instant, Instant)> = voices
        .iter()
        .filter(|voice| !voice.dead && now.duration_since(voice.last) < patience.silence)
        .filter_map(|voice| Some((voice.speaks_since?, voice.last)))
        .collect();
    let mut news = false;
    for voice in voices.iter_mut().filter(|voice| suspicious(voice)) {
        let longest = if voice.ever_heard {
            patience.silence
        } else {
            patience.first_answer
        };
        let heard_meanwhile = |(since, last): &(Instant, Instant)| {
            last.saturating_duration_since(voice.last.max(*since)) >= longest
        };
        if voice.refused && !witnesses.is_empty() || witnesses.iter().any(heard_meanwhile) {
            voice.dead = true;
            news = true;
        }
    }
    news
}

/// The members that are taken for dead in the life that the document lists: silent ones with a verdict, and silent ones
/// whose pod is gone, is ending, or has another address by now. None while no member answers, and none while the
/// operator has only just begun to watch.
pub fn failed(document: &RingDocument, view: &View) -> BTreeSet<NodeId> {
    let answers = |id: &NodeId| view.reports.contains_key(id);
    if view.connecting || !document.members.iter().any(|member| answers(&member.id)) {
        return BTreeSet::new();
    }
    let runs = |member: &Member| {
        view.pods.get(&member.id).is_some_and(|pod| {
            !pod.terminating && pod.ip.is_some_and(|ip| ip.to_string() == member.address.host)
        })
    };
    let silent = document.members.iter().filter(|member| !answers(&member.id));
    silent
        .filter(|member| view.dead.contains_key(&member.id) || !runs(member))
        .map(|member| member.id.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        silence: Duration::from_secs(1),
        first_answer: Duration::from_secs(2),
    };

    /// What happens to which of three nodes at which millisecond.
    #[derive(Clone, Copy)]
    enum Happens {
        /// It reports every 200 ms, from then until the second time.
        Speaks(u64, u64),
        Refuses(u64),
        Breaks(u64),
    }

    use Happens::{Breaks, Refuses, Speaks};

    /// The first millisecond at which each node is taken for dead, looking at each event.
    fn verdicts(story: &[(usize, Happens)]) -> [Option<u64>; 3] {
        let begin = Instant::now();
        let mut events: Vec<(u64, usize, Option<bool>)> = Vec::new();
        for &(node, happens) in story {
            match happens {
                Speaks(from, to) => {
                    events.extend((from..to).step_by(200).map(|at| (at, node, None)));
                }
                Refuses(at) => events.push((at, node, Some(true))),
                Breaks(at) => events.push((at, node, Some(false))),
            }
        }
        events.sort_unstable();
        let mut voices = [Voice::new(begin), Voice::new(begin), Voice::new(begin)];
        let mut found = [None; 3];
        for (at, node, lost) in events {
            let now = begin + Duration::from_millis(at);
            match lost {
                None => {
                    voices[node].heard(now, PATIENCE);
                }
                Some(refused) => voices[node].lost(refused),
            }
            judge(&mut voices, PATIENCE, now);
            for (voice, found) in voices.iter().zip(&mut found) {
                if voice.is_dead() {
                    found.get_or_insert(at);
                }
            }
        }
        found
    }

    #[test]
    #[expect(clippy::too_many_lines, clippy::type_complexity, reason = "a table")]
    fn silence_counts_when_somebody_else_was_heard_all_the_time() {
        let rows: [(&str, &[(usize, Happens)], [Option<u64>; 3]); 11] = [
            (
                "all speak",
                &[
                    (0, Speaks(0, 9_000)),
                    (1, Speaks(50, 9_000)),
                    (2, Speaks(90, 9_000)),
                ],
                [None; 3],
            ),
            (
                "one hangs",
                &[
                    (0, Speaks(0, 5_000)),
                    (1, Speaks(50, 3_000)),
                    (2, Speaks(90, 5_000)),
                ],
                [None, Some(3_890), None],
            ),
            (
                "one dies and refuses",
                &[
                    (0, Speaks(0, 5_000)),
                    (1, Speaks(50, 3_000)),
                    (1, Refuses(3_001)),
                    (2, Speaks(90, 5_000)),
                ],
                [None, Some(3_001), None],
            ),
            (
                "a connection breaks and comes back",
                &[
                    (0, Speaks(0, 5_000)),
                    (1, Speaks(50, 3_000)),
                    (1, Breaks(3_001)),
                    (1, Speaks(3_500, 5_000)),
                    (2, Speaks(90, 5_000)),
                ],
                [None; 3],
            ),
            (
                "two of three",
                &[
                    (0, Speaks(0, 5_000)),
                    (1, Speaks(50, 3_000)),
                    (2, Speaks(90, 3_000)),
                ],
                [None, Some(4_000), Some(4_000)],
            ),
            (
                "all at once: the operator is cut off, and all come back one after the other",
                &[
                    (0, Speaks(0, 3_000)),
                    (1, Speaks(50, 3_000)),
                    (2, Speaks(90, 3_000)),
                    (0, Breaks(5_000)),
                    (0, Speaks(9_000, 12_000)),
                    (1, Speaks(9_500, 12_000)),
                    (2, Speaks(9_900, 12_000)),
                ],
                [None; 3],
            ),
            (
                "the operator was paused, and reads one stream before the others",
                &[
                    (0, Speaks(0, 3_000)),
                    (1, Speaks(50, 3_000)),
                    (2, Speaks(90, 3_000)),
                    (0, Speaks(9_000, 12_000)),
                    (1, Speaks(9_300, 12_000)),
                    (2, Speaks(9_800, 12_000)),
                ],
                [None; 3],
            ),
            (
                "cut off, and one stays away",
                &[
                    (0, Speaks(0, 3_000)),
                    (1, Speaks(50, 3_000)),
                    (2, Speaks(90, 3_000)),
                    (0, Speaks(9_000, 12_000)),
                    (2, Speaks(9_400, 12_000)),
                ],
                [None, Some(10_000), None],
            ),
            (
                "one was never heard",
                &[(0, Speaks(0, 5_000)), (2, Speaks(90, 5_000))],
                [None, Some(2_000), None],
            ),
            (
                "all refuse: nobody is left to tell",
                &[(0, Refuses(5)), (1, Refuses(5)), (2, Refuses(5))],
                [None; 3],
            ),
            (
                "one refuses before anybody else is heard",
                &[(1, Refuses(5)), (0, Speaks(100, 1_000)), (2, Speaks(90, 1_000))],
                [None, Some(90), None],
            ),
        ];
        for (name, story, expected) in rows {
            assert_eq!(verdicts(story), expected, "{name}");
        }
    }

    #[test]
    fn a_verdict_stands_until_the_node_is_heard_again() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let (mut one, mut other) = (Voice::new(begin), Voice::new(begin));
        one.heard(at(10), PATIENCE);
        other.heard(at(10), PATIENCE);
        one.lost(true);
        assert!(judge([&mut one, &mut other], PATIENCE, at(20)), "a new verdict");
        assert!(!judge([&mut one, &mut other], PATIENCE, at(30)), "the same one");
        // The witness goes too, and the verdict stays.
        other.lost(false);
        one.lost(false);
        assert!(!judge([&mut one, &mut other], PATIENCE, at(9_000)));
        assert!(one.is_dead() && !other.is_dead());
        assert!(one.heard(at(9_100), PATIENCE), "it was taken for dead");
        assert!(!one.is_dead());
    }

    #[test]
    fn at_least_three_reports_are_missing() {
        let [second, slow] = [1, 2].map(Duration::from_secs);
        assert_eq!(Patience::new(second, Duration::from_millis(200)), PATIENCE);
        assert_eq!(Patience::new(second, slow).silence, slow * 3);
    }
}

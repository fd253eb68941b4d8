//! Which ranges of slots there are, who owns them, and who has copies: what `CLUSTER SLOTS` tells.

use std::collections::{BTreeMap, BTreeSet};

use annulus_ring::{MemberState, Slot, SlotRange};

use super::{ClusterView, MemberView};

/// A range of slots and its members.
#[derive(Debug)]
pub struct Listed<'a> {
    /// The slots.
    pub range: SlotRange,
    /// Who owns them.
    pub owner: &'a MemberView,
    /// Who has whole copies of them, in the order of their ids.
    pub copies: Vec<&'a MemberView>,
}

impl ClusterView {
    /// Every range, in order, without copies.
    pub fn ranges(&self) -> Vec<Listed<'_>> {
        let mut listed = Vec::new();
        for owner in &self.members {
            listed.extend(owner.ranges.iter().map(|&range| Listed {
                range,
                owner,
                copies: Vec::new(),
            }));
        }
        listed.sort_by_key(|listed| listed.range.first);
        listed
    }

    /// Every range with those who have copies of it and are not down, the shorter the more often these differ.
    ///
    /// Each owner comes first with a single slot and without copies, and after all of them the rest in order: redis-py takes
    /// a member for what it meets it as first, and would send FLUSHALL or SCAN to no "replica".
    pub fn ranges_with_copies(&self) -> Vec<Listed<'_>> {
        let changes = self.changes_of_holders();
        if changes.is_empty() {
            return self.ranges();
        }
        let mut introductions: Vec<Listed<'_>> = Vec::new();
        let mut introduced = BTreeSet::new();
        let mut listed = Vec::new();
        let mut holders = BTreeSet::new();
        let mut changes = changes.into_iter().peekable();
        for Listed { range, owner, .. } in self.ranges() {
            let mut first = range.first.number();
            if introduced.insert(&owner.id) {
                let range = SlotRange {
                    first: range.first,
                    last: range.first,
                };
                introductions.push(Listed {
                    range,
                    owner,
                    copies: Vec::new(),
                });
                first += 1;
            }
            while first <= range.last.number() {
                while let Some((_, changed)) = changes.next_if(|(slot, _)| *slot <= first) {
                    for holder in changed {
                        if !holders.remove(&holder) {
                            holders.insert(holder);
                        }
                    }
                }
                let last = changes
                    .peek()
                    .map_or(range.last.number(), |(next, _)| range.last.number().min(next - 1));
                if let (Ok(first), Ok(last)) = (Slot::new(first), Slot::new(last)) {
                    listed.push(Listed {
                        range: SlotRange { first, last },
                        owner,
                        copies: holders.iter().map(|&holder| &self.members[holder]).collect(),
                    });
                }
                first = last + 1;
            }
        }
        introductions.extend(listed);
        introductions
    }

    /// By slot, whose copies begin there, or have ended before it.
    fn changes_of_holders(&self) -> BTreeMap<u16, Vec<usize>> {
        let mut changes: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, member) in self.members.iter().enumerate() {
            if member.state == MemberState::Down {
                continue;
            }
            for range in &member.copies {
                changes.entry(range.first.number()).or_default().push(index);
                changes.entry(range.last.number() + 1).or_default().push(index);
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use annulus_ring::{ClusterUid, Epoch, MemberState, NodeId, Slot, SlotRange};

    use crate::routing::{ClusterView, Listed, MemberView};

    fn ranges(text: &str) -> Vec<SlotRange> {
        let slot = |text: &str| Slot::new(text.parse().unwrap()).unwrap();
        let range = |text: &str| {
            let (first, last) = text.split_once('-').unwrap();
            SlotRange {
                first: slot(first),
                last: slot(last),
            }
        };
        text.split_whitespace().map(range).collect()
    }

    /// Members `a`, `b` … by what they own and have copies of.
    fn view(members: &[(&str, &str, MemberState)]) -> ClusterView {
        let cluster: ClusterUid = "test".parse().unwrap();
        let member = |(index, (owned, copied, state)): (usize, &(&str, &str, MemberState))| {
            let id: NodeId = ["a", "b", "c"][index].parse().unwrap();
            MemberView {
                wire_id: id.wire_id(&cluster),
                id,
                address: None,
                zone: None,
                state: *state,
                ranges: ranges(owned),
                copies: ranges(copied),
            }
        };
        let members = members.iter().enumerate().map(member).collect();
        ClusterView {
            own_id: "a".parse().unwrap(),
            cluster_uid: cluster,
            epoch: Epoch(1),
            members,
        }
    }

    fn text(listed: &[Listed<'_>]) -> String {
        let line = |listed: &Listed<'_>| {
            let copies: String = listed.copies.iter().map(|member| member.id.as_str()).collect();
            format!("{}:{}{copies}", listed.range, listed.owner.id.as_str())
        };
        listed.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn ranges_are_split_where_their_copies_differ() {
        use MemberState::{Active, Down};
        for (members, expected) in [
            // No copies: as for everybody.
            (
                vec![("0-9 30-39", "", Active), ("10-29", "", Active)],
                "0-9:a 10-29:b 30-39:a",
            ),
            (
                vec![("0-9 20-29", "10-19", Active), ("10-19", "0-9 20-29", Active)],
                "0:a 10:b 1-9:ab 11-19:ba 20-29:ab",
            ),
            // In the middle of a range, over the end of one, and to the last slot.
            (
                vec![
                    ("0-99", "", Active),
                    ("100-16383", "50-59", Active),
                    ("", "90-199 16000-16383", Active),
                ],
                "0:a 100:b 1-49:a 50-59:ab 60-89:a 90-99:ac 101-199:bc 200-15999:b 16000-16383:bc",
            ),
            // Several copies; a range of one slot; somebody who is down.
            (
                vec![("5-5", "6-9", Active), ("6-9", "5-5", Down), ("", "5-9", Active)],
                "5:a 6:b 7-9:bac",
            ),
        ] {
            assert_eq!(text(&view(&members).ranges_with_copies()), expected);
        }
    }
}

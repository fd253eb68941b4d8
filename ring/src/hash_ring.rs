//! Who owns which slot.
//!
//! A ring is complete (every slot has exactly one owner) or empty, and canonical: no token could be left out
//! without changing an owner. So two rings are equal exactly when they agree about every slot. It knows nothing
//! of epochs, handoffs or health.

use std::collections::BTreeMap;

use crate::{NodeId, SLOT_COUNT, Slot, SlotRange, SlotSet, Zone};

/// Why tokens are not a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// A slot position can only be one member's token.
    #[error("token {slot} is held by both {first} and {second}, a position belongs to one member")]
    SharedToken {
        /// The position.
        slot: Slot,
        /// The member that comes first by name.
        first: NodeId,
        /// The other.
        second: NodeId,
    },
}

/// Who owns which slot: tokens in order, each the end of an arc.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HashRing {
    /// Members that own something, sorted by name.
    members: Vec<NodeId>,
    /// Ends of arcs in slot order, no two neighbours of one member (unless it is the only token).
    ends: Vec<Slot>,
    /// The index in `members` of the owner of the arc that ends at the same place of `ends`.
    owners: Vec<u16>,
}

impl HashRing {
    /// The ring of these tokens. Members without a token own nothing and are left out; tokens that change no
    /// owner are dropped. No tokens at all make the empty ring.
    pub fn from_tokens(tokens: &BTreeMap<NodeId, Vec<Slot>>) -> Result<Self, RingError> {
        let mut holders: Vec<(Slot, &NodeId)> = tokens
            .iter()
            .flat_map(|(id, slots)| slots.iter().map(move |&slot| (slot, id)))
            .collect();
        holders.sort_unstable();
        holders.dedup();
        if let Some(pair) = holders.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (first, second) = (pair[0].1.clone(), pair[1].1.clone());
            return Err(RingError::SharedToken {
                slot: pair[0].0,
                first,
                second,
            });
        }
        let Some(&first) = holders.first() else {
            return Ok(Self::default());
        };
        let mut owners = vec![first.1; usize::from(SLOT_COUNT)];
        let mut start = 0;
        for (slot, id) in holders {
            owners[start..=slot.index()].fill(id);
            start = slot.index() + 1;
        }
        Ok(Self::from_owners(|slot| owners[slot.index()]))
    }

    /// The ring in which each slot has the owner that the function names.
    pub(crate) fn from_owners<'a>(owner: impl Fn(Slot) -> &'a NodeId) -> Self {
        let mut ring = Self::default();
        let mut names: Vec<&NodeId> = Vec::new();
        let first = owner(Slot::ZERO);
        let mut previous = first;
        let mut end_of = |slot: Slot, id: &'a NodeId, ring: &mut Self| {
            names.push(id);
            ring.ends.push(slot);
        };
        for slot in Slot::all().skip(1) {
            let id = owner(slot);
            if id != previous {
                end_of(Slot::wrapping(slot.index() - 1), previous, &mut ring);
                previous = id;
            }
        }
        if previous != first || ring.ends.is_empty() {
            end_of(Slot::MAX, previous, &mut ring);
        }
        let mut members = names.clone();
        members.sort_unstable();
        members.dedup();
        let index_of = |id: &NodeId| {
            members
                .binary_search(&id)
                .ok()
                .and_then(|index| u16::try_from(index).ok())
        };
        ring.owners = names.iter().map(|id| index_of(id).unwrap_or_default()).collect();
        ring.members = members.into_iter().cloned().collect();
        ring
    }

    /// The positions each member holds, in order. Members that own nothing are not listed.
    pub fn tokens(&self) -> BTreeMap<NodeId, Vec<Slot>> {
        let mut tokens: BTreeMap<NodeId, Vec<Slot>> = BTreeMap::new();
        for (&end, &owner) in self.ends.iter().zip(&self.owners) {
            tokens
                .entry(self.members[usize::from(owner)].clone())
                .or_default()
                .push(end);
        }
        tokens
    }

    /// Whether nobody owns anything.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The members that own something, sorted by name.
    pub fn members(&self) -> &[NodeId] {
        &self.members
    }

    /// The slot's owner; `None` when the ring is empty. A binary search over the tokens.
    #[inline]
    pub fn owner(&self, slot: Slot) -> Option<&NodeId> {
        let owner = *self.owners.get(self.arc_of(slot))?;
        self.members.get(usize::from(owner))
    }

    /// The index of the arc that holds the slot.
    #[inline]
    fn arc_of(&self, slot: Slot) -> usize {
        let index = self.ends.partition_point(|&end| end < slot);
        if index == self.ends.len() { 0 } else { index }
    }

    /// The arcs with their owners in slot order. An arc that wraps around the end is given as two ranges.
    pub fn arcs(&self) -> impl Iterator<Item = (SlotRange, &NodeId)> {
        let last = self
            .ends
            .last()
            .filter(|&&end| end != Slot::MAX)
            .map(|&end| (end, self.owners[0]));
        let starts =
            std::iter::once(Slot::ZERO).chain(self.ends.iter().map(|end| Slot::wrapping(end.index() + 1)));
        let inner = starts
            .zip(self.ends.iter().zip(&self.owners))
            .map(|(first, (&last, &owner))| (first, last, owner));
        let wrapped = last.map(|(end, owner)| (Slot::wrapping(end.index() + 1), Slot::MAX, owner));
        inner
            .chain(wrapped)
            .map(|(first, last, owner)| (SlotRange { first, last }, &self.members[usize::from(owner)]))
    }

    /// The slots that a member owns.
    pub fn slots_of(&self, member: &NodeId) -> SlotSet {
        self.arcs()
            .filter(|(_, owner)| *owner == member)
            .map(|(range, _)| range)
            .collect()
    }

    /// How many slots each member owns. Members that own nothing are not listed.
    pub fn owned_counts(&self) -> BTreeMap<NodeId, u32> {
        let mut counts = BTreeMap::new();
        for (range, owner) in self.arcs() {
            *counts.entry(owner.clone()).or_default() += u32::from(range.len());
        }
        counts
    }

    /// How many arcs each member holds; an arc that wraps counts once.
    pub fn arc_counts(&self) -> BTreeMap<NodeId, u32> {
        let mut counts = BTreeMap::new();
        for &owner in &self.owners {
            *counts
                .entry(self.members[usize::from(owner)].clone())
                .or_default() += 1;
        }
        counts
    }

    /// The members that hold the slot's other copies: `factor - 1` of them when there are as many, the owner
    /// not among them.
    ///
    /// They are the next distinct members clockwise, where one in a zone that has no copy yet goes before one
    /// in a zone that has. Members without a zone share one, the unknown zone; so without any zones this is
    /// plain clockwise order. For all slots, [`copies`](Self::copies) is far cheaper.
    pub fn replicas(&self, slot: Slot, factor: u8, zones: &BTreeMap<NodeId, Option<Zone>>) -> Vec<&NodeId> {
        if self.is_empty() {
            return Vec::new();
        }
        let copies = CopyRule::new(self, factor, zones).copies(self, self.arc_of(slot));
        copies[1..]
            .iter()
            .map(|&owner| &self.members[usize::from(owner)])
            .collect()
    }

    /// The arcs in slot order, as [`arcs`](Self::arcs), each with the members that hold a copy of it: its owner
    /// first, then its [`replicas`](Self::replicas).
    pub fn copies(
        &self,
        factor: u8,
        zones: &BTreeMap<NodeId, Option<Zone>>,
    ) -> Vec<(SlotRange, Vec<&NodeId>)> {
        self.copies_by(&CopyRule::new(self, factor, zones))
    }

    /// The same when only `holders` may have copies beside the owner. Holders that own nothing come last, in the
    /// order of their names, so that a copy has a home even before a newcomer owns its first slot.
    pub fn copies_among<'a>(
        &'a self,
        factor: u8,
        holders: &'a BTreeMap<NodeId, Option<Zone>>,
    ) -> Vec<(SlotRange, Vec<&'a NodeId>)> {
        self.copies_by(&CopyRule::among(self, factor, holders))
    }

    fn copies_by<'a>(&'a self, rule: &CopyRule<'a>) -> Vec<(SlotRange, Vec<&'a NodeId>)> {
        let holders = |range: SlotRange| {
            let copies = rule.copies(self, self.arc_of(range.first));
            copies.into_iter().map(|member| rule.name(self, member)).collect()
        };
        self.arcs().map(|(range, _)| (range, holders(range))).collect()
    }

    /// How many copies of slots each member holds, the owned ones included.
    pub fn copy_counts(&self, factor: u8, zones: &BTreeMap<NodeId, Option<Zone>>) -> BTreeMap<NodeId, u32> {
        let mut counts = BTreeMap::new();
        for (range, holders) in self.copies(factor, zones) {
            for holder in holders {
                *counts.entry(holder.clone()).or_default() += u32::from(range.len());
            }
        }
        counts
    }
}

/// Which members hold copies; zones as numbers, so that walking around the ring compares no text. Members are
/// numbered as the ring does, those that own nothing after them.
struct CopyRule<'a> {
    /// By number the zone.
    zones: Vec<usize>,
    /// By number whether it may hold a copy of what another owns.
    holds: Vec<bool>,
    /// The members that own nothing.
    others: Vec<&'a NodeId>,
    /// How many copies there are to be.
    copies_wanted: usize,
    /// How many zones there are.
    zone_count: usize,
}

impl<'a> CopyRule<'a> {
    fn new(ring: &HashRing, factor: u8, zones: &BTreeMap<NodeId, Option<Zone>>) -> Self {
        let zone_of = |id: &NodeId| zones.get(id).and_then(Option::as_ref);
        Self::with(ring.members.iter().map(zone_of).collect(), factor)
    }

    fn among(ring: &HashRing, factor: u8, holders: &'a BTreeMap<NodeId, Option<Zone>>) -> Self {
        let owns = |id: &NodeId| ring.members.binary_search(id).is_ok();
        let others: Vec<&NodeId> = holders.keys().filter(|id| !owns(id)).collect();
        let members = || ring.members.iter().chain(others.iter().copied());
        let zone_of = |id: &NodeId| holders.get(id).and_then(Option::as_ref);
        let rule = Self::with(members().map(zone_of).collect(), factor);
        Self {
            holds: members().map(|id| holders.contains_key(id)).collect(),
            others,
            ..rule
        }
    }

    fn with(zones: Vec<Option<&Zone>>, factor: u8) -> Self {
        let mut names = zones.clone();
        names.sort_unstable();
        names.dedup();
        let number = |zone| names.binary_search(&zone).unwrap_or_default();
        Self {
            holds: vec![true; zones.len()],
            zones: zones.into_iter().map(number).collect(),
            others: Vec::new(),
            zone_count: names.len(),
            copies_wanted: usize::from(factor.max(1)),
        }
    }

    fn name(&self, ring: &'a HashRing, member: u16) -> &'a NodeId {
        let index = usize::from(member);
        ring.members
            .get(index)
            .unwrap_or_else(|| self.others[index - ring.members.len()])
    }

    /// The owner of the arc, then the others: first those that bring a new zone, then whoever comes next.
    fn copies(&self, ring: &HashRing, arc: usize) -> Vec<u16> {
        let zone = |member: u16| self.zones[usize::from(member)];
        let owning = || (1..ring.owners.len()).map(|step| ring.owners[(arc + step) % ring.owners.len()]);
        let rest = ring.members.len()..ring.members.len() + self.others.len();
        let clockwise = || {
            owning()
                .chain(rest.clone().filter_map(|index| u16::try_from(index).ok()))
                .filter(|&member| self.holds[usize::from(member)])
        };
        let mut copies = vec![ring.owners[arc]];
        for member in clockwise() {
            // The rest is in zones that have a copy.
            if copies.len() >= self.copies_wanted.min(self.zone_count) {
                break;
            }
            if !copies.iter().any(|&copy| zone(copy) == zone(member)) {
                copies.push(member);
            }
        }
        for member in clockwise() {
            if copies.len() >= self.copies_wanted {
                break;
            }
            if !copies.contains(&member) {
                copies.push(member);
            }
        }
        copies
    }
}

//! Placement: which member is to own which slots.

use crate::{HashRing, NodeId, SLOT_COUNT, Slot, SlotRange, Weight, Zone};

/// A member as placement sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Its stable name.
    pub id: NodeId,
    /// Its share relative to the others'.
    pub weight: Weight,
    /// Its failure domain, where known.
    pub zone: Option<Zone>,
}

/// How to place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacementParams {
    /// How many copies of each slot there are to be, the owner's included; at least 1.
    pub replication_factor: u8,
    /// How many arcs a member of average weight is to have, 1 to 64.
    pub tokens_per_member: u16,
}

/// The ring that these members are to have, changed as little as possible from the current one.
pub fn place(current: &HashRing, members: &[Placement], params: &PlacementParams) -> HashRing {
    let mut members: Vec<&Placement> = members.iter().collect();
    members.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    members.dedup_by(|a, b| a.id == b.id);
    if members.is_empty() {
        return HashRing::default();
    }
    let total: u64 = members
        .iter()
        .map(|member| u64::from(member.weight.0.get()))
        .sum();
    let mut owners: Vec<Option<usize>> = Slot::all()
        .map(|slot| {
            members
                .binary_search_by(|m| Some(&m.id).cmp(&current.owner(slot)))
                .ok()
        })
        .collect();
    let mut quota: Vec<u64> = members
        .iter()
        .map(|m| u64::from(SLOT_COUNT) * u64::from(m.weight.0.get()) / total)
        .collect();
    let rest = u64::from(SLOT_COUNT) - quota.iter().sum::<u64>();
    for share in quota.iter_mut().take(usize::try_from(rest).unwrap_or_default()) {
        *share += 1;
    }
    let mut left = quota.clone();
    for owner in &mut owners {
        match *owner {
            Some(member) if left[member] > 0 => left[member] -= 1,
            _ => *owner = None,
        }
    }
    let chunk = |member: usize| {
        quota[member]
            .div_ceil(u64::from(params.tokens_per_member.max(1)))
            .max(1)
    };
    let mut queue: Vec<usize> = Vec::new();
    loop {
        let round: Vec<usize> = (0..members.len()).filter(|&member| left[member] > 0).collect();
        if round.is_empty() {
            break;
        }
        for member in round {
            let size = chunk(member).min(left[member]);
            left[member] -= size;
            queue.extend(std::iter::repeat_n(
                member,
                usize::try_from(size).unwrap_or_default(),
            ));
        }
    }
    let mut queue = queue.into_iter();
    for owner in &mut owners {
        *owner = owner.or_else(|| queue.next());
    }
    HashRing::from_owners(|slot| &members[owners[slot.index()].unwrap_or_default()].id)
}

/// Slots that change owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub slots: SlotRange,
    /// Who has them now.
    pub from: NodeId,
    /// Who is to have them.
    pub to: NodeId,
}

/// What changes owner between two rings, in slot order, each range as long as can be. Nothing when one of them is empty.
pub fn moves(from: &HashRing, to: &HashRing) -> Vec<Move> {
    let mut moves: Vec<Move> = Vec::new();
    for slot in Slot::all() {
        let (Some(old), Some(new)) = (from.owner(slot), to.owner(slot)) else {
            return Vec::new();
        };
        if old == new {
            continue;
        }
        match moves.last_mut() {
            Some(last)
                if last.slots.last.index() + 1 == slot.index() && last.from == *old && last.to == *new =>
            {
                last.slots.last = slot;
            }
            _ => moves.push(Move {
                slots: slot.into(),
                from: old.clone(),
                to: new.clone(),
            }),
        }
    }
    moves
}

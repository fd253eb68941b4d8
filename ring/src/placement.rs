//! Placement: which member is to own which slots.
//!
//! Tokens are state: a placement starts from the ring as it is, and gives and takes arcs.
//!
//! - A leaver's slots go to the others, and nothing else moves.
//! - A newcomer takes its share from those who have most, and nothing else moves.
//! - Which pieces move is decided by what that does to the copies: a member holds the slots that it owns and
//!   those of the arcs before its own, so pieces are cut where the loads become most even.
//! - No randomness: members are looked at in the order of their names.
//!
//! It refuses to be exact: a share is reached to within a few percent, because exact shares of a large cluster
//! would scatter it in single slots. What is promised, and tested over long histories, stands at [`place`].

use crate::{HashRing, NodeId, Slot, SlotRange, Weight, Zone};

mod fresh;
mod layout;
mod polish;
mod rebalance;
mod shares;

use layout::{Layout, NOBODY};
use rebalance::Rebalance;

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

/// Placed as if there were at least so many copies: a ring without replicas is then ready for them, instead of
/// one in which a member's slots lie side by side and would all be copied to the same neighbour.
const COPIES_PLANNED_MIN: u8 = 2;

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
    members.sort_by(|a, b| a.id.cmp(&b.id));
    members.dedup_by(|a, b| a.id == b.id);
    let Some(first) = members.first() else {
        return HashRing::default();
    };
    if members.len() == 1 {
        return HashRing::from_owners(|_| &first.id);
    }
    let params = PlacementParams {
        replication_factor: params.replication_factor.max(COPIES_PLANNED_MIN),
        ..*params
    };
    let shares = shares::shares(&members, params);
    let zones = zone_numbers(&members);
    let index_of = |id: &NodeId| members.binary_search_by(|member| member.id.cmp(id)).ok();
    let mut owners: Vec<u16> = Slot::all()
        .map(|slot| {
            current
                .owner(slot)
                .and_then(index_of)
                .and_then(|index| u16::try_from(index).ok())
                .unwrap_or(NOBODY)
        })
        .collect();
    let is_first = owners.iter().all(|&owner| owner == NOBODY);
    if is_first {
        owners = fresh::fresh(&shares, &zones);
    }
    let mut rebalance = Rebalance::new(Layout::new(&owners, &zones, params.replication_factor), &shares);
    if is_first {
        rebalance.polish();
    }
    let owners = rebalance.run();
    HashRing::from_owners(|slot| &members[usize::from(owners[slot.index()])].id)
}

/// Zones as numbers.
fn zone_numbers(members: &[&Placement]) -> Vec<u16> {
    let mut names: Vec<Option<&Zone>> = members.iter().map(|member| member.zone.as_ref()).collect();
    names.sort_unstable();
    names.dedup();
    let number = |member: &&Placement| names.binary_search(&member.zone.as_ref()).unwrap_or_default();
    members
        .iter()
        .map(|member| u16::try_from(number(member)).unwrap_or_default())
        .collect()
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

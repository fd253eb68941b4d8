//! What each member is to have: its fair share of slots, the band around it within which nothing needs to
//! move, and its fair share of copies.
//!
//! Shares are floating point, but only `+ - * /` and comparisons are used, which give the same result on every
//! machine.

use std::collections::BTreeMap;

use super::{Placement, PlacementParams};
use crate::{SLOT_COUNT, Zone};

/// The most arcs that a member may have.
pub(super) const ARCS_MAX: u32 = 64;

/// The most arcs that are aimed at, since a history of changes doesn't meet the aim exactly.
const ARCS_TARGET_MAX: f64 = 32.0;
/// Arcs are to be at least this long on average, even if that makes them fewer.
const ARC_MIN: f64 = 4.0;

/// No member is to own more than this times its fair share.
const OWNED_MAX: f64 = 1.05;
/// A member that gains slots gains up to this times its fair share.
const OWNED_FULL: f64 = 1.03;
/// A member gives slots away only while it keeps this much of its fair share.
const OWNED_KEPT: f64 = 0.975;
/// A member with less than this much of its fair share is given more, from the others if need be. Below
/// [`OWNED_KEPT`], so that giving never makes anybody needy.
const OWNED_NEEDY: f64 = 0.965;

/// One member's goals.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Share {
    /// Fair share of slots.
    pub(super) fair: f64,
    /// Fair share of copies, as far as it can be had; see [`shares`].
    pub(super) copies: f64,
    /// How many arcs it should have.
    pub(super) arcs: f64,
    /// It is given no more than this.
    pub(super) full: u32,
    /// It must not own more than this.
    pub(super) max: u32,
    /// It gives nothing away below this.
    pub(super) kept: u32,
    /// Below this it is given more.
    pub(super) needy: u32,
}

impl Share {
    /// The size of a piece that makes up one arc of this member.
    pub(super) fn piece(&self) -> f64 {
        self.fair / self.arcs
    }
}

/// The goals of members, each with its weight, zone and so on.
///
/// A member can hold a slot once, and while there are zones without a copy none is given a second one. So when
/// one member or zone is heavier than all the others can match, its fair share of copies is out of reach; the
/// share then is what it can hold, and what it can't is shared by the others, by weight.
pub(super) fn shares(members: &[&Placement], params: PlacementParams) -> Vec<Share> {
    let slots = f64::from(SLOT_COUNT);
    let weights: Vec<f64> = members
        .iter()
        .map(|member| f64::from(member.weight.0.get()))
        .collect();
    let total: f64 = weights.iter().sum();
    let copies = copy_shares(members, &weights, params.replication_factor);
    let arcs = arc_targets(&weights, f64::from(params.tokens_per_member.clamp(1, 64)));
    weights
        .iter()
        .zip(copies)
        .zip(arcs)
        .map(|((weight, copies), arcs)| {
            let fair = slots * weight / total;
            Share {
                fair,
                copies: slots * copies,
                arcs: arcs.min(fair / ARC_MIN).max(1.0),
                full: whole((fair * OWNED_FULL).floor().max(fair.ceil())),
                max: whole((fair * OWNED_MAX).floor().max(fair.ceil())),
                kept: whole((fair * OWNED_KEPT).ceil().min(fair.floor())),
                needy: whole((fair * OWNED_NEEDY).ceil().min(fair.floor())),
            }
        })
        .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 1.05 × 16384"
)]
pub(super) fn whole(slots: f64) -> u32 {
    slots as u32
}

/// Arcs in proportion to weight, so that all arcs are about as long, which spreads copies as it spreads slots.
/// `target` for the average member, and less for all when that is too many for the heaviest.
fn arc_targets(weights: &[f64], target: f64) -> Vec<f64> {
    let mean = weights.iter().sum::<f64>() / count(weights.len());
    let heaviest = weights.iter().copied().fold(0.0, f64::max);
    let per_weight = (target / mean).min(ARCS_TARGET_MAX / heaviest);
    weights
        .iter()
        .map(|weight| (weight * per_weight).max(1.0))
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "there are never 2^52 members")]
fn count(members: usize) -> f64 {
    members as f64
}

/// Each member's share of copies, where 1 is a copy of every slot; all together the replication factor.
fn copy_shares(members: &[&Placement], weights: &[f64], factor: u8) -> Vec<f64> {
    let mut by_zone: BTreeMap<Option<&Zone>, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        by_zone.entry(member.zone.as_ref()).or_default().push(index);
    }
    let zones: Vec<Vec<usize>> = by_zone.into_values().collect();
    let factor = f64::from(factor.max(1)).min(count(members.len()));
    let zone_count = count(zones.len());
    let zone_weights: Vec<f64> = zones
        .iter()
        .map(|zone| zone.iter().map(|&index| weights[index]).sum())
        .collect();
    // With as many copies as zones or more, each zone has one, and any zone may have those beyond.
    let least = if factor >= zone_count { 1.0 } else { 0.0 };
    let most = (factor - zone_count + 1.0).max(1.0);
    let bounds: Vec<(f64, f64)> = zones
        .iter()
        .map(|zone| (least, most.min(count(zone.len()))))
        .collect();
    let zone_shares = fill(&zone_weights, &bounds, factor);
    let mut copies = vec![0.0; members.len()];
    for (zone, share) in zones.iter().zip(zone_shares) {
        let zone_weights: Vec<f64> = zone.iter().map(|&index| weights[index]).collect();
        let filled = fill(&zone_weights, &vec![(0.0, 1.0); zone.len()], share);
        for (&index, share) in zone.iter().zip(filled) {
            copies[index] = share;
        }
    }
    copies
}

/// Shares in proportion to weight, each within its bounds, `total` all together (or as near as the bounds let).
fn fill(weights: &[f64], bounds: &[(f64, f64)], total: f64) -> Vec<f64> {
    let at = |level: f64| -> Vec<f64> {
        weights
            .iter()
            .zip(bounds)
            .map(|(weight, &(low, high))| (weight * level).max(low).min(high))
            .collect()
    };
    let lightest = weights.iter().copied().fold(f64::INFINITY, f64::min);
    let (mut low, mut high) = (0.0, (total + 1.0) / lightest);
    for _ in 0..100 {
        let middle = f64::midpoint(low, high);
        if at(middle).iter().sum::<f64>() < total {
            low = middle;
        } else {
            high = middle;
        }
    }
    at(high)
}

//! A ring from nothing: all arcs about as long, and every member's arcs after those of as many others as can be.

use std::collections::BTreeMap;

use super::shares::Share;
use crate::SLOT_COUNT;

/// The owner of each slot of a first ring.
///
/// Arcs are dealt in rounds. In each round a member is due as often as its number of arcs asks for. The members
/// of a zone take their turns in another order each round, so that neighbours change; the zones alternate in
/// the same order always, so that the copies of one zone's slots are spread over the others.
pub(super) fn fresh(shares: &[Share], zones: &[u16]) -> Vec<u16> {
    let by_zone = members_by_zone(zones);
    let turns = turns(&by_zone);
    let arcs: Vec<u32> = shares.iter().map(|share| rounded(share.arcs).max(1)).collect();
    let rounds = arcs.iter().copied().max().unwrap_or(1);
    let mut deal: Vec<u16> = Vec::new();
    for round in 0..rounds {
        for &(zone, turn) in &turns {
            let members = &by_zone[zone];
            let stride = coprime(1 + round as usize * 7 % members.len(), members.len());
            let member = members[(turn * stride + round as usize * 3) % members.len()];
            // Due when its share of the arcs crosses a whole number in this round.
            let due =
                |round: u32| u64::from(round) * u64::from(arcs[usize::from(member)]) / u64::from(rounds);
            if due(round + 1) > due(round) {
                deal.push(member);
            }
        }
    }
    lay_out(&deal, shares)
}

fn members_by_zone(zones: &[u16]) -> Vec<Vec<u16>> {
    let mut by_zone: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
    for (member, &zone) in (0_u16..).zip(zones) {
        by_zone.entry(zone).or_default().push(member);
    }
    by_zone.into_values().collect()
}

/// Whose turn it is within a round: zone and turn within the zone, those of one zone evenly apart.
fn turns(by_zone: &[Vec<u16>]) -> Vec<(usize, usize)> {
    let mut turns = Vec::new();
    for (zone, members) in by_zone.iter().enumerate() {
        for turn in 0..members.len() {
            // The middle of the turn's part of the round, in billionths of the round.
            turns.push(((2 * turn + 1) * 1_000_000_000 / (2 * members.len()), zone, turn));
        }
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, zone, turn)| (zone, turn)).collect()
}

/// Gives the slots out in the order of the deal, each member's arcs adding up to its share.
fn lay_out(deal: &[u16], shares: &[Share]) -> Vec<u16> {
    let mut dealt = vec![0_u32; shares.len()];
    let mut total = vec![0_u32; shares.len()];
    for &member in deal {
        total[usize::from(member)] += 1;
    }
    let quotas = quotas(shares);
    let mut owners = Vec::with_capacity(usize::from(SLOT_COUNT));
    for &member in deal {
        let index = usize::from(member);
        let upto = |turn: u32| u64::from(quotas[index]) * u64::from(turn) / u64::from(total[index]);
        let len = upto(dealt[index] + 1) - upto(dealt[index]);
        dealt[index] += 1;
        owners.extend(std::iter::repeat_n(
            member,
            usize::try_from(len).unwrap_or_default(),
        ));
    }
    owners
}

/// Fair shares as whole slots: rounded down, and one more for those who lose most by that.
fn quotas(shares: &[Share]) -> Vec<u32> {
    let mut quotas: Vec<u32> = shares.iter().map(|share| floored(share.fair)).collect();
    let missing = u32::from(SLOT_COUNT).saturating_sub(quotas.iter().sum());
    let mut by_loss: Vec<usize> = (0..shares.len()).collect();
    let loss = |index: usize| shares[index].fair - shares[index].fair.floor();
    by_loss.sort_by(|&a, &b| loss(b).total_cmp(&loss(a)).then(a.cmp(&b)));
    for &index in by_loss.iter().cycle().take(missing as usize) {
        quotas[index] += 1;
    }
    quotas
}

fn coprime(mut stride: usize, count: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b > 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    stride %= count.max(1);
    while stride == 0 || gcd(stride, count) != 1 && count > 1 {
        stride += 1;
    }
    stride
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 16384"
)]
fn floored(value: f64) -> u32 {
    value.floor() as u32
}

fn rounded(value: f64) -> u32 {
    floored(value + 0.5)
}

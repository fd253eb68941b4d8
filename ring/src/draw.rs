//! The ring for a terminal.
//!
//! Slot 0 is at the top and slots grow clockwise. A character cell is about twice as high as it is wide, so each
//! holds two square pixels, one above the other; with colour both are seen, without it the upper one names its
//! member by a letter.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::{Member, RingDocument, SLOT_COUNT, Slot};

/// How to draw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawOptions {
    /// What stands in the middle: the cluster's name.
    pub title: String,
    /// Columns to use, at least 40.
    pub width: u16,
    /// Whether to use ANSI colours; without, members are told apart by letters.
    pub colour: bool,
}

impl Default for DrawOptions {
    fn default() -> Self {
        Self {
            title: String::new(),
            width: 60,
            colour: false,
        }
    }
}

/// The circle's diameter at most, in columns: more would not fit the height of most terminals.
const DIAMETER_MAX: u16 = 44;
const DIAMETER_MIN: u16 = 20;
/// The hole's share of the diameter.
const HOLE: f64 = 0.66;
/// Colours of the 256-colour palette that are far from each other and from black and white.
const PALETTE: [u8; 12] = [39, 208, 76, 199, 220, 141, 45, 203, 118, 213, 172, 111];
const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The ring for a terminal: lines of text, each ended by a newline.
pub fn draw(document: &RingDocument, options: &DrawOptions) -> String {
    let mut text = String::new();
    circle(document, options, &mut text);
    text.push('\n');
    legend(document, options, &mut text);
    handoffs(document, &mut text);
    text
}

/// The ring itself, with its name and epoch in the middle.
fn circle(document: &RingDocument, options: &DrawOptions, text: &mut String) {
    let owners = owners_by_slot(document);
    let diameter = options.width.clamp(DIAMETER_MIN, DIAMETER_MAX);
    let indent = " ".repeat(usize::from(options.width.saturating_sub(diameter) / 2));
    let rows = diameter / 2;
    let captions = [
        (rows / 2 - 1, options.title.clone()),
        (rows / 2, format!("epoch {}", document.epoch)),
    ];
    for row in 0..rows {
        let mut cells: Vec<String> = (0..diameter)
            .map(|column| {
                let pixel = |y: u16| slot_at(column, y, diameter).and_then(|slot| owners[slot.index()]);
                cell(pixel(2 * row), pixel(2 * row + 1), options.colour)
            })
            .collect();
        for (_, caption) in captions.iter().filter(|(at, _)| *at == row) {
            let caption: Vec<char> = caption.chars().take(usize::from(diameter / 2)).collect();
            let begin = (usize::from(diameter) - caption.len()) / 2;
            for (cell, letter) in cells[begin..].iter_mut().zip(caption) {
                *cell = letter.to_string();
            }
        }
        let line = format!("{indent}{}", cells.concat());
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// For each slot the index of its owner among the members.
fn owners_by_slot(document: &RingDocument) -> Vec<Option<usize>> {
    let index: BTreeMap<_, _> = document
        .members
        .iter()
        .enumerate()
        .map(|(i, member)| (&member.id, i))
        .collect();
    let mut owners = vec![None; usize::from(SLOT_COUNT)];
    for (range, owner) in document.ring().arcs() {
        owners[range.first.index()..=range.last.index()].fill(index.get(owner).copied());
    }
    owners
}

/// The slot at a pixel of a square of that many pixels; `None` beside the ring and in its hole.
fn slot_at(x: u16, y: u16, diameter: u16) -> Option<Slot> {
    let radius = f64::from(diameter) / 2.0;
    let (right, up) = (f64::from(x) + 0.5 - radius, radius - f64::from(y) - 0.5);
    let distance = right.hypot(up) / radius;
    if !(HOLE..=1.0).contains(&distance) {
        return None;
    }
    let turn = right.atan2(up).rem_euclid(std::f64::consts::TAU) / std::f64::consts::TAU;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a turn is at least 0 and less than 1"
    )]
    let slot = (turn * f64::from(SLOT_COUNT)) as u16;
    Slot::new(slot).ok()
}

fn cell(upper: Option<usize>, lower: Option<usize>, colour: bool) -> String {
    if !colour {
        return upper.or(lower).map_or(' ', letter).to_string();
    }
    let paint = |member: usize| PALETTE[member % PALETTE.len()];
    match (upper, lower) {
        (None, None) => " ".to_owned(),
        (Some(upper), None) => format!("\x1b[38;5;{}m▀\x1b[0m", paint(upper)),
        (None, Some(lower)) => format!("\x1b[38;5;{}m▄\x1b[0m", paint(lower)),
        (Some(upper), Some(lower)) => {
            format!("\x1b[38;5;{};48;5;{}m▀\x1b[0m", paint(upper), paint(lower))
        }
    }
}

fn letter(member: usize) -> char {
    LETTERS.get(member).map_or('*', |&letter| letter.into())
}

/// A row a member: mark, name, zone, state, weight, share, slots, arcs. Zones and weights only where they differ.
fn legend(document: &RingDocument, options: &DrawOptions, text: &mut String) {
    let ring = document.ring();
    let counts = ring.owned_counts();
    let tokens = ring.tokens();
    let has_zones = document.members.iter().any(|member| member.zone.is_some());
    let has_weights = document
        .members
        .windows(2)
        .any(|pair| pair[0].weight != pair[1].weight);
    let name_width = document
        .members
        .iter()
        .map(|member| member.id.as_str().len())
        .max()
        .unwrap_or_default();
    let zone_width = document
        .members
        .iter()
        .filter_map(|m| m.zone.as_ref())
        .map(|zone| zone.0.len())
        .max()
        .unwrap_or(1);
    for (index, member) in document.members.iter().enumerate() {
        let mark = if options.colour {
            cell(Some(index), Some(index), true)
        } else {
            letter(index).to_string()
        };
        let Member {
            id,
            zone,
            weight,
            state,
            ..
        } = member;
        let slots = counts.get(id).copied().unwrap_or_default();
        let share = 100.0 * f64::from(slots) / f64::from(SLOT_COUNT);
        let arcs = tokens.get(id).map_or(0, Vec::len);
        let zone = zone.as_ref().map_or("-", |zone| zone.0.as_str());
        let zone = if has_zones {
            format!("  {zone:<zone_width$}")
        } else {
            String::new()
        };
        let weight = if has_weights {
            format!("  weight {:>5}", weight.0)
        } else {
            String::new()
        };
        let state = state.to_string();
        // Writing to a string can't fail.
        writeln!(
            text,
            "{mark} {:<name_width$}{zone}  {state:<8}{weight}  {share:5.1} %  {slots:5} slots  {arcs:2} arcs",
            id.as_str()
        )
        .unwrap_or_default();
    }
}

/// A line for each pair of members between which slots move.
fn handoffs(document: &RingDocument, text: &mut String) {
    let mut pairs: BTreeMap<(&str, &str, bool), u32> = BTreeMap::new();
    for handoff in &document.handoffs {
        let pair = (handoff.from.as_str(), handoff.to.as_str(), handoff.cancelled);
        *pairs.entry(pair).or_default() += u32::from(handoff.slots.len());
    }
    for ((from, to, cancelled), slots) in pairs {
        let ending = if cancelled {
            " (cancelled, coming to rest)"
        } else {
            ""
        };
        // Writing to a string can't fail.
        writeln!(text, "moving {slots} slots: {from} → {to}{ending}").unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Address, Epoch, Handoff, HashRing, Incarnation, MemberState, Placement, PlacementParams,
        RingSettings, Weight, Zone, place,
    };

    fn document() -> RingDocument {
        let names = ["demo-0", "demo-1", "demo-2"];
        let placements: Vec<Placement> = names
            .iter()
            .map(|name| Placement {
                id: name.parse().unwrap(),
                weight: Weight::default(),
                zone: None,
            })
            .collect();
        let params = PlacementParams {
            replication_factor: 1,
            tokens_per_member: 4,
        };
        let ring = place(&HashRing::default(), &placements, &params);
        let member = |(index, name): (usize, &&str)| Member {
            id: name.parse().unwrap(),
            incarnation: Incarnation(index as u128),
            address: Address {
                host: "10.0.0.1".to_owned(),
                client_host: None,
                client_port: 6379,
                client_tls_port: None,
                peer_port: 16379,
            },
            zone: Some(Zone(format!("zone-{index}"))),
            weight: Weight::default(),
            state: MemberState::Active,
        };
        let (range, owner) = ring
            .arcs()
            .next()
            .map(|(range, owner)| (range, owner.clone()))
            .unwrap();
        let to = names
            .iter()
            .map(|name| name.parse().unwrap())
            .find(|id| *id != owner)
            .unwrap();
        RingDocument {
            cluster_uid: "uid".parse().unwrap(),
            epoch: Epoch(7),
            replication_factor: 1,
            settings: RingSettings::default(),
            members: names.iter().enumerate().map(member).collect(),
            tokens: ring.tokens(),
            replicas: BTreeMap::new(),
            handoffs: vec![Handoff {
                slots: range,
                from: owner,
                to,
                cancelled: false,
            }],
        }
    }

    #[test]
    fn a_ring_is_drawn_with_letters() {
        let options = DrawOptions {
            title: "demo".to_owned(),
            width: 40,
            colour: false,
        };
        insta::assert_snapshot!(draw(&document(), &options));
    }

    #[test]
    fn colours_say_what_the_letters_say() {
        let plain = draw(
            &document(),
            &DrawOptions {
                title: "demo".to_owned(),
                width: 40,
                colour: false,
            },
        );
        let coloured = draw(
            &document(),
            &DrawOptions {
                title: "demo".to_owned(),
                width: 40,
                colour: true,
            },
        );
        assert_eq!(plain.lines().count(), coloured.lines().count());
        for colour in &PALETTE[..3] {
            assert!(
                coloured.contains(&format!("38;5;{colour}")),
                "colour {colour} is not used"
            );
        }
        assert!(!plain.contains('\x1b'));
    }

    #[test]
    fn every_pixel_of_the_ring_has_a_slot_and_slots_grow_clockwise() {
        let diameter = 40;
        let at = |x, y| slot_at(x, y, diameter).map(Slot::number);
        assert!(at(20, 0).unwrap() < 300, "the top is where slot 0 is");
        assert!(
            (3_900..4_300).contains(&at(39, 20).unwrap()),
            "a quarter on is at the right"
        );
        assert!(
            (8_000..8_400).contains(&at(19, 39).unwrap()),
            "the half is at the bottom"
        );
        assert_eq!(at(20, 20), None, "the middle is a hole");
        assert_eq!(at(0, 0), None, "corners are outside");
    }
}

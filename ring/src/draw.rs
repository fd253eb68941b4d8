//! The ring for a terminal.

use std::fmt::Write as _;

use crate::RingDocument;

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

/// The ring for a terminal: lines of text, each ended by a newline.
pub fn draw(document: &RingDocument, options: &DrawOptions) -> String {
    let ring = document.ring();
    let counts = ring.owned_counts();
    let mut text = format!("{} epoch {}\n", options.title, document.epoch);
    for member in &document.members {
        let slots = counts.get(&member.id).copied().unwrap_or_default();
        // Writing to a string can't fail.
        writeln!(text, "{} {} {slots}", member.id, member.state).unwrap_or_default();
    }
    text
}

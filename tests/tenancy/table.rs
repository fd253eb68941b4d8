//! A section of the page.

use std::fmt::Write as _;

/// What a scenario gave.
pub struct Section {
    title: &'static str,
    /// Under which conditions.
    about: String,
    rows: Vec<Vec<String>>,
    /// What was not as promised.
    pub problems: Vec<String>,
}

impl Section {
    pub fn new(title: &'static str, about: String, columns: &[&str]) -> Self {
        Self {
            title,
            about,
            rows: vec![columns.iter().map(|name| (*name).to_owned()).collect()],
            problems: Vec::new(),
        }
    }

    pub fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        eprintln!("  {}", cells.join(" | "));
        self.rows.push(cells.into());
    }

    /// In Markdown.
    pub fn text(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.about);
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(text, "| {} |", row.join(" | ")).ok();
            if number == 0 {
                writeln!(text, "|{}", " --- |".repeat(row.len())).ok();
            }
        }
        for problem in &self.problems {
            writeln!(text, "\n**Not as promised:** {problem}").ok();
        }
        text
    }
}

//! Programs of scenarios, and the page of `docs/benchmarks` that each writes about them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

use crate::kubernetes::{repository, results_dir};
use crate::namespace::{Test, try_run};

/// A page, and the scenarios whose sections stand on it.
pub struct Page {
    /// What its scenarios' names begin with. Their sections are kept in `target/e2e/<program>`, so that a run of some of them
    /// leaves the others on the page.
    pub program: &'static str,
    /// In the order in which they run and stand on the page.
    pub scenarios: &'static [&'static str],
    /// Its place in `docs/benchmarks`.
    pub file: &'static str,
    /// What stands above the sections, in Markdown.
    pub head: &'static str,
}

impl Page {
    /// Runs the chosen scenarios, all of them if none is named, each in namespaces of its own. Returns whether all went as
    /// promised; an error names the scenarios that there are.
    pub async fn write(
        &self,
        chosen: &[String],
        scenario: impl AsyncFn(&str, &Test) -> Result<Section>,
    ) -> Result<bool> {
        for name in chosen {
            ensure!(
                self.scenarios.contains(&name.as_str()),
                "no such scenario: {name}; there are {}",
                self.scenarios.join(" ")
            );
        }
        let kept = results_dir()?.join(self.program);
        std::fs::create_dir_all(&kept)?;
        let mut is_kept = true;
        for name in self.scenarios {
            if !chosen.is_empty() && !chosen.iter().any(|other| other == name) {
                continue;
            }
            eprintln!("{name}");
            let mut section = None;
            try_run(&format!("{}_{name}", self.program), async |test| {
                section = Some(scenario(name, test).await?);
                test.clean_up().await
            })
            .await?;
            let section = section.context("the scenario gave nothing")?;
            is_kept &= section.problems.is_empty();
            let text = section.text();
            eprintln!("{text}");
            std::fs::write(kept.join(format!("{name}.md")), text)?;
            self.put_together(&kept)?;
        }
        Ok(is_kept)
    }

    fn put_together(&self, kept: &Path) -> Result<()> {
        let mut page = format!("{}\n", self.head);
        for name in self.scenarios {
            let path = kept.join(format!("{name}.md"));
            if path.exists() {
                write!(page, "\n{}", std::fs::read_to_string(path)?)?;
            }
        }
        std::fs::write(repository().join("docs/benchmarks").join(self.file), page)?;
        Ok(())
    }
}

/// What a scenario gave.
pub struct Section {
    title: &'static str,
    about: String,
    /// The first one is the head.
    rows: Vec<Vec<String>>,
    /// What stands below the table.
    pub note: Option<String>,
    /// What was not as promised.
    pub problems: Vec<String>,
}

impl Section {
    /// A section with a table. `about` says under which conditions its figures were taken.
    pub fn new(title: &'static str, about: String, columns: &[&str]) -> Self {
        Self {
            title,
            about,
            rows: vec![columns.iter().map(|name| (*name).to_owned()).collect()],
            note: None,
            problems: Vec::new(),
        }
    }

    /// Adds a row, and shows it.
    pub fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        eprintln!("  {}", cells.join(" | "));
        self.rows.push(cells.into());
    }

    /// Notes a problem, unless what was promised is so.
    pub fn promise(&mut self, is_so: bool, otherwise: impl FnOnce() -> String) {
        if !is_so {
            self.problems.push(otherwise());
        }
    }

    /// In Markdown.
    fn text(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.about);
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(text, "| {} |", row.join(" | ")).ok();
            if number == 0 {
                let lines: Vec<&str> = (0..row.len()).map(|column| self.line(column)).collect();
                writeln!(text, "| {} |", lines.join(" | ")).ok();
            }
        }
        if let Some(note) = &self.note {
            writeln!(text, "\n{note}").ok();
        }
        for problem in &self.problems {
            writeln!(text, "\n**Not as promised:** {problem}").ok();
        }
        text
    }

    /// What stands below a column's name: figures are set to the right.
    fn line(&self, column: usize) -> &'static str {
        let is_figure = |cell: &String| {
            cell.trim_start_matches(['*', '+', '-'])
                .starts_with(|first: char| first.is_ascii_digit())
        };
        let mut cells = self.rows.iter().skip(1).filter_map(|row| row.get(column));
        if column > 0 && cells.all(is_figure) {
            "---:"
        } else {
            "---"
        }
    }
}

/// How a program ends that says whether all went as promised.
pub fn exit_code(promised: Result<bool>) -> ExitCode {
    match promised {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A whole number from the environment.
pub fn env_number(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} must be a number")),
        Err(_) => Ok(default),
    }
}

#[cfg(test)]
mod tests {
    use super::Section;

    #[test]
    fn figures_are_set_to_the_right_and_problems_stand_below() {
        let mut section = Section::new("Title", "About.".into(), &["what", "rate", "who"]);
        section.row(["1 key".into(), "**12**".into(), "all".into()]);
        section.row(["2 keys".into(), "7 / 8".into(), "9".into()]);
        section.promise(true, || "kept".into());
        section.promise(false, || "broken".into());
        section.note = Some("Note.".into());
        assert_eq!(
            section.text(),
            "## Title\n\nAbout.\n\n| what | rate | who |\n| --- | ---: | --- |\n| 1 key | **12** | all |\n\
             | 2 keys | 7 / 8 | 9 |\n\nNote.\n\n**Not as promised:** broken\n"
        );
    }
}

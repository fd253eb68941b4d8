//! Figures that the tests measure: on standard output, whether or not output is captured, and in a file.

use std::fs::OpenOptions;
use std::io::Write as _;

use anyhow::Result;

use crate::kubernetes::results_dir;

/// Tells a figure; a problem with telling it never fails a test.
pub fn figure(what: &str, value: impl std::fmt::Display) {
    if let Err(error) = tell(&format!("figure: {what}: {value}\n")) {
        eprintln!("the figure \"{what}: {value}\" could not be told: {error:#}");
    }
}

fn tell(line: &str) -> Result<()> {
    // One write, so that lines of tests that run at the same time don't mix. Not println!, which is captured.
    std::io::stdout().write_all(line.as_bytes())?;
    let path = results_dir()?.join("figures.txt");
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.write_all(line.as_bytes())?;
    Ok(())
}

//! The page about the run and its plot.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use super::{Options, Outcome, Sample};
use crate::svg::{self, Line};

const MIB: f64 = 1_048_576.0;

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
fn per_second(outcome: &Outcome) -> f64 {
    outcome
        .samples
        .last()
        .map_or(0.0, |last| last.operations as f64 / last.at_s.max(1.0))
}

/// The figures.
pub fn table(options: &Options, outcome: &Outcome) -> String {
    let most = |figure: fn(&Sample) -> u64| outcome.samples.iter().map(figure).max().unwrap_or_default();
    let rows = [
        ("minutes", options.minutes.to_string()),
        ("memory limit, MiB", format!("{:.0}", mib(outcome.limit_bytes))),
        ("budget, MiB", format!("{:.0}", mib(outcome.budget_bytes))),
        (
            "most that was resident at any moment, MiB",
            format!("{:.0}", mib(outcome.resident_bytes_max)),
        ),
        (
            "most that entries and connections took by the node's count, MiB",
            format!("{:.0}", mib(most(|sample| sample.used_bytes))),
        ),
        (
            "answers a second, all of them checked",
            format!("{:.0}", per_second(outcome)),
        ),
        (
            "connections at a time, at most",
            most(|sample| sample.connections).to_string(),
        ),
        ("connections made", outcome.connections.to_string()),
        ("entries evicted", outcome.evicted.to_string()),
        ("entries expired", outcome.expired.to_string()),
        ("messages heard", outcome.messages.to_string()),
        (
            "subscribers closed because they never read",
            outcome.closed_for_not_reading.to_string(),
        ),
        (
            "connections closed for want of memory",
            outcome.evicted_clients.to_string(),
        ),
        ("errors", outcome.errors.to_string()),
    ];
    let mut text = String::from("| | |\n| --- | ---: |\n");
    for (name, value) in rows {
        writeln!(text, "| {name} | {value} |").unwrap_or_default();
    }
    text
}

/// Writes `soak.md` and `soak.svg`.
pub fn write(folder: &Path, options: &Options, outcome: &Outcome) -> io::Result<()> {
    let line = |name: &str, figure: fn(&Sample) -> u64| Line {
        name: name.to_owned(),
        points: outcome
            .samples
            .iter()
            .map(|sample| (sample.at_s / 60.0, mib(figure(sample))))
            .collect(),
    };
    let plot = svg::lines(
        "Memory under every kind of load at once, MiB over minutes",
        &[
            line("resident", |sample| sample.resident_bytes),
            line("entries and connections", |sample| sample.used_bytes),
            line("entries", |sample| sample.entry_bytes),
        ],
        &[
            ("limit", mib(outcome.limit_bytes)),
            ("budget", mib(outcome.budget_bytes)),
        ],
    );
    let page = format!(
        "# A node at full load for {} minutes\n\n\
         Written by `make soak`. One node with the budget that it gives itself in a container of {} MiB, driven as fast as \
         one core can by writes of several times the budget, one in four with a time to live of up to half a minute; \
         values of up to 8 MiB; collections that grow and go; {} connections that come and go, some in the middle of a \
         command; clients that read slowly, and subscribers that never read. Every answer is checked.\n\n{}\n\
         ![Memory](soak.svg)\n",
        options.minutes,
        options.limit_mib,
        options.visitors,
        table(options, outcome)
    );
    fs::create_dir_all(folder)?;
    fs::write(folder.join("soak.svg"), plot)?;
    fs::write(folder.join("soak.md"), page)
}

//! Tables in Markdown, and plots of the same figures.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::plan::Case;
use crate::svg;

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Results {
    /// Names, in the order of tables.
    pub servers: Vec<String>,
    /// Keys that each was filled with.
    pub keys: u64,
    /// Cost and peak of each case.
    pub rows: Vec<Row>,
    /// Latency at half the peak.
    pub latencies: Vec<Latency>,
    /// Memory for each key.
    pub memory: Vec<Memory>,
}

/// A case on one server.
#[derive(Debug)]
pub struct Row {
    /// The load.
    pub case: Case,
    /// The server.
    pub server: String,
    /// Its CPU time for each operation, in microseconds.
    pub cpu_us: f64,
    /// Operations a second with one client core.
    pub per_second: f64,
}

/// Latency of a case at a fixed rate.
#[derive(Debug)]
pub struct Latency {
    /// The load.
    pub case: Case,
    /// The server.
    pub server: String,
    /// Requests a second.
    pub rate: f64,
    /// Half of them were faster.
    pub p50_us: u64,
    /// 99 % were faster.
    pub p99_us: u64,
    /// 99.9 % were faster.
    pub p999_us: u64,
}

/// What a key takes.
#[derive(Debug)]
pub struct Memory {
    /// The server.
    pub server: String,
    /// Length of the values.
    pub value_bytes: usize,
    /// Whether keys expire.
    pub with_ttl: bool,
    /// Growth of the resident set for each key.
    pub bytes_per_key: f64,
}

/// Writes `README.md` and the plots into the folder.
pub fn write(folder: &Path, results: &Results) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("README.md"), markdown(results))?;
    let bars = |pipeline: usize| -> Vec<svg::Group> {
        let cases = cases(results).into_iter();
        cases
            .filter(|case| case.pipeline == pipeline)
            .map(|case| svg::Group {
                label: case.to_string(),
                values: results
                    .servers
                    .iter()
                    .map(|server| row(results, &case, server).map_or(0.0, |row| row.cpu_us))
                    .collect(),
            })
            .collect()
    };
    for pipeline in [1, 16, 64] {
        let groups = bars(pipeline);
        if !groups.is_empty() {
            let title = format!("Server CPU for each operation at pipeline {pipeline}, µs (less is better)");
            fs::write(
                folder.join(format!("cpu-pipeline-{pipeline}.svg")),
                svg::bars(&title, &results.servers, &groups),
            )?;
        }
    }
    let memory: Vec<svg::Group> = [(64, false), (64, true), (1_024, false)]
        .into_iter()
        .filter_map(|(value_bytes, with_ttl)| {
            let of = |server: &String| {
                let found = results.memory.iter().find(|memory| {
                    memory.server == *server
                        && memory.value_bytes == value_bytes
                        && memory.with_ttl == with_ttl
                });
                found.map(|memory| memory.bytes_per_key)
            };
            let values: Vec<f64> = results.servers.iter().filter_map(of).collect();
            let ttl = if with_ttl { ", with TTL" } else { "" };
            (values.len() == results.servers.len()).then(|| svg::Group {
                label: format!("16 B keys, {value_bytes} B values{ttl}"),
                values,
            })
        })
        .collect();
    let title = "Resident memory for each key, bytes (less is better)";
    fs::write(
        folder.join("memory.svg"),
        svg::bars(title, &results.servers, &memory),
    )
}

fn cases(results: &Results) -> Vec<Case> {
    let mut cases: Vec<Case> = results.rows.iter().map(|row| row.case.clone()).collect();
    cases.dedup();
    cases
}

fn row<'a>(results: &'a Results, case: &Case, server: &str) -> Option<&'a Row> {
    results
        .rows
        .iter()
        .find(|row| row.case == *case && row.server == server)
}

fn markdown(results: &Results) -> String {
    let mut text = String::from(
        "# Benchmarks\n\nWritten by `make bench`; [soak.md](soak.md) is about a node at full load for a long time. ",
    );
    let servers = results.servers.join(" | ");
    let rule = " ---: |".repeat(results.servers.len());
    let mut add = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    add(&format!(
        "One server thread on one core, the client on another, {} keys of 16 bytes; each figure is the median of \
         interleaved rounds.\n",
        results.keys
    ));
    add("## Server CPU for each operation, µs\n");
    add(&format!("| load | {servers} |\n| --- |{rule}"));
    for case in cases(results) {
        add(&line(&case.to_string(), results, |server| {
            row(results, &case, server).map(|row| format!("{:.2}", row.cpu_us))
        }));
    }
    add("\n![CPU at pipeline 1](cpu-pipeline-1.svg)\n\n![CPU at pipeline 16](cpu-pipeline-16.svg)\n");
    add("## Operations a second, thousands\n");
    add(&format!("| load | {servers} |\n| --- |{rule}"));
    for case in cases(results) {
        add(&line(&case.to_string(), results, |server| {
            row(results, &case, server).map(|row| format!("{:.0}", row.per_second / 1_000.0))
        }));
    }
    add("\n## Latency at half of each server's peak, µs: p50 / p99 / p99.9\n");
    add(&format!("| load | {servers} |\n| --- |{rule}"));
    for case in cases(results) {
        let of = |server: &str| {
            let found = results
                .latencies
                .iter()
                .find(|latency| latency.case == case && latency.server == server)?;
            let Latency {
                rate,
                p50_us,
                p99_us,
                p999_us,
                ..
            } = found;
            Some(format!(
                "{p50_us} / {p99_us} / {p999_us} at {:.0} k/s",
                rate / 1_000.0
            ))
        };
        if results.latencies.iter().any(|latency| latency.case == case) {
            add(&line(&case.to_string(), results, of));
        }
    }
    add("\n## Resident memory for each key, bytes\n");
    add(&format!("| keys and values | {servers} |\n| --- |{rule}"));
    for (value_bytes, with_ttl) in [(64, false), (64, true), (1_024, false)] {
        let of = |server: &str| {
            let found = results.memory.iter().find(|memory| {
                memory.server == server && memory.value_bytes == value_bytes && memory.with_ttl == with_ttl
            })?;
            Some(format!("{:.0}", found.bytes_per_key))
        };
        let ttl = if with_ttl { ", with TTL" } else { "" };
        add(&line(&format!("16 B, {value_bytes} B{ttl}"), results, of));
    }
    add("\n![Memory](memory.svg)");
    text
}

fn line(label: &str, results: &Results, cell: impl Fn(&str) -> Option<String>) -> String {
    let mut line = format!("| {label} |");
    for server in &results.servers {
        let cell = cell(server).unwrap_or_else(|| "–".to_owned());
        write!(line, " {cell} |").unwrap_or_default();
    }
    line
}

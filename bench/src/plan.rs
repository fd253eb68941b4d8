//! What is measured, in which order.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::Compare;
use crate::load::{Client, Load, Pace};
use crate::random::{Popularity, Zipf};
use crate::report::{self, Latency, Memory, Results, Row};
use crate::server::{Kind, Server};

/// Requests that are outstanding while a server is filled.
const FILL_CONNECTIONS: usize = 4;
/// A load that was not measured before warms up for this part of a measurement.
const WARM_UP: u32 = 4;

/// One kind of load.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Of a hundred requests, so many are reads.
    pub reads_percent: u64,
    /// Whether some keys are asked for far more often.
    pub zipf: bool,
    /// Length of values.
    pub value_bytes: usize,
    /// Requests in flight for each connection.
    pub pipeline: usize,
    /// Connections.
    pub connections: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.reads_percent {
            100 => "GET".to_owned(),
            0 => "SET".to_owned(),
            reads => format!("{reads}/{} GET/SET", 100 - reads),
        };
        let keys = if self.zipf { "Zipf" } else { "uniform" };
        let Self {
            value_bytes,
            pipeline,
            connections,
            ..
        } = self;
        write!(
            f,
            "{kind}, {keys}, {value_bytes} B, pipeline {pipeline}, {connections} connections"
        )
    }
}

fn cases(quick: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |reads_percent, zipf, value_bytes, pipeline, connections| {
        cases.push(Case {
            reads_percent,
            zipf,
            value_bytes,
            pipeline,
            connections,
        });
    };
    for pipeline in [1, 16] {
        add(0, false, 64, pipeline, 50);
        add(100, false, 64, pipeline, 50);
    }
    if quick {
        return cases;
    }
    add(0, false, 64, 64, 50);
    add(100, false, 64, 64, 50);
    for pipeline in [1, 16, 64] {
        add(90, true, 64, pipeline, 50);
        add(100, true, 64, pipeline, 50);
    }
    add(0, false, 64, 1, 1_000);
    add(100, false, 64, 1, 1_000);
    add(100, false, 64, 16, 1_000);
    for pipeline in [1, 16] {
        add(0, false, 1_024, pipeline, 50);
        add(90, true, 1_024, pipeline, 50);
    }
    cases
}

/// Measures everything and writes the report.
pub fn run(cli: &Compare) -> io::Result<()> {
    let mut kinds: Vec<Kind> = Kind::annulus(&cli.node)
        .into_iter()
        .chain(Kind::installed())
        .collect();
    for pair in &cli.unpacked {
        let (name, folder) = pair
            .split_once('=')
            .ok_or_else(|| io::Error::other(format!("--unpacked {pair}: write NAME=FOLDER")))?;
        let kind = Kind::unpacked(name, Path::new(folder));
        kinds.push(kind.ok_or_else(|| io::Error::other(format!("no server can be started from {folder}")))?);
    }
    kinds.retain(|kind| {
        cli.only.is_empty() || cli.only.iter().any(|only| kind.name.starts_with(only.as_str()))
    });
    if kinds.is_empty() {
        return Err(io::Error::other(
            "there is no server to measure: build annulus-node first",
        ));
    }
    let mut results = Results {
        servers: kinds.iter().map(|kind| kind.name.clone()).collect(),
        keys: cli.keys,
        ..Results::default()
    };
    for value_bytes in [64, 1_024] {
        let cases: Vec<Case> = cases(cli.quick)
            .into_iter()
            .filter(|case| case.value_bytes == value_bytes)
            .collect();
        if !cases.is_empty() {
            measure_size(cli, &kinds, value_bytes, &cases, &mut results)?;
        }
    }
    if !cli.quick {
        for kind in &kinds {
            results.memory.push(start_filled(cli, kind, 64, Some(86_400))?.1);
        }
    }
    report::write(&cli.out, &results)?;
    Ok(())
}

/// All cases with values of one size, on servers that are filled once.
fn measure_size(
    cli: &Compare,
    kinds: &[Kind],
    value_bytes: usize,
    cases: &[Case],
    results: &mut Results,
) -> io::Result<()> {
    let mut servers = Vec::new();
    for kind in kinds {
        let (server, memory) = start_filled(cli, kind, value_bytes, None)?;
        results.memory.push(memory);
        servers.push(server);
    }
    let uniform = Popularity::Uniform { keys: cli.keys };
    let zipf = Popularity::Zipf(Zipf::new(cli.keys));
    let time = Duration::from_millis(cli.measure_ms);
    for (number, case) in cases.iter().enumerate() {
        progress(&format!("[{}/{}] {case}", number + 1, cases.len()));
        let load = Load {
            reads_percent: case.reads_percent,
            popularity: if case.zipf { zipf.clone() } else { uniform.clone() },
            value_bytes,
            pipeline: case.pipeline,
            connections: case.connections,
        };
        let mut clients = BTreeMap::new();
        for (index, server) in servers.iter().enumerate() {
            let mut client = Client::connect(server.kind.protocol, server.address, load.connections)?;
            client.run(&load, Pace::Closed, time / WARM_UP)?;
            clients.insert(index, (client, Vec::new(), Vec::new()));
        }
        for _ in 0..cli.rounds {
            for (index, (client, cpu, rate)) in &mut clients {
                let before = servers[*index].cpu_ns()?;
                let outcome = client.run(&load, Pace::Closed, time)?;
                let spent = servers[*index].cpu_ns()? - before;
                cpu.push(per_key(spent, outcome.operations) / 1_000.0);
                rate.push(outcome.per_second());
            }
        }
        let peak = |rates: &[f64]| median(rates.to_vec());
        for (index, (client, cpu, rates)) in &mut clients {
            let name = servers[*index].kind.name.clone();
            results.rows.push(Row {
                case: case.clone(),
                server: name.clone(),
                cpu_us: median(cpu.clone()),
                per_second: peak(rates),
            });
            if case.pipeline == 1 {
                let rate = peak(rates) / 2.0;
                let outcome = client.run(&load, Pace::Rate(rate), time * 2)?;
                let at = |quantile| outcome.latency_us.value_at_quantile(quantile);
                results.latencies.push(Latency {
                    case: case.clone(),
                    server: name,
                    rate,
                    p50_us: at(0.5),
                    p99_us: at(0.99),
                    p999_us: at(0.999),
                });
            }
        }
    }
    Ok(())
}

fn fill(cli: &Compare, server: &Server, value_bytes: usize, ttl_s: Option<u32>) -> io::Result<()> {
    progress(&format!(
        "filling {} with {} keys of {value_bytes} B",
        server.kind.name, cli.keys
    ));
    let mut client = Client::connect(server.kind.protocol, server.address, FILL_CONNECTIONS)?;
    client.fill(cli.keys, value_bytes, ttl_s)
}

/// A server that holds every key, and what that takes.
fn start_filled(
    cli: &Compare,
    kind: &Kind,
    value_bytes: usize,
    ttl_s: Option<u32>,
) -> io::Result<(Server, Memory)> {
    let server = Server::start(kind, &cli.server_core.to_string(), 1)?;
    let empty = server.resident_bytes()?;
    fill(cli, &server, value_bytes, ttl_s)?;
    let memory = Memory {
        server: kind.name.clone(),
        value_bytes,
        with_ttl: ttl_s.is_some(),
        bytes_per_key: per_key(server.resident_bytes()? - empty, cli.keys),
    };
    Ok((server, memory))
}

#[expect(clippy::cast_precision_loss, reason = "fewer than 2^52")]
fn per_key(total: u64, count: u64) -> f64 {
    total as f64 / count.max(1) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn progress(text: &str) {
    writeln!(io::stderr(), "{text}").unwrap_or_default();
}

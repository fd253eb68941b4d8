//! The page about chaos, in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{ClientFigures, Moved, Run, Scenario, median, worst};

const MEGABYTE: f64 = 1e6;

/// The page. `about` says what it was measured with.
pub fn page(about: &str, scenarios: &[Scenario], moved: &[Moved]) -> String {
    let mut page = format!(
        "# Faults and changes under load, on a real Kubernetes\n\n\
         Written by `make chaos`. {about}\n\n\
         Every key has one writer, which writes ever higher numbers and keeps what was acknowledged; readers read \
         beside it, and at the end every key is read. *Lost* is an acknowledged write that is not there in the end, \
         *stale* a read of something older than what had been acknowledged before. Times are from the fault, median / \
         worst of the runs: until the *first write* that was begun after it succeeded on slots of the node that it \
         hit, until each such slot that has a key was written (*every slot*), and until nothing was left to be done \
         (*whole*: every node there, balanced, with every copy). The *longest gap* is between two acknowledgements of \
         one key, whichever, and ended after the fault. A writer waits for the answer before it goes on to its next key, so while \
         some slots are out of reach the lanes of the plot fall lower than those slots' share.\n\n"
    );
    if !scenarios.is_empty() {
        page.push_str(&outcomes(scenarios));
        page.push_str("\n![Acknowledged writes around the fault](chaos.svg)\n");
        page.push_str(&errors(scenarios));
        page.push_str(&failures(scenarios));
        page.push_str(&clients(scenarios));
    }
    page.push_str(&data(moved));
    page
}

fn outcomes(scenarios: &[Scenario]) -> String {
    let mut table = String::from(
        "| scenario | runs | first write, s | every slot, s | whole, s | acked writes | per second | lost | stale | longest gap, s |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for scenario in scenarios {
        let runs = &scenario.runs;
        let acked: u64 = runs.iter().map(|run| run.acked).sum();
        let seconds: f64 = runs.iter().map(|run| run.load_seconds).sum();
        let rate = whole(acked) / seconds.max(0.001);
        row(
            &mut table,
            format_args!(
                "| {} | {} | {} | {} | {} | {acked} | {rate:.0} | {} | {} | {} |",
                scenario.title,
                runs.len(),
                both(runs.iter().filter_map(|run| run.first_write_seconds)),
                both(runs.iter().filter_map(|run| run.every_write_seconds)),
                both(runs.iter().filter_map(|run| run.whole_seconds)),
                runs.iter().map(|run| run.lost).sum::<u64>(),
                runs.iter().map(|run| run.stale).sum::<u64>(),
                both(runs.iter().map(|run| run.longest_gap_seconds)),
            ),
        );
    }
    table
}

fn errors(scenarios: &[Scenario]) -> String {
    let mut text = String::from(
        "\n## Errors that the ledger's clients saw\n\n\
         They give up after half a second, try twice and then connect anew; a # stands for any number.\n\n\
         | scenario | all runs | by kind |\n| --- | ---: | --- |\n",
    );
    for scenario in scenarios {
        let kinds = kinds(scenario.runs.iter().map(|run| &run.errors));
        let total: u64 = kinds.values().sum();
        row(
            &mut text,
            format_args!("| {} | {total} | {} |", scenario.title, by_kind(&kinds)),
        );
    }
    text
}

/// Added up; numbers and addresses, which differ from one to the next, are one #.
fn kinds<'a>(runs: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    for (kind, count) in runs.flatten() {
        let mut masked = String::new();
        for c in kind.chars() {
            let c = match c {
                '#' | '0'..='9' => '#',
                '|' | '`' | '\n' => ' ',
                other => other,
            };
            if c != '#' || !masked.ends_with('#') {
                masked.push(c);
            }
        }
        *kinds.entry(masked.trim().to_owned()).or_default() += count;
    }
    kinds
}

/// The most frequent first.
fn by_kind(kinds: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<_> = kinds.iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let texts: Vec<String> = sorted
        .into_iter()
        .map(|(kind, count)| format!("{count} × `{kind}`"))
        .collect();
    texts.join("; ")
}

fn failures(scenarios: &[Scenario]) -> String {
    let mut text = String::new();
    for scenario in scenarios {
        for (number, run) in scenario.runs.iter().enumerate() {
            if let Some(failure) = &run.failure {
                let failure: String = failure.replace('\n', " ").chars().take(300).collect();
                row(
                    &mut text,
                    format_args!("- {}, run {}: {failure}", scenario.title, number + 1),
                );
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!("\n## Runs that failed\n\n{text}")
}

fn clients(scenarios: &[Scenario]) -> String {
    let mut rows = String::new();
    for scenario in scenarios {
        let mut by_client = BTreeMap::<&str, Vec<&ClientFigures>>::new();
        for figures in scenario.runs.iter().flat_map(|run: &Run| &run.clients) {
            by_client.entry(&figures.client).or_default().push(figures);
        }
        for (client, figures) in by_client {
            let phase = |name: &'static str| figures.iter().filter_map(move |run| run.phases.get(name));
            let of = |name: &'static str| both(phase(name).map(|phase| phase.p99_ms));
            let ratios = figures.iter().filter_map(|run| {
                let before = run.phases.get("before")?;
                let during = run.phases.get("during")?;
                (before.p99_ms > 0.0).then(|| during.p99_ms / before.p99_ms)
            });
            let all = || figures.iter().flat_map(|run| run.phases.values());
            let kinds = kinds(figures.iter().map(|run| &run.errors));
            let version = figures.first().map_or("", |run| run.version.as_str());
            row(
                &mut rows,
                format_args!(
                    "| {} | {client} {version} | {} | {}{}{} | {} | {} | {} | {} |",
                    scenario.title,
                    all().map(|phase| phase.operations).sum::<u64>(),
                    all().map(|phase| phase.errors).sum::<u64>(),
                    if kinds.is_empty() { "" } else { ": " },
                    by_kind(&kinds),
                    of("before"),
                    of("during"),
                    both(ratios),
                    both(phase("during").map(|phase| phase.max_ms)),
                ),
            );
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "\n## Planned changes as real clients see them\n\n\
         With the clients' default retries, a few hundred operations a second each, half of them reads whose value is \
         checked, beside the ledger.\n\n\
         | change | client | operations | errors | p99 before, ms | p99 during, ms | during ÷ before | slowest during, ms |\n\
         | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n{rows}"
    )
}

fn data(moved: &[Moved]) -> String {
    if moved.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n## Changes with data\n\n\
         Without other load. Bytes are those of keys and values; the least that has to move is the new node's share.\n\n\
         | change | runs | keys | stored, MB | seconds | moved, MB | MB/s | moved ÷ least | keys missing |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for change in moved {
        let bytes = || change.moved_bytes.iter().map(|bytes| whole(*bytes));
        let rates = bytes()
            .zip(&change.seconds)
            .map(|(bytes, seconds)| bytes / MEGABYTE / seconds.max(0.001));
        let ratios = change
            .ideal_bytes
            .map(|ideal| both(bytes().map(|bytes| bytes / whole(ideal).max(1.0))));
        row(
            &mut text,
            format_args!(
                "| {} | {} | {} | {:.0} | {} | {} | {} | {} | {} |",
                change.title,
                change.seconds.len(),
                change.keys,
                whole(change.stored_bytes) / MEGABYTE,
                both(change.seconds.iter().copied()),
                both(bytes().map(|bytes| bytes / MEGABYTE)),
                median(&rates.collect::<Vec<_>>()).map_or_else(none, |rate| format!("{rate:.0}")),
                ratios.unwrap_or_else(none),
                change.missing
            ),
        );
    }
    for change in moved {
        for failure in &change.failures {
            row(
                &mut text,
                format_args!("\n{}: failed: {}", change.title, failure.replace('\n', " ")),
            );
        }
    }
    text
}

fn row(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}

fn none() -> String {
    "–".to_owned()
}

/// Median and worst.
fn both(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    match (median(&values), worst(&values)) {
        (Some(median), Some(worst)) => format!("{median:.2} / {worst:.2}"),
        _ => none(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn whole(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Phase;

    #[test]
    fn a_scenario_is_a_row_with_medians_worst_cases_and_sums() {
        let run = |every: f64, lost: u64| Run {
            first_write_seconds: Some(0.5),
            every_write_seconds: Some(every),
            acked: 1000,
            load_seconds: 2.0,
            lost,
            longest_gap_seconds: every,
            errors: BTreeMap::from([
                ("broken | pipe 12:34".to_owned(), 1),
                ("broken | pipe ##:5".to_owned(), 1),
            ]),
            failure: (lost > 0).then(|| "one\nlost".to_owned()),
            ..Run::default()
        };
        let scenario = Scenario {
            name: "kill".to_owned(),
            title: "kill -9".to_owned(),
            runs: vec![run(1.0, 0), run(2.0, 1), run(4.0, 0)],
        };
        let text = page("Here.", &[scenario], &[]);
        let row = "| kill -9 | 3 | 0.50 / 0.50 | 2.00 / 4.00 | – | 3000 | 500 | 1 | 0 | 2.00 / 4.00 |";
        assert!(text.contains(row), "{text}");
        assert!(
            text.contains("| kill -9 | 6 | 6 × `broken   pipe #:#` |"),
            "{text}"
        );
        assert!(text.contains("- kill -9, run 2: one lost"), "{text}");
        assert!(!text.contains("real clients see them"), "{text}");
    }

    #[test]
    fn clients_are_compared_with_themselves_before_the_change() {
        let phase = |p99_ms: f64, errors: u64| Phase {
            operations: 100,
            errors,
            p99_ms,
            max_ms: 2.0 * p99_ms,
            ..Phase::default()
        };
        let figures = ClientFigures {
            client: "redis-py".to_owned(),
            version: "1".to_owned(),
            phases: BTreeMap::from([
                ("before".to_owned(), phase(2.0, 0)),
                ("during".to_owned(), phase(3.0, 1)),
            ]),
            errors: BTreeMap::from([("gone".to_owned(), 1)]),
        };
        let scenario = Scenario {
            name: "scale".to_owned(),
            title: "scaled".to_owned(),
            runs: vec![Run {
                clients: vec![figures],
                ..Run::default()
            }],
        };
        let text = page("", &[scenario], &[]);
        let row = "| scaled | redis-py 1 | 200 | 1: 1 × `gone` | 2.00 / 2.00 | 3.00 / 3.00 | 1.50 / 1.50 | 6.00 / 6.00 |";
        assert!(text.contains(row), "{text}");
    }

    #[test]
    fn moved_bytes_are_compared_with_the_least() {
        let change = Moved {
            title: "3 -> 4".to_owned(),
            keys: 1000,
            stored_bytes: 4_000_000,
            seconds: vec![0.5],
            moved_bytes: vec![2_000_000],
            ideal_bytes: Some(1_000_000),
            ..Moved::default()
        };
        let text = page("", &[], &[change]);
        let row = "| 3 -> 4 | 1 | 1000 | 4 | 0.50 / 0.50 | 2.00 / 2.00 | 4 | 2.00 / 2.00 | 0 |";
        assert!(text.contains(row), "{text}");
    }
}

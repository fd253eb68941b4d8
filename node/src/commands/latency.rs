//! `LATENCY …`: what took long, and how long each command takes.

use std::fmt::Write as _;

use crate::command::{Entry, table};
use crate::error::Outcome;
use crate::execute::Context;
use crate::resp::{Args, Reply};
use crate::timing::{Event, Histogram};

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// `LATENCY LATEST`
pub fn latest(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let latest = context.node.timing.latencies.latest();
    reply.array(latest.len());
    for (event, sample, longest_ms) in latest {
        reply.array(4);
        reply.bulk(event.name().as_bytes());
        for number in [sample.at_s, sample.took_ms, longest_ms] {
            reply.integer(signed(number));
        }
    }
    Ok(())
}

/// `LATENCY HISTORY event`
pub fn history(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let samples = Event::find(args.at(2))
        .map(|event| context.node.timing.latencies.history(event))
        .unwrap_or_default();
    reply.array(samples.len());
    for sample in samples {
        reply.array(2);
        reply.integer(signed(sample.at_s));
        reply.integer(signed(sample.took_ms));
    }
    Ok(())
}

/// `LATENCY RESET [event …]`
pub fn reset(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let named = args.from(2).filter_map(Event::find);
    let events: Vec<Event> = if args.len() == 2 {
        Event::ALL.to_vec()
    } else {
        named.collect()
    };
    let latencies = &context.node.timing.latencies;
    reply.count(events.into_iter().filter(|event| latencies.clear(*event)).count());
    Ok(())
}

/// `LATENCY DOCTOR`
pub fn doctor(context: &mut Context<'_>, _: Args<'_>, reply: &mut Reply) -> Outcome {
    let timing = &context.node.timing;
    let mut report = String::new();
    if timing.monitor_ms() == 0 {
        report.push_str(
            "Nothing is watched: CONFIG SET latency-monitor-threshold <milliseconds> says from which time on.\n",
        );
    }
    for (event, sample, longest_ms) in timing.latencies.latest() {
        let seconds = timing.latencies.history(event).len();
        // Writing to a String can't fail.
        writeln!(
            report,
            "{}: {} ms at {}, {longest_ms} ms at the longest, in {seconds} seconds of late.",
            event.name(),
            sample.took_ms,
            sample.at_s,
        )
        .unwrap_or_default();
    }
    if report.is_empty() {
        report.push_str("Nothing has taken longer than latency-monitor-threshold.\n");
    } else {
        report.push_str("SLOWLOG GET shows which commands take long.\n");
    }
    reply.verbatim(&report);
    Ok(())
}

/// `LATENCY HISTOGRAM [command …]`
pub fn histogram(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply) -> Outcome {
    let wanted: Vec<&Entry> = if args.len() == 2 {
        table().commands().iter().collect()
    } else {
        args.from(2).filter_map(|name| table().find_full(name)).collect()
    };
    let histograms = &context.node.timing.histograms;
    let shown: Vec<(&Entry, &Histogram)> = wanted
        .into_iter()
        .flat_map(|entry| std::iter::once(entry).chain(&entry.subcommands))
        .filter_map(|entry| Some((entry, histograms.of(entry.index.into())?)))
        .collect();
    reply.map(shown.len());
    for (entry, histogram) in shown {
        reply.bulk(entry.full_name.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(signed(histogram.calls()));
        reply.bulk(b"histogram_usec");
        let buckets = histogram.cumulative();
        reply.map(buckets.len());
        for (us, calls) in buckets {
            reply.integer(signed(us));
            reply.integer(signed(calls));
        }
    }
    Ok(())
}

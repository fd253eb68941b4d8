//! Timelines of scenarios below one another, as SVG.

use std::fmt::Write as _;

/// One scenario's.
pub struct Lane {
    /// What stands beside it.
    pub label: String,
    /// Writes by bucket.
    pub counts: Vec<u64>,
}

const LEFT: f64 = 290.0;
const TOP: f64 = 60.0;
const WIDTH: f64 = 700.0;
const LANE_HEIGHT: f64 = 46.0;
/// Between lanes.
const AIR: f64 = 10.0;
const COLOUR: &str = "#0b7285";
const FAULT_COLOUR: &str = "#c92a2a";
const TICK_SECONDS: usize = 5;

/// Lanes on the same axes; the fault is after the first `before` buckets.
pub fn lanes(title: &str, lanes: &[Lane], bucket_ms: u64, before: usize, after: usize) -> String {
    let buckets = before + after;
    let x = |bucket: usize| LEFT + number(bucket) / number(buckets.max(1)) * WIDTH;
    let bottom = TOP + number(lanes.len()) * (LANE_HEIGHT + AIR);
    let (width, height) = (LEFT + WIDTH + 20.0, bottom + 34.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">{}</text>\n\
         <text x=\"10\" y=\"38\">Writes for each {bucket_ms} ms, each lane to a scale of its own; the red line is the fault.</text>\n",
        escaped(title)
    );
    for (index, lane) in lanes.iter().enumerate() {
        let floor = TOP + number(index) * (LANE_HEIGHT + AIR) + LANE_HEIGHT;
        let most = top(&lane.counts);
        let mut path = format!("M{LEFT:.1} {floor:.1}");
        for (bucket, count) in lane.counts.iter().take(buckets).enumerate() {
            let y = floor - share(*count, most).min(1.0) * LANE_HEIGHT;
            line(&mut path, format_args!("V{y:.1} H{:.1}", x(bucket + 1)));
        }
        line(&mut path, format_args!("V{floor:.1} Z"));
        line(
            &mut svg,
            format_args!(
                "<text x=\"{0:.0}\" y=\"{1:.1}\" text-anchor=\"end\">{3}</text>\
                 <text x=\"{0:.0}\" y=\"{2:.1}\" text-anchor=\"end\" fill=\"#868e96\">height {most}</text>\
                 <path d=\"{path}\" fill=\"{COLOUR}\"/>\
                 <path d=\"M{LEFT} {floor:.1} h{WIDTH}\" stroke=\"#ced4da\"/>\n",
                LEFT - 8.0,
                floor - LANE_HEIGHT / 2.0,
                floor - LANE_HEIGHT / 2.0 + 14.0,
                escaped(&lane.label)
            ),
        );
    }
    let per_second = usize::try_from(1000 / bucket_ms.max(1)).unwrap_or(1).max(1);
    for second in (0..=after / per_second).step_by(TICK_SECONDS) {
        line(
            &mut svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{second} s</text>\n",
                x(before + second * per_second),
                bottom + 14.0
            ),
        );
    }
    line(
        &mut svg,
        format_args!(
            "<path d=\"M{0:.1} {TOP} V{bottom:.1}\" stroke=\"{FAULT_COLOUR}\" stroke-dasharray=\"3\"/>\n</svg>\n",
            x(before)
        ),
    );
    svg
}

/// What one bucket in fifty exceeds at most: a burst of answers after a pause would flatten all the rest.
fn top(counts: &[u64]) -> u64 {
    let mut sorted = counts.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() * 49 / 50).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(0).max(1)
}

fn line(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    text.write_fmt(more).unwrap_or_default();
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred pixels")]
fn number(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred pixels")]
fn share(count: u64, most: u64) -> f64 {
    count as f64 / most as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_as_high_as_its_writes_and_the_fault_is_marked() {
        let drawn = lanes(
            "Writes",
            &[Lane {
                label: "3 -> 4".to_owned(),
                counts: vec![10, 0, 5],
            }],
            100,
            1,
            2,
        );
        assert!(drawn.contains("3 -&gt; 4"), "{drawn}");
        // Full, none and half of 46 above a floor at 106; three buckets share 700 from 290 on.
        assert!(
            drawn.contains("M290.0 106.0V60.0 H523.3V106.0 H756.7V83.0 H990.0V106.0 Z"),
            "{drawn}"
        );
        assert!(
            drawn.contains("M523.3 60 V116.0"),
            "the fault is after one bucket: {drawn}"
        );
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"));
    }

    #[test]
    fn a_burst_is_cut_off() {
        let mut counts = vec![10; 99];
        counts.push(1000);
        assert_eq!(top(&counts), 10);
        assert_eq!(top(&[1, 2, 3]), 3);
        assert_eq!(top(&[]), 1, "nothing to divide by");
    }

    #[test]
    fn nothing_to_draw_is_drawn_too() {
        assert!(lanes("Writes", &[], 100, 0, 0).contains("</svg>"));
    }
}

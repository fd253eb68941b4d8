//! Bars in groups, and lines over time, as SVG.

use std::fmt::Write as _;

/// One group of bars, a bar for each server.
pub struct Group {
    /// What stands beside it.
    pub label: String,
    /// The bars.
    pub values: Vec<f64>,
}

const COLOURS: [&str; 6] = ["#0b7285", "#c92a2a", "#868e96", "#e8590c", "#5f3dc4", "#2b8a3e"];
const LABEL_WIDTH: usize = 330;
const BARS_WIDTH: usize = 480;
const BAR_HEIGHT: usize = 13;

/// Horizontal bars.
pub fn bars(title: &str, servers: &[String], groups: &[Group]) -> String {
    let most = groups
        .iter()
        .flat_map(|group| group.values.iter().copied())
        .fold(f64::MIN_POSITIVE, f64::max);
    let group_height = servers.len() * BAR_HEIGHT + 12;
    let legend_height = 50;
    let height = legend_height + groups.len() * group_height + 10;
    let width = LABEL_WIDTH + BARS_WIDTH + 70;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"18\" font-size=\"14\">{title}</text>\n"
    );
    for (index, server) in servers.iter().enumerate() {
        let (x, colour) = (10 + index * 150, COLOURS[index % COLOURS.len()]);
        writeln!(
            svg,
            "<rect x=\"{x}\" y=\"28\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"37\">{server}</text>",
            x + 14
        )
        .unwrap_or_default();
    }
    for (number, group) in groups.iter().enumerate() {
        let top = legend_height + number * group_height;
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LABEL_WIDTH - 8,
            top + group_height / 2,
            group.label
        )
        .unwrap_or_default();
        for (index, value) in group.values.iter().enumerate() {
            let y = top + index * BAR_HEIGHT;
            #[expect(clippy::cast_precision_loss, reason = "a few hundred pixels")]
            let length = value / most * BARS_WIDTH as f64;
            writeln!(
                svg,
                "<rect x=\"{LABEL_WIDTH}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"9\">{value:.2}</text>",
                BAR_HEIGHT - 2,
                COLOURS[index % COLOURS.len()],
                length + 4.0 + 330.0,
                y + BAR_HEIGHT - 4,
            )
            .unwrap_or_default();
        }
    }
    svg.push_str("</svg>\n");
    svg
}

/// A line of a plot over time.
pub struct Line {
    /// What the legend calls it.
    pub name: String,
    /// Its points, in the order of time.
    pub points: Vec<(f64, f64)>,
}

/// Points beyond so many are drawn together: the highest of them.
const POINTS_MAX: usize = 400;

/// Lines over the same time, and levels that they are to be compared with.
pub fn lines(title: &str, lines: &[Line], levels: &[(&str, f64)]) -> String {
    const LEFT: f64 = 50.0;
    const TOP: f64 = 60.0;
    const WIDTH: f64 = 760.0;
    const HEIGHT: f64 = 300.0;
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let time_max = points().fold(f64::MIN_POSITIVE, |most, (time, _)| most.max(time));
    let most = points()
        .map(|(_, value)| value)
        .chain(levels.iter().map(|&(_, value)| value))
        .fold(f64::MIN_POSITIVE, f64::max)
        * 1.05;
    let x = |time: f64| LEFT + time / time_max * WIDTH;
    let y = |value: f64| TOP + HEIGHT - value / most * HEIGHT;
    let (width, height, bottom, right) = (
        LEFT + WIDTH + 60.0,
        TOP + HEIGHT + 30.0,
        TOP + HEIGHT,
        LEFT + WIDTH,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"18\" font-size=\"14\">{title}</text>\n\
         <path d=\"M{LEFT} {TOP} V{bottom} H{right}\" fill=\"none\" stroke=\"black\"/>\n"
    );
    for step in 0..=5 {
        let share = f64::from(step) / 5.0;
        writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{:.0}</text>\
             <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{:.0}</text>",
            x(time_max * share),
            bottom + 16.0,
            time_max * share,
            LEFT - 6.0,
            y(most * share) + 4.0,
            most * share
        )
        .unwrap_or_default();
    }
    for (index, line) in lines.iter().enumerate() {
        let (left, colour) = (10 + index * 200, COLOURS[index % COLOURS.len()]);
        let path: Vec<String> = line
            .points
            .chunks(line.points.len().div_ceil(POINTS_MAX).max(1))
            .map(|chunk| {
                let highest = chunk.iter().fold(0.0_f64, |most, &(_, value)| most.max(value));
                format!("{:.1},{:.1}", x(chunk[0].0), y(highest))
            })
            .collect();
        writeln!(
            svg,
            "<rect x=\"{left}\" y=\"28\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"37\">{}</text>\n\
             <polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"/>",
            left + 14,
            line.name,
            path.join(" ")
        )
        .unwrap_or_default();
    }
    for (name, value) in levels {
        writeln!(
            svg,
            "<path d=\"M{LEFT} {0:.1} H{right}\" stroke=\"#495057\" stroke-dasharray=\"4\"/><text x=\"{1:.0}\" y=\"{2:.1}\">{name}</text>",
            y(*value),
            right + 4.0,
            y(*value) + 4.0
        )
        .unwrap_or_default();
    }
    svg.push_str("</svg>\n");
    svg
}

//! Bars in groups, as SVG.

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

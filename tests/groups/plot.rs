//! Rates over time below one another, as SVG.

use std::fmt::{Arguments, Write as _};

/// One curve.
pub struct Curve {
    /// What stands above it.
    pub label: String,
    /// By second.
    pub values: Vec<u64>,
    /// A line to compare with.
    pub steady: u64,
}

const LEFT: f64 = 60.0;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 150.0;
const TOP: f64 = 60.0;
const AIR: f64 = 50.0;
const TICK_SECONDS: usize = 30;

/// Curves on the same axes.
pub fn curves(title: &str, curves: &[Curve]) -> String {
    let seconds = curves
        .iter()
        .map(|curve| curve.values.len())
        .max()
        .unwrap_or(0)
        .max(1);
    let most = curves
        .iter()
        .flat_map(|curve| &curve.values)
        .max()
        .copied()
        .unwrap_or(0)
        .max(1);
    let x = |second: usize| LEFT + number(second as u64) / number(seconds as u64) * WIDTH;
    let (width, height) = (
        LEFT + WIDTH + 20.0,
        TOP + number(curves.len() as u64) * (HEIGHT + AIR),
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"14\">{title}</text>\n\
         <text x=\"10\" y=\"36\">The dashed line is twice the steady rate.</text>\n"
    );
    for (index, curve) in curves.iter().enumerate() {
        let floor = TOP + number(index as u64) * (HEIGHT + AIR) + HEIGHT;
        let y = |value: u64| floor - number(value) / number(most) * HEIGHT;
        let mut path = format!("M{LEFT:.1} {floor:.1}");
        for (second, value) in curve.values.iter().enumerate() {
            push(
                &mut path,
                format_args!(" V{:.1} H{:.1}", y(*value), x(second + 1)),
            );
        }
        let limit = y(2 * curve.steady);
        push(
            &mut svg,
            format_args!(
                "<text x=\"{LEFT}\" y=\"{:.1}\">{}</text>\n\
                 <path d=\"{path} V{floor:.1} Z\" fill=\"#0b7285\"/>\n\
                 <path d=\"M{LEFT} {floor:.1} h{WIDTH}\" stroke=\"#ced4da\"/>\n\
                 <path d=\"M{LEFT} {limit:.1} h{WIDTH}\" stroke=\"#c92a2a\" stroke-dasharray=\"4\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{most}/s</text>\n",
                floor - HEIGHT - 6.0,
                curve.label,
                LEFT - 6.0,
                floor - HEIGHT + 8.0,
            ),
        );
        for second in (0..seconds).step_by(TICK_SECONDS) {
            let (x, y) = (x(second), floor + 14.0);
            push(
                &mut svg,
                format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{second} s</text>\n"),
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn push(text: &mut String, more: Arguments<'_>) {
    // Writing to a String cannot fail.
    text.write_fmt(more).unwrap_or_default();
}

#[expect(clippy::cast_precision_loss, reason = "a few hundred pixels")]
fn number(count: u64) -> f64 {
    count as f64
}

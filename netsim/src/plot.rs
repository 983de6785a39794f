//! Pictures of runs as SVG, each beside the formula that it should follow.
//!
//! Owns what is drawn and the formulae. Does not own the runs (see [`crate::gallery`]).

use std::{ops::Range, path::Path};

use anyhow::anyhow;
use plotters::prelude::*;

/// Size of a picture in pixels.
const SIZE: (u32, u32) = (720, 420);
/// Colours that stay apart in print and for most eyes.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 90, 160),
    RGBColor(200, 80, 0),
    RGBColor(0, 130, 80),
    RGBColor(130, 60, 140),
    RGBColor(90, 90, 90),
];

/// One line of a picture.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    /// What it shows, for the legend.
    pub label: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
    /// Measured: with dots. Otherwise a formula or a bar: thin.
    pub measured: bool,
}

/// A picture.
#[derive(Clone, PartialEq, Debug)]
pub struct Picture {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x: String,
    /// Beside it.
    pub y: String,
    /// Shown part.
    pub x_range: Range<f64>,
    /// Shown part.
    pub y_range: Range<f64>,
    /// What is drawn, the first on top of the legend.
    pub lines: Vec<Line>,
}

impl Picture {
    /// Draws it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn draw(&self, path: &Path) -> anyhow::Result<()> {
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        self.draw_on(&root).map_err(|error| anyhow!("{}: {error}", path.display()))
    }

    fn draw_on(
        &self,
        root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    ) -> Result<(), DrawingAreaErrorKind<std::io::Error>> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(root)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .margin_right(28)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(self.x_range.clone(), self.y_range.clone())?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .label_style(("sans-serif", 12))
            .draw()?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let style = colour.stroke_width(if line.measured { 2 } else { 1 });
            let shown: Vec<(f64, f64)> =
                line.points.iter().map(|(x, y)| (*x, self.clamp(*y))).collect();
            chart
                .draw_series(LineSeries::new(shown.iter().copied(), style))?
                .label(&line.label)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
            if line.measured && shown.len() <= 30 {
                let dots = shown.iter().map(|at| Circle::new(*at, 3, colour.filled()));
                chart.draw_series(dots)?;
            }
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font(("sans-serif", 12))
            .position(SeriesLabelPosition::LowerRight)
            .draw()?;
        root.present()
    }

    fn clamp(&self, y: f64) -> f64 {
        y.clamp(self.y_range.start, self.y_range.end)
    }
}

/// Mean delay of a tree of `nodes` in milliseconds: with `fan_out` children of a stripe each, a chunk
/// of `chunk_bytes` is sent to one after the other, at `uplink_bps`, over hops of `hop_ms`.
#[must_use]
pub fn tree_delay_ms(
    nodes: f64,
    fan_out: f64,
    hop_ms: f64,
    chunk_bytes: f64,
    uplink_bps: f64,
) -> f64 {
    let levels = libm::log(nodes.max(2.0)) / libm::log(fan_out.max(1.01));
    levels * (hop_ms + (fan_out + 1.0) / 2.0 * chunk_bytes * 8.0 / uplink_bps * 1e3)
}

/// Viewers admitted after `t_s` when `source` copies are free at first, each that comes brings
/// `uplink` copies and takes one, and passing a chunk on takes `step_s`.
#[must_use]
pub fn crowd(t_s: f64, source: f64, uplink: f64, step_s: f64) -> f64 {
    let steps = t_s / step_s;
    if (uplink - 1.0).abs() < 1e-6 {
        return source * (1.0 + steps);
    }
    source / (uplink - 1.0) * (libm::pow(uplink, steps) - 1.0)
}

/// Continuity without any repair or standby: each of `depth` ancestors goes every `session_s` and
/// leaves a gap of `gap_s`.
#[must_use]
pub fn bare_continuity(depth: f64, gap_s: f64, session_s: f64) -> f64 {
    (1.0 - depth * gap_s / session_s).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_formulae_give_what_is_known_of_them() {
        // Ten copies and 1.2 each: ten thousand after 29 steps.
        assert!((9_000.0..11_500.0).contains(&crowd(29.0, 10.0, 1.2, 1.0)));
        assert!((crowd(4.0, 5.0, 1.0, 1.0) - 25.0).abs() < 1e-9);
        let delay = tree_delay_ms(1e4, 8.0, 40.0, 4_096.0, 3e6);
        assert!((380.0..410.0).contains(&delay), "{delay}");
        assert!((bare_continuity(4.5, 1.1, 300.0) - 0.983_5).abs() < 1e-3);
    }

    #[test]
    fn a_picture_becomes_an_svg_with_its_words() {
        let folder = std::env::temp_dir().join(format!("astral-plot-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.svg");
        let line =
            Line { label: "measured".into(), points: vec![(0.0, 0.0), (1.0, 9.0)], measured: true };
        let picture = Picture {
            title: "A title".into(),
            x: "seconds".into(),
            y: "share".into(),
            x_range: 0.0..1.0,
            y_range: 0.0..1.0,
            lines: vec![line],
        };
        picture.draw(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(text.contains("A title") && text.contains("measured") && text.starts_with("<svg"));
    }
}

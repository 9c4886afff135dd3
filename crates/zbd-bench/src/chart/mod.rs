//! Pictures of measurements, made to be read: by those who see no colours, on paper, in a terminal.
//!
//! A [`Chart`] is what is to be seen; [`svg()`], [`html()`] and [`terminal()`] draw it. They know
//! nothing of devices and jobs.
//!
//! The SVG is written element by element. The plotters crate, which suggests itself, draws legends
//! over the data, turns dashes into many short lines, knows no width of a text unless it gets a
//! font engine, wraps no notes, and gives elements neither classes nor descriptions, so that a
//! picture could follow no dark page and tell nothing to a screen reader. What is left of the work
//! without these, axes and their ticks, is short.

mod drawing;
mod page;
mod plot;
mod scale;
mod style;
mod terminal;
mod text;

pub(crate) use drawing::{Drawing, Px};
pub(crate) use page::{Page, Table, html};
pub(crate) use plot::svg;
pub(crate) use style::{DARK, GRID, INK, PAPER, SOFT};
pub(crate) use terminal::{Glyphs, terminal};
pub(crate) use text::{wrapped, wrapped_columns};

/// A picture: some series over the same axes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What all series have in common; may be empty.
    pub(crate) subtitle: String,
    /// What one has to know to read it right, below it.
    pub(crate) notes: Vec<String>,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Up to eight can be told apart in black and white.
    pub(crate) series: Vec<Series>,
}

/// What is measured along one side of a chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Axis {
    pub(crate) label: String,
    /// Such as `s`, `B`, `B/s` or `IOPS`, without a prefix: that is chosen to suit the values. May
    /// be empty.
    pub(crate) unit: String,
    pub(crate) scale: Scale,
}

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// From 0 on, or from the least value along x.
    Linear,
    /// A doubling is as far as any other. Values that are not above 0 have no place on it.
    Log2,
}

/// Points that belong together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

/// A value, and from where to where it may as well be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Chart {
    /// The series with the points that can be drawn, in the order of x, and how many cannot.
    fn drawable(&self) -> (Vec<Series>, usize) {
        let fits = |axis: &Axis, value: f64| {
            value.is_finite() && (axis.scale == Scale::Linear || value > 0.0)
        };
        let mut left_out = 0;
        let series = self
            .series
            .iter()
            .map(|series| {
                let mut points: Vec<_> = series
                    .points
                    .iter()
                    .filter(|p| fits(&self.x, p.x) && fits(&self.y, p.y))
                    .map(|p| Point {
                        low: if fits(&self.y, p.low) { p.low } else { p.y },
                        high: if fits(&self.y, p.high) { p.high } else { p.y },
                        ..*p
                    })
                    .collect();
                left_out += series.points.len() - points.len();
                points.sort_by(|a, b| a.x.total_cmp(&b.x));
                Series {
                    name: series.name.clone(),
                    points,
                }
            })
            .collect();
        (series, left_out)
    }

    /// The notes, and one more if some points are missing from the picture.
    fn notes(&self, left_out: usize) -> Vec<String> {
        let mut notes = self.notes.clone();
        match left_out {
            0 => {}
            1 => notes.push("One point has no place on these axes and is left out.".to_owned()),
            n => notes.push(format!(
                "{n} points have no place on these axes and are left out."
            )),
        }
        notes
    }
}

impl Axis {
    /// The label with its unit, unless the values have that themselves.
    fn heading(&self) -> String {
        if scale::carries_unit(self) && !self.label.is_empty() {
            return self.label.clone();
        }
        match (self.label.as_str(), self.unit.as_str()) {
            (label, "") => label.to_owned(),
            ("", unit) => unit.to_owned(),
            (label, unit) => format!("{label} ({unit})"),
        }
    }
}

#[cfg(test)]
mod tests;

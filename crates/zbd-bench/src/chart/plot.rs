//! A chart as SVG.

use super::{
    Chart, Point, Series,
    drawing::{Drawing, Px},
    scale::{Ruler, short},
    style::{self, DARK, GRID, INK, Look, Marker, PAPER, SOFT},
    text::{width, wrap},
};

const WIDTH: f64 = 800.0;
const EDGE: f64 = 20.0;
const PLOT_HEIGHT: f64 = 360.0;

const TITLE: f64 = 20.0;
const BODY: f64 = 14.0;
const NOTE: f64 = 13.0;

/// Half the width of a point.
const MARKER: f64 = 4.5;
/// Half the width of the ends of an error bar.
const CAP: f64 = 4.0;
/// How long the line of a series is in the legend.
const SAMPLE: f64 = 44.0;

/// The part of the picture in which the points lie.
struct Frame {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: Ruler,
    y: Ruler,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        self.left + (self.right - self.left) * self.x.share(value)
    }

    fn y(&self, value: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * self.y.share(value)
    }
}

/// A line of text and where it begins.
struct Line {
    x: f64,
    y: f64,
    size: f64,
    bold: bool,
    soft: bool,
    text: String,
}

/// An entry of the legend and where it is.
struct Entry {
    series: usize,
    x: f64,
    y: f64,
    lines: Vec<String>,
}

/// Draws the chart. The picture scales, and no text covers another.
pub(crate) fn svg(chart: &Chart) -> String {
    let (series, left_out) = chart.drawable();
    let points = || series.iter().flat_map(|series| &series.points);
    let x = Ruler::along(&chart.x, points().map(|p| p.x));
    let low = points()
        .map(|p| p.low.min(p.y))
        .fold(f64::INFINITY, f64::min);
    let high = points().map(|p| p.high.max(p.y));
    let high = high.fold(f64::NEG_INFINITY, f64::max);
    let y = if low.is_finite() && high.is_finite() {
        Ruler::up(&chart.y, low, high)
    } else {
        Ruler::up(&chart.y, 1.0, 1.0)
    };

    let mut lines = Vec::new();
    let mut at = EDGE;
    paragraph(&mut lines, &mut at, TITLE, true, false, &chart.title);
    paragraph(&mut lines, &mut at, BODY, false, true, &chart.subtitle);
    let legend = legend(&series, &mut at);
    at += 8.0;
    paragraph(&mut lines, &mut at, BODY, false, false, &chart.y.heading());

    let widest = y.ticks.iter().map(|tick| width(&tick.label, BODY));
    let left = EDGE + widest.fold(0.0, f64::max) + 8.0;
    let top = at + 14.0;
    let frame = Frame {
        left,
        right: WIDTH - EDGE - 10.0,
        top,
        bottom: top + PLOT_HEIGHT,
        x,
        y,
    };
    at = frame.bottom + 2.0 * BODY + 4.0;
    let heading = wrap(&chart.x.heading(), frame.right - left, |t| width(t, BODY));
    let headings: Vec<_> = heading
        .into_iter()
        .map(|text| {
            at += BODY * 1.35;
            (at, text)
        })
        .collect();
    at += 8.0;
    for note in chart.notes(left_out) {
        paragraph(&mut lines, &mut at, NOTE, false, true, &note);
    }
    let height = at + EDGE;

    let mut drawing = Drawing::new((WIDTH, height), &chart.title, &described(chart, &series));
    drawing.text("style", &[], DARK);
    let paper = [
        ("class", &"zb-paper" as _),
        ("width", &Px(WIDTH) as _),
        ("height", &Px(height) as _),
        ("fill", &PAPER as _),
    ];
    drawing.put("rect", &paper);
    axes(&mut drawing, &frame);
    for line in &lines {
        write(&mut drawing, line);
    }
    for (at, text) in headings {
        let middle = (frame.left + frame.right) / 2.0;
        label(&mut drawing, (middle, at), "middle", &text);
    }
    for entry in &legend {
        sample(&mut drawing, entry);
    }
    let dodge = Dodge::new(&series, &frame);
    for (i, series) in series.iter().enumerate() {
        curve(
            &mut drawing,
            &frame,
            style::of(i),
            dodge.of(i),
            &series.points,
        );
    }
    if points().next().is_none() {
        let middle = (
            (frame.left + frame.right) / 2.0,
            (frame.top + frame.bottom) / 2.0,
        );
        label(&mut drawing, middle, "middle", "no data");
    }
    drawing.finish()
}

/// Adds a wrapped text, below what is there.
fn paragraph(lines: &mut Vec<Line>, at: &mut f64, size: f64, bold: bool, soft: bool, text: &str) {
    // Bold letters are wider.
    let wider = if bold { 1.1 } else { 1.0 };
    for text in wrap(text, WIDTH - 2.0 * EDGE, |t| width(t, size) * wider) {
        *at += size * 1.3;
        lines.push(Line {
            x: EDGE,
            y: *at,
            size,
            bold,
            soft,
            text,
        });
    }
    *at += 3.0;
}

/// Puts the names of the series side by side: on one line, or else in columns.
fn legend(series: &[Series], at: &mut f64) -> Vec<Entry> {
    let room = WIDTH - 2.0 * EDGE;
    let (indent, gap, line) = (SAMPLE + 8.0, 24.0, BODY * 1.5);
    let mut entries: Vec<_> = series
        .iter()
        .enumerate()
        .map(|(i, series)| Entry {
            series: i,
            x: EDGE,
            y: 0.0,
            lines: wrap(&series.name, room - indent, |t| width(t, BODY)),
        })
        .filter(|entry| !entry.lines.is_empty())
        .collect();
    let widths: Vec<f64> = entries
        .iter()
        .map(|e| e.lines.iter().map(|t| width(t, BODY)).fold(0.0, f64::max) + indent + gap)
        .collect();
    let Some(widest) = widths.iter().copied().reduce(f64::max) else {
        return entries;
    };
    let columns = if widths.iter().sum::<f64>() <= room + gap {
        entries.len()
    } else {
        (((room + gap) / widest) as usize).max(1)
    };
    let one_line = columns == entries.len();
    *at += 10.0;
    for (row, widths) in entries.chunks_mut(columns).zip(widths.chunks(columns)) {
        let mut x = EDGE;
        let deepest = row.iter().map(|entry| entry.lines.len()).max().unwrap_or(1);
        for (entry, width) in row.iter_mut().zip(widths) {
            (entry.x, entry.y) = (x, *at + line * 0.7);
            x += if one_line { *width } else { widest };
        }
        *at += line * deepest as f64;
    }
    entries
}

fn write(drawing: &mut Drawing, line: &Line) {
    let (class, colour) = if line.soft {
        ("zb-soft", SOFT)
    } else {
        ("zb-ink", INK)
    };
    drawing.text(
        "text",
        &[
            ("class", &class),
            ("x", &Px(line.x)),
            ("y", &Px(line.y)),
            ("font-size", &Px(line.size)),
            ("font-weight", if line.bold { &"bold" } else { &"normal" }),
            ("fill", &colour),
        ],
        &line.text,
    );
}

fn label(drawing: &mut Drawing, (x, y): (f64, f64), anchor: &str, text: &str) {
    drawing.text(
        "text",
        &[
            ("class", &"zb-ink"),
            ("x", &Px(x)),
            ("y", &Px(y)),
            ("font-size", &Px(BODY)),
            ("text-anchor", &anchor),
            ("fill", &INK),
        ],
        text,
    );
}

fn rule(drawing: &mut Drawing, class: &str, colour: &str, from: (f64, f64), to: (f64, f64)) {
    drawing.put(
        "path",
        &[
            ("class", &class),
            ("d", &line_through(&[from, to])),
            ("stroke", &colour),
            ("stroke-width", &1),
            ("fill", &"none"),
        ],
    );
}

/// The grid, the axes, the ticks and their names.
fn axes(drawing: &mut Drawing, frame: &Frame) {
    for tick in &frame.y.ticks {
        let y = frame.y(tick.at);
        rule(drawing, "zb-grid", GRID, (frame.left, y), (frame.right, y));
        let beside = (frame.left - 8.0, y + BODY * 0.35);
        label(drawing, beside, "end", &tick.label);
    }
    // Names that would run into the one before them are left out; their ticks stay.
    let mut free = f64::NEG_INFINITY;
    for tick in &frame.x.ticks {
        let x = frame.x(tick.at);
        rule(drawing, "zb-grid", GRID, (x, frame.top), (x, frame.bottom));
        let end = (x, frame.bottom + 5.0);
        rule(drawing, "zb-axis", SOFT, (x, frame.bottom), end);
        let half = width(&tick.label, BODY) / 2.0;
        if x - half > free && x + half < WIDTH {
            let below = (x, frame.bottom + 8.0 + BODY);
            label(drawing, below, "middle", &tick.label);
            free = x + half + 4.0;
        }
    }
    let (left, right) = ((frame.left, frame.bottom), (frame.right, frame.bottom));
    rule(drawing, "zb-axis", SOFT, left, right);
    rule(drawing, "zb-axis", SOFT, (frame.left, frame.top), left);
}

/// How far the points of each series are moved aside, so that error bars over the same place can
/// be told apart.
struct Dodge {
    step: f64,
    middle: f64,
}

impl Dodge {
    fn new(series: &[Series], frame: &Frame) -> Self {
        let mut places: Vec<_> = series
            .iter()
            .flat_map(|series| series.points.iter().map(|p| frame.x(p.x)))
            .collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let gaps = places.windows(2).map(|w| w[1] - w[0]);
        let room = gaps.fold(f64::INFINITY, f64::min) / 4.0;
        let count = series.len().max(1) as f64;
        Self {
            step: (room / count).min(4.0),
            middle: (count - 1.0) / 2.0,
        }
    }

    fn of(&self, series: usize) -> f64 {
        (series as f64 - self.middle) * self.step
    }
}

/// The line, the error bars and the points of a series.
fn curve(drawing: &mut Drawing, frame: &Frame, look: &Look, aside: f64, points: &[Point]) {
    let at = |p: &Point| (frame.x(p.x) + aside, frame.y(p.y));
    let places: Vec<_> = points.iter().map(at).collect();
    group(drawing, look);
    stroke(drawing, look, &places);
    let mut bars = String::new();
    for (point, (x, _)) in points.iter().zip(&places) {
        let (low, high) = (frame.y(point.low), frame.y(point.high));
        if (low - high).abs() < 0.5 {
            continue;
        }
        bars += &line_through(&[(*x, low), (*x, high)]);
        for end in [low, high] {
            bars += &line_through(&[(x - CAP, end), (x + CAP, end)]);
        }
    }
    if !bars.is_empty() {
        let attributes = [
            ("d", &bars as _),
            ("fill", &"none" as _),
            ("stroke-width", &"1.4" as _),
        ];
        drawing.put("path", &attributes);
    }
    for place in &places {
        marker(drawing, look, *place);
    }
    drawing.end();
}

fn group(drawing: &mut Drawing, look: &Look) {
    drawing.begin(
        "g",
        &[
            ("class", &look.class),
            ("stroke", &look.colour),
            ("fill", &look.colour),
        ],
    );
}

fn stroke(drawing: &mut Drawing, look: &Look, places: &[(f64, f64)]) {
    let path = line_through(places);
    let mut attributes: Vec<(&str, &dyn std::fmt::Display)> =
        vec![("d", &path), ("fill", &"none"), ("stroke-width", &2)];
    if !look.dashes.is_empty() {
        attributes.push(("stroke-dasharray", &look.dashes));
    }
    if places.len() > 1 {
        drawing.put("path", &attributes);
    }
}

fn marker(drawing: &mut Drawing, look: &Look, (x, y): (f64, f64)) {
    let r = MARKER;
    let shape = |d: &[(f64, f64)]| {
        let places: Vec<_> = d.iter().map(|(dx, dy)| (x + dx * r, y + dy * r)).collect();
        line_through(&places) + "Z"
    };
    let round = |r: f64| {
        format!(
            "M{} {}a{r} {r} 0 1 0 {} 0a{r} {r} 0 1 0 -{} 0Z",
            Px(x - r),
            Px(y),
            Px(2.0 * r),
            Px(2.0 * r)
        )
    };
    const SQUARE: [(f64, f64); 4] = [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)];
    const TRIANGLE: [(f64, f64); 3] = [(0.0, -1.2), (1.1, 0.9), (-1.1, 0.9)];
    let (path, hollow) = match look.marker {
        Marker::Disc => (round(r), false),
        Marker::Ring => (round(r), true),
        Marker::Square => (shape(&SQUARE), false),
        Marker::HollowSquare => (shape(&SQUARE), true),
        Marker::Triangle => (shape(&TRIANGLE), false),
        Marker::HollowTriangle => (shape(&TRIANGLE.map(|(x, y)| (x, -y))), true),
        Marker::Diamond => (
            shape(&[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)]),
            false,
        ),
        Marker::Cross => (
            line_through(&[(x - r, y - r), (x + r, y + r)])
                + &line_through(&[(x - r, y + r), (x + r, y - r)]),
            true,
        ),
    };
    let mut attributes: Vec<(&str, &dyn std::fmt::Display)> =
        vec![("d", &path), ("stroke-width", &"1.8")];
    if hollow {
        attributes.extend([("class", &"zb-hollow" as _), ("fill", &PAPER as _)]);
    }
    drawing.put("path", &attributes);
}

fn sample(drawing: &mut Drawing, entry: &Entry) {
    let look = style::of(entry.series);
    let y = entry.y - BODY * 0.35;
    group(drawing, look);
    stroke(drawing, look, &[(entry.x, y), (entry.x + SAMPLE, y)]);
    marker(drawing, look, (entry.x + SAMPLE / 2.0, y));
    drawing.end();
    for (i, text) in entry.lines.iter().enumerate() {
        let at = (entry.x + SAMPLE + 8.0, entry.y + i as f64 * BODY * 1.5);
        label(drawing, at, "start", text);
    }
}

fn line_through(places: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (i, (x, y)) in places.iter().enumerate() {
        path += &format!("{}{} {}", if i == 0 { "M" } else { "L" }, Px(*x), Px(*y));
    }
    path
}

/// The picture in words.
fn described(chart: &Chart, series: &[Series]) -> String {
    let mut text = format!("{} over {}.", chart.y.heading(), chart.x.heading());
    for series in series {
        let values = series.points.iter().map(|p| p.y);
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        if low <= high {
            let (low, high) = (short(low, &chart.y.unit), short(high, &chart.y.unit));
            text += &format!(" {}: from {low} to {high}.", series.name);
        }
    }
    text
}

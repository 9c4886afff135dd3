//! The picture as SVG.

use zbd_core::ZoneState;

use super::{Cell, Fill, Map, STATES};
use crate::{
    chart::{DARK, Drawing, GRID, INK, PAPER, Px, SOFT, wrapped},
    report::figures::count,
};

/// More cells than this nobody looks through.
const MOST_CELLS: usize = 1024;
/// How many cells stand in a line.
const ACROSS: usize = 32;

const EDGE: f64 = 20.0;
/// The room for the numbers of zones.
const NUMBERS: f64 = 64.0;
const CELL: (f64, f64) = (18.0, 26.0);
/// How far the starts of cells are apart.
const STEP: (f64, f64) = (21.0, 48.0);
const WIDTH: f64 = 2.0 * EDGE + NUMBERS + ACROSS as f64 * STEP.0;
const TITLE: f64 = 20.0;
const BODY: f64 = 14.0;
const LINE: f64 = 21.0;

/// Draws the map.
pub(crate) fn svg(map: &Map<'_>) -> String {
    let (each, cells) = map.cells(MOST_CELLS);
    let facts = map.facts();
    let title = format!("Zones of {}", map.info.name);
    let heading = wrapped(&map.info.name, WIDTH - 2.0 * EDGE, TITLE);
    let below_title = EDGE + heading.len() as f64 * TITLE * 1.3 + 10.0;
    let top = below_title + facts.len() as f64 * LINE + 10.0;
    let rows = cells.len().div_ceil(ACROSS) as f64;
    let legend = top + rows * STEP.1 + 6.0;
    let notes = legend + 4.0 * 30.0;
    let height = notes + 2.0 * LINE + EDGE;
    let described: Vec<_> = facts.iter().map(|(n, v)| format!("{n}: {v}.")).collect();
    let mut drawing = Drawing::new((WIDTH, height), &title, &described.join(" "));
    drawing.text("style", &[], DARK);
    let size: [(&str, &dyn std::fmt::Display); 4] = [
        ("class", &"zb-paper"),
        ("width", &Px(WIDTH)),
        ("height", &Px(height)),
        ("fill", &PAPER),
    ];
    drawing.put("rect", &size);
    for (i, text) in heading.iter().enumerate() {
        let y = EDGE + (i + 1) as f64 * TITLE * 1.3;
        write(&mut drawing, (EDGE, y), TITLE, "start", text);
    }
    for (i, (name, value)) in facts.iter().enumerate() {
        let y = below_title + (i as f64 + 0.6) * LINE;
        write(&mut drawing, (EDGE, y), BODY, "start", name);
        write(&mut drawing, (EDGE + NUMBERS, y), BODY, "start", value);
    }
    for (i, cell) in cells.iter().enumerate() {
        let (row, column) = ((i / ACROSS) as f64, (i % ACROSS) as f64);
        let y = top + row * STEP.1;
        if i % ACROSS == 0 {
            let beside = (EDGE + NUMBERS - 10.0, y + CELL.1 * 0.7);
            let first = (i * each).to_string();
            write(&mut drawing, beside, BODY, "end", &first);
        }
        draw(&mut drawing, (EDGE + NUMBERS + column * STEP.0, y), *cell);
    }
    for (i, (state, _, name)) in STATES.iter().enumerate() {
        let x = EDGE + (i % 2) as f64 * 360.0;
        let y = legend + (i / 2) as f64 * 30.0;
        swatch(&mut drawing, (x, y), *state);
        write(&mut drawing, (x + 30.0, y + 14.0), BODY, "start", name);
        let number = count(map.count(*state));
        write(&mut drawing, (x + 300.0, y + 14.0), BODY, "end", &number);
    }
    let mut note =
        "A bar shows how much of a zone is written. One stroke: a conventional zone; two: the device does not say.".to_owned();
    if each > 1 {
        note += &format!(
            " Each stands for {} zones, its letter for the first of these states among them.",
            count(each as u64)
        );
    }
    let lines = wrapped(&note, WIDTH - 2.0 * EDGE, BODY);
    for (i, text) in lines.iter().enumerate() {
        let at = (EDGE, notes + 14.0 + i as f64 * LINE);
        write(&mut drawing, at, BODY, "start", text);
    }
    drawing.finish()
}

/// A cell: a box with a bar in it, and its letter below.
fn draw(drawing: &mut Drawing, (x, y): (f64, f64), cell: Cell) {
    let (class, colour) = colour(cell.state);
    let (width, height) = CELL;
    let share = match cell.fill {
        // What is more than nothing and less than everything looks like that.
        Fill::Part(share) => share.clamp(0.06, 0.94),
        Fill::All => 1.0,
        Fill::Nothing | Fill::Anywhere | Fill::Unknown => 0.0,
    };
    drawing.begin(
        "g",
        &[("class", &class), ("fill", &colour), ("stroke", &colour)],
    );
    if share > 0.0 {
        let bar = height * share;
        drawing.put(
            "rect",
            &[
                ("x", &Px(x)),
                ("y", &Px(y + height - bar)),
                ("width", &Px(width)),
                ("height", &Px(bar)),
                ("stroke", &"none"),
            ],
        );
    }
    if matches!(cell.fill, Fill::Anywhere | Fill::Unknown) {
        let mut path = format!("M{} {}L{} {}", Px(x), Px(y + height), Px(x + width), Px(y));
        if cell.fill == Fill::Unknown {
            path += &format!("M{} {}L{} {}", Px(x), Px(y), Px(x + width), Px(y + height));
        }
        drawing.put("path", &[("d", &path), ("fill", &"none")]);
    }
    drawing.put(
        "rect",
        &[
            ("x", &Px(x)),
            ("y", &Px(y)),
            ("width", &Px(width)),
            ("height", &Px(height)),
            ("fill", &"none"),
        ],
    );
    drawing.end();
    if cell.letter() != ' ' {
        let below = (x + width / 2.0, y + height + 14.0);
        write(drawing, below, BODY, "middle", &cell.letter().to_string());
    }
}

/// A state in the legend.
fn swatch(drawing: &mut Drawing, (x, y): (f64, f64), state: ZoneState) {
    let (class, colour) = colour(state);
    let letter = STATES.iter().find(|(known, ..)| *known == state);
    drawing.put(
        "rect",
        &[
            ("class", &class),
            ("x", &Px(x)),
            ("y", &Px(y)),
            ("width", &Px(6.0)),
            ("height", &Px(18.0)),
            ("fill", &colour),
            ("stroke", &colour),
        ],
    );
    if let Some((_, letter, _)) = letter {
        let at = (x + 18.0, y + 14.0);
        write(drawing, at, BODY, "middle", letter.to_string().trim());
    }
}

/// The class that the dark look knows, and the colour that the light one has.
fn colour(state: ZoneState) -> (&'static str, &'static str) {
    match state {
        ZoneState::Offline => ("zb-6", "#000000"),
        ZoneState::ReadOnly => ("zb-3", "#cc79a7"),
        ZoneState::ExplicitlyOpen => ("zb-1", "#d55e00"),
        ZoneState::ImplicitlyOpen => ("zb-2", "#009e73"),
        ZoneState::Closed => ("zb-4", "#e69f00"),
        ZoneState::Full => ("zb-0", "#0072b2"),
        ZoneState::Empty => ("zb-grid", GRID),
        ZoneState::NotWritePointer => ("zb-axis", SOFT),
    }
}

fn write(drawing: &mut Drawing, (x, y): (f64, f64), size: f64, anchor: &str, text: &str) {
    drawing.text(
        "text",
        &[
            ("class", &"zb-ink"),
            ("x", &Px(x)),
            ("y", &Px(y)),
            ("font-size", &Px(size)),
            ("text-anchor", &anchor),
            ("fill", &INK),
        ],
        text,
    );
}

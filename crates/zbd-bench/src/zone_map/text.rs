//! The picture in a terminal.
//!
//! Each cell is a column: its fill as part of a bar chart, and below it the letter of its state,
//! so that nothing depends on colours.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};
use zbd_core::ZoneState;

use super::{Cell, Fill, Map, STATES};
use crate::{
    chart::{Glyphs, wrapped_columns},
    report::figures::count,
};

/// Cells stand in groups of this many, so that one finds a zone by counting.
const GROUP: usize = 8;

/// The most groups in a line.
const MOST_GROUPS: usize = 16;

/// The device, four facts, two lines between, the note on several zones a column, five lines of
/// legend, the cursor's.
const OTHER_LINES: usize = 1 + 4 + 2 + 1 + 5 + 1;

/// What a terminal shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) glyphs: Glyphs,
    /// How many columns and lines there are.
    pub(crate) columns: usize,
    pub(crate) lines: usize,
}

/// Draws the map, with colours that are to be taken out where they are not wanted.
pub(crate) fn text(map: &Map<'_>, look: Look) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for line in wrapped_columns(&map.info.name, look.columns) {
        let _ = writeln!(text, "{line}");
    }
    for (name, value) in map.facts() {
        let _ = writeln!(text, "  {name:<8} {value}");
    }
    let digits = map.zones.len().saturating_sub(1).to_string().len();
    let room = look.columns.saturating_sub(digits + 3) / (GROUP + 1);
    let groups = (1..=room.clamp(1, MOST_GROUPS)).rfind(|n| n.is_power_of_two());
    let across = groups.unwrap_or(1) * GROUP;
    let rows = look.lines.saturating_sub(OTHER_LINES) / 2;
    let (each, cells) = map.cells(rows.max(2) * across);
    text.push('\n');
    for (i, row) in cells.chunks(across).enumerate() {
        let first = i * across * each;
        let upper = line(row, |cell| fill(cell.fill, look.glyphs));
        let lower = line(row, Cell::letter);
        let _ = writeln!(text, "  {first:>digits$}  {upper}");
        let lower = format!("  {:>digits$}  {lower}", "");
        let _ = writeln!(text, "{}", lower.trim_end());
    }
    text.push('\n');
    if each > 1 {
        let _ = writeln!(
            text,
            "  {} zones a column; its letter is the first of these that one of them is:",
            count(each as u64)
        );
    }
    text + &legend(map, look.glyphs)
}

/// The glyphs of some cells, in groups and in the colours of their states.
fn line(cells: &[Cell], glyph: impl Fn(Cell) -> char) -> String {
    let mut text = String::new();
    let mut last = Style::new();
    for (i, cell) in cells.iter().enumerate() {
        let style = style(cell.state);
        if style != last {
            let _ = write!(text, "{last:#}{style}");
            last = style;
        }
        if i > 0 && i % GROUP == 0 {
            text.push(' ');
        }
        text.push(glyph(*cell));
    }
    let _ = write!(text, "{last:#}");
    text
}

fn fill(fill: Fill, glyphs: Glyphs) -> char {
    const EIGHTHS: [char; 7] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇'];
    match (fill, glyphs) {
        (Fill::Anywhere, Glyphs::Unicode) => '░',
        (Fill::Anywhere, Glyphs::Ascii) => '=',
        (Fill::Unknown, _) => '?',
        (Fill::Nothing, Glyphs::Unicode) => '·',
        (Fill::Nothing, Glyphs::Ascii) => '.',
        // Only what is full looks full.
        (Fill::Part(share), Glyphs::Unicode) => EIGHTHS[((share * 8.0) as usize).clamp(1, 7) - 1],
        (Fill::Part(share), Glyphs::Ascii) => char::from(b'0' + ((share * 10.0) as u8).clamp(0, 9)),
        (Fill::All, Glyphs::Unicode) => '█',
        (Fill::All, Glyphs::Ascii) => '#',
    }
}

/// The states with their letters and how many zones have them, and what the fills mean.
fn legend(map: &Map<'_>, glyphs: Glyphs) -> String {
    let mut text = String::new();
    let entries: Vec<_> = STATES
        .iter()
        .map(|(state, letter, name)| {
            let style = style(*state);
            let number = count(map.count(*state));
            // Room for the names and for numbers of up to seven digits.
            format!("{style}{letter}{style:#} {name:<15} {number:>9}")
        })
        .collect();
    for pair in entries.chunks(2) {
        let _ = writeln!(text, "  {}", pair.join("     "));
    }
    text += match glyphs {
        Glyphs::Unicode => {
            "  written: · nothing, ▁ to ▇ a part, █ all; ░ conventional, ? not known\n"
        }
        Glyphs::Ascii => {
            "  written: . nothing, 0 to 9 begun tenths, # all; = conventional, ? not known\n"
        }
    };
    text
}

pub(super) fn style(state: ZoneState) -> Style {
    let colour = match state {
        ZoneState::Offline => AnsiColor::Red,
        ZoneState::ReadOnly => AnsiColor::Magenta,
        ZoneState::ExplicitlyOpen => AnsiColor::Cyan,
        ZoneState::ImplicitlyOpen => AnsiColor::Green,
        ZoneState::Closed => AnsiColor::Yellow,
        ZoneState::Full => AnsiColor::Blue,
        ZoneState::Empty | ZoneState::NotWritePointer => return Style::new(),
    };
    colour.on_default()
}

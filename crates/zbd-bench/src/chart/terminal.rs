//! A chart as text.

use unicode_width::UnicodeWidthStr;

use super::{
    Chart, Point,
    scale::{named, short},
    text::{printable, wrapped_columns},
};

/// The least room for a bar that is worth having, and the most that is worth looking at.
const BAR: std::ops::RangeInclusive<usize> = 8..=50;
/// The longest name that is not wrapped away.
const NAME: usize = 32;

/// Which characters a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Glyphs {
    Unicode,
    Ascii,
}

impl Glyphs {
    /// What the locale says that terminals show here.
    pub(crate) fn of_locale() -> Self {
        // The first of these that is not empty decides (POSIX, 8.2).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        Self::of(&locale.unwrap_or_default())
    }

    fn of(locale: &str) -> Self {
        let locale = locale.to_ascii_lowercase();
        if locale.contains("utf-8") || locale.contains("utf8") {
            Self::Unicode
        } else {
            Self::Ascii
        }
    }
}

/// Writes the chart as bars, a line for each point, in lines of no more than `width` columns.
pub(crate) fn terminal(chart: &Chart, width: usize, glyphs: Glyphs) -> String {
    let (series, left_out) = chart.drawable();
    let mut xs: Vec<_> = series
        .iter()
        .flat_map(|series| series.points.iter().map(|p| p.x))
        .collect();
    xs.sort_by(f64::total_cmp);
    xs.dedup();
    let mut rows = Vec::new();
    for x in xs {
        let mut head = named(x, &chart.x);
        for series in &series {
            for point in series.points.iter().filter(|p| p.x == x) {
                rows.push(Row {
                    head: std::mem::take(&mut head),
                    name: shortened(&printable(&series.name), NAME, glyphs),
                    value: short(point.y, &chart.y.unit),
                    spread: spread(point, glyphs),
                    amount: point.y,
                });
            }
        }
    }
    let mut text = String::new();
    for line in [&chart.title, &chart.subtitle] {
        paragraph(&mut text, line, width);
    }
    let axes = format!("{} by {}", chart.y.heading(), chart.x.heading());
    paragraph(&mut text, &axes, width);
    text.push('\n');
    if rows.is_empty() {
        text += "  no data\n";
    }
    text += &bars(&rows, width, glyphs);
    let notes = chart.notes(left_out);
    if !notes.is_empty() {
        text.push('\n');
    }
    for note in notes {
        paragraph(&mut text, &note, width);
    }
    match glyphs {
        Glyphs::Unicode => text,
        Glyphs::Ascii => plain(&text),
    }
}

struct Row {
    head: String,
    name: String,
    value: String,
    spread: String,
    amount: f64,
}

fn bars(rows: &[Row], width: usize, glyphs: Glyphs) -> String {
    let widest = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).width()).max().unwrap_or(0);
    let (head, name) = (widest(|row| &row.head), widest(|row| &row.name));
    let (value, spread) = (widest(|row| &row.value), widest(|row| &row.spread));
    let taken = 2 + head + 2 + name + usize::from(name > 0) + value + 2 + spread + 2;
    let room = width.saturating_sub(taken).clamp(*BAR.start(), *BAR.end());
    let most = rows.iter().map(|row| row.amount).fold(0.0, f64::max);
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        // Where many lines belong together it shall be seen which.
        if i > 0 && !row.head.is_empty() && rows.iter().any(|row| row.head.is_empty()) {
            text.push('\n');
        }
        let share = if most > 0.0 { row.amount / most } else { 0.0 };
        let line = format!(
            "  {}  {}{}{}  {}  {}",
            padded(&row.head, head, true),
            padded(&row.name, name, false),
            if name > 0 { " " } else { "" },
            padded(&bar(share, room, glyphs), room, false),
            padded(&row.value, value, true),
            row.spread,
        );
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A bar of up to `room` columns; what is more than nothing can be seen.
fn bar(share: f64, room: usize, glyphs: Glyphs) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = share.clamp(0.0, 1.0);
    match glyphs {
        Glyphs::Unicode => {
            let least = usize::from(share > 0.0);
            let eighths = ((share * room as f64 * 8.0).round() as usize).max(least);
            "█".repeat(eighths / 8) + PARTS[eighths % 8]
        }
        Glyphs::Ascii => {
            let least = usize::from(share > 0.0);
            "#".repeat(((share * room as f64).round() as usize).max(least))
        }
    }
}

/// How far a value may be off at most.
fn spread(point: &Point, glyphs: Glyphs) -> String {
    let off = (point.high - point.y).max(point.y - point.low);
    if off <= 0.0 || point.y <= 0.0 {
        return String::new();
    }
    let sign = match glyphs {
        Glyphs::Unicode => "±",
        Glyphs::Ascii => "+-",
    };
    match off / point.y * 100.0 {
        p if p < 0.95 => format!("{sign}{p:.1} %"),
        p => format!("{sign}{p:.0} %"),
    }
}

fn padded(text: &str, width: usize, right: bool) -> String {
    let gap = " ".repeat(width.saturating_sub(text.width()));
    if right {
        gap + text
    } else {
        text.to_owned() + &gap
    }
}

fn shortened(text: &str, width: usize, glyphs: Glyphs) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let sign = match glyphs {
        Glyphs::Unicode => "…",
        Glyphs::Ascii => "..",
    };
    let mut kept = String::new();
    for c in text.chars() {
        if (kept.clone() + c.encode_utf8(&mut [0; 4]) + sign).width() > width {
            break;
        }
        kept.push(c);
    }
    kept + sign
}

fn paragraph(text: &mut String, words: &str, width: usize) {
    for line in wrapped_columns(&printable(words), width) {
        *text += &line;
        text.push('\n');
    }
}

/// The text in ASCII, with what has no likeness there as question marks.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\u{b5}' => 'u',
            '\u{2013}' | '\u{2014}' | '\u{2212}' => '-',
            '\u{d7}' => 'x',
            c if c.is_ascii() => c,
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_locale_decides_on_characters() {
        assert_eq!(Glyphs::of("en_GB.UTF-8"), Glyphs::Unicode);
        assert_eq!(Glyphs::of("C.utf8"), Glyphs::Unicode);
        assert_eq!(Glyphs::of("C"), Glyphs::Ascii);
        assert_eq!(Glyphs::of(""), Glyphs::Ascii);
    }

    #[test]
    fn what_is_more_than_nothing_can_be_seen() {
        assert_eq!(bar(0.0, 10, Glyphs::Unicode), "");
        assert_eq!(bar(1e-9, 10, Glyphs::Unicode), "▏");
        assert_eq!(bar(0.55, 10, Glyphs::Unicode), "█████▌");
        assert_eq!(bar(1e-9, 10, Glyphs::Ascii), "#");
        assert_eq!(bar(2.0, 3, Glyphs::Ascii), "###");
    }
}

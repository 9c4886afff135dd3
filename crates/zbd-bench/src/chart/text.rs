//! How wide a text is, and where it may be broken.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// How wide a text is at most, in pixels, in whatever sans-serif font is at hand.
///
/// The widths are those of DejaVu Sans, the widest of those that are common, rounded up.
pub(super) fn width(text: &str, size: f64) -> f64 {
    text.chars().map(advance).sum::<f64>() * size
}

fn advance(c: char) -> f64 {
    match c {
        'i' | 'j' | 'l' | 'I' | '|' | '.' | ',' | ':' | ';' | '\'' | ' ' => 0.34,
        'f' | 'r' | 't' | '(' | ')' | '[' | ']' | '/' | '\\' | '-' | '"' => 0.43,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '\u{2026}' | '\u{2014}' => 1.0,
        'A'..='Z' | '+' | '=' | '<' | '>' | '#' | '~' | '_' => 0.82,
        c if c.is_ascii() => 0.64,
        // Letters of other scripts may be as wide as they are high.
        c if UnicodeWidthChar::width(c).unwrap_or(0) > 1 => 1.05,
        _ => 0.82,
    }
}

/// Breaks a text into lines that are no longer than `room`, as `measure` has it. What is longer
/// without a space is broken anywhere.
pub(super) fn wrap(text: &str, room: f64, measure: impl Fn(&str) -> f64) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let longer = if line.is_empty() {
            word.to_owned()
        } else {
            format!("{line} {word}")
        };
        if measure(&longer) <= room {
            line = longer;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for c in word.chars() {
            line.push(c);
            if line.len() > c.len_utf8() && measure(&line) > room {
                line.pop();
                lines.push(std::mem::take(&mut line));
                line.push(c);
            }
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Breaks a text into lines that are no wider than this in a picture.
pub(crate) fn wrapped(text: &str, room: f64, size: f64) -> Vec<String> {
    wrap(text, room, |line| width(line, size))
}

/// Breaks a text into lines of no more than this many columns of a terminal.
pub(crate) fn wrapped_columns(text: &str, columns: usize) -> Vec<String> {
    wrap(text, columns as f64, |line| {
        UnicodeWidthStr::width(line) as f64
    })
}

/// The text without characters that XML and terminals do not take.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\r' => ' ',
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_long_words_anywhere() {
        let columns = |text: &str| text.chars().count() as f64;
        assert_eq!(wrap("one two three", 7.0, columns), ["one two", "three"]);
        assert_eq!(
            wrap("abcdefgh ij", 3.0, columns),
            ["abc", "def", "gh", "ij"]
        );
        assert_eq!(wrap("äöü", 0.0, columns), ["ä", "ö", "ü"]);
        assert_eq!(wrap("  ", 5.0, columns), [""; 0]);
    }

    #[test]
    fn control_characters_do_not_get_through() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\u{fffd}[2Jb c");
    }
}

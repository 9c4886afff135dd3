//! Pictures that follow one another.

use std::io::{self, ErrorKind, IsTerminal, Write};

use anstream::adapter::strip_str;
use unicode_width::UnicodeWidthStr;

use super::for_stdout;
use crate::failure::Failure;

/// Up to the line that is this many lines higher, to its beginning.
fn up(lines: usize) -> String {
    format!("\x1b[{lines}F")
}

/// The rest of this line, and everything below.
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";
/// Everything, and back to the beginning.
const CLEAR_ALL: &str = "\x1b[2J\x1b[H";

/// Shows pictures: each in the place of the one before on a terminal, else below it.
///
/// A terminal needs no care afterwards, however this ends: the cursor stays visible below the
/// picture, and no other screen is shown.
#[derive(Debug)]
pub(crate) struct Frames {
    terminal: bool,
    /// The size of the terminal and the height of the last picture.
    last: Option<((usize, usize), usize)>,
}

impl Frames {
    pub(crate) fn new() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            terminal: io::stdout().is_terminal() && !dumb,
            last: None,
        }
    }

    /// Shows a picture. Says whether anybody reads it.
    pub(crate) fn show(&mut self, picture: &str, size: (usize, usize)) -> Result<bool, Failure> {
        let text = self.place(&for_stdout(picture), size);
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::io(format!("cannot write the result: {error}"))),
        }
    }

    /// The picture, and what puts it where it belongs.
    fn place(&mut self, picture: &str, size: (usize, usize)) -> String {
        // What does not fit in a line takes several.
        let columns = size.0.max(1);
        let rows = |line: &str| strip_str(line).to_string().width().div_ceil(columns).max(1);
        let height = picture.lines().map(rows).sum();
        let last = self.last.replace((size, height));
        if !self.terminal {
            let gap = if last.is_some() { "\n" } else { "" };
            return format!("{gap}{picture}");
        }
        let begin = match last {
            None => String::new(),
            // Lines that were broken anew are not where they were.
            Some((before, _)) if before != size => CLEAR_ALL.to_owned(),
            Some((_, lines)) => up(lines),
        };
        let lines = picture.lines().map(|line| format!("{line}{CLEAR_LINE}\n"));
        begin + &lines.collect::<String>() + CLEAR_BELOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_takes_the_place_of_the_one_before_on_a_terminal() {
        let mut frames = Frames {
            terminal: true,
            last: None,
        };
        assert_eq!(frames.place("a\nb\n", (80, 24)), "a\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(frames.place("c\n", (80, 24)), "\x1b[2Fc\x1b[K\n\x1b[J");
        assert_eq!(
            frames.place("d\n", (70, 24)),
            "\x1b[2J\x1b[Hd\x1b[K\n\x1b[J"
        );
    }

    #[test]
    fn lines_that_a_terminal_breaks_count_as_often() {
        let mut frames = Frames {
            terminal: true,
            last: None,
        };
        frames.place("\x1b[31mlong\x1b[0m\n\nred\n", (3, 24));
        assert!(frames.place("a\n", (3, 24)).starts_with("\x1b[4F"));
    }

    #[test]
    fn pictures_follow_one_another_in_a_file() {
        let mut frames = Frames {
            terminal: false,
            last: None,
        };
        assert_eq!(frames.place("a\n", (80, 24)), "a\n");
        assert_eq!(frames.place("b\n", (80, 24)), "\nb\n");
    }
}

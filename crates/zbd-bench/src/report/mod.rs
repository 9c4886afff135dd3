//! What the tool prints.

pub(crate) mod check;
mod colour;
pub(crate) mod compare;
pub(crate) mod device;
pub(crate) mod figures;
pub(crate) mod fio;
mod frames;
pub(crate) mod functions;
pub(crate) mod json;
pub(crate) mod machine;
pub(crate) mod man;
pub(crate) mod sweep;
pub(crate) mod text;
pub(crate) mod verify;
pub(crate) mod warnings;
pub(crate) mod zoneops;
pub(crate) mod zones;

pub(crate) use colour::for_stdout;
pub(crate) use frames::Frames;

use std::{
    fs::File,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use crate::failure::Failure;

/// The name of the format of everything that is printed as JSON.
pub(crate) const SCHEMA: &str = "zbd-bench/1";

/// The width of a terminal that everybody has.
pub(crate) const WIDTH: u16 = 80;

/// Writes to standard output. That nobody reads it (any more) is no failure.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::io(format!("cannot write the result: {error}")))
        }
        _ => Ok(()),
    }
}

/// A value as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value)
        .map(|text| text + "\n")
        .map_err(|error| Failure::io(format!("cannot write the result: {error}")))
}

/// Writes a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(&json(value)?)
}

/// Where a result goes.
#[derive(Debug)]
pub(crate) enum Output {
    /// To standard output.
    Standard,
    /// To a file, which is there and empty until the result is known.
    File(PathBuf, File),
}

impl Output {
    /// To a file that can be written, if one is named: that it cannot be is found before anything
    /// is measured.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else {
            return Ok(Self::Standard);
        };
        File::create(path)
            .map(|file| Self::File(path.to_owned(), file))
            .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))
    }

    /// Writes the result.
    pub(crate) fn write(self, text: &str) -> Result<(), Failure> {
        match self {
            Self::Standard => print(text),
            Self::File(path, mut file) => file
                .write_all(text.as_bytes())
                .map_err(|error| Failure::io(format!("cannot write {}: {error}", path.display()))),
        }
    }
}

/// Says why the tool fails, on one line of standard error.
pub(crate) fn complain(failure: &Failure) {
    let style = colour::FAILURE;
    // Where nobody listens there is nobody to tell.
    let _ = writeln!(
        anstream::stderr(),
        "{style}zbd-bench:{style:#} {}",
        failure.message()
    );
}

/// Text that is broken to fit a terminal.
pub(crate) fn wrapped(text: &str) -> String {
    textwrap::fill(text, usize::from(WIDTH)) + "\n"
}

/// A table without borders whose columns stand two spaces apart; the first `left` columns begin
/// at the left, the others end at the right.
pub(crate) fn table(left: usize, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH);
    for row in rows {
        table.add_row(row);
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        column.set_padding((2, 0));
        if i >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
        .lines()
        .map(|line| line.trim_end().to_owned() + "\n")
        .collect()
}

//! What the tool prints.

pub(crate) mod device;
pub(crate) mod figures;
pub(crate) mod fio;
pub(crate) mod functions;
pub(crate) mod json;
pub(crate) mod text;
pub(crate) mod warnings;
pub(crate) mod zones;

use std::io::{self, ErrorKind, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use crate::failure::Failure;

/// The name of the format of everything that is printed as JSON.
pub(crate) const SCHEMA: &str = "zbd-bench/1";

/// The width of a terminal that everybody has.
const WIDTH: u16 = 80;

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

/// Writes a value as JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::io(format!("cannot write the result: {error}")))?;
    print(&(text + "\n"))
}

/// Says why the tool fails, on one line of standard error.
pub(crate) fn complain(failure: &Failure) {
    // Where nobody listens there is nobody to tell.
    let _ = writeln!(io::stderr(), "zbd-bench: {}", failure.message());
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

//! Manual pages, made from the command line's definition.

use std::io;

use clap::Command;
use clap_mangen::Man;
use roff::{Roff, bold, roman};

/// What begins the examples in the help of a command.
const EXAMPLES: &str = "Examples:\n";

/// What begins the statuses in the help of the tool.
const STATUS: &str = "Exit status: ";

/// Where a page is looked for.
pub(crate) fn file_name(command: &Command) -> String {
    Man::new(command.clone()).get_filename()
}

/// The page of a command.
pub(crate) fn page(command: &Command) -> String {
    let mut page = Vec::new();
    // Memory takes whatever is written to it.
    let _ = sections(command, &mut page);
    String::from_utf8_lossy(&page).into_owned()
}

fn sections(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let man = Man::new(command.clone())
        .manual("zbd-bench")
        .source(concat!("zbd-bench ", env!("CARGO_PKG_VERSION")));
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let help = command.get_after_help().map(ToString::to_string);
    let mut roff = Roff::new();
    for part in help.unwrap_or_default().split("\n\n") {
        if let Some(examples) = part.strip_prefix(EXAMPLES) {
            roff.control("SH", ["EXAMPLES"]);
            for line in examples.lines() {
                example(&mut roff, line.trim());
            }
        } else if let Some(statuses) = part.strip_prefix(STATUS) {
            roff.control("SH", ["EXIT STATUS"]);
            for status in statuses.split("; ") {
                let (number, meaning) = status.split_once(' ').unwrap_or((status, ""));
                roff.control("TP", []);
                roff.text([bold(number)]);
                roff.text([roman(meaning)]);
            }
        } else if !part.is_empty() {
            roff.control("SH", ["NOTES"]);
            roff.text([roman(part)]);
        }
    }
    roff.to_writer(page)
}

/// A command, and below it what it is good for.
fn example(roff: &mut Roff, line: &str) {
    let (command, meaning) = line.split_once("  ").unwrap_or((line, ""));
    roff.control("TP", []);
    roff.text([bold(command)]);
    roff.text([roman(meaning.trim())]);
}

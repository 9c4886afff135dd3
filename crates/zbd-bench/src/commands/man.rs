//! `zbd-bench man`

use std::{fs, io, path::Path};

use clap::CommandFactory;

use crate::{
    cli::{Cli, ManArgs},
    failure::Failure,
    report::{self, man},
};

/// Prints the manual page of the tool, or writes those of all commands.
pub(crate) fn man(args: &ManArgs) -> Result<(), Failure> {
    let mut tool = Cli::command().disable_help_subcommand(true);
    // This gives commands the names of those that they belong to.
    tool.build();
    match &args.dir {
        None => report::print(&man::page(&tool)),
        Some(dir) => fs::create_dir_all(dir)
            .and_then(|()| write(&tool, dir))
            .map_err(|error| Failure::io(format!("cannot write to {}: {error}", dir.display()))),
    }
}

/// Writes the pages of a command and of those below it.
fn write(command: &clap::Command, dir: &Path) -> io::Result<()> {
    fs::write(dir.join(man::file_name(command)), man::page(command))?;
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    shown.into_iter().try_for_each(|sub| write(sub, dir))
}

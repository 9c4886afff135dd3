//! `zbd-bench completions`

use clap::CommandFactory;

use crate::{
    cli::{Cli, CompletionsArgs},
    failure::Failure,
    report,
};

/// Prints a script that lets a shell complete the tool's arguments.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "zbd-bench", &mut script);
    report::print(&String::from_utf8_lossy(&script))
}

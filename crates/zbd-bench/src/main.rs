//! Measures zoned virtio-blk devices and manages their zones.
//!
//! Without arguments it appends to the device that is built in, which takes a few seconds and no
//! privileges; `zbd-bench --help` shows the rest.
//!
//! ```sh
//! zbd-bench                                            # appends to the software device
//! zbd-bench info /dev/vda                              # what is known of a device
//! zbd-bench zones report emu:store=./disk.zbd
//! zbd-bench run --device pci:0000:00:01.0 --depth 32 --format json
//! ```
//!
//! `cli` is the command line as it is written, `job` a measurement from its plan to its outcome,
//! `report` what is printed, `failure` what makes the exit status.

mod cli;
mod commands;
mod failure;
mod job;
mod report;

use std::{env, process::ExitCode};

use clap::Parser;

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    report::warnings::show();
    let result = match Cli::try_parse() {
        Ok(cli) => dispatch(cli),
        Err(error) if error.use_stderr() => Err(Failure::from_command_line(&error)),
        Err(help) => report::print(&help.render().to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::complain(&failure);
            failure.exit().into()
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), Failure> {
    let bare = env::args_os().len() == 1;
    match cli.command {
        None => commands::run(&cli.run, bare),
        Some(Command::Run(args)) => commands::run(&args, false),
        Some(Command::Info(args)) => commands::info(&args),
        Some(Command::Zones(args)) => commands::zones(&args.action),
        Some(Command::List(args)) => commands::list(&args),
        Some(Command::Bind(args)) => commands::bind(&args),
        Some(Command::Unbind(args)) => commands::unbind(&args),
    }
}

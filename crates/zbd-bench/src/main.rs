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
//! `cli` is the command line as it is written, `commands` what each command does, `job` a measurement
//! from its plan to its outcome, `sweep` and `compare` many of them, `zoneops` what managing zones
//! costs, `verify` a verification, `report` what is printed, `chart` what is drawn of measurements,
//! `zone_map` what is drawn of a disk, `failure` what makes the exit status.

mod chart;
mod cli;
mod commands;
mod compare;
mod failure;
mod job;
mod report;
mod spread;
mod sweep;
mod verify;
mod zone_map;
mod zoneops;

use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    report::warnings::show();
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches))
    });
    let result = match parsed {
        Ok((cli, matches)) => dispatch(cli, &matches),
        Err(error) if error.use_stderr() => Err(Failure::from_command_line(&error)),
        Err(help) => report::print(&report::for_stdout(&help.render().ansi().to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report::complain(&failure);
            failure.exit().into()
        }
    }
}

fn dispatch(cli: Cli, matches: &ArgMatches) -> Result<(), Failure> {
    let given = matches.subcommand().map_or(matches, |(_, given)| given);
    match cli.command {
        None => commands::run(&cli.run, given),
        Some(Command::Run(args)) => commands::run(&args, given),
        Some(Command::Sweep(args)) => commands::sweep(&args),
        Some(Command::Compare(args)) => commands::compare(&args),
        Some(Command::Verify(args)) => commands::verify(&args),
        Some(Command::Check(args)) => commands::check(&args),
        Some(Command::Info(args)) => commands::info(&args),
        Some(Command::Zones(args)) => commands::zones(&args.action),
        Some(Command::Zoneops(args)) => commands::zoneops(&args),
        Some(Command::List(args)) => commands::list(&args),
        Some(Command::Bind(args)) => commands::bind(&args),
        Some(Command::Unbind(args)) => commands::unbind(&args),
        Some(Command::Completions(args)) => commands::completions(&args),
        Some(Command::Man(args)) => commands::man(&args),
    }
}

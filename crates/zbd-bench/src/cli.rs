//! The command line as it is written, before anything is made of it.

mod binding;
mod check;
mod compare;
mod completions;
mod examples;
mod info;
mod job;
pub(crate) mod job_file;
mod list;
mod man;
mod run;
mod sweep;
mod values;
mod verify;
mod zoneops;
mod zones;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};

pub(crate) use binding::{BindArgs, UnbindArgs};
pub(crate) use check::{CheckArgs, CheckFormat};
pub(crate) use compare::CompareArgs;
pub(crate) use completions::CompletionsArgs;
pub(crate) use info::InfoArgs;
pub(crate) use job::{Api, JobArgs, Op, ResetPolicy, Wait};
pub(crate) use list::ListArgs;
pub(crate) use man::ManArgs;
pub(crate) use run::{RunArgs, RunFormat};
pub(crate) use sweep::{SweepArgs, SweepFormat};
pub(crate) use verify::VerifyArgs;
pub(crate) use zoneops::{ZoneOp, ZoneopsArgs};
pub(crate) use zones::{
    MapArgs, NamedZonesArgs, ResetAllArgs, SomeZonesArgs, ZonesArgs, ZonesCommand, ZonesFormat,
};

const DEVICE_HELP: &str = "emu:, emu:key=value,…, pci:0000:00:01.0 or /dev/…";

/// Measures zoned virtio-blk devices and manages their zones.
///
/// Without a command it runs a benchmark, and without arguments one on the device that is built
/// in, in a few seconds and without privileges.
#[derive(Debug, Parser)]
#[command(name = "zbd-bench", version, args_conflicts_with_subcommands = true)]
#[command(max_term_width = 80, after_help = examples::TOOL)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a benchmark (the default command)
    #[command(after_help = examples::RUN)]
    Run(RunArgs),
    /// Measure over depths, zones, block sizes and queues, as a table and a chart
    #[command(after_help = examples::SWEEP)]
    Sweep(Box<SweepArgs>),
    /// Run the same job on several devices in turn, and say what can be concluded
    #[command(after_help = examples::COMPARE)]
    Compare(Box<CompareArgs>),
    /// Write to a device, read everything back and compare it with what was reported
    Verify(VerifyArgs),
    /// Look whether a device conforms to VIRTIO 1.3, requirement by requirement
    Check(CheckArgs),
    /// Show what is known of a device: limits, queues, features
    #[command(after_help = examples::INFO)]
    Info(InfoArgs),
    /// Report and manage the zones of a device
    #[command(after_help = examples::ZONES)]
    Zones(ZonesArgs),
    /// Measure what zone management costs, and what it does to appends beside it
    Zoneops(ZoneopsArgs),
    /// List the virtio-blk functions of this machine
    #[command(after_help = examples::LIST)]
    List(ListArgs),
    /// Hand a virtio-blk function to vfio-pci, so that it can be opened
    #[command(after_help = examples::BIND)]
    Bind(BindArgs),
    /// Hand a virtio-blk function back to the kernel's own driver
    #[command(after_help = examples::UNBIND)]
    Unbind(UnbindArgs),
    /// Print a script that lets a shell complete the arguments of this tool
    #[command(after_help = examples::COMPLETIONS)]
    Completions(CompletionsArgs),
    /// Print the manual page of this tool, or write those of all its commands
    #[command(after_help = examples::MAN)]
    Man(ManArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlainFormat {
    Text,
    Json,
}

/// The command that shows the help which is nearest to what was typed.
pub(crate) fn help() -> String {
    help_for(std::env::args().skip(1))
}

fn help_for(arguments: impl Iterator<Item = String>) -> String {
    let mut command = Cli::command();
    let mut words = vec![command.get_name().to_owned()];
    for argument in arguments {
        let Some(next) = command.find_subcommand(&argument).cloned() else {
            break;
        };
        command = next;
        words.push(argument);
    }
    words.push("--help".to_owned());
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_nearest_help_is_that_of_the_command() {
        let help = |line: &str| help_for(line.split_whitespace().map(str::to_owned));
        assert_eq!(help(""), "zbd-bench --help");
        assert_eq!(help("--depth 3"), "zbd-bench --help");
        assert_eq!(help("info"), "zbd-bench info --help");
        assert_eq!(help("zones open emu:"), "zbd-bench zones open --help");
    }

    /// The command and all below it, each with how it is typed.
    fn all(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
        let path = format!("{path} {}", command.get_name());
        let mut commands = vec![(path.clone(), command.clone())];
        for sub in command.get_subcommands() {
            commands.extend(all(sub, &path));
        }
        commands
    }

    /// The commands that the help of one shows.
    fn examples(command: &clap::Command) -> Vec<String> {
        let help = command.get_after_help().map(ToString::to_string);
        help.unwrap_or_default()
            .lines()
            .map(|line| line.trim_start().trim_start_matches("sudo "))
            .filter(|line| line.starts_with("zbd-bench"))
            .map(|line| line.split("  ").next().unwrap_or(line))
            .map(|line| line.split(" > ").next().unwrap_or(line).to_owned())
            .collect()
    }

    #[test]
    fn the_help_of_every_command_has_examples_that_can_be_typed() {
        for (path, command) in all(&Cli::command(), "") {
            let shown = command.get_after_help().map(ToString::to_string);
            let mut lines = shown.iter().flat_map(|help| help.lines());
            let whole = lines.all(|l| l.chars().count() <= 80 || !l.contains("zbd-bench"));
            assert!(whole, "{path}: an example is too long for a line");
            let examples = examples(&command);
            assert!((2..=6).contains(&examples.len()), "{path}: {examples:?}");
            for example in examples {
                assert!(example.starts_with(path.trim_start()), "{path}: {example}");
                if let Err(error) = Cli::try_parse_from(example.split_whitespace()) {
                    panic!("{example}: {error}");
                }
            }
        }
    }

    #[test]
    fn all_help_fits_a_terminal_of_80_columns() {
        for (path, command) in all(&Cli::command(), "") {
            let command = command.max_term_width(80);
            for help in [
                command.clone().render_help(),
                command.clone().render_long_help(),
            ] {
                for line in help.to_string().lines() {
                    assert!(line.chars().count() <= 80, "{path}: {line}");
                }
            }
        }
    }
}

//! Files of jobs, in TOML.
//!
//! ```toml
//! device = "emu:"       # for all jobs
//! runtime = "2s"
//!
//! [[job]]
//! name = "appends"
//! depth = 128
//!
//! [[job]]
//! rw = "randread"       # fio's names are known here, too
//! ```
//!
//! A file says nothing that the command line could not: each job is put together as a command line
//! and read as one.

use std::{collections::BTreeMap, fs, path::Path};

use clap::{ArgMatches, Command, CommandFactory, Parser, parser::ValueSource};
use toml::{Table, Value};

use super::{Cli, RunArgs};
use crate::failure::Failure;

/// Options that are about all jobs together.
const NOT_OF_A_JOB: [&str; 4] = ["job_file", "format", "output", "help"];
/// Of each pair, who gives the one means not the other.
const EITHER: [(&str, &str); 3] = [
    ("runtime", "count"),
    ("time_based", "count"),
    ("rate_iops", "batch"),
];

/// A job and what it is called.
#[derive(Debug)]
pub(crate) struct NamedJob {
    pub(crate) name: String,
    pub(crate) args: RunArgs,
}

/// Options by their IDs; what is given later counts.
#[derive(Clone, Debug, Default)]
struct Options(BTreeMap<String, String>);

impl Options {
    fn set(&mut self, id: &str, value: String) {
        for (one, other) in EITHER {
            if id == one {
                self.0.remove(other);
            } else if id == other {
                self.0.remove(one);
            }
        }
        self.0.insert(id.to_owned(), value);
    }

    fn extend(&mut self, later: &Self) {
        for (id, value) in &later.0 {
            self.set(id, value.clone());
        }
    }

    /// The same as a command line.
    fn command_line(&self, command: &Command) -> Vec<String> {
        let mut words = vec!["zbd-bench".to_owned(), "run".to_owned()];
        for (id, value) in &self.0 {
            let Some(arg) = command.get_arguments().find(|arg| arg.get_id() == id) else {
                continue;
            };
            let long = arg.get_long().unwrap_or(id);
            if arg.get_action().takes_values() {
                words.push(format!("--{long}={value}"));
            } else if value == "true" {
                words.push(format!("--{long}"));
            }
        }
        words
    }
}

/// Reads the jobs of a file; `given` is the command line, which counts more.
pub(crate) fn read(path: &Path, given: &ArgMatches) -> Result<Vec<NamedJob>, Failure> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    parse(&text, given).map_err(|message| Failure::usage(format!("{shown}: {message}")))
}

fn parse(text: &str, given: &ArgMatches) -> Result<Vec<NamedJob>, String> {
    let mut file: Table = text
        .parse()
        .map_err(|error: toml::de::Error| error.message().to_owned())?;
    let cli = Cli::command();
    let command = cli
        .find_subcommand("run")
        .ok_or("this build has no command run")?;
    let jobs = match file.remove("job") {
        Some(Value::Array(jobs)) if !jobs.is_empty() => jobs,
        _ => return Err("there are no jobs; begin each with [[job]]".to_owned()),
    };
    let all = options(&file, command)?;
    let given = given_options(given, command);
    let mut named = Vec::new();
    for (i, job) in jobs.into_iter().enumerate() {
        let Value::Table(mut job) = job else {
            return Err("job is no table; begin each job with [[job]]".to_owned());
        };
        let name = match job.remove("name") {
            Some(Value::String(name)) => name,
            None => format!("job {}", i + 1),
            Some(_) => return Err("name: give a text".to_owned()),
        };
        let in_job = |message: String| format!("{name}: {message}");
        let mut options_of_job = all.clone();
        options_of_job.extend(&options(&job, command).map_err(in_job)?);
        options_of_job.extend(&given);
        let cli = Cli::try_parse_from(options_of_job.command_line(command))
            .map_err(|error| in_job(Failure::from_command_line(&error).message().to_owned()))?;
        match cli.command {
            Some(super::Command::Run(args)) => named.push(NamedJob { name, args }),
            _ => return Err(in_job("is no job".to_owned())),
        }
    }
    Ok(named)
}

/// What a table says.
fn options(table: &Table, command: &Command) -> Result<Options, String> {
    let mut options = Options::default();
    for (key, value) in table {
        let id = id(key, command)
            .ok_or_else(|| format!("{key}: a job has no such option; see zbd-bench run --help"))?;
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Boolean(switch) => switch.to_string(),
            _ => return Err(format!("{key}: give a text, a number, true or false")),
        };
        options.set(&id, value);
    }
    Ok(options)
}

/// The ID of the option that is called this, with dashes or underscores, or as in fio.
fn id(key: &str, command: &Command) -> Option<String> {
    let key = key.replace('_', "-");
    let is = |name: &str| name.replace('_', "-") == key;
    let found = command.get_arguments().find(|arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        arg.get_long().is_some_and(is) || aliases.into_iter().any(is)
    })?;
    let id = found.get_id().as_str();
    (!NOT_OF_A_JOB.contains(&id)).then(|| id.to_owned())
}

/// What the command line says itself.
fn given_options(given: &ArgMatches, command: &Command) -> Options {
    let mut options = Options::default();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        let is_given = given.try_contains_id(id).unwrap_or(false)
            && given.value_source(id) == Some(ValueSource::CommandLine);
        if !is_given || NOT_OF_A_JOB.contains(&id) {
            continue;
        }
        let value = match given.try_get_raw(id) {
            Ok(Some(mut raw)) => raw.next().map(|raw| raw.to_string_lossy().into_owned()),
            _ => None,
        };
        options.set(id, value.unwrap_or_else(|| "true".to_owned()));
    }
    options
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::Op;

    fn jobs(text: &str, given: &[&str]) -> Result<Vec<NamedJob>, String> {
        let line = ["zbd-bench"].iter().chain(given);
        parse(text, &Cli::command().get_matches_from(line))
    }

    #[test]
    fn jobs_have_what_is_said_for_all_and_what_they_say_themselves() {
        let text = "device = 'emu:zones=8'\ncount = 100\n\n[[job]]\nname = 'first'\nrw = 'write'\n\
                    destroy = true\n[[job]]\nruntime = 2\nblock_size = '8k'\n";
        let jobs = jobs(text, &[]).unwrap();
        assert_eq!([&jobs[0].name, &jobs[1].name], ["first", "job 2"]);
        assert!(jobs.iter().all(|job| job.args.device == "emu:zones=8"));
        let (first, second) = (&jobs[0].args.job, &jobs[1].args.job);
        assert_eq!((first.op, first.count), (Op::Write, Some(100)));
        assert!(first.destroy && !second.destroy);
        assert_eq!(second.block_size, 8192);
        assert_eq!(second.runtime, Some(Duration::from_secs(2)));
        assert_eq!(second.count, None, "a run time replaces a count");
    }

    #[test]
    fn the_command_line_counts_more() {
        let given = ["--depth", "7", "--destroy", "--format", "json"];
        let jobs = jobs("depth = 1\n[[job]]\niodepth = 2\n", &given).unwrap();
        assert_eq!(jobs[0].args.job.depth, 7);
        assert!(jobs[0].args.job.destroy);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("", "[[job]]"),
            ("job = 3", "[[job]]"),
            ("[[job]]\nfrobnicate = 1", "frobnicate"),
            ("[[job]]\nformat = 'json'", "format"),
            (
                "[[job]]\nname = 'x'\ndepth = 'many'",
                "x: invalid value 'many'",
            ),
            ("[[job]]\ndepth = [1]", "depth"),
            ("depth = ", "expected"),
            ("[[job]]\nname = 3", "name"),
        ] {
            let message = jobs(text, &[]).unwrap_err();
            assert!(message.contains(word), "{text}: {message}");
        }
    }
}

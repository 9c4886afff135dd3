//! `zbd-bench run`

use std::env;

use clap::ArgMatches;

use crate::{
    cli::{RunArgs, RunFormat, job_file},
    failure::Failure,
    job::{self, Finished, Shown, stop::Stop},
    report::{self, Output},
};

/// Runs a benchmark, or those of a file; `given` is the command line.
pub(crate) fn run(args: &RunArgs, given: &ArgMatches) -> Result<(), Failure> {
    let output = Output::open(args.output.as_deref())?;
    let stop = Stop::default();
    let Some(file) = &args.job_file else {
        let bare = env::args_os().len() == 1;
        let finished = job::run(&args.device, &args.job, &stop, Shown::Here)?;
        output.write(&match args.format {
            RunFormat::Text => report::text::run(&finished, bare),
            RunFormat::Json => report::json::run(&finished)?,
            RunFormat::Fio => report::fio::run(&[("zbd-bench", &finished)])?,
        })?;
        return finished.verdict();
    };
    let mut all: Vec<(String, Finished)> = Vec::new();
    let mut result = Ok(());
    for named in job_file::read(file, given)? {
        let finished = match job::run(&named.args.device, &named.args.job, &stop, Shown::Here) {
            Ok(finished) => finished,
            // What is known of the others is printed all the same.
            Err(failure) if all.is_empty() => return Err(failure.of_job(&named.name)),
            Err(failure) => {
                result = Err(failure.of_job(&named.name));
                break;
            }
        };
        let (is_over, verdict) = (stop.is_interrupted(), finished.verdict());
        all.push((named.name.clone(), finished));
        if let Err(failure) = verdict {
            result = Err(failure.of_job(&named.name));
            break;
        }
        if is_over {
            break;
        }
    }
    output.write(&match args.format {
        RunFormat::Text => report::text::jobs(&all),
        RunFormat::Json => report::json::jobs(&all)?,
        RunFormat::Fio => {
            let jobs: Vec<_> = all.iter().map(|(name, job)| (name.as_str(), job)).collect();
            report::fio::run(&jobs)?
        }
    })?;
    result
}

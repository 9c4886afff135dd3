//! `zbd-bench run`

use crate::{
    cli::{RunArgs, RunFormat},
    failure::Failure,
    job::{self, Finished},
    report,
};

/// Runs a benchmark; `bare` if it was asked for without a single argument.
pub(crate) fn run(args: &RunArgs, bare: bool) -> Result<(), Failure> {
    let finished = job::run(args)?;
    match args.format {
        RunFormat::Text => report::text::run(&finished, bare),
        RunFormat::Json => report::json::run(&finished),
        RunFormat::Fio => report::fio::run(&finished),
    }?;
    verdict(&finished)
}

fn verdict(finished: &Finished) -> Result<(), Failure> {
    let errors = &finished.measured.errors;
    match &errors.first {
        None => Ok(()),
        Some(first) => {
            let total = errors.total();
            let requests = if total == 1 { "request" } else { "requests" };
            Err(Failure::io(format!(
                "{total} {requests} failed and the job was ended, the first: {first}"
            )))
        }
    }
}

//! `zbd-bench compare`

use crate::{
    cli::CompareArgs,
    compare,
    failure::Failure,
    report::{self, Output},
};

/// Runs the same job on several devices in turn.
pub(crate) fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let output = Output::open(args.output.as_deref())?;
    let compared = compare::run(args, super::look)?;
    output.write(&report::compare::compare(&compared, args.format)?)?;
    match compared.failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

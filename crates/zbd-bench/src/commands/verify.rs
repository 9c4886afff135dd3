//! `zbd-bench verify`

use crate::{
    cli::{PlainFormat, VerifyArgs},
    failure::Failure,
    report,
    verify::{self, Verified},
};

/// Writes to a device, reads everything back and compares.
pub(crate) fn verify(args: &VerifyArgs) -> Result<(), Failure> {
    let verified = verify::run(args)?;
    match args.format {
        PlainFormat::Text => report::verify::text(&verified),
        PlainFormat::Json => report::verify::json(&verified),
    }?;
    verdict(&verified)
}

fn verdict(verified: &Verified) -> Result<(), Failure> {
    let Some(first) = verified.findings.first() else {
        return Ok(());
    };
    let more = match verified.findings_total {
        1 => String::new(),
        total => format!("{total} findings, the first: "),
    };
    Err(Failure::io(format!(
        "verification failed in round {}: {more}{}",
        verified.rounds, first.text
    )))
}

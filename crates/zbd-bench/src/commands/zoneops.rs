//! `zbd-bench zoneops`

use crate::{
    cli::{PlainFormat, ZoneopsArgs},
    failure::Failure,
    report,
    zoneops::{self, Finished, plan::Plan},
};

/// Measures what zone management costs.
pub(crate) fn zoneops(args: &ZoneopsArgs) -> Result<(), Failure> {
    let plan = Plan::resolve(args)?;
    let finished = zoneops::run(plan, &*super::look(&args.device)?)?;
    match args.format {
        PlainFormat::Text => report::zoneops::text::zoneops(&finished),
        PlainFormat::Json => report::zoneops::json::zoneops(&finished),
    }?;
    verdict(finished)
}

fn verdict(finished: Finished) -> Result<(), Failure> {
    if let Some(trouble) = finished.trouble {
        return Err(Failure::doing(&trouble.what, &trouble.error));
    }
    match finished.not_emptied {
        None => Ok(()),
        Some(why) => Err(Failure::io(format!(
            "zones that were used are not empty: {why}"
        ))),
    }
}

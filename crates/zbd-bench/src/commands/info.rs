//! `zbd-bench info`

use crate::{cli::InfoArgs, failure::Failure, report};

/// Shows what is known of a device.
pub(crate) fn info(args: &InfoArgs) -> Result<(), Failure> {
    let (queue, _) = super::open(&args.device)?;
    let info = queue.info().clone();
    drop(queue);
    report::device::info(&info, args.format)
}

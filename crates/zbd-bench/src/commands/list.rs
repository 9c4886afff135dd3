//! `zbd-bench list`

use zbd_core::sysfs;

use crate::{
    cli::ListArgs,
    failure::{During, Failure},
    report,
};

/// Lists the virtio-blk functions of this machine.
pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let functions =
        sysfs::functions().map_err(|error| Failure::from_device(During::Opening, &error.into()))?;
    report::functions::functions(&functions, args.format)
}

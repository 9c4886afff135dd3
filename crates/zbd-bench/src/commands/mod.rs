//! One file a command.

mod binding;
mod check;
mod compare;
mod completions;
mod info;
mod list;
mod man;
mod run;
mod sweep;
mod verify;
mod zone_map;
mod zoneops;
mod zones;

pub(crate) use binding::{bind, unbind};
pub(crate) use check::check;
pub(crate) use compare::compare;
pub(crate) use completions::completions;
pub(crate) use info::info;
pub(crate) use list::list;
pub(crate) use man::man;
pub(crate) use run::run;
pub(crate) use sweep::sweep;
pub(crate) use verify::verify;
pub(crate) use zoneops::zoneops;
pub(crate) use zones::zones;

use std::sync::Arc;

use zbd_core::{DeviceInfo, DeviceSpec, IoQueue, OpenOptions};

use crate::failure::{During, Failure};

/// The DMA memory for commands that only look at a device or manage its zones.
const MEMORY_LEN: usize = 2 << 20;

/// What is known of the device, which is closed again.
fn look(device: &str) -> Result<Arc<DeviceInfo>, Failure> {
    let (queue, _) = open(device)?;
    Ok(Arc::clone(queue.info()))
}

/// Opens one queue of the device, and says whether its data may be destroyed without asking.
fn open(device: &str) -> Result<(IoQueue, bool), Failure> {
    let opening = |error| Failure::from_device(During::Opening, &error);
    let spec: DeviceSpec = device.parse().map_err(opening)?;
    let rings = match &spec {
        DeviceSpec::Emulated(config) => usize::from(config.queue_size) * 256,
        _ => 1024 * 256,
    };
    let options = OpenOptions {
        memory_len: MEMORY_LEN + rings,
        ..OpenOptions::default()
    };
    let queue = options.open(&spec).map_err(opening)?.pop();
    let queue = queue.ok_or_else(|| Failure::device(format!("{device} has no queues")))?;
    Ok((queue, matches!(spec, DeviceSpec::Emulated(_))))
}

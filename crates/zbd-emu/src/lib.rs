//! A zoned virtio-blk PCI function in software.
//!
//! [`EmulatedFunction`] implements the seam of `vfio-virtio` ([`PciFunction`]): configuration
//! space with capabilities, registers with their side effects, MSI-X, split and packed virtqueues, the zone
//! state machine and a store for the data. A driver cannot tell it from hardware, except that it
//! works anywhere and, unless its store is a file, forgets everything when it is dropped. It shares
//! nothing with the driver but that seam and the numbers of the specification, so that no
//! misreading of it cancels itself out.
//!
//! The device trusts its driver as little as a driver should trust its device. It reaches only
//! memory that was mapped, at addresses that are not those of this process; a malformed descriptor
//! chain or an address that is not mapped makes it set DEVICE_NEEDS_RESET and stop.
//!
//! What happens to a request:
//!
//! 1. The driver rings a doorbell. The device's thread wakes if it slept, or saw the available
//!    index already (`bell`, `runner`); a [`Stepper`] does the same in the caller's thread.
//! 2. `ring` takes requests, split or packed, and follows each to its buffers, which `chain` holds;
//!    `request` tells header, data and answer apart.
//! 3. `disk` asks `zone` whether the request is allowed, has `store` copy the data straight between
//!    the driver's memory and its own, and then moves the write pointer.
//! 4. The answer and a used element are written; what was used is published once a batch, and one
//!    interrupt is sent if the driver wants it.
//!
//! [`Control`] is a second pair of hands on the device, for tests: faults, failing zones, stalls, slow
//! resets, power cuts, changes of size, notices of the platform, counters.
//!
//! The device stands wherever a [`PciFunction`] does. In `zbd-core` it is the device string `emu:`;
//! by itself it is made of a configuration, and here asked what it is:
//!
//! ```
//! use std::sync::Arc;
//!
//! use vfio_virtio::Negotiation;
//! use zbd_emu::{EmulatedConfig, EmulatedFunction, ZoneState};
//!
//! let config: EmulatedConfig = "zones=16,zone-size=8m,max-open=4".parse()?;
//! let function = EmulatedFunction::new(&config)?;
//! let control = function.control();
//! let device = Negotiation::begin(Arc::new(function), 2)?; // 2 is a block device
//! let zone_sectors = device.read_config(|config| config.u32(0x48))?;
//! assert_eq!(zone_sectors, (8 << 20) / 512);
//!
//! // From behind: what a driver could not do.
//! control.fail_zone(3, ZoneState::ReadOnly)?;
//! assert_eq!(control.zone_state(3), Some(ZoneState::ReadOnly));
//! # Ok::<(), vfio_virtio::Error>(())
//! ```
//!
//! With `fault=` the device does wrong what it should do right, and says nothing of it: a tool that
//! verifies data has to find that. With `quirks=` it deviates from the specification: a tool that
//! looks for that has to find it.
//!
//! With `store=PATH` the device lives in a file, behind a volatile write cache that FLUSH empties
//! (`store/file`): what was flushed is there after the process was killed or the power was cut.
//!
//! [`PciFunction`]: vfio_virtio::PciFunction

mod bell;
mod chain;
mod config;
mod control;
mod device;
mod disk;
mod fault;
mod function;
mod interrupts;
mod memory;
mod pci;
mod request;
mod ring;
mod runner;
mod shared;
mod stepper;
mod store;
mod wire;
mod zone;

pub use config::{
    DataFault, DataFaultKind, EmulatedConfig, Quirk, Recurrence, RingFormat, StoreKind, Switch,
    ZoneModel,
};
pub use control::{Control, Counters};
pub use fault::Fault;
pub use function::EmulatedFunction;
pub use stepper::{Step, Stepper};
pub use store::StoreIo;
pub use zone::ZoneState;

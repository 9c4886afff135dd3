//! Zoned block devices for storage engines.
//!
//! Two doors lead to the same engine:
//!
//! - [`IoQueue`]: polled, owned by one thread, requests under tokens. What an engine with a loop of
//!   its own or a benchmark uses.
//! - [`ZonedDevice`]: async, shared by any number of tasks on any executor and driven by threads of
//!   its own ([`Lanes`]), or used and driven by one thread ([`Local`]).
//!
//! Both drive a virtio-blk device, either a real one through VFIO or the software one that
//! [`DeviceSpec`] calls `emu:`, or a block device of Linux through io_uring. Their heart is the zone
//! append: the device chooses the sector and says which it was, so that any number of appends to one
//! zone can be in flight. (On a block device of Linux it is [emulated](AppendSupport::Emulated).)
//!
//! On top of them, [`ZoneWriter`] keeps the order of what is written to one zone, and [`ZoneLog`] is a
//! log on several.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! use zbd_core::{ZoneId, ZonedDevice};
//!
//! let device = ZonedDevice::open("emu:")?;
//! let mut record = device.buffer(4096)?;
//! record.fill(7);
//! let at = device.append(ZoneId(3), record).await?.sector;
//! device.flush().await?;
//! let read = device.read(at, 4096).await?;
//! assert_eq!(read.to_vec(), [7; 4096]);
//! # Ok::<(), zbd_core::Error>(()) })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/guide.md` in the repository says which door and which wait policy to choose, what is durable
//! when, and what to do about each [`ErrorKind`].

mod cache;
mod device;
mod error;
mod event;
mod identity;
mod info;
mod io_queue;
mod kernel;
mod limits;
pub mod log;
mod registration;
mod request;
mod rings;
mod spec;
mod units;
pub mod virtio;
mod wait;
mod writer;
mod zone;

pub use cache::WriteCache;
pub use device::{
    Appended, DeviceEvents, Driver, Lanes, Local, ZoneHandle, ZoneReports, ZonedDevice,
    on_thread_park, on_thread_park_with_io,
};
pub use error::{Error, ErrorKind, Result};
pub use event::DeviceEvent;
pub use identity::{Lifetime, PreEol, Wear, parse_id};
pub use info::{AppendSupport, Backend, DeviceInfo, RangeLimits, ZeroesLimits, ZonedInfo};
pub use io_queue::IoQueue;
pub use log::ZoneLog;
pub use request::{Completion, Rejected, Request, Unmap, ZoneAction};
pub use rings::{RingOptions, Use};
pub use spec::{DeviceSpec, OpenOptions, PciSpec};
pub use units::{SECTOR_LEN, Sector, SectorCount, ZoneId};
pub use vfio_virtio::{DmaArena, DmaBuffer, HostMemory, NoIommu, PageSize, Pieces, sysfs};
pub use wait::{NoIoUring, WaitMethod, WaitPolicy};
pub use writer::{Extent, Write, Written, ZoneWriter};
pub use zbd_emu::EmulatedConfig;
pub use zone::{Zone, ZoneModel, ZoneState, ZoneType};

/// The programs of the guide, which are tested.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/guide.md")]
struct Guide;

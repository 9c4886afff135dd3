//! Userspace drivers for virtio devices on PCI.
//!
//! This crate knows PCI functions, VFIO, the virtio-pci transport, DMA memory and virtqueues. It
//! knows nothing of what a device is for: block, network and other drivers are built on top.
//!
//! The lowest layer is a seam of small traits ([`PciFunction`], [`Bar`], [`Doorbell`]) under which
//! the kernel's VFIO ([`VfioFunction`]), a software device or a hostile one can sit. Above it, in
//! the order in which a driver meets them:
//!
//! 1. [`DmaArena`]: memory that the device reaches, handed out as owned [`DmaBuffer`]s.
//! 2. [`Negotiation`]: resets the device and settles the features.
//! 3. [`ConfiguredDevice`]: device configuration and set-up of the queues.
//! 4. [`RunningDevice`]: the device in operation.
//! 5. [`Virtqueue`]: the request path; owns each request's buffer while the device has it.
//!
//! A driver of a block device that reads one sector, here of a software device; for a real one the
//! function is `VfioFunction::open("0000:00:01.0".parse()?)?`:
//!
//! ```
//! use std::sync::Arc;
//!
//! use vfio_virtio::{Data, Features, Negotiation, QueueOptions, Tail};
//! use zbd_emu::{EmulatedConfig, EmulatedFunction};
//!
//! const VIRTIO_ID_BLOCK: u16 = 2;
//! const VIRTIO_BLK_T_IN: u64 = 0;
//! const VIRTIO_BLK_F_ZONED: u32 = 17;
//!
//! let function = EmulatedFunction::new(&EmulatedConfig::default())?;
//! let negotiation = Negotiation::begin(Arc::new(function), VIRTIO_ID_BLOCK)?;
//! let wanted = Features::INDIRECT_DESC | Features::EVENT_IDX | Features::bit(VIRTIO_BLK_F_ZONED);
//! let mut device = negotiation.accept(wanted, 1 << 20)?;
//! device.add_queue(QueueOptions::default())?;
//! let (device, mut queues) = device.start::<u32>()?;
//! let queue = &mut queues[0];
//!
//! let buffer = device.arena().allocate(4096)?;
//! let (head, context) = ([VIRTIO_BLK_T_IN, 0], 7);
//! queue
//!     .push(head, Data::FromDevice(buffer), Tail::Status, 0xff, context)
//!     .map_err(|rejected| rejected.error)?;
//! queue.commit();
//! let used = loop {
//!     if let Some(used) = queue.pop()? {
//!         break used;
//!     }
//! };
//! assert_eq!((used.status, used.context), (0, 7));
//! assert_eq!(used.buffer.map(|buffer| buffer.to_vec()), Some(vec![0; 4096]));
//! # Ok::<(), vfio_virtio::Error>(())
//! ```

mod arena;
mod device;
mod error;
mod event;
mod features;
mod function;
mod memory;
mod pci;
mod queue;
pub mod sysfs;
mod transport;
mod vfio;

pub use arena::{DmaArena, DmaBuffer, Pieces, Segment};
pub use device::{Config, ConfiguredDevice, Negotiation, QueueOptions, RunningDevice};
pub use error::{Error, ErrorKind, Result};
pub use features::Features;
pub use function::{Bar, Doorbell, Iova, Notice, PciFunction, Translation, Width};
pub use memory::{HostMemory, PageSize};
pub use queue::{Data, Ended, Rejected, Tail, Used, Virtqueue};
pub use vfio::{NoIommu, VfioFunction, VfioOptions};
/// The event file descriptor that interrupts are delivered to.
pub use vmm_sys_util::eventfd::EventFd;

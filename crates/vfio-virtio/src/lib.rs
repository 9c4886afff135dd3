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

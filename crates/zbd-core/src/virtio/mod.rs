//! The virtio back end: requests become virtio-blk chains (VIRTIO 1.3, 5.2).
//!
//! [`BlkQueue`] is the door below the safe API: it sends what it is told and returns what the
//! device answered, knowing the format of requests but nothing of zones. Most callers want
//! [`IoQueue`](crate::IoQueue).

mod config;
mod negotiate;
mod open;
mod queue;
pub(crate) mod range;
mod report;
mod wire;

pub(crate) use config::{WRITEBACK, capacity};
pub(crate) use open::open;
pub use queue::{BlkCompletion, BlkQueue};
pub(crate) use report::{ZoneGrid, report_len, zones_per_report};
pub use wire::{RequestType, Status};

//! The device from the driver's side of the seam.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

mod arena;
mod chains;
mod control;
mod driver;
mod durable;
mod faults;
mod files;
mod formats;
mod function;
mod hostile;
mod negotiation;
mod notifications;
mod oracle;
mod order;
mod packed;
mod ranges;
mod requests;
mod rings;
mod threads;
mod zones;

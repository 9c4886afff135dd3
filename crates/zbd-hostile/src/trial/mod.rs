//! What has to hold for a driver whatever its device does.
//!
//! Each trial takes a string of bytes, from which both the device and the driver's caller take their
//! decisions, and panics if something does not hold:
//!
//! - Nothing panics, and nothing goes on without end.
//! - Each request that was accepted ends once, at the latest when the device has failed; what was
//!   refused comes back whole, and what was never accepted never ends.
//! - Memory that a device may still use is given to nobody else; memory that it has returned is the
//!   memory that the request came with; and all of it is free when the device has been reset.
//! - What is reported as done is what the device answered, and lies where it was asked for. What it
//!   did not answer is not.
//! - After a device has been found to lie, nothing that it says is believed.

mod function;
mod memory;
mod queue;
mod report;

pub use function::function;
pub use queue::{packed_queue, split_queue};
pub use report::report;

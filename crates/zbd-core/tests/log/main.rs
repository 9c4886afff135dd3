//! The log on the software device.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "../harness/blocking.rs"]
mod blocking;
#[path = "../harness/random.rs"]
mod random;

mod appending;
mod cancellation;
mod crashes;
mod failing;
mod fencing;
mod recovery;
mod rig;
mod trimming;
mod writing;

//! A virtio-blk function that lies, and drivers that it is tried on.
//!
//! [`HostileFunction`] is a device behind the seam of vfio-virtio whose configuration, registers,
//! rings and answers come from a string of bytes. The functions in [`trial`] let a driver meet it
//! and check what has to hold whatever a device does. A fuzzer, a test with random bytes and a test
//! that replays the fuzzer's corpus all call the same functions.

mod answer;
mod configuration;
mod device;
mod function;
mod lies;
mod memory;
mod ring;
mod script;
pub mod trial;

pub use answer::{Answer, Flaw};
pub use configuration::Lies;
pub use function::{HostileFunction, Key, Known, Observer};
pub use script::Script;

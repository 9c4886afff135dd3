//! Whether a virtio-blk device, zoned or not, does what VIRTIO 1.3 asks of it: section 5.2, and what
//! of section 2 its requests are carried by, requirement by requirement.
//!
//! The device is anything behind the seam of `vfio-virtio`, a [`PciFunction`]. It is driven from
//! below any block layer: requests are made byte by byte and segment by segment, so that those can be
//! sent which no driver would send. The device is not trusted. One that breaks, or does not answer,
//! is reset, and the next check goes on.
//!
//! What the specification leaves open is no requirement here, and nothing that a device does there
//! is a failure. A check that this device gives no occasion for says so instead of passing.
//!
//! **All data on the device may be lost.**
//!
//! ```
//! use std::sync::Arc;
//!
//! use zbd_check::{Options, Outcome, Suite, requirements};
//! use zbd_emu::{EmulatedConfig, EmulatedFunction};
//!
//! let config: EmulatedConfig = "zones=8,zone-size=64k".parse()?;
//! let function = EmulatedFunction::new(&config)?;
//! let mut suite = Suite::open(Arc::new(function), Options::default())?;
//! for requirement in requirements() {
//!     let outcome = suite.check(requirement);
//!     assert!(!matches!(outcome, Outcome::Fail(_)), "{}: {outcome:?}", requirement.id);
//! }
//! # Ok::<(), vfio_virtio::Error>(())
//! ```
//!
//! Inside, `session` negotiates and carries raw requests, `subject` is the device under test with
//! what is known of it, and `checks` has a file for each group of requirements, each next to the code
//! that looks whether it is met.
//!
//! [`PciFunction`]: vfio_virtio::PciFunction

mod checks;
mod exchange;
mod facts;
mod outcome;
mod pattern;
mod request;
mod requirement;
mod session;
mod subject;
mod suite;
mod wire;
mod zone;

pub use exchange::{Answered, Exchange};
pub use facts::{Device, Model};
pub use outcome::{Evidence, Outcome};
pub use requirement::{Level, Requirement, requirements, section_title};
pub use suite::{Options, Suite};

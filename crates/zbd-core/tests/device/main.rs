//! Both doors of the crate, on the software device.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

#[path = "../harness/blocking.rs"]
mod blocking;
#[path = "../harness/in_time.rs"]
mod in_time;
#[path = "../harness/random.rs"]
mod random;

mod abilities;
mod admission;
mod announcements;
mod appends;
mod bytes;
mod bytes_io;
mod cancellation;
mod closing;
mod configuration;
mod deadlines;
mod disguise;
mod dropping;
mod failing;
mod hostile;
mod identity;
mod idle;
mod interrupts;
mod large;
mod limits;
mod load;
mod local;
mod meddler;
mod model;
mod notifications;
mod opening;
mod oracle;
mod out_of_order;
mod packed;
mod ranges;
mod recovery;
mod reports;
mod requests;
mod rig;
mod rings;
mod statuses;
mod tasks;
mod vectored;
mod zones;

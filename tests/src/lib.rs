//! The guest in which the real device is tested, and the scenarios that run in it.
//!
//! - [`guest`] runs outside: it lays out disks, builds an initramfs, boots QEMU, and collects what
//!   the scenarios reported.
//! - [`inside`] runs in the guest: the first process, which carries out the scenarios one by one, and
//!   what they see of the guest's hardware and kernel.
//! - [`scenarios`] are the tests themselves. Each is listed once, in [`guest_scenarios!`], and so
//!   becomes an entry of [`scenarios::ALL`], which the guest runs, and a `#[test]`, which looks its
//!   result up.
//!
//! All tests of one machine share one boot.

pub mod guest;
pub mod inside;
pub mod scenarios;

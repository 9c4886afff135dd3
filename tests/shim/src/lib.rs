//! Makes an ordinary file look like a host-managed zoned block device to QEMU.
//!
//! QEMU's `host_device` driver learns whether its file is zoned, and what the zones are like, by
//! asking the kernel: `fstat`, sysfs, zone ioctls. Loaded with `LD_PRELOAD`, this library answers in
//! the kernel's stead for every file that has a sidecar `FILE.zones` beside it (see [`geometry`]),
//! and enforces what a zoned device enforces: write pointers, capacities, open and active limits.
//! All other files are left alone. So a zoned disk for a guest needs neither a zoned disk nor a
//! kernel that knows zones, nor any privilege.
//!
//! 1. [`interpose`] catches the libc calls that name or use a file, and [`registry`] says whether
//!    the file is one of ours.
//! 2. [`sysfs`] and [`ioctl`] answer the questions about it.
//! 3. [`zones`] decides which writes and zone commands are allowed.
//! 4. [`panel`] counts what reached the file and lets a test hold requests back.

pub mod geometry;
pub mod interpose;
pub mod ioctl;
pub mod kernel;
pub mod panel;
pub mod registry;
pub mod sysfs;
pub mod zones;

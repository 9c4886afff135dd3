//! Outside the guest: boots a machine and collects the scenarios' results.

pub mod boot;
pub mod build;
pub mod images;
pub mod initramfs;
pub mod machine;
pub mod plan;
pub mod qemu;
pub mod report;
pub mod selection;

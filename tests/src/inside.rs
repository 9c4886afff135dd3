//! Inside the guest: carries out the plan, and looks at the guest's hardware and kernel.

pub mod batch;
pub mod beside;
pub mod child;
pub mod claim;
pub mod control;
pub mod engine;
pub mod function;
pub mod hugepages;
pub mod init;
pub mod kernel_log;
pub mod kernel_view;
pub mod marker;
pub mod null_block;
pub mod panel;
pub mod process_memory;
pub mod record;
pub mod suite;
pub mod tool;

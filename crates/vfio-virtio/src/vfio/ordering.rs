//! The order of register accesses and of accesses to memory that the device reaches.
//!
//! Registers are mapped uncached: the processor keeps accesses to them in program order among
//! themselves, and volatile accesses keep the compiler to it. What neither does is to order them
//! with accesses to ordinary memory, of which an atomic fence speaks only between processors.
#![cfg_attr(
    any(target_arch = "aarch64", target_arch = "riscv64"),
    expect(unsafe_code, reason = "barriers that reach devices have no other name")
)]

use std::sync::atomic::{Ordering, fence};

/// Comes before a register is written: all earlier accesses to memory happen before it.
///
/// Its other side is the device, which reads memory only after it has seen the register change.
#[inline(always)]
pub(super) fn before_register_write() {
    // x86 does not move a store before older loads and stores, so there this binds the compiler
    // only. Elsewhere it keeps older loads where they are.
    fence(Ordering::Release);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier has no operands; it orders stores out to the devices' domain.
    unsafe {
        std::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: a barrier has no operands; it orders memory before device output.
    unsafe {
        std::arch::asm!("fence rw, o", options(nostack));
    }
}

/// Comes after a register was read: no later access to memory happens before it.
///
/// Its other side is the device, which writes memory before it lets the register change.
#[inline(always)]
pub(super) fn after_register_read() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier has no operands; it orders loads from the devices' domain on.
    unsafe {
        std::arch::asm!("dmb oshld", options(nostack, preserves_flags));
    }
    #[cfg(target_arch = "riscv64")]
    // SAFETY: a barrier has no operands; it orders device input before memory.
    unsafe {
        std::arch::asm!("fence i, rw", options(nostack));
    }
    fence(Ordering::Acquire);
}

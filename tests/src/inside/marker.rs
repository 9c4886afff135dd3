//! Marks that a plugin of QEMU sees: where what the guest executes is to be counted.
#![expect(unsafe_code, reason = "an instruction that does nothing")]

use std::arch::asm;

/// Counting begins.
#[inline(never)]
pub fn begin() {
    // SAFETY: overwrites a register that it declares.
    unsafe { asm!("mov r11, 0x5a4244504d410001", out("r11") _) };
}

/// Counting ends.
#[inline(never)]
pub fn end() {
    // SAFETY: as above.
    unsafe { asm!("mov r11, 0x5a4244504d410002", out("r11") _) };
}

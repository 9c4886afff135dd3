//! zbd-emu

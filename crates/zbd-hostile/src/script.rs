//! Decisions that are taken from a string of bytes.

use std::sync::{Arc, Mutex, PoisonError};

/// A string of bytes from which decisions are taken, one after the other, by whoever has one to
/// take. When it ends, all further decisions are 0, which is the most ordinary choice everywhere.
#[derive(Clone, Debug)]
pub struct Script(Arc<Mutex<Bytes>>);

#[derive(Debug)]
struct Bytes {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    /// A script of `bytes`.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Arc::new(Mutex::new(Bytes {
            bytes: bytes.to_vec(),
            at: 0,
        })))
    }

    /// Whether all bytes have been taken.
    pub fn is_empty(&self) -> bool {
        let script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        script.at >= script.bytes.len()
    }

    fn take<const N: usize>(&self) -> [u8; N] {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = [0; N];
        for byte in &mut taken {
            *byte = script.bytes.get(script.at).copied().unwrap_or(0);
            script.at += 1;
        }
        taken
    }

    /// A byte.
    pub fn u8(&self) -> u8 {
        let [byte] = self.take();
        byte
    }

    /// A number of 16 bits.
    pub fn u16(&self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    /// A number of 32 bits.
    pub fn u32(&self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// A number of 64 bits.
    pub fn u64(&self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// A number below `n`, which takes one byte; 0 if `n` is 0.
    pub fn below(&self, n: usize) -> usize {
        usize::from(self.u8()).checked_rem(n).unwrap_or(0)
    }

    /// One of `choices`.
    pub fn pick<T: Copy, const N: usize>(&self, choices: [T; N]) -> T {
        choices[self.below(N)]
    }

    /// True once in `n` times; never when the script has ended.
    pub fn once_in(&self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// A number near those at which arithmetic goes wrong, or near `near`.
    pub fn number(&self, near: u64) -> u64 {
        match self.below(12) {
            0 => near,
            1 => near.wrapping_add(1),
            2 => near.wrapping_sub(1),
            3 => near.wrapping_add(u64::from(self.u8())),
            4 => near.wrapping_sub(u64::from(self.u8())),
            5 => near.wrapping_mul(2),
            6 => self.u8().into(),
            7 => self.u16().into(),
            8 => self.u32().into(),
            9 => u64::MAX - u64::from(self.u8()),
            10 => (1_u64 << (self.u8() % 64)).wrapping_sub(u64::from(self.u8() % 2)),
            _ => self.u64(),
        }
    }
}

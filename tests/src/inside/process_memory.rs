//! The memory of this process, past the library that owns it: to spoil what a device is told.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use zbd_core::DmaArena;

const PATH: &str = "/proc/self/mem";

/// The memory of this process, by addresses.
#[derive(Debug)]
pub struct ProcessMemory(File);

impl ProcessMemory {
    /// Opens it.
    ///
    /// # Errors
    /// If the kernel does not show it.
    pub fn open() -> Result<Self> {
        let file = File::options().read(true).write(true).open(PATH);
        Ok(Self(file.context(PATH)?))
    }

    /// The addresses in `memory`, on multiples of 8, at which these bytes lie.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn find(&self, memory: &DmaArena, wanted: &[u8]) -> Result<Vec<u64>> {
        let start = memory.memory().as_ptr().addr() as u64;
        let mut bytes = vec![0; memory.len_bytes()];
        self.0.read_exact_at(&mut bytes, start)?;
        let places = (0..bytes.len()).step_by(8);
        Ok(places
            .filter(|at| bytes[*at..].starts_with(wanted))
            .map(|at| start + at as u64)
            .collect())
    }

    /// Writes at an address.
    ///
    /// # Errors
    /// If nothing is mapped there.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.0.write_all_at(bytes, address)?)
    }
}

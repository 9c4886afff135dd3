//! How many 2 MiB pages the kernel has reserved.

use std::fs;

use anyhow::{Context as _, Result};

const RESERVED: &str = "/proc/sys/vm/nr_hugepages";

/// Another number of pages than usual; the usual one again when dropped.
#[derive(Debug)]
pub struct Reserved {
    usual: String,
}

impl Reserved {
    /// Reserves so many pages, and no more.
    ///
    /// # Errors
    /// If the kernel does not take it.
    pub fn only(pages: u32) -> Result<Self> {
        let usual = fs::read_to_string(RESERVED).context(RESERVED)?;
        fs::write(RESERVED, pages.to_string()).context(RESERVED)?;
        Ok(Self { usual })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Err(error) = fs::write(RESERVED, self.usual.trim()) {
            eprintln!("cannot reserve {} again: {error}", self.usual.trim());
        }
    }
}

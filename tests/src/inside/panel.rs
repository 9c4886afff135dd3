//! The shim's panel, seen from the guest: how many operations reached the file behind a disk, and
//! the handle that holds them back.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use super::function::Function;
use super::kernel_view::KernelDisk;
use crate::guest::images::panel_slot;
use crate::guest::machine::{Disk, Machine, PANEL};

const SECTOR: usize = 512;
/// Sectors of a disk's slot: names, values, controls, and one to spare.
const SLOT_SECTORS: u64 = 4;
const CONTROLS: u64 = 2;

/// One disk's part of the panel.
#[derive(Debug)]
pub struct Panel {
    window: KernelDisk,
    sector: u64,
}

/// What a disk's shim has counted: `reads`, `read_bytes`, `writes`, `write_bytes`, `refused_writes`,
/// `flushes`, `reports`, `opens`, `closes`, `finishes`, `resets`, `refused_commands`.
pub type Counters = BTreeMap<String, u64>;

impl Panel {
    /// The panel of a disk.
    ///
    /// # Errors
    /// If the machine has no such disk, or the panel is not there.
    pub fn of(machine: &Machine, disk: &Disk) -> Result<Self> {
        let slot = panel_slot(machine, disk).context("not a disk of this machine")?;
        let window = KernelDisk::open(&Function::of(&PANEL).block_device()?)?;
        Ok(Self {
            window,
            sector: slot as u64 * SLOT_SECTORS,
        })
    }

    /// The counters as they are now.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn counters(&self) -> Result<Counters> {
        let both = self.window.read(self.sector, 2 * SECTOR)?;
        let (names, values) = both.split_at(SECTOR);
        let names = String::from_utf8_lossy(names);
        let values = values
            .as_chunks()
            .0
            .iter()
            .map(|value| u64::from_le_bytes(*value));
        Ok(names
            .trim_end_matches('\0')
            .lines()
            .map(str::to_owned)
            .zip(values)
            .collect())
    }

    /// Holds all reads and writes of the disk back for as long as the returned guard lives.
    ///
    /// # Errors
    /// If the panel cannot be written.
    pub fn hold(&self) -> Result<Held<'_>> {
        self.control(1, 0)?;
        Ok(Held(self))
    }

    /// Makes every read and write of the disk take this much longer.
    ///
    /// # Errors
    /// If the panel cannot be written.
    pub fn delay(&self, microseconds: u64) -> Result<Held<'_>> {
        self.control(0, microseconds)?;
        Ok(Held(self))
    }

    fn control(&self, hold: u64, delay: u64) -> Result<()> {
        let mut sector = [0; SECTOR];
        sector[..8].copy_from_slice(&hold.to_le_bytes());
        sector[8..16].copy_from_slice(&delay.to_le_bytes());
        Ok(self.window.write(self.sector + CONTROLS, &sector)?)
    }
}

/// A disk held back; released when dropped, and before every scenario.
#[derive(Debug)]
pub struct Held<'a>(&'a Panel);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.control(0, 0) {
            eprintln!("cannot release the disk: {error:#}");
        }
    }
}

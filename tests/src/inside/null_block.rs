//! Disks of the kernel's null_blk, which keeps their data in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::mount::{MountFlags, mount};

use super::kernel_view::KernelDisk;

const CONFIGFS: &str = "/sys/kernel/config";

/// A disk of null_blk; gone when dropped.
#[derive(Debug)]
pub struct NullBlock {
    name: &'static str,
    directory: PathBuf,
}

impl NullBlock {
    /// Makes a zoned disk with blocks of 4 KiB: 24 zones of 8 MiB, of which 6 MiB can be written,
    /// the first two conventional; 6 can be open and 8 active. `settings` come on top.
    ///
    /// # Errors
    /// Says what null_blk does not take.
    pub fn zoned(name: &'static str, settings: &[(&str, u64)]) -> Result<Self> {
        let zoned = [
            ("zoned", 1),
            ("zone_size", 8),
            ("zone_capacity", 6),
            ("zone_nr_conv", 2),
            ("zone_max_open", 6),
            ("zone_max_active", 8),
        ];
        let settings: Vec<_> = zoned.iter().chain(settings).copied().collect();
        Self::make(name, &settings)
    }

    /// Makes a disk of 192 MiB.
    ///
    /// # Errors
    /// As [`zoned`](Self::zoned).
    pub fn make(name: &'static str, settings: &[(&str, u64)]) -> Result<Self> {
        if !Path::new(CONFIGFS).join("nullb").is_dir() {
            mount("configfs", CONFIGFS, "configfs", MountFlags::empty(), None)
                .context("mount configfs")?;
        }
        let directory = Path::new(CONFIGFS).join("nullb").join(name);
        // One that a scenario which was killed has left behind.
        let _ = fs::remove_dir(&directory);
        fs::create_dir(&directory).with_context(|| format!("{}", directory.display()))?;
        let disk = Self { name, directory };
        let common = [("size", 192), ("memory_backed", 1), ("blocksize", 4096)];
        for (key, value) in common.iter().chain(settings) {
            disk.set(key, *value)?;
        }
        disk.set("power", 1)?;
        let path = Path::new("/dev").join(name);
        let deadline = Instant::now() + Duration::from_secs(5);
        while !path.exists() {
            ensure!(Instant::now() < deadline, "{} is missing", path.display());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(disk)
    }

    /// Its path under `/dev`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("/dev/{}", self.name)
    }

    /// As Linux shows it.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn kernel_disk(&self) -> Result<KernelDisk> {
        KernelDisk::open(self.name)
    }

    /// Takes it away, from under whoever has it open.
    ///
    /// # Errors
    /// If null_blk does not do it.
    pub fn take_away(&self) -> Result<()> {
        self.set("power", 0)
    }

    fn set(&self, key: &str, value: u64) -> Result<()> {
        let path = self.directory.join(key);
        fs::write(&path, value.to_string())
            .with_context(|| format!("{value} to {}", path.display()))
    }
}

impl Drop for NullBlock {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.directory) {
            eprintln!("{} stays: {error}", self.name);
        }
    }
}

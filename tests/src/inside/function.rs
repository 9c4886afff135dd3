//! A disk's PCI function as sysfs shows it: which driver has it, and giving it another.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::control::Control;
use super::kernel_view::KernelDisk;
use crate::guest::machine::Disk;

/// A disk's PCI function.
#[derive(Debug, Clone)]
pub struct Function {
    /// What it should be.
    pub disk: &'static Disk,
    directory: PathBuf,
}

impl Function {
    /// The function of a disk of this machine.
    #[must_use]
    pub fn of(disk: &'static Disk) -> Self {
        Self {
            disk,
            directory: Path::new("/sys/bus/pci/devices").join(disk.address()),
        }
    }

    /// Its PCI address, such as `0000:00:10.0`.
    #[must_use]
    pub fn address(&self) -> String {
        self.disk.address()
    }

    /// Is it there?
    #[must_use]
    pub fn exists(&self) -> bool {
        self.directory.exists()
    }

    /// Waits until it is there, or is not.
    ///
    /// # Errors
    /// If that does not happen in time.
    pub fn wait(&self, there: bool, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        while self.exists() != there {
            ensure!(
                Instant::now() < deadline,
                "{} at {} is {}",
                self.disk.name,
                self.address(),
                if there { "missing" } else { "still there" }
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The driver that has it.
    #[must_use]
    pub fn driver(&self) -> Option<String> {
        link_name(&self.directory.join("driver"))
    }

    /// The number of its IOMMU group.
    #[must_use]
    pub fn iommu_group(&self) -> Option<String> {
        link_name(&self.directory.join("iommu_group"))
    }

    /// How many functions its IOMMU group has.
    ///
    /// # Errors
    /// If it has no group.
    pub fn iommu_group_size(&self) -> Result<usize> {
        Ok(fs::read_dir(self.directory.join("iommu_group/devices"))?.count())
    }

    /// Is it one that vfio-pci has without an IOMMU?
    #[must_use]
    pub fn is_unconfined(&self) -> bool {
        let group = fs::read_to_string(self.directory.join("iommu_group/name"));
        group.is_ok_and(|name| name.trim() == "vfio-noiommu")
    }

    /// Gives it to the driver `name`.
    ///
    /// # Errors
    /// Says which driver has it instead.
    pub fn bind(&self, name: &str) -> Result<()> {
        if self.driver().as_deref() == Some(name) {
            return Ok(());
        }
        if self.driver().is_some() {
            write(&self.directory.join("driver/unbind"), &self.address())?;
        }
        write(&self.directory.join("driver_override"), name)?;
        write(Path::new("/sys/bus/pci/drivers_probe"), &self.address())?;
        ensure!(
            self.driver().as_deref() == Some(name),
            "{name} did not take it: {:?}",
            self.driver()
        );
        Ok(())
    }

    /// Gives it back to the kernel's own driver, and waits for the disk.
    ///
    /// # Errors
    /// If no disk comes of it.
    pub fn bind_to_kernel(&self) -> Result<KernelDisk> {
        self.bind("virtio-pci")?;
        write(&self.directory.join("driver_override"), "\n")?;
        KernelDisk::open(&self.block_device()?)
    }

    /// The name of the kernel's disk on it, such as `vda`, once it is there.
    ///
    /// # Errors
    /// If the kernel's driver makes none within a few seconds.
    pub fn block_device(&self) -> Result<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let virtio = entry(&self.directory, |name| name.starts_with("virtio"));
            let disk = virtio.and_then(|virtio| entry(&virtio.join("block"), |_| true));
            if let Some(name) = disk.and_then(|disk| Some(disk.file_name()?.to_str()?.to_owned())) {
                // devtmpfs makes the node a moment later.
                if Path::new("/dev").join(&name).exists() {
                    return Ok(name);
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!(
            "{} at {}: no disk of the kernel's",
            self.disk.name,
            self.address()
        )
    }

    /// Makes it as it is after the boot: plugged in, the kernel's, its zones empty.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn freshen(&self) -> Result<()> {
        if !self.exists() {
            Control::open()?.plug(self)?;
        }
        let disk = self.bind_to_kernel()?;
        if self.disk.zones.is_some() {
            disk.reset_all().context("reset all zones")
        } else {
            Ok(())
        }
    }
}

fn link_name(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

fn entry(directory: &Path, is_it: impl Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?.filter_map(Result::ok);
    entries
        .find(|entry| entry.file_name().to_str().is_some_and(&is_it))
        .map(|entry| entry.path())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {} to {}", text.trim(), path.display()))
}

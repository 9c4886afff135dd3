//! Which driver has a function: the kernel's own or vfio-pci.

use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    IommuGroup, Owner, PciAddress, Sysfs, attribute, is_vfio, owner, refused_write, write_attribute,
};
use crate::{Error, ErrorKind, Result};

const VFIO_PCI: &str = "vfio-pci";
/// Drivers may probe in the background; this is how long one is waited for.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// A function that vfio-pci has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binding {
    /// The driver that vfio-pci took it from.
    pub replaced: Option<String>,
    /// The function's group; [`IommuGroup::obstacles`] must be bound, too, before it can be
    /// claimed.
    pub group: Option<IommuGroup>,
    /// The file whose owner may claim the group.
    pub group_file: Option<PathBuf>,
}

impl Sysfs {
    /// Hands the function at `address` to vfio-pci, and its group's file to `owner`.
    ///
    /// A function that vfio-pci has already stays there. When something fails, the driver that had
    /// the function gets it back.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such virtio-blk function, or no such owner.
    /// - [`ErrorKind::Busy`]: a disk of the function is mounted, swap space or otherwise in use.
    /// - [`ErrorKind::PermissionDenied`]: the caller may not change drivers.
    /// - [`ErrorKind::Unsupported`]: no IOMMU, or no vfio-pci in this kernel.
    pub fn bind(&self, address: PciAddress, owner: Option<&Owner>) -> Result<Binding> {
        let dir = self.existing_function_dir(address)?;
        self.require_block_function(address)?;
        let owner = owner.map(|o| self.resolve(o)).transpose()?;
        let driver = self.driver(address);
        let replaced = if driver.as_deref().is_some_and(is_vfio) {
            None
        } else {
            self.require_idle(address)?;
            self.require_iommu(address)?;
            require_writable(&dir.join("driver_override"))?;
            self.load_vfio()?;
            self.replace(address, driver.as_deref())?;
            driver
        };
        let group = self.iommu_group(address);
        let group_file = group.as_ref().map(|g| self.group_file(g));
        if let (Some(file), Some(owner)) = (&group_file, owner) {
            owner::give(file, owner)?;
        }
        Ok(Binding {
            replaced,
            group,
            group_file,
        })
    }

    /// Hands the function at `address` back to the kernel's own driver, whose name it returns.
    ///
    /// A function that such a driver has already stays there; `None` says that the kernel has no
    /// driver for it.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`]: there is no such function.
    /// - [`ErrorKind::Busy`]: a process has claimed it; taking it away would wait for its end.
    /// - [`ErrorKind::PermissionDenied`]: the caller may not change drivers.
    pub fn unbind(&self, address: PciAddress) -> Result<Option<String>> {
        let dir = self.existing_function_dir(address)?;
        let driver = self.driver(address);
        if driver.as_deref().is_some_and(|d| !is_vfio(d)) {
            return Ok(driver);
        }
        require_writable(&dir.join("driver_override"))?;
        if driver.is_some() {
            self.require_unclaimed(address)?;
        }
        write_attribute(&dir.join("driver_override"), "\n")?;
        if driver.is_some() {
            write_attribute(&dir.join("driver/unbind"), &address.to_string())?;
        }
        self.probe(address)?;
        let own = |driver: Option<&str>| driver.is_some_and(|d| !is_vfio(d));
        if self.wait_for_driver(address, own) {
            return Ok(self.driver(address));
        }
        match self.driver(address) {
            None => Ok(None),
            Some(driver) => Err(Error::new(
                ErrorKind::Io,
                format!("{address} is still bound to {driver}; look for its messages in dmesg"),
            )),
        }
    }

    /// Binds to vfio-pci what `previous` has, or gives it back.
    fn replace(&self, address: PciAddress, previous: Option<&str>) -> Result<()> {
        let dir = self.function_dir(address);
        let override_file = dir.join("driver_override");
        let old_override = attribute(&override_file).filter(|o| o != "(null)");
        let attempt = || {
            // The override comes first, so that no other driver can step in between.
            write_attribute(&override_file, VFIO_PCI)?;
            if previous.is_some() {
                write_attribute(&dir.join("driver/unbind"), &address.to_string())?;
            }
            self.probe(address)?;
            if self.wait_for_driver(address, |d| d == Some(VFIO_PCI)) {
                return Ok(());
            }
            Err(Error::new(
                ErrorKind::Unsupported,
                format!("vfio-pci does not accept {address}; dmesg says why"),
            ))
        };
        let Err(error) = attempt() else {
            return Ok(());
        };
        let restored = write_attribute(&override_file, old_override.as_deref().unwrap_or("\n"))
            .and_then(|()| self.restore(address, previous));
        if let Err(e) = restored {
            tracing::error!("cannot give {address} back to {previous:?}: {e}");
        }
        Err(error)
    }

    fn restore(&self, address: PciAddress, previous: Option<&str>) -> Result<()> {
        match previous {
            Some(previous) if self.driver(address).is_none() => {
                let driver = self.path("sys/bus/pci/drivers").join(previous);
                write_attribute(&driver.join("bind"), &address.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Has the kernel look for a driver.
    fn probe(&self, address: PciAddress) -> Result<()> {
        write_attribute(
            &self.path("sys/bus/pci/drivers_probe"),
            &address.to_string(),
        )
    }

    pub(super) fn wait_for_driver(
        &self,
        address: PciAddress,
        done: impl Fn(Option<&str>) -> bool,
    ) -> bool {
        let start = Instant::now();
        loop {
            if done(self.driver(address).as_deref()) {
                return true;
            }
            if start.elapsed() >= PROBE_TIME {
                return false;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn require_block_function(&self, address: PciAddress) -> Result<()> {
        if self.block_function(address).is_some() {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!("{address} is not a virtio-blk function; `zbd-bench list` shows those"),
        ))
    }

    fn require_idle(&self, address: PciAddress) -> Result<()> {
        for disk in self.disks(address) {
            let (cause, remedy) = match disk.in_use {
                Some(cause) => (cause, "unmount or detach it first"),
                None if self.is_claimed(&disk.name) => (
                    format!("{} is held exclusively", disk.name),
                    "end what uses it first (lsof, dmsetup, mdadm)",
                ),
                None => continue,
            };
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{address} is in use: {cause}; {remedy}"),
            ));
        }
        Ok(())
    }

    fn require_iommu(&self, address: PciAddress) -> Result<()> {
        if self.function_dir(address).join("iommu_group").exists() || self.allows_no_iommu() {
            return Ok(());
        }
        Err(super::no_iommu(address))
    }

    fn require_unclaimed(&self, address: PciAddress) -> Result<()> {
        match self.iommu_group(address) {
            // A claim made between here and the unbinding delays it until that process ends.
            Some(group) if self.is_group_held(&group) => Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{address} is claimed by {}; end it first",
                    self.group_holder(&group)
                ),
            )),
            _ => Ok(()),
        }
    }

    fn load_vfio(&self) -> Result<()> {
        let driver = self.path("sys/bus/pci/drivers").join(VFIO_PCI);
        if driver.is_dir() && self.path("sys/module/vfio_iommu_type1").is_dir() {
            return Ok(());
        }
        let error = Error::new(
            ErrorKind::Unsupported,
            "vfio-pci is not loaded and cannot be; run `modprobe vfio-pci`, or use a kernel that \
             has it (CONFIG_VFIO_PCI)",
        );
        if self.root != Path::new("/") {
            return Err(error);
        }
        let modules = ["-a", VFIO_PCI, "vfio_iommu_type1"];
        let output = Command::new("modprobe").args(modules).output();
        match output {
            // Either may be built in or known by another name: the driver is what counts.
            _ if driver.is_dir() => Ok(()),
            Ok(output) => Err(error.with_source(String::from_utf8_lossy(&output.stderr).trim())),
            Err(e) => Err(error.with_source(e)),
        }
    }
}

/// Finds out whether the caller may change drivers before anything has been changed.
fn require_writable(attribute: &Path) -> Result<()> {
    match OpenOptions::new().write(true).open(attribute) {
        Ok(_) => Ok(()),
        Err(e) => Err(refused_write(attribute, e)),
    }
}

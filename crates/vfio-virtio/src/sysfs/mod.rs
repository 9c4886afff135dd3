//! What the kernel tells of PCI functions, and which driver it gives them to.
//!
//! [`functions`] lists the virtio-blk functions of the machine; [`bind`] hands one to vfio-pci, so
//! that a process may claim it, and [`unbind`] hands it back to the kernel's own driver.

mod address;
mod binding;
mod disk;
mod function_info;
mod hindrance;
mod holder;
mod iommu_group;
mod owner;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind as IoKind, Write},
    path::{Path, PathBuf},
};

pub use address::PciAddress;
pub use binding::Binding;
pub use disk::Disk;
pub use function_info::FunctionInfo;
pub use hindrance::Hindrance;
pub(crate) use holder::is_busy;
pub use iommu_group::{Confinement, GroupMember, IommuGroup};
pub use owner::Owner;

use crate::{Error, ErrorKind, Result};

/// The virtio-blk functions of this machine, by address.
///
/// # Errors
/// [`ErrorKind::Unsupported`] when the machine has no PCI or sysfs is not mounted.
pub fn functions() -> Result<Vec<FunctionInfo>> {
    Sysfs::system().functions()
}

/// Hands the function at `address` to vfio-pci, and its group's file to `owner`.
///
/// See [`Sysfs::bind`].
///
/// # Errors
/// As [`Sysfs::bind`].
pub fn bind(address: PciAddress, owner: Option<&Owner>) -> Result<Binding> {
    Sysfs::system().bind(address, owner)
}

/// Hands the function at `address` back to the kernel's own driver, whose name it returns.
///
/// See [`Sysfs::unbind`].
///
/// # Errors
/// As [`Sysfs::unbind`].
pub fn unbind(address: PciAddress) -> Result<Option<String>> {
    Sysfs::system().unbind(address)
}

/// The kernel's files, found under a root directory.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Sysfs {
    /// The files of the running system.
    pub fn system() -> Self {
        Self::at("/")
    }

    /// A tree that looks like the running system's, with `sys`, `proc`, `dev` and `etc` under
    /// `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// The directory of the function at `address`.
    pub(crate) fn function_dir(&self, address: PciAddress) -> PathBuf {
        self.path(&format!("sys/bus/pci/devices/{address}"))
    }

    /// The directory of the function at `address`, which must exist.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub(crate) fn existing_function_dir(&self, address: PciAddress) -> Result<PathBuf> {
        let dir = self.function_dir(address);
        if dir.is_dir() {
            return Ok(dir);
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "there is no PCI function {address}; `zbd-bench list` shows those that can be used"
            ),
        ))
    }

    /// The driver that has the function at `address`.
    pub(crate) fn driver(&self, address: PciAddress) -> Option<String> {
        link_name(&self.function_dir(address).join("driver"))
    }

    /// The file that makes containers for groups.
    pub(crate) fn container_file(&self) -> PathBuf {
        self.path("dev/vfio/vfio")
    }

    /// Whether the kernel's no-IOMMU mode is switched on, in which functions can be claimed that no
    /// IOMMU confines.
    pub fn allows_no_iommu(&self) -> bool {
        let parameter = self.path("sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
        attribute(&parameter).is_some_and(|value| value == "Y")
    }
}

/// The refusal of a function that no IOMMU confines.
pub(crate) fn no_iommu(address: PciAddress) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "no IOMMU confines {address}; enable it in the firmware (VT-d, AMD-Vi, SMMU) and for \
             the kernel (intel_iommu=on; a QEMU guest needs -device intel-iommu); or give up \
             confinement with vfio.enable_unsafe_noiommu_mode=1 (CONFIG_VFIO_NOIOMMU), bind it and \
             open it as pci:{address},noiommu=allow"
        ),
    )
}

/// Whether a driver gives its functions to user space: vfio-pci or one of its variants.
pub(crate) fn is_vfio(driver: &str) -> bool {
    driver.contains("vfio")
}

/// The last component of what the link at `path` points to.
fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_str()?.to_owned())
}

/// The text of an attribute without the newline.
fn attribute(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim_end().to_owned())
}

/// The names in a directory in ascending order, none if it does not exist.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    names
}

/// Writes an attribute, in one write as the kernel wants it.
fn write_attribute(path: &Path, value: &str) -> Result<()> {
    // Without O_CREAT, which turns a missing attribute into a lack of permission.
    let file = OpenOptions::new().write(true).truncate(true).open(path);
    file.and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|e| refused_write(path, e))
}

fn refused_write(path: &Path, error: io::Error) -> Error {
    let path = path.display();
    let (kind, text) = match error.kind() {
        IoKind::PermissionDenied => (
            ErrorKind::PermissionDenied,
            format!("cannot write {path}; changing a function's driver needs root (sudo)"),
        ),
        IoKind::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            format!("cannot write {path}; do this outside the container, where sysfs is writable"),
        ),
        _ => (ErrorKind::Io, format!("cannot write {path}")),
    };
    Error::new(kind, text).with_source(error)
}

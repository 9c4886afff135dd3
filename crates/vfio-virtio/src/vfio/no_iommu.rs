//! Functions that no IOMMU confines: the kernel's no-IOMMU mode, which vfio-ioctls does not know.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind as IoKind},
    path::Path,
};

use vfio_bindings::bindings::vfio::VFIO_NOIOMMU_IOMMU;

use super::{calls, device::Device};
use crate::{
    Error, ErrorKind, Result,
    sysfs::{IommuGroup, PciAddress, Sysfs, is_busy},
};

/// A claimed group of one function that nothing confines.
///
/// It is held for as long as the device is open, which must be closed first.
pub(super) struct UnconfinedGroup {
    _group: File,
    _container: File,
}

impl UnconfinedGroup {
    /// Opens the group and the function in it.
    pub(super) fn open(
        sysfs: &Sysfs,
        address: PciAddress,
        group: &IommuGroup,
    ) -> Result<(Device, Self)> {
        let path = sysfs.group_file(group);
        let file = read_write(&path).map_err(|e| refused_group(sysfs, address, group, e))?;
        let refused = |e| {
            Error::new(
                ErrorKind::Io,
                format!("vfio-pci does not give {address} out in no-IOMMU mode; dmesg says why"),
            )
            .with_source(e)
        };
        if !calls::is_viable(&file).map_err(refused)? {
            return Err(Error::new(
                ErrorKind::GroupNotViable,
                format!("{address} cannot be claimed: vfio-pci is letting go of it"),
            ));
        }
        let container = sysfs.container_file();
        let container = read_write(&container).map_err(|e| {
            Error::new(
                ErrorKind::Unsupported,
                format!("cannot open {}", container.display()),
            )
            .with_source(e)
        })?;
        calls::set_container(&file, &container).map_err(refused)?;
        calls::set_iommu(&container, VFIO_NOIOMMU_IOMMU).map_err(refused)?;
        let device = calls::open_device(&file, &address.to_string()).map_err(refused)?;
        let device = Device::ask(device).map_err(refused)?;
        tracing::warn!(
            "no IOMMU confines {address}: it can read and write all memory of this machine, and if \
             this process is killed it may go on writing into memory that then belongs to others"
        );
        let held = Self {
            _group: file,
            _container: container,
        };
        Ok((device, held))
    }
}

fn read_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn refused_group(
    sysfs: &Sysfs,
    address: PciAddress,
    group: &IommuGroup,
    error: io::Error,
) -> Error {
    let path = sysfs.group_file(group);
    let path = path.display();
    let (kind, text) = match error.kind() {
        _ if is_busy(&error) => (
            ErrorKind::Busy,
            format!(
                "{address} is already claimed by {}; end it first",
                sysfs.group_holder(group)
            ),
        ),
        IoKind::PermissionDenied => (
            ErrorKind::PermissionDenied,
            format!(
                "cannot open {path}; in no-IOMMU mode a device reaches all memory, so that needs \
                 root (CAP_SYS_RAWIO, and CAP_SYS_ADMIN to learn physical addresses)"
            ),
        ),
        _ => (
            ErrorKind::Unsupported,
            format!("cannot open {path}; in a container pass /dev/vfio on to it"),
        ),
    };
    Error::new(kind, text).with_source(error)
}

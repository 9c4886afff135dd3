//! The virtio-blk functions of a machine.

use std::fs;

use super::{
    Confinement, Disk, Hindrance, IommuGroup, PciAddress, Sysfs, attribute, is_vfio, link_name,
    names,
};
use crate::{Error, ErrorKind, Result};

const VIRTIO_VENDOR: u16 = 0x1af4;
const BLOCK_MODERN: u16 = 0x1042;
const BLOCK_TRANSITIONAL: u16 = 0x1001;

/// A virtio-blk function.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionInfo {
    /// Where it is.
    pub address: PciAddress,
    /// Its PCI device ID.
    pub device_id: u16,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Its isolation group; none without an IOMMU.
    pub group: Option<IommuGroup>,
    /// The IOMMU that confines it, by the kernel's name.
    pub iommu: Option<String>,
    /// Its block devices while the kernel's driver has it.
    pub disks: Vec<Disk>,
    /// What keeps it from being opened, as far as this user can see.
    pub hindrances: Vec<Hindrance>,
}

impl FunctionInfo {
    /// Whether vfio-pci, or a variant of it, has it.
    pub fn is_bound_to_vfio(&self) -> bool {
        self.driver.as_deref().is_some_and(is_vfio)
    }

    /// Whether vfio-pci has it although nothing confines it.
    pub fn is_unconfined(&self) -> bool {
        let group = self.group.as_ref();
        group.is_some_and(|group| group.confinement == Confinement::None)
    }

    /// Whether it also serves drivers from before virtio 1.0.
    pub fn is_transitional(&self) -> bool {
        self.device_id == BLOCK_TRANSITIONAL
    }
}

impl Sysfs {
    /// The virtio-blk functions of the machine, by address.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] when the machine has no PCI or sysfs is not mounted.
    pub fn functions(&self) -> Result<Vec<FunctionInfo>> {
        let dir = self.path("sys/bus/pci/devices");
        // Reading it apart from `names` tells an empty bus from none at all.
        fs::read_dir(&dir).map_err(|e| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "cannot list PCI functions in {}; is sysfs mounted, and is there a PCI bus?",
                    dir.display()
                ),
            )
            .with_source(e)
        })?;
        let mut found: Vec<_> = names(&dir)
            .iter()
            .filter_map(|name| self.block_function(name.parse().ok()?))
            .collect();
        found.sort_unstable_by_key(|f| f.address);
        Ok(found)
    }

    /// The function at `address` if it is a virtio-blk function.
    pub(super) fn block_function(&self, address: PciAddress) -> Option<FunctionInfo> {
        let device_id = self.pci_id(address, "device")?;
        if self.pci_id(address, "vendor")? != VIRTIO_VENDOR
            || ![BLOCK_MODERN, BLOCK_TRANSITIONAL].contains(&device_id)
        {
            return None;
        }
        let driver = self.driver(address);
        let group = self.iommu_group(address);
        let disks = self.disks(address);
        let hindrances = self.hindrances(address, driver.as_deref(), group.as_ref(), &disks);
        Some(FunctionInfo {
            address,
            device_id,
            driver,
            group,
            iommu: link_name(&self.function_dir(address).join("iommu")),
            disks,
            hindrances,
        })
    }

    fn pci_id(&self, address: PciAddress, name: &str) -> Option<u16> {
        let text = attribute(&self.function_dir(address).join(name))?;
        u16::from_str_radix(text.strip_prefix("0x")?, 16).ok()
    }
}

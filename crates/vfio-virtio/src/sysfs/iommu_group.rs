//! The isolation group of a function.

use std::{fmt, path::PathBuf};

use super::{PciAddress, Sysfs, attribute, is_vfio, link_name, names};

/// The functions that the IOMMU cannot tell apart and that are therefore claimed together.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IommuGroup {
    /// The number of the group, as in `/dev/vfio/N`.
    pub id: u32,
    /// What keeps its functions from memory that is not theirs.
    pub confinement: Confinement,
    /// The functions that share the group with the one asked about.
    pub others: Vec<GroupMember>,
}

/// What keeps a function from memory that is not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Confinement {
    /// An IOMMU.
    Iommu,
    /// Nothing: the kernel's no-IOMMU mode.
    None,
}

/// A function that shares a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Where it is.
    pub address: PciAddress,
    /// The driver that has it.
    pub driver: Option<String>,
}

impl fmt::Display for GroupMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let driver = self.driver.as_deref().unwrap_or("no driver");
        write!(f, "{} ({driver})", self.address)
    }
}

impl IommuGroup {
    /// The other functions whose drivers keep the group from being claimed.
    pub fn obstacles(&self) -> impl Iterator<Item = &GroupMember> {
        // The kernel tolerates these in a group that user space claims: they do no DMA.
        self.others.iter().filter(|member| {
            member
                .driver
                .as_deref()
                .is_some_and(|d| !is_vfio(d) && d != "pci-stub" && d != "pcieport")
        })
    }
}

impl Sysfs {
    /// The file through which a process claims a group.
    pub(crate) fn group_file(&self, group: &IommuGroup) -> PathBuf {
        let prefix = match group.confinement {
            Confinement::Iommu => "",
            Confinement::None => "noiommu-",
        };
        self.path(&format!("dev/vfio/{prefix}{}", group.id))
    }

    /// The group of the function at `address`; none without an IOMMU.
    pub(crate) fn iommu_group(&self, address: PciAddress) -> Option<IommuGroup> {
        let link = self.function_dir(address).join("iommu_group");
        let others = names(&link.join("devices"))
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter(|other| *other != address)
            .map(|other| GroupMember {
                address: other,
                driver: self.driver(other),
            })
            .collect();
        // The kernel makes such a group up when vfio-pci takes a function without an IOMMU.
        let confinement = match attribute(&link.join("name")).as_deref() {
            Some("vfio-noiommu") => Confinement::None,
            _ => Confinement::Iommu,
        };
        Some(IommuGroup {
            id: link_name(&link)?.parse().ok()?,
            confinement,
            others,
        })
    }
}

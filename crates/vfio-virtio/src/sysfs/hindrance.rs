//! What keeps a function from being opened, and what to do about it.

use std::path::Path;

use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
};

use super::{Confinement, Disk, IommuGroup, PciAddress, Sysfs, attribute, is_vfio};

/// A reason why a function cannot be opened as things are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hindrance {
    /// What is in the way.
    pub cause: String,
    /// What to do about it.
    pub remedy: String,
}

impl Hindrance {
    /// Something in the way, and what to do about it.
    pub fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }
}

impl Sysfs {
    /// What keeps the function at `address` from being opened, apart from being bound to a driver
    /// that would let it go.
    pub(super) fn hindrances(
        &self,
        address: PciAddress,
        driver: Option<&str>,
        group: Option<&IommuGroup>,
        disks: &[Disk],
    ) -> Vec<Hindrance> {
        let used = disks.iter().filter_map(|disk| disk.in_use.as_deref());
        let mut found: Vec<_> = used
            .map(|cause| Hindrance::new(cause, "unmount or detach it first"))
            .collect();
        found.extend(self.unconfined(address, group));
        found.extend(group.and_then(shared));
        match driver.filter(|driver| is_vfio(driver)).and(group) {
            Some(group) => found.extend(self.closed(address, group)),
            None => found.extend(self.without_vfio()),
        }
        found
    }

    fn unconfined(&self, address: PciAddress, group: Option<&IommuGroup>) -> Option<Hindrance> {
        let consent = format!("take the risk and open it as pci:{address},noiommu=allow");
        let remedy = match group.map(|group| group.confinement) {
            Some(Confinement::Iommu) => return None,
            Some(Confinement::None) => format!("enable one, or {consent}"),
            None if self.allows_no_iommu() => format!("enable one, or bind it, {consent}"),
            None => "enable one (firmware: VT-d, AMD-Vi, SMMU; kernel: intel_iommu=on)".to_owned(),
        };
        Some(Hindrance::new("no IOMMU confines it", remedy))
    }

    /// What is in the way of a function that vfio-pci has.
    fn closed(&self, address: PciAddress, group: &IommuGroup) -> Option<Hindrance> {
        if let Some(holder) = self.known_holder(group) {
            return Some(Hindrance::new(
                format!("claimed by {holder}"),
                "end that, or wait for it",
            ));
        }
        let file = self.group_file(group);
        let container = self.container_file();
        let owner = format!("as root: zbd-bench bind {address} --owner USER");
        let everybody = format!("as root: chmod 666 {}", container.display());
        refused(&file, owner).or_else(|| refused(&container, everybody))
    }

    /// Whether vfio-pci is there or can be loaded.
    fn without_vfio(&self) -> Option<Hindrance> {
        if self.path("sys/bus/pci/drivers/vfio-pci").is_dir() {
            return None;
        }
        let release = attribute(&self.path("proc/sys/kernel/osrelease")).unwrap_or_default();
        let modules = self.path("lib/modules").join(release);
        let known = ["modules.dep", "modules.builtin"].iter().any(|list| {
            let list = attribute(&modules.join(list)).unwrap_or_default();
            list.contains("/vfio-pci.ko")
        });
        // Binding loads it.
        (!known).then(|| {
            Hindrance::new(
                "vfio-pci is not loaded, nor among this kernel's modules",
                "modprobe vfio-pci (outside, if this is a container), or a kernel with \
                 CONFIG_VFIO_PCI",
            )
        })
    }
}

fn shared(group: &IommuGroup) -> Option<Hindrance> {
    let others: Vec<_> = group.obstacles().map(ToString::to_string).collect();
    (!others.is_empty()).then(|| {
        Hindrance::new(
            format!("shares group {} with {}", group.id, others.join(", ")),
            "bind those to vfio-pci, too, or move the device to another slot",
        )
    })
}

/// Whether this user may not open a file for reading and writing. Opening it would tell, too, but
/// nobody else could open a group meanwhile.
fn refused(file: &Path, remedy: String) -> Option<Hindrance> {
    let access = Access::READ_OK | Access::WRITE_OK;
    let name = file.display();
    match accessat(CWD, file, access, AtFlags::EACCESS) {
        Err(Errno::NOENT) => Some(Hindrance::new(
            format!("{name} is missing"),
            "in a container pass /dev/vfio on to it",
        )),
        Err(_) => Some(Hindrance::new(
            format!("this user may not open {name}"),
            remedy,
        )),
        Ok(()) => None,
    }
}

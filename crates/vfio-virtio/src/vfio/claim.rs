//! The claim on a function: container, group and device, from opening to closing.
#![expect(
    unsafe_code,
    reason = "takes over the device's descriptor from vfio-ioctls"
)]

use std::{
    any::Any,
    fs::File,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::FileExt,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use memmap2::MmapRaw;
use vfio_bindings::bindings::vfio::VFIO_PCI_MSIX_IRQ_INDEX;
use vfio_ioctls::{VfioContainer, VfioDevice, VfioOps};

use super::{
    calls::{self, Signal},
    device::{CONFIG, Device},
    dma::Mappings,
    no_iommu::UnconfinedGroup,
    options::NoIommu,
    refusal,
    window::{Area, Mappable},
};
use crate::{
    Error, ErrorKind, EventFd, Notice, Result,
    sysfs::{Confinement, IommuGroup, PciAddress, Sysfs},
};

/// A claimed function.
///
/// The fields are dropped in this order: the device is closed before the container, in which its
/// mappings end, and memory is freed after both.
pub(super) struct Claim {
    address: PciAddress,
    device: Device,
    attachment: Attachment,
    mappings: Mappings,
}

/// What the device was opened through.
enum Attachment {
    /// A group in a container of vfio-ioctls, whose IOMMU translates.
    Iommu(Arc<Ops>),
    /// A group that nothing confines.
    NoIommu { _group: UnconfinedGroup },
}

/// The container, shown to vfio-ioctls for as long as it opens the device and no longer.
///
/// A `VfioDevice` that finds a container when it is dropped closes the device, then looks for the
/// group in sysfs and panics if the function has just been unplugged. One that finds none leaves
/// everything to its owner: the kernel detaches the group when its file is closed.
struct Ops {
    container: VfioContainer,
    opened: AtomicBool,
}

impl VfioOps for Ops {
    fn as_any(&self) -> &dyn Any {
        if self.opened.load(Ordering::Relaxed) {
            self
        } else {
            &self.container
        }
    }
}

impl Claim {
    pub(super) fn open(address: PciAddress, no_iommu: NoIommu) -> Result<Self> {
        let sysfs = Sysfs::system();
        let group = refusal::check(&sysfs, address, no_iommu)?;
        let (device, attachment) = match group.confinement {
            Confinement::Iommu => open_confined(&sysfs, address, &group)?,
            Confinement::None => {
                let (device, group) = UnconfinedGroup::open(&sysfs, address, &group)?;
                (device, Attachment::NoIommu { _group: group })
            }
        };
        Ok(Self {
            address,
            device,
            attachment,
            mappings: Mappings::default(),
        })
    }

    /// The container whose IOMMU translates; none without an IOMMU.
    pub(super) fn container(&self) -> Option<&VfioContainer> {
        match &self.attachment {
            Attachment::Iommu(ops) => Some(&ops.container),
            Attachment::NoIommu { .. } => None,
        }
    }

    pub(super) fn mappings(&self) -> &Mappings {
        &self.mappings
    }

    pub(super) fn read_config(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.read_region(CONFIG, offset.into(), data)
    }

    pub(super) fn write_config(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.write_region(CONFIG, offset.into(), data)
    }

    /// Reads from a region by asking the kernel.
    pub(super) fn read_region(&self, index: u32, offset: u64, data: &mut [u8]) -> Result<()> {
        let at = self.locate(index, offset, data.len())?;
        self.device
            .file
            .read_exact_at(data, at)
            .map_err(|e| self.failed("read", index, offset).with_source(e))
    }

    /// Writes to a region by asking the kernel.
    pub(super) fn write_region(&self, index: u32, offset: u64, data: &[u8]) -> Result<()> {
        let at = self.locate(index, offset, data.len())?;
        self.device
            .file
            .write_all_at(data, at)
            .map_err(|e| self.failed("write", index, offset).with_source(e))
    }

    /// The place of a piece of a region in the device's file.
    fn locate(&self, index: u32, offset: u64, len: usize) -> Result<u64> {
        self.device.locate(index, offset, len).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{len} bytes at {offset:#x} are outside {} of {}, which has {} bytes",
                    region_name(index),
                    self.address,
                    self.device.region_size(index)
                ),
            )
        })
    }

    fn failed(&self, what: &str, index: u32, offset: u64) -> Error {
        let region = region_name(index);
        Error::new(
            ErrorKind::Io,
            format!("cannot {what} {offset:#x} of {region} of {}", self.address),
        )
    }

    pub(super) fn region_size(&self, index: u32) -> u64 {
        self.device.region_size(index)
    }

    /// What the kernel allows to be mapped of a region.
    pub(super) fn mappable(&self, index: u32) -> &Mappable {
        self.device.mappable(index)
    }

    /// Maps an area of a region.
    pub(super) fn map_region(&self, index: u32, area: Area) -> std::io::Result<MmapRaw> {
        self.device.map(index, area)
    }

    pub(super) fn msix_vectors(&self) -> u16 {
        self.device.msix_vectors.try_into().unwrap_or(u16::MAX)
    }

    pub(super) fn enable_msix(&self, events: &[EventFd]) -> Result<()> {
        self.signal(VFIO_PCI_MSIX_IRQ_INDEX, Signal::Events(events), || {
            format!("set up {} interrupt vectors", events.len())
        })
    }

    pub(super) fn disable_msix(&self) -> Result<()> {
        self.signal(VFIO_PCI_MSIX_IRQ_INDEX, Signal::Off, || {
            "switch off the interrupts".to_owned()
        })
    }

    /// Delivers `notice` to `event`; false if the kernel does not give it for this function.
    pub(super) fn notify(&self, notice: Notice, event: Option<&EventFd>) -> Result<bool> {
        let Some(irq) = self.device.notice_irq(notice) else {
            return Ok(false);
        };
        self.signal(irq, Signal::One(event), || {
            format!("set up the {notice:?} notice")
        })?;
        Ok(true)
    }

    fn signal(&self, irq: u32, signal: Signal<'_>, what: impl Fn() -> String) -> Result<()> {
        calls::set_irqs(&self.device.file, irq, signal).map_err(|e| {
            let what = what();
            Error::new(ErrorKind::Io, format!("cannot {what} of {}", self.address)).with_source(e)
        })
    }
}

fn open_confined(
    sysfs: &Sysfs,
    address: PciAddress,
    group: &IommuGroup,
) -> Result<(Device, Attachment)> {
    let refused = |e| refusal::explain(sysfs, address, group, e);
    let ops = Arc::new(Ops {
        container: VfioContainer::new(None).map_err(refused)?,
        opened: AtomicBool::new(false),
    });
    let device =
        VfioDevice::new(&sysfs.function_dir(address), ops.clone(), false).map_err(refused)?;
    ops.opened.store(true, Ordering::Relaxed);
    // SAFETY: the descriptor is open, and nobody else closes it: `VfioDevice` keeps it in a
    // `ManuallyDrop` which its `Drop` touches only if `as_any` gives a `VfioContainer`, and from
    // here on `Ops` gives itself. The guest tests open and close functions repeatedly.
    let file = unsafe { File::from_raw_fd(device.as_raw_fd()) };
    Ok((Device::described(file, &device), Attachment::Iommu(ops)))
}

fn region_name(index: u32) -> String {
    match index {
        CONFIG => "the configuration space".to_owned(),
        bar => format!("BAR {bar}"),
    }
}

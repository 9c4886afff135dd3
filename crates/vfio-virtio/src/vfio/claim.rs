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

use memmap2::{MmapOptions, MmapRaw};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_MSIX_IRQ_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioContainer, VfioDevice, VfioOps, VfioRegionInfoCap};

use super::{
    dma::Mappings,
    refusal,
    window::{Area, Mappable},
};
use crate::{
    Error, ErrorKind, EventFd, Result,
    sysfs::{PciAddress, Sysfs},
};

const CONFIG: u32 = VFIO_PCI_CONFIG_REGION_INDEX;

/// A claimed function.
///
/// The fields are dropped in this order: the device is closed before the container, in which its
/// mappings end, and memory is freed after both.
pub(super) struct Claim {
    address: PciAddress,
    /// Knows the regions and interrupts; closes nothing when dropped, see [`Ops`].
    device: VfioDevice,
    file: File,
    ops: Arc<Ops>,
    mappings: Mappings,
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
    pub(super) fn open(address: PciAddress) -> Result<Self> {
        let sysfs = Sysfs::system();
        let group = refusal::check(&sysfs, address)?;
        let refused = |e| refusal::explain(&sysfs, address, &group, e);
        let ops = Arc::new(Ops {
            container: VfioContainer::new(None).map_err(refused)?,
            opened: AtomicBool::new(false),
        });
        let device =
            VfioDevice::new(&sysfs.function_dir(address), ops.clone(), false).map_err(refused)?;
        ops.opened.store(true, Ordering::Relaxed);
        // SAFETY: the descriptor is open, and nobody else closes it: `VfioDevice` keeps it in a
        // `ManuallyDrop` which its `Drop` touches only if `as_any` gives a `VfioContainer`, and
        // from here on `Ops` gives itself. The guest tests open and close functions repeatedly.
        let file = unsafe { File::from_raw_fd(device.as_raw_fd()) };
        Ok(Self {
            address,
            device,
            file,
            ops,
            mappings: Mappings::default(),
        })
    }

    pub(super) fn container(&self) -> &VfioContainer {
        &self.ops.container
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
        self.file
            .read_exact_at(data, at)
            .map_err(|e| self.failed("read", index, offset).with_source(e))
    }

    /// Writes to a region by asking the kernel.
    pub(super) fn write_region(&self, index: u32, offset: u64, data: &[u8]) -> Result<()> {
        let at = self.locate(index, offset, data.len())?;
        self.file
            .write_all_at(data, at)
            .map_err(|e| self.failed("write", index, offset).with_source(e))
    }

    /// The place of a piece of a region in the device's file.
    fn locate(&self, index: u32, offset: u64, len: usize) -> Result<u64> {
        let size = self.device.get_region_size(index);
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > size) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{len} bytes at {offset:#x} are outside {} of {}, which has {size} bytes",
                    region_name(index),
                    self.address
                ),
            ));
        }
        Ok(self.device.get_region_offset(index) + offset)
    }

    fn failed(&self, what: &str, index: u32, offset: u64) -> Error {
        let region = region_name(index);
        Error::new(
            ErrorKind::Io,
            format!("cannot {what} {offset:#x} of {region} of {}", self.address),
        )
    }

    pub(super) fn region_size(&self, index: u32) -> u64 {
        self.device.get_region_size(index)
    }

    /// What the kernel allows to be mapped of a region.
    pub(super) fn mappable(&self, index: u32) -> Mappable {
        if self.device.get_region_flags(index) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
            return Mappable::Nothing;
        }
        self.device
            .get_region_caps(index)
            .into_iter()
            .find_map(|capability| match capability {
                VfioRegionInfoCap::SparseMmap(sparse) => Some(Mappable::Areas(
                    sparse
                        .areas
                        .iter()
                        .map(|a| Area::new(a.offset, a.size))
                        .collect(),
                )),
                _ => None,
            })
            .unwrap_or(Mappable::Everything)
    }

    /// Maps an area of a region.
    pub(super) fn map_region(&self, index: u32, area: Area) -> std::io::Result<MmapRaw> {
        let offset = self.device.get_region_offset(index) + area.start;
        MmapOptions::new()
            .offset(offset)
            .len(usize::try_from(area.len_bytes()).map_err(std::io::Error::other)?)
            .map_raw(&self.file)
    }

    pub(super) fn msix_vectors(&self) -> u16 {
        let irq = self.device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX);
        irq.map_or(0, |irq| irq.count.try_into().unwrap_or(u16::MAX))
    }

    pub(super) fn enable_msix(&self, events: &[EventFd]) -> Result<()> {
        self.device
            .enable_msix(events.iter().collect())
            .map_err(|e| {
                Error::new(
                    ErrorKind::Io,
                    format!(
                        "cannot set up {} interrupt vectors of {}",
                        events.len(),
                        self.address
                    ),
                )
                .with_source(e)
            })
    }

    pub(super) fn disable_msix(&self) -> Result<()> {
        self.device.disable_msix().map_err(|e| {
            Error::new(
                ErrorKind::Io,
                format!("cannot switch off the interrupts of {}", self.address),
            )
            .with_source(e)
        })
    }
}

fn region_name(index: u32) -> String {
    match index {
        CONFIG => "the configuration space".to_owned(),
        bar => format!("BAR {bar}"),
    }
}

//! An open device: its descriptor, and what the kernel says of its regions and interrupts.

use std::{fs::File, io};

use memmap2::{MmapOptions, MmapRaw};
use vfio_bindings::bindings::vfio::{
    VFIO_PCI_CONFIG_REGION_INDEX, VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_PCI_REQ_IRQ_INDEX, VFIO_REGION_INFO_FLAG_MMAP,
};
use vfio_ioctls::{VfioDevice, VfioRegionInfoCap};

use super::{
    calls,
    window::{Area, Mappable},
};
use crate::Notice;

pub(super) const CONFIG: u32 = VFIO_PCI_CONFIG_REGION_INDEX;
/// The BARs, the ROM and the configuration space.
const REGIONS: u32 = CONFIG + 1;

pub(super) struct Device {
    pub(super) file: File,
    regions: Vec<Region>,
    pub(super) msix_vectors: u32,
    release_requests: u32,
    bus_errors: u32,
}

struct Region {
    offset: u64,
    len_bytes: u64,
    mappable: Mappable,
}

impl Device {
    /// What vfio-ioctls has found out about the device behind `file`.
    pub(super) fn described(file: File, device: &VfioDevice) -> Self {
        let regions = (0..REGIONS).map(|index| Region {
            offset: device.get_region_offset(index),
            len_bytes: device.get_region_size(index),
            mappable: mappable(device, index),
        });
        let regions = regions.collect();
        let irqs = |index| device.get_irq_info(index).map_or(0, |irq| irq.count);
        Self::new(file, regions, irqs)
    }

    /// The device behind `file`, of which the kernel has to be asked.
    pub(super) fn ask(file: File) -> io::Result<Self> {
        let region = |index| {
            calls::region_info(&file, index).map(|info| Region {
                offset: info.offset,
                len_bytes: info.size,
                // Only functions of special drivers are mappable in parts; where one is and the
                // kernel refuses to map the whole, it is read and written by the kernel.
                mappable: match info.flags & VFIO_REGION_INFO_FLAG_MMAP {
                    0 => Mappable::Nothing,
                    _ => Mappable::Everything,
                },
            })
        };
        let regions = (0..REGIONS).map(region).collect::<io::Result<_>>()?;
        // A kernel that does not know a kind of interrupt has none of it.
        let irqs: Vec<u32> = (0..=VFIO_PCI_REQ_IRQ_INDEX)
            .map(|index| calls::irq_count(&file, index).unwrap_or(0))
            .collect();
        Ok(Self::new(file, regions, |index| irqs[index as usize]))
    }

    fn new(file: File, regions: Vec<Region>, irqs: impl Fn(u32) -> u32) -> Self {
        Self {
            file,
            regions,
            msix_vectors: irqs(VFIO_PCI_MSIX_IRQ_INDEX),
            release_requests: irqs(VFIO_PCI_REQ_IRQ_INDEX),
            bus_errors: irqs(VFIO_PCI_ERR_IRQ_INDEX),
        }
    }

    /// The kind of interrupt that gives `notice`, if there is one.
    pub(super) fn notice_irq(&self, notice: Notice) -> Option<u32> {
        let (count, index) = match notice {
            Notice::ReleaseRequest => (self.release_requests, VFIO_PCI_REQ_IRQ_INDEX),
            Notice::BusError => (self.bus_errors, VFIO_PCI_ERR_IRQ_INDEX),
        };
        (count > 0).then_some(index)
    }

    /// The size of a region, 0 if there is none.
    pub(super) fn region_size(&self, index: u32) -> u64 {
        self.region(index).map_or(0, |region| region.len_bytes)
    }

    /// The place of a piece of a region in the device's file, if the region has it.
    pub(super) fn locate(&self, index: u32, offset: u64, len: usize) -> Option<u64> {
        let region = self.region(index)?;
        let end = offset.checked_add(len as u64)?;
        (end <= region.len_bytes).then(|| region.offset + offset)
    }

    /// What the kernel allows to be mapped of a region.
    pub(super) fn mappable(&self, index: u32) -> &Mappable {
        self.region(index)
            .map_or(&Mappable::Nothing, |region| &region.mappable)
    }

    /// Maps an area of a region.
    pub(super) fn map(&self, index: u32, area: Area) -> io::Result<MmapRaw> {
        let len = usize::try_from(area.len_bytes()).map_err(io::Error::other)?;
        let offset = self
            .locate(index, area.start, len)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        MmapOptions::new()
            .offset(offset)
            .len(len)
            .map_raw(&self.file)
    }

    fn region(&self, index: u32) -> Option<&Region> {
        self.regions.get(index as usize)
    }
}

fn mappable(device: &VfioDevice, index: u32) -> Mappable {
    if device.get_region_flags(index) & VFIO_REGION_INFO_FLAG_MMAP == 0 {
        return Mappable::Nothing;
    }
    device
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

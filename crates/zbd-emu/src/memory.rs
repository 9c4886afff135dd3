//! The memory that was mapped for the device, found by the device's addresses.
//!
//! This is the only place where the device turns an address into a pointer. Everything else works
//! on `vm-memory`'s volatile slices, which are bounds-checked and never become references.
#![expect(
    unsafe_code,
    reason = "a volatile slice onto mapped memory is made from its address"
)]

use std::{ops::RangeInclusive, sync::Arc};

use vfio_virtio::{Error, ErrorKind, HostMemory, Iova, Result};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, GuestMemoryRegionBytes,
    GuestRegionCollection, GuestUsize, MemoryRegionAddress, VolatileSlice,
};

/// What may be mapped: nothing below 4 GiB and nothing beyond 39 bits, as with the IOMMUs of
/// ordinary machines, and far from where this process has its memory.
pub(crate) const IOVA_RANGE: RangeInclusive<u64> = 0x1_0000_0000..=0x7f_ffff_ffff;

const PAGE_BYTES: u64 = 4096;

/// The device used an address that nothing is mapped at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unmapped;

/// One mapping.
#[derive(Debug)]
struct Region {
    iova: u64,
    memory: Arc<HostMemory>,
}

impl GuestMemoryRegion for Region {
    type B = ();

    fn len(&self) -> GuestUsize {
        self.memory.len_bytes() as u64
    }

    fn start_addr(&self) -> GuestAddress {
        GuestAddress(self.iova)
    }

    fn bitmap(&self) {}

    #[inline]
    fn get_slice(
        &self,
        offset: MemoryRegionAddress,
        count: usize,
    ) -> Result<VolatileSlice<'_>, GuestMemoryError> {
        let len = self.memory.len_bytes();
        let offset = offset.0 as usize;
        if offset > len || count > len - offset {
            return Err(GuestMemoryError::InvalidBackendAddress);
        }
        let start = self.memory.as_ptr().wrapping_add(offset);
        // SAFETY: `start` and the `count` bytes from it lie inside the mapping, as just checked,
        // and the mapping lives as long as `memory`, which `self` keeps and the slice borrows.
        // References to it exist only in `Bytes` that its driver made of buffers, which are in no
        // request but to be read; so volatile accesses, which are made for requests, alias nothing
        // that they change. `ring_outside_the_mapping_breaks_the_device` and
        // `data_at_unmapped_addresses_breaks_the_device` watch the bounds.
        Ok(unsafe { VolatileSlice::new(start, count) })
    }
}

impl GuestMemoryRegionBytes for Region {}

/// All mappings of the device.
#[derive(Debug, Default)]
pub(crate) struct DmaMap {
    regions: GuestRegionCollection<Region>,
}

impl DmaMap {
    pub(crate) fn map(&mut self, iova: Iova, memory: Arc<HostMemory>) -> Result<()> {
        let len = memory.len_bytes() as u64;
        let last = iova
            .0
            .checked_add(len.saturating_sub(1))
            .filter(|last| len > 0 && IOVA_RANGE.contains(&iova.0) && IOVA_RANGE.contains(last))
            .ok_or_else(|| {
                invalid(format!(
                    "{len} bytes cannot be mapped at {iova:#x}: mappings lie from {:#x} to {:#x}",
                    IOVA_RANGE.start(),
                    IOVA_RANGE.end()
                ))
            })?;
        if !iova.0.is_multiple_of(PAGE_BYTES) || !len.is_multiple_of(PAGE_BYTES) {
            return Err(invalid(format!(
                "{len} bytes cannot be mapped at {iova:#x}: mappings consist of whole pages of \
                 {PAGE_BYTES} bytes"
            )));
        }
        let region = Arc::new(Region {
            iova: iova.0,
            memory,
        });
        self.regions = self.regions.insert_region(region).map_err(|e| {
            invalid(format!(
                "something is mapped between {iova:#x} and {last:#x} already"
            ))
            .with_source(e)
        })?;
        Ok(())
    }

    pub(crate) fn unmap(&mut self, iova: Iova) -> Result<()> {
        let region = self
            .regions
            .find_region(GuestAddress(iova.0))
            .filter(|region| region.iova == iova.0)
            .ok_or_else(|| invalid(format!("no mapping begins at {iova:#x}")))?;
        let (regions, _) = self
            .regions
            .remove_region(GuestAddress(iova.0), region.len())
            .map_err(|e| invalid(format!("cannot unmap {iova:#x}")).with_source(e))?;
        self.regions = regions;
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.regions = GuestRegionCollection::new();
    }

    /// `len` bytes from `address` on, which must lie in one mapping.
    #[inline]
    pub(crate) fn slice(&self, address: u64, len: usize) -> Result<VolatileSlice<'_>, Unmapped> {
        let region = self
            .regions
            .find_region(GuestAddress(address))
            .ok_or(Unmapped)?;
        region
            .get_slice(MemoryRegionAddress(address - region.iova), len)
            .map_err(|_| Unmapped)
    }

    /// Calls `each` with `len` bytes from `address` on, in as many pieces as there are mappings.
    #[inline]
    pub(crate) fn pieces(
        &self,
        mut address: u64,
        mut len: usize,
        mut each: impl FnMut(VolatileSlice<'_>),
    ) -> Result<(), Unmapped> {
        while len > 0 {
            let region = self
                .regions
                .find_region(GuestAddress(address))
                .ok_or(Unmapped)?;
            let offset = address - region.iova;
            let piece = len.min((region.len() - offset) as usize);
            each(
                region
                    .get_slice(MemoryRegionAddress(offset), piece)
                    .map_err(|_| Unmapped)?,
            );
            // Mappings end below 2^39.
            address += piece as u64;
            len -= piece;
        }
        Ok(())
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

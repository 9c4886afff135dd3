//! Where data goes. Data are copied straight between the driver's memory and the store.

use std::ops::Range;

use memmap2::{MmapMut, MmapOptions};
use vfio_virtio::{Error, ErrorKind, Result};

use crate::{
    chain::Buffers,
    config::StoreKind,
    memory::{DmaMap, Unmapped},
    wire::SECTOR_BYTES,
};

const PAGE_BYTES: usize = 4096;

/// The data of a device.
#[derive(Debug)]
pub(crate) enum Store {
    /// Memory that the kernel provides as it is written.
    Memory(MmapMut),
    Null,
}

impl Store {
    pub(crate) fn new(kind: StoreKind, sectors: u64) -> Result<Self> {
        match kind {
            StoreKind::Null => Ok(Self::Null),
            StoreKind::Memory => Ok(Self::Memory(reserve(sectors)?)),
        }
    }

    /// Makes room for `new` sectors where there were `old`. What is added is zero.
    pub(crate) fn resize(&mut self, old: u64, new: u64) -> Result<()> {
        if new < old {
            self.zero(new..old);
        }
        let Self::Memory(memory) = self else {
            return Ok(());
        };
        if new * SECTOR_BYTES <= memory.len() as u64 {
            return Ok(());
        }
        let mut larger = reserve(new)?;
        // Pages that were never written stay that way.
        for (at, page) in memory.chunks(PAGE_BYTES).enumerate() {
            if page.iter().any(|byte| *byte != 0) {
                let start = at * PAGE_BYTES;
                larger[start..start + page.len()].copy_from_slice(page);
            }
        }
        *memory = larger;
        Ok(())
    }

    /// Stores `data` from `sector` on, which must be on the device.
    #[inline]
    pub(crate) fn write(
        &mut self,
        sector: u64,
        data: Buffers<'_>,
        dma: &DmaMap,
    ) -> Result<(), Unmapped> {
        match self {
            Self::Null => data.check(dma),
            Self::Memory(memory) => {
                let start = (sector * SECTOR_BYTES) as usize;
                let end = start + data.len() as usize;
                data.read(dma, &mut memory[start..end])
            }
        }
    }

    /// Fetches what is stored from `sector` on, which must be on the device.
    #[inline]
    pub(crate) fn read(
        &self,
        sector: u64,
        data: Buffers<'_>,
        dma: &DmaMap,
    ) -> Result<(), Unmapped> {
        match self {
            Self::Null => data.zero(dma),
            Self::Memory(memory) => {
                let start = (sector * SECTOR_BYTES) as usize;
                let end = start + data.len() as usize;
                data.write(dma, &memory[start..end])
            }
        }
    }

    /// Makes sectors zero.
    pub(crate) fn zero(&mut self, sectors: Range<u64>) {
        if let Self::Memory(memory) = self {
            let start = (sectors.start * SECTOR_BYTES) as usize;
            let end = (sectors.end * SECTOR_BYTES) as usize;
            memory[start..end].fill(0);
        }
    }
}

/// Memory for so many sectors, which the kernel provides as it is written.
fn reserve(sectors: u64) -> Result<MmapMut> {
    let too_large = |source| {
        Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "cannot reserve {} MiB of address space for the emulated device: give fewer or \
                 smaller zones, or store=null",
                (sectors * SECTOR_BYTES) >> 20
            ),
        )
        .with_source(source)
    };
    let len =
        usize::try_from(sectors * SECTOR_BYTES).map_err(|e| too_large(std::io::Error::other(e)))?;
    let memory = MmapOptions::new()
        .len(len)
        .no_reserve_swap()
        .map_anon()
        .map_err(too_large)?;
    // Fewer faults on first writes; a kernel without huge pages does as well.
    #[cfg(target_os = "linux")]
    drop(memory.advise(memmap2::Advice::HugePage));
    Ok(memory)
}

//! Where data goes. Data are copied straight between the driver's memory and the store, or the
//! cache of a file.

mod file;
mod io;

use std::ops::Range;

use memmap2::{MmapMut, MmapOptions};
use vfio_virtio::{Error, ErrorKind, Result};

use crate::{
    chain::Buffers,
    config::{Resolved, StoreKind},
    memory::{DmaMap, Unmapped},
    wire::SECTOR_BYTES,
    zone::ZoneTable,
};

pub(crate) use file::{FileStore, Opened};
pub(crate) use io::Io;
#[cfg(test)]
pub(crate) use io::Op;
pub use io::StoreIo;

const PAGE_BYTES: usize = 4096;

/// The data of a device.
#[derive(Debug)]
pub(crate) enum Store {
    /// Memory that the kernel provides as it is written.
    Memory(MmapMut),
    Null,
    /// A file behind a cache.
    File(Box<FileStore>),
}

/// The file could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed;

/// Why a file could not store or fetch data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Unmapped,
    Io,
}

impl Failure {
    /// Apart, since the one is the driver's fault and the other how a request ends.
    #[inline(never)]
    fn apart(outcome: Result<(), Self>) -> Result<Result<(), Failed>, Unmapped> {
        match outcome {
            Ok(()) => Ok(Ok(())),
            Err(Self::Io) => Ok(Err(Failed)),
            Err(Self::Unmapped) => Err(Unmapped),
        }
    }
}

impl From<Failed> for Failure {
    fn from(Failed: Failed) -> Self {
        Self::Io
    }
}

impl From<Unmapped> for Failure {
    fn from(Unmapped: Unmapped) -> Self {
        Self::Unmapped
    }
}

impl Store {
    /// The store that `config` asks for, in `file` if that is one, and the zones as it has them.
    pub(crate) fn new(config: &Resolved, file: Option<Opened>) -> Result<(Self, ZoneTable)> {
        if let Some(file) = file {
            let (store, zones) = file.load(config)?;
            return Ok((Self::File(Box::new(store)), zones));
        }
        let store = match config.store {
            StoreKind::Memory => Self::Memory(reserve(config.geometry.sectors)?),
            StoreKind::Null => Self::Null,
            StoreKind::File(_) => {
                return Err(Error::new(ErrorKind::InvalidInput, "the file is not open"));
            }
        };
        Ok((store, ZoneTable::new(config.geometry)))
    }

    pub(crate) fn file(&self) -> Option<&FileStore> {
        match self {
            Self::File(file) => Some(file),
            _ => None,
        }
    }

    /// Makes everything durable that can be.
    pub(crate) fn flush(&mut self, zones: &ZoneTable) -> Result<(), Failed> {
        match self {
            Self::File(file) => file.flush(zones),
            _ => Ok(()),
        }
    }

    /// Lets go of a file, after a last flush. Reads are of zeroes from then on.
    pub(crate) fn close(&mut self, zones: &ZoneTable) {
        if let Self::File(file) = self {
            // There is nobody to tell. Who must know flushes before.
            let _ = file.flush(zones);
            *self = Self::Null;
        }
    }

    /// Loses what a power cut loses, and lets go of a file.
    pub(crate) fn cut(&mut self, zones: &ZoneTable, seed: u64) {
        if let Self::File(file) = self {
            file.cut(zones, seed);
        }
        *self = Self::Null;
    }

    /// Makes room for `new` sectors where there were `old`. What is added is zero.
    ///
    /// # Errors
    /// When there is no memory for them, or the store is a file: its size is part of what it says of
    /// itself.
    pub(crate) fn resize(&mut self, old: u64, new: u64) -> Result<()> {
        let memory = match self {
            Self::Null => return Ok(()),
            Self::Memory(memory) => memory,
            Self::File(_) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "a device in a file cannot change its size: use store=mem",
                ));
            }
        };
        if new < old {
            memory[byte(new)..byte(old)].fill(0);
        }
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
        zones: &ZoneTable,
    ) -> Result<Result<(), Failed>, Unmapped> {
        match self {
            Self::Null => data.check(dma)?,
            Self::Memory(memory) => {
                let start = byte(sector);
                let end = start + data.len() as usize;
                data.read(dma, &mut memory[start..end])?;
            }
            Self::File(file) => return Failure::apart(file.write(sector, data, dma, zones)),
        }
        Ok(Ok(()))
    }

    /// Fetches what is stored from `sector` on, which must be on the device.
    #[inline]
    pub(crate) fn read(
        &mut self,
        sector: u64,
        data: Buffers<'_>,
        dma: &DmaMap,
    ) -> Result<Result<(), Failed>, Unmapped> {
        match self {
            Self::Null => data.zero(dma)?,
            Self::Memory(memory) => {
                let start = byte(sector);
                let end = start + data.len() as usize;
                data.write(dma, &memory[start..end])?;
            }
            Self::File(file) => return Failure::apart(file.read(sector, data, dma)),
        }
        Ok(Ok(()))
    }

    /// Fetches a sector as it is stored, whether it counts as written or not.
    pub(crate) fn sector(&mut self, sector: u64) -> Result<[u8; SECTOR_BYTES as usize], Failed> {
        let mut bytes = [0; SECTOR_BYTES as usize];
        match self {
            Self::Null => {}
            Self::Memory(memory) => {
                bytes.copy_from_slice(&memory[byte(sector)..byte(sector + 1)]);
            }
            Self::File(file) => file.fetch(sector, &mut bytes)?,
        }
        Ok(bytes)
    }

    /// Puts something else into a sector. `arriving` is what is being written.
    pub(crate) fn put_sector(
        &mut self,
        sector: u64,
        bytes: &[u8; SECTOR_BYTES as usize],
        arriving: &Range<u64>,
        zones: &ZoneTable,
    ) -> Result<(), Failed> {
        match self {
            Self::Null => {}
            Self::Memory(memory) => {
                memory[byte(sector)..byte(sector + 1)].copy_from_slice(bytes);
            }
            Self::File(file) => file.put(sector, bytes, arriving, zones)?,
        }
        Ok(())
    }

    /// Makes sectors zero.
    pub(crate) fn zero(&mut self, sectors: Range<u64>, zones: &ZoneTable) -> Result<(), Failed> {
        match self {
            Self::Null => {}
            Self::Memory(memory) => memory[byte(sectors.start)..byte(sectors.end)].fill(0),
            Self::File(file) => file.zero(sectors, zones)?,
        }
        Ok(())
    }
}

fn byte(sector: u64) -> usize {
    (sector * SECTOR_BYTES) as usize
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

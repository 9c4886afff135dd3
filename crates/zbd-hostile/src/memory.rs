//! The memory that was mapped for the device, found by the device's addresses.
//!
//! A device steps where its driver rings or where a test says so, always on the thread of the driver
//! that uses the memory; what it writes is seen by that driver as if it came from another side.
#![expect(
    unsafe_code,
    reason = "a device reads and writes memory by its addresses"
)]

use std::{
    ptr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
};

use vfio_virtio::{Error, ErrorKind, HostMemory, Iova, Result};

/// All mappings of the device.
#[derive(Default)]
pub(crate) struct Mapped {
    regions: Vec<(u64, Arc<HostMemory>)>,
    /// All memory that was ever mapped.
    known: Vec<Weak<HostMemory>>,
}

impl Mapped {
    pub(crate) fn map(&mut self, iova: Iova, memory: Arc<HostMemory>) -> Result<()> {
        let len = memory.len_bytes() as u64;
        if iova.0.checked_add(len).is_none() {
            return Err(Error::new(ErrorKind::InvalidInput, "beyond all addresses"));
        }
        self.known.push(Arc::downgrade(&memory));
        self.regions.push((iova.0, memory));
        Ok(())
    }

    pub(crate) fn unmap(&mut self, iova: Iova) -> Result<()> {
        let before = self.regions.len();
        self.regions.retain(|(start, _)| *start != iova.0);
        if self.regions.len() == before {
            return Err(Error::new(ErrorKind::InvalidInput, "nothing is mapped"));
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Whether any memory that was mapped once still exists.
    pub(crate) fn lingers(&self) -> bool {
        self.known.iter().any(|memory| memory.strong_count() > 0)
    }

    /// The first mapping: its address and its length.
    pub(crate) fn first(&self) -> Option<(u64, u64)> {
        let (iova, memory) = self.regions.first()?;
        Some((*iova, memory.len_bytes() as u64))
    }

    /// The address of `len` bytes, if all of them are mapped.
    fn find(&self, iova: u64, len: usize) -> Option<*mut u8> {
        self.regions.iter().find_map(|(start, memory)| {
            let offset = usize::try_from(iova.checked_sub(*start)?).ok()?;
            let end = offset.checked_add(len)?;
            (end <= memory.len_bytes()).then(|| memory.as_ptr().wrapping_add(offset))
        })
    }

    /// Reads `N` bytes.
    pub(crate) fn read<const N: usize>(&self, iova: u64) -> Option<[u8; N]> {
        let from = self.find(iova, N)?;
        let mut bytes = [0; N];
        // SAFETY: `find` has checked that the bytes lie in memory that `self` keeps mapped; no
        // references to it exist, and its driver is on this thread (see the head of this file).
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), N) }
        Some(bytes)
    }

    pub(crate) fn u16(&self, iova: u64) -> Option<u16> {
        self.read(iova).map(u16::from_le_bytes)
    }

    /// Writes `bytes`, if all of them are mapped.
    pub(crate) fn write(&self, iova: u64, bytes: &[u8]) -> Option<()> {
        let to = self.find(iova, bytes.len())?;
        // SAFETY: as in `read`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
        Some(())
    }

    /// Writes a le16 that announces what was written before it.
    pub(crate) fn publish_u16(&self, iova: u64, value: u16) -> Option<()> {
        let to = self.find(iova, 2).filter(|to| to.addr() % 2 == 0)?;
        // SAFETY: as in `read`, and aligned.
        unsafe { AtomicU16::from_ptr(to.cast()) }.store(value.to_le(), Ordering::Release);
        Some(())
    }

    /// As [`publish_u16`](Self::publish_u16), for a le64.
    pub(crate) fn publish_u64(&self, iova: u64, value: u64) -> Option<()> {
        let to = self.find(iova, 8).filter(|to| to.addr() % 8 == 0)?;
        // SAFETY: as in `read`, and aligned.
        unsafe { AtomicU64::from_ptr(to.cast()) }.store(value.to_le(), Ordering::Release);
        Some(())
    }
}

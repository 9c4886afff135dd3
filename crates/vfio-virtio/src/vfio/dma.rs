//! The memory that a claimed function may reach.
#![expect(unsafe_code, reason = "gives memory to a device")]

use std::{
    collections::BTreeMap,
    error, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::Errno,
    process::{Resource, getrlimit},
};
use vfio_ioctls::{VfioContainer, VfioError};

use super::physical;
use crate::{Error, ErrorKind, HostMemory, Iova, PageSize, Result};

/// What is mapped or pinned, each with the memory that must not be freed until it is mapped no more.
#[derive(Default)]
pub(super) struct Mappings(Mutex<BTreeMap<Iova, Arc<HostMemory>>>);

impl Mappings {
    pub(super) fn map(
        &self,
        container: &VfioContainer,
        iova: Iova,
        memory: Arc<HostMemory>,
    ) -> Result<()> {
        let mut mappings = self.lock();
        let len = memory.len_bytes();
        // SAFETY: the range is `memory`'s own, and of its bytes no reference is ever made (the
        // contract of `HostMemory`). It stays allocated for as long as the device may reach it: it
        // enters the table under the lock that is held, leaves it only when the kernel has ended
        // the mapping, and the table outlives the container (the field order of `Claim`).
        let mapped = unsafe { container.vfio_dma_map(iova.0, len, memory.as_ptr()) };
        if let Err(e) = mapped {
            let locked = mappings.values().map(|m| m.len_bytes() as u64).sum();
            return Err(refused_map(iova, len as u64, locked, e));
        }
        mappings.insert(iova, memory);
        Ok(())
    }

    pub(super) fn unmap(&self, container: &VfioContainer, iova: Iova) -> Result<()> {
        self.end(iova, |memory| {
            container
                .vfio_dma_unmap(iova.0, memory.len_bytes())
                .map_err(Into::into)
        })
    }

    /// Keeps `memory` where it lies physically, and tells where that is.
    pub(super) fn pin(&self, memory: Arc<HostMemory>) -> Result<Vec<Iova>> {
        let mut mappings = self.lock();
        require_huge_pages(memory.page_size(), memory.len_bytes())?;
        memory.lock().map_err(|e| {
            Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "cannot lock {} KiB of memory for DMA; raise the limit (`ulimit -l unlimited`, \
                     or LimitMEMLOCK= of the systemd unit)",
                    memory.len_bytes().div_ceil(1024)
                ),
            )
            .with_source(e)
        })?;
        let pages = physical::pages(&memory)?;
        match pages.first() {
            Some(first) if !mappings.contains_key(first) => {
                mappings.insert(*first, memory);
                Ok(pages)
            }
            _ => Err(Error::new(
                ErrorKind::InvalidInput,
                "this memory is pinned already",
            )),
        }
    }

    pub(super) fn unpin(&self, first: Iova) -> Result<()> {
        self.end(first, |memory| memory.unlock().map_err(Into::into))
    }

    /// Forgets the memory at `iova` once `how` has ended the device's access to it.
    fn end(
        &self,
        iova: Iova,
        how: impl FnOnce(&HostMemory) -> Result<(), Box<dyn error::Error + Send + Sync>>,
    ) -> Result<()> {
        let mut mappings = self.lock();
        let memory = mappings.get(&iova).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("no DMA mapping begins at {iova:#x}"),
            )
        })?;
        how(memory).map_err(|e| {
            Error::new(
                ErrorKind::Io,
                format!("cannot end the DMA mapping at {iova:#x}; its memory stays allocated"),
            )
            .with_source(e)
        })?;
        mappings.remove(&iova);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Iova, Arc<HostMemory>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ordinary pages are moved about by the kernel whether locked or not.
fn require_huge_pages(pages: PageSize, len_bytes: usize) -> Result<()> {
    if pages == PageSize::Huge2M {
        return Ok(());
    }
    let pages = len_bytes.div_ceil(PageSize::Huge2M.len_bytes());
    Err(Error::new(
        ErrorKind::OutOfMemory,
        format!(
            "no-IOMMU mode needs memory of 2 MiB pages, {pages} of them here, and there were not \
             enough; reserve more (`sysctl vm.nr_hugepages=…`)"
        ),
    ))
}

fn refused_map(iova: Iova, len: u64, locked: u64, error: VfioError) -> Error {
    let VfioError::IommuDmaMap(e) = error else {
        return Error::new(ErrorKind::Io, "cannot map memory for DMA").with_source(error);
    };
    let limit = getrlimit(Resource::Memlock).current;
    let (kind, text) = explain_map(
        iova,
        len,
        locked,
        limit,
        Errno::from_raw_os_error(e.errno()),
    );
    Error::new(kind, text).with_source(io::Error::from_raw_os_error(e.errno()))
}

fn explain_map(
    iova: Iova,
    len: u64,
    locked: u64,
    limit: Option<u64>,
    errno: Errno,
) -> (ErrorKind, String) {
    let needed = locked + len;
    match (errno, limit) {
        // The limit counts everything that the process has locked, so `needed` is the least.
        (Errno::NOMEM, Some(limit)) => (
            ErrorKind::PermissionDenied,
            format!(
                "cannot lock {} KiB of memory for DMA: the limit is {} KiB, at least {} KiB are \
                 needed; raise it (`ulimit -l {}`, or LimitMEMLOCK= of the systemd unit)",
                len.div_ceil(1024),
                limit / 1024,
                needed.div_ceil(1024),
                needed.div_ceil(1024),
            ),
        ),
        (Errno::NOMEM | Errno::NOSPC, _) => (
            ErrorKind::OutOfMemory,
            format!("the kernel cannot map {len} more bytes for DMA; free memory or map less"),
        ),
        (Errno::EXIST, _) => (
            ErrorKind::InvalidInput,
            format!("something is mapped for DMA within {len} bytes of {iova:#x}"),
        ),
        (Errno::INVAL, _) => (
            ErrorKind::InvalidInput,
            format!("{len} bytes at {iova:#x} are outside what the IOMMU maps"),
        ),
        _ => (
            ErrorKind::Io,
            format!("cannot map {len} bytes at {iova:#x} for DMA"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_low_a_memlock_limit_says_how_much_is_needed() {
        let (kind, text) = explain_map(Iova(0), 64 << 20, 1 << 20, Some(8 << 20), Errno::NOMEM);
        assert_eq!(kind, ErrorKind::PermissionDenied);
        for part in [
            "65536 KiB",
            "limit is 8192 KiB",
            "ulimit -l 66560",
            "LimitMEMLOCK",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn ordinary_pages_are_not_pinned() {
        assert!(require_huge_pages(PageSize::Huge2M, 4 << 20).is_ok());
        let error = require_huge_pages(PageSize::Base, (4 << 20) + 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        let text = error.to_string();
        assert!(text.contains("vm.nr_hugepages"), "{text}");
        assert!(text.contains("3 of them"), "{text}");
    }

    #[test]
    fn want_of_memory_without_a_limit_is_not_blamed_on_it() {
        let (kind, text) = explain_map(Iova(0), 4096, 0, None, Errno::NOMEM);
        assert_eq!(kind, ErrorKind::OutOfMemory);
        assert!(!text.contains("ulimit"), "{text}");
    }
}

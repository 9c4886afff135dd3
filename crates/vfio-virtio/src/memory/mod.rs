//! Memory of this process that a device can be given.

use std::{fmt, io};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::{Error, ErrorKind, Result};

mod mapping;
#[cfg(test)]
mod tests;

use mapping::Mapping;

/// The pages that memory consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// Ordinary pages.
    Base,
    /// Pages of 2 MiB from the kernel's reserved pool (`vm.nr_hugepages`).
    Huge2M,
}

impl PageSize {
    /// The length of a page in bytes.
    pub fn len_bytes(self) -> usize {
        match self {
            Self::Base => rustix::param::page_size(),
            Self::Huge2M => HUGE_2M,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "ordinary pages",
            Self::Huge2M => "2 MiB pages",
        })
    }
}

const HUGE_2M: usize = 2 << 20;

/// Page-aligned memory, unmapped when dropped.
///
/// Only its address is public: no reference to its bytes is made, because a device may change them
/// at any time. The exception is [`DmaBuffer::into_bytes`](crate::DmaBuffer::into_bytes).
pub struct HostMemory {
    map: MmapRaw,
    pages: PageSize,
    is_private: bool,
}

impl HostMemory {
    /// Maps at least `len_bytes` of zeroed anonymous memory, with 2 MiB pages if enough of them are free.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when the memory cannot be had, and [`ErrorKind::InvalidInput`]
    /// when `len_bytes` is 0 or more than any process has.
    pub fn new(len_bytes: usize) -> Result<Self> {
        if len_bytes == 0 || len_bytes > isize::MAX as usize {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{len_bytes} bytes are not a size of memory for DMA"),
            ));
        }
        let huge_len = len_bytes.next_multiple_of(HUGE_2M);
        // The kernel reserves huge pages when it maps them, so a map that succeeds cannot fault
        // for want of one later.
        let (map, pages) = match MmapOptions::new().len(huge_len).huge(Some(21)).map_anon() {
            Ok(map) => (map, PageSize::Huge2M),
            Err(_) => (
                MmapOptions::new()
                    .len(len_bytes.next_multiple_of(rustix::param::page_size()))
                    .map_anon()
                    .map_err(|e| {
                        Error::new(
                            ErrorKind::OutOfMemory,
                            format!("cannot map {len_bytes} bytes for DMA"),
                        )
                        .with_source(e)
                    })?,
                PageSize::Base,
            ),
        };
        Ok(Self {
            map: map.into(),
            pages,
            is_private: true,
        })
    }

    /// Memory that was mapped elsewhere: whole pages, readable and writable.
    ///
    /// What is not private and anonymous (a file, memory that is shared with other processes) can
    /// be changed by others at any time, so that
    /// [`into_bytes`](crate::DmaBuffer::into_bytes) copies it.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidInput`] when the memory is none of that.
    /// - [`ErrorKind::Io`] when the kernel does not tell (`/proc/self/smaps`).
    pub fn from_mmap(map: MmapRaw) -> Result<Self> {
        let refused = |what: &str| {
            let what = format!(
                "{} bytes at {:p} cannot be memory for DMA: {what}",
                map.len(),
                map.as_ptr()
            );
            Err(Error::new(ErrorKind::InvalidInput, what))
        };
        let start = map.as_ptr().addr();
        let mapping = Mapping::of(&(start..start.saturating_add(map.len())))?;
        if !mapping.is_readable || !mapping.is_writable {
            return refused("map it readable and writable");
        }
        let page_len = mapping.pages.len_bytes();
        if map.len() == 0 || !map.len().is_multiple_of(page_len) {
            return refused(&format!("map a multiple of {page_len} bytes"));
        }
        if !start.is_multiple_of(page_len) {
            return refused("map it from the beginning of a page");
        }
        Ok(Self {
            map,
            pages: mapping.pages,
            is_private: mapping.is_private,
        })
    }

    /// The address of the first byte.
    pub fn as_ptr(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }

    /// The length in bytes, a multiple of the page size.
    pub fn len_bytes(&self) -> usize {
        self.map.len()
    }

    /// Whether nothing but this process and its device sees the memory.
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
    }

    /// The pages it consists of, or smaller ones.
    pub fn page_size(&self) -> PageSize {
        self.pages
    }

    /// Gives every page its place and keeps it there, for a device that knows the place itself.
    pub(crate) fn lock(&self) -> io::Result<()> {
        // A process forked off would share the pages, and the next write here would move them.
        self.map.advise(Advice::DontFork)?;
        // Faults all pages in, for writing.
        self.map.lock()
    }

    /// Ends what [`lock`](Self::lock) began.
    pub(crate) fn unlock(&self) -> io::Result<()> {
        self.map.unlock()?;
        self.map.advise(Advice::DoFork)
    }
}

impl fmt::Debug for HostMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMemory")
            .field("address", &self.as_ptr())
            .field("len_bytes", &self.len_bytes())
            .field("pages", &self.pages)
            .finish()
    }
}

//! Where memory lies physically.

use std::{
    fs::File,
    io::{self, ErrorKind as IoKind},
    os::unix::fs::FileExt,
};

use crate::{Error, ErrorKind, HostMemory, Iova, PageSize, Result};

const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// The physical address of each page of `memory`, which must be locked and consist of 2 MiB pages.
pub(super) fn pages(memory: &HostMemory) -> Result<Vec<Iova>> {
    let map = File::open("/proc/self/pagemap").map_err(unknown)?;
    let base = rustix::param::page_size();
    (0..memory.len_bytes())
        .step_by(memory.page_size().len_bytes())
        .map(|offset| {
            let mut entry = [0; 8];
            let page = (memory.as_ptr().addr() + offset) / base;
            map.read_exact_at(&mut entry, page as u64 * 8)
                .map_err(unknown)?;
            frame(u64::from_ne_bytes(entry), base as u64, memory.page_size())
        })
        .collect()
}

fn unknown(error: io::Error) -> Error {
    match error.kind() {
        IoKind::PermissionDenied => hidden(),
        _ => Error::new(
            ErrorKind::Io,
            "the kernel does not tell physical addresses (/proc/self/pagemap)",
        ),
    }
    .with_source(error)
}

fn hidden() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        "the kernel hides physical addresses from this process; no-IOMMU mode needs CAP_SYS_ADMIN, \
         run it as root",
    )
}

/// The physical address in an entry of the page map, which counts in pages of `base` bytes.
fn frame(entry: u64, base: u64, size: PageSize) -> Result<Iova> {
    if entry & PRESENT == 0 {
        return Err(Error::new(
            ErrorKind::Io,
            "locked memory is not in memory (/proc/self/pagemap)",
        ));
    }
    let frame = entry & FRAME;
    if frame == 0 {
        return Err(hidden());
    }
    let address = frame.checked_mul(base);
    address
        .filter(|address| address.is_multiple_of(size.len_bytes() as u64))
        .map(Iova)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Io,
                format!("the page frame {frame:#x} does not begin a page of {size}"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(entry: u64) -> ErrorKind {
        frame(entry, 4096, PageSize::Huge2M).unwrap_err().kind()
    }

    #[test]
    fn a_frame_is_counted_in_base_pages() {
        // Soft-dirty and exclusively mapped, which is of no concern here.
        let entry = PRESENT | 1 << 55 | 1 << 56 | 0x1_2400;
        let address = frame(entry, 4096, PageSize::Huge2M).unwrap();
        assert_eq!(address, Iova(0x1240_0000));
    }

    #[test]
    fn what_is_no_address_of_a_huge_page_is_refused() {
        assert_eq!(kind(PRESENT), ErrorKind::PermissionDenied);
        assert_eq!(kind(0x1_2400), ErrorKind::Io);
        assert_eq!(kind(PRESENT | 0x1_2401), ErrorKind::Io);
        assert!(frame(PRESENT | 0x1_2401, 4096, PageSize::Base).is_ok());
    }
}

//! What the kernel says about mappings of this process.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    ops::Range,
};

use super::{HUGE_2M, PageSize};
use crate::{Error, ErrorKind, Result};

/// What a stretch of this process's memory is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) is_readable: bool,
    pub(super) is_writable: bool,
    /// Whether nobody else sees it: no file, and no process forked off.
    pub(super) is_private: bool,
    /// Its smallest pages.
    pub(super) pages: PageSize,
}

impl Mapping {
    /// Of the memory at `addresses`.
    pub(super) fn of(addresses: &Range<usize>) -> Result<Self> {
        let unknown = |e| {
            Error::new(
                ErrorKind::Io,
                "cannot learn what the memory is (/proc/self/smaps); mount /proc",
            )
            .with_source(e)
        };
        let file = File::open("/proc/self/smaps").map_err(unknown)?;
        let mapping = find(BufReader::new(file), addresses).map_err(unknown)?;
        mapping.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "the memory from {:#x} to {:#x} is not mapped",
                    addresses.start, addresses.end
                ),
            )
        })
    }
}

/// Finds what `addresses` are in the kernel's list, which ascends; nothing unless all are mapped.
fn find(list: impl BufRead, addresses: &Range<usize>) -> io::Result<Option<Mapping>> {
    let mut found: Option<Mapping> = None;
    let mut covered = addresses.start;
    // Whether the lines are about the addresses.
    let mut is_about = false;
    // Names of files may be anything.
    for line in list.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some((range, words)) = head(&line) {
            if covered >= addresses.end || range.start > covered {
                break;
            }
            is_about = range.end > covered;
            if is_about {
                covered = range.end;
                found = Some(joined(found, words));
            }
        } else if let Some(size) = line.strip_prefix("KernelPageSize:") {
            let size = size.trim().trim_end_matches(" kB").parse();
            // Larger ones consist of as many.
            let is_huge = size.is_ok_and(|size: usize| size >= HUGE_2M / 1024);
            if let Some(mapping) = found.as_mut().filter(|_| is_about && !is_huge) {
                mapping.pages = PageSize::Base;
            }
        }
    }
    Ok(found.filter(|_| covered >= addresses.end))
}

/// The addresses of a line that begins a mapping, and what follows them.
fn head(line: &str) -> Option<(Range<usize>, &str)> {
    let (range, words) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let address = |word| usize::from_str_radix(word, 16).ok();
    Some((address(start)?..address(end)?, words))
}

/// What is true of `so_far` and of the mapping with the given permissions, offset, device, inode
/// and name.
fn joined(so_far: Option<Mapping>, words: &str) -> Mapping {
    let mut words = words.split_ascii_whitespace();
    let permissions = words.next().unwrap_or_default();
    let inode = words.nth(2);
    let name = words.collect::<Vec<_>>().join(" ");
    let so_far = so_far.unwrap_or(Mapping {
        is_readable: true,
        is_writable: true,
        is_private: true,
        pages: PageSize::Huge2M,
    });
    // Anonymous huge pages have an inode and this name.
    let is_anonymous = inode == Some("0") || name == "/anon_hugepage (deleted)";
    Mapping {
        is_readable: so_far.is_readable && permissions.starts_with('r'),
        is_writable: so_far.is_writable && permissions.get(1..2) == Some("w"),
        is_private: so_far.is_private && is_anonymous && permissions.ends_with('p'),
        pages: so_far.pages,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
1000-3000 rw-p 00000000 00:00 0
Size:                  8 kB
KernelPageSize:        4 kB
VmFlags: rd wr mr mw me ac
3000-4000 rw-p 00000000 00:00 0       [anon: a-b]
KernelPageSize:        4 kB
4000-5000 r--p 00000000 00:00 0
KernelPageSize:        4 kB
5000-6000 rw-s 00001000 00:01 1234    /memfd:some name (deleted)
KernelPageSize:        4 kB
8000-9000 rw-p 00001000 fe:01 1234    /some file
KernelPageSize:        4 kB
200000-400000 rw-p 00000000 00:0f 77  /anon_hugepage (deleted)
KernelPageSize:     2048 kB
400000-600000 rw-p 00000000 00:0f 77  /anon_hugepage (deleted)
KernelPageSize:  1048576 kB
600000-601000 rw-p 00000000 00:00 0
KernelPageSize:        4 kB
";

    /// Readable, writable, private, huge.
    fn what(addresses: Range<usize>) -> Option<[bool; 4]> {
        let mapping = find(LIST.as_bytes(), &addresses).unwrap()?;
        Some([
            mapping.is_readable,
            mapping.is_writable,
            mapping.is_private,
            mapping.pages == PageSize::Huge2M,
        ])
    }

    #[test]
    fn what_holds_of_all_parts_holds_of_memory() {
        assert_eq!(what(0x1000..0x2000), Some([true, true, true, false]));
        assert_eq!(what(0x2000..0x4000), Some([true, true, true, false]));
        assert_eq!(what(0x3000..0x5000), Some([true, false, true, false]));
        assert_eq!(what(0x5000..0x6000), Some([true, true, false, false]));
        assert_eq!(what(0x3000..0x6000), Some([true, false, false, false]));
        assert_eq!(what(0x8000..0x9000), Some([true, true, false, false]));
        assert_eq!(what(0x200000..0x600000), Some([true, true, true, true]));
        assert_eq!(what(0x400000..0x601000), Some([true, true, true, false]));
    }

    #[test]
    fn memory_with_a_hole_is_not_mapped() {
        for addresses in [0..0x2000, 0x5000..0x7000, 0x5000..0x9000, 0x6000..0x7000] {
            assert_eq!(what(addresses), None);
        }
        assert_eq!(what(0x600000..0x602000), None);
        assert_eq!(what(0x700000..0x701000), None);
    }
}

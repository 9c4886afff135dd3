//! What the IOMMU maps: the part of VFIO that vfio-ioctls lacks.
#![expect(unsafe_code, reason = "the VFIO_IOMMU_GET_INFO ioctl")]

use std::{io, mem::size_of, ops::RangeInclusive, os::fd::AsRawFd};

use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_IOMMU_INFO_CAPS, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, VFIO_TYPE,
    vfio_iommu_type1_info,
};
use vmm_sys_util::ioctl::{_IOC_NONE, ioctl_expr, ioctl_with_mut_ptr};

use crate::{Error, ErrorKind, Result};

const INFO_LEN: usize = size_of::<vfio_iommu_type1_info>();
/// Far above what any kernel has to tell.
const MOST_INFO_LEN: usize = 1 << 20;
/// A capability takes at least its header; more of them than this do not fit.
const MOST_CAPABILITIES: usize = MOST_INFO_LEN / CAPABILITY_HEADER_LEN;
const CAPABILITY_HEADER_LEN: usize = 8;

/// The addresses that any IOMMU of a PC maps: 39 bits, less the window of its interrupts.
const CONSERVATIVE: [RangeInclusive<u64>; 2] = [0..=0xfedf_ffff, 0xfef0_0000..=(1 << 39) - 1];

/// The ranges of addresses that `container` maps, in ascending order.
pub(super) fn iova_ranges(container: &impl AsRawFd) -> Result<Vec<RangeInclusive<u64>>> {
    let info = iommu_info(container).map_err(|e| {
        Error::new(
            ErrorKind::Io,
            "the IOMMU does not tell which addresses it maps",
        )
        .with_source(e)
    })?;
    match parse_ranges(&info) {
        Ok(Some(ranges)) => Ok(ranges),
        Ok(None) => Ok(CONSERVATIVE.to_vec()),
        Err(Malformed) => Err(Error::new(
            ErrorKind::Io,
            "the kernel's description of the IOMMU is malformed",
        )),
    }
}

/// The kernel's `vfio_iommu_type1_info` with the capabilities behind it.
fn iommu_info(container: &impl AsRawFd) -> io::Result<Vec<u8>> {
    let request = ioctl_expr(_IOC_NONE, VFIO_TYPE.into(), VFIO_BASE + 12, 0);
    let mut info = vec![0; INFO_LEN];
    loop {
        let len = info.len();
        info[..4].copy_from_slice(&(len as u32).to_ne_bytes());
        // SAFETY: the kernel writes no more bytes than the first four say, which is the length of
        // the vector; it does not mind its alignment.
        if unsafe { ioctl_with_mut_ptr(container, request, info.as_mut_ptr()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // Where there is more to tell, the kernel says how much and is asked again.
        match read_u32(&info, 0) {
            Some(wanted) if wanted as usize > len && wanted as usize <= MOST_INFO_LEN => {
                info = vec![0; wanted as usize];
            }
            _ => return Ok(info),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Malformed;

/// The ranges in a `vfio_iommu_type1_info` with its capabilities, if they are told.
fn parse_ranges(info: &[u8]) -> Result<Option<Vec<RangeInclusive<u64>>>, Malformed> {
    let flags = read_u32(info, 4).ok_or(Malformed)?;
    if flags & VFIO_IOMMU_INFO_CAPS == 0 {
        return Ok(None);
    }
    let mut at = read_u32(info, 16).ok_or(Malformed)? as usize;
    for _ in 0..MOST_CAPABILITIES {
        if at == 0 {
            return Ok(None);
        }
        if at < INFO_LEN {
            return Err(Malformed);
        }
        // struct vfio_info_cap_header: u16 id, u16 version, u32 next.
        let header = info.get(at..at + CAPABILITY_HEADER_LEN).ok_or(Malformed)?;
        let id = u16::from_ne_bytes([header[0], header[1]]);
        if u32::from(id) == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE {
            return range_list(&info[at..]).map(Some);
        }
        at = read_u32(header, 4).ok_or(Malformed)? as usize;
    }
    Err(Malformed)
}

/// Reads `vfio_iommu_type1_info_cap_iova_range`: header, u32 count, u32 reserved, then pairs of the
/// first and the last address.
fn range_list(capability: &[u8]) -> Result<Vec<RangeInclusive<u64>>, Malformed> {
    let count = read_u32(capability, 8).ok_or(Malformed)? as usize;
    let pairs = capability.get(16..).ok_or(Malformed)?.chunks_exact(16);
    if pairs.len() < count {
        return Err(Malformed);
    }
    let mut ranges = Vec::with_capacity(count);
    for pair in pairs.take(count) {
        let start = read_u64(pair, 0).ok_or(Malformed)?;
        let end = read_u64(pair, 8).ok_or(Malformed)?;
        if start > end {
            return Err(Malformed);
        }
        ranges.push(start..=end);
    }
    ranges.sort_unstable_by_key(|r| *r.start());
    let disjoint = ranges
        .windows(2)
        .all(|pair| pair[0].end() < pair[1].start());
    if disjoint { Ok(ranges) } else { Err(Malformed) }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER_CAPABILITY: u16 = 3;

    fn info(flags: u32, cap_offset: u32) -> Vec<u8> {
        let mut info = vec![0; INFO_LEN];
        info[4..8].copy_from_slice(&flags.to_ne_bytes());
        info[16..20].copy_from_slice(&cap_offset.to_ne_bytes());
        info
    }

    fn header(id: u16, next: u32) -> Vec<u8> {
        [
            &id.to_ne_bytes()[..],
            &1u16.to_ne_bytes(),
            &next.to_ne_bytes(),
        ]
        .concat()
    }

    fn ranges(count: u32, pairs: &[(u64, u64)]) -> Vec<u8> {
        let mut bytes = header(1, 0);
        bytes.extend(u64::from(count).to_ne_bytes());
        for (start, end) in pairs {
            bytes.extend(start.to_ne_bytes());
            bytes.extend(end.to_ne_bytes());
        }
        bytes
    }

    fn with_caps(parts: &[Vec<u8>]) -> Vec<u8> {
        let caps = parts.concat();
        [info(VFIO_IOMMU_INFO_CAPS, 24), caps].concat()
    }

    #[test]
    fn ranges_behind_another_capability_are_found_and_sorted() {
        let pairs = [(0xfef0_0000, 0x7f_ffff_ffff), (0, 0xfedf_ffff)];
        let bytes = with_caps(&[header(OTHER_CAPABILITY, 32), ranges(2, &pairs)]);
        assert_eq!(parse_ranges(&bytes), Ok(Some(CONSERVATIVE.to_vec())));
    }

    #[test]
    fn a_kernel_that_tells_no_ranges_is_not_an_error() {
        assert_eq!(parse_ranges(&info(0, 24)), Ok(None));
        assert_eq!(parse_ranges(&info(VFIO_IOMMU_INFO_CAPS, 0)), Ok(None));
        assert_eq!(
            parse_ranges(&with_caps(&[header(OTHER_CAPABILITY, 0)])),
            Ok(None)
        );
    }

    #[test]
    fn malformed_chains_are_refused() {
        let whole = with_caps(&[ranges(1, &[(0, 4095)])]);
        for len in 0..whole.len() {
            assert_eq!(parse_ranges(&whole[..len]), Err(Malformed), "cut at {len}");
        }
        for (what, bytes) in [
            ("a loop", with_caps(&[header(OTHER_CAPABILITY, 24)])),
            ("an offset into the header", info(VFIO_IOMMU_INFO_CAPS, 8)),
            (
                "an offset beyond the end",
                info(VFIO_IOMMU_INFO_CAPS, u32::MAX),
            ),
            (
                "a next beyond the end",
                with_caps(&[header(OTHER_CAPABILITY, u32::MAX)]),
            ),
            ("too high a count", with_caps(&[ranges(2, &[(0, 4095)])])),
            (
                "the highest count",
                with_caps(&[ranges(u32::MAX, &[(0, 4095)])]),
            ),
            ("an inverted range", with_caps(&[ranges(1, &[(1, 0)])])),
            ("an overlap", with_caps(&[ranges(2, &[(0, 9), (9, 12)])])),
        ] {
            assert_eq!(parse_ranges(&bytes), Err(Malformed), "{what}");
        }
    }

    #[test]
    fn a_file_that_is_no_container_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(iova_ranges(&file).unwrap_err().kind(), ErrorKind::Io);
    }
}

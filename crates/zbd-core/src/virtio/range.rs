//! The range of a discard, write zeroes or secure erase request, as it lies in memory (VIRTIO 1.3,
//! 5.2.6).

use vfio_virtio::DmaBuffer;
use virtio_bindings::virtio_blk as binding;
use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout,
    little_endian::{U32, U64},
};

use super::RequestType;
use crate::{Request, Sector, SectorCount, Unmap};

/// The length of one range.
pub(crate) const RANGE_LEN: usize = size_of::<Range>();

/// `struct virtio_blk_discard_write_zeroes`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Range {
    sector: U64,
    num_sectors: U32,
    flags: U32,
}

const _: () = assert!(RANGE_LEN == 16);

/// The range that `request` names, as the device reads it. `None` if the request names none.
pub(crate) fn encode(request: &Request) -> Option<[u8; RANGE_LEN]> {
    let (at, len, flags) = match *request {
        // Only write zeroes knows a flag (VIRTIO 1.3, 5.2.6.1).
        Request::Discard { at, len } | Request::SecureErase { at, len } => (at, len, 0),
        Request::WriteZeroes { at, len, unmap } => match unmap {
            Unmap::Keep => (at, len, 0),
            Unmap::Allow => (at, len, binding::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP),
        },
        _ => return None,
    };
    let range = Range {
        sector: U64::new(at.0),
        // What is longer was refused before.
        num_sectors: U32::new(u32::try_from(len.0).ok()?),
        flags: U32::new(flags),
    };
    Some(zerocopy::transmute!(range))
}

/// The request of `request_type` whose range is in `buffer`; `None` if such requests name none.
pub(crate) fn decode(request_type: RequestType, buffer: &DmaBuffer) -> Option<Request> {
    if !matches!(
        request_type,
        RequestType::DISCARD | RequestType::WRITE_ZEROES | RequestType::SECURE_ERASE
    ) {
        return None;
    }
    let mut range = Range::new_zeroed();
    buffer.read_at(0, range.as_mut_bytes());
    let at = Sector(range.sector.get());
    let len = SectorCount(range.num_sectors.get().into());
    Some(match request_type {
        RequestType::DISCARD => Request::Discard { at, len },
        RequestType::SECURE_ERASE => Request::SecureErase { at, len },
        _ => Request::WriteZeroes {
            at,
            len,
            unmap: match range.flags.get() {
                0 => Unmap::Keep,
                _ => Unmap::Allow,
            },
        },
    })
}

//! Request types and status codes (VIRTIO 1.3, 5.2.6).

use virtio_bindings::virtio_blk as binding;

use crate::ErrorKind;

/// The type of a request, as it stands in its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestType(pub u32);

impl RequestType {
    /// Reads.
    pub const IN: Self = Self(binding::VIRTIO_BLK_T_IN);
    /// Writes.
    pub const OUT: Self = Self(binding::VIRTIO_BLK_T_OUT);
    /// Makes completed writes durable.
    pub const FLUSH: Self = Self(binding::VIRTIO_BLK_T_FLUSH);
    /// Tells the device's ID string.
    pub const GET_ID: Self = Self(binding::VIRTIO_BLK_T_GET_ID);
    /// Tells how worn the device is. Not in the kernel's headers.
    pub const GET_LIFETIME: Self = Self(10);
    /// Discards ranges.
    pub const DISCARD: Self = Self(binding::VIRTIO_BLK_T_DISCARD);
    /// Sets ranges to zeroes.
    pub const WRITE_ZEROES: Self = Self(binding::VIRTIO_BLK_T_WRITE_ZEROES);
    /// Erases ranges. Its number is even, yet its data go to the device.
    pub const SECURE_ERASE: Self = Self(binding::VIRTIO_BLK_T_SECURE_ERASE);
    /// Writes at a place in a zone that the device chooses.
    pub const ZONE_APPEND: Self = Self(binding::VIRTIO_BLK_T_ZONE_APPEND);
    /// Reports zones.
    pub const ZONE_REPORT: Self = Self(binding::VIRTIO_BLK_T_ZONE_REPORT);
    /// Opens a zone explicitly.
    pub const ZONE_OPEN: Self = Self(binding::VIRTIO_BLK_T_ZONE_OPEN);
    /// Closes a zone.
    pub const ZONE_CLOSE: Self = Self(binding::VIRTIO_BLK_T_ZONE_CLOSE);
    /// Makes a zone full.
    pub const ZONE_FINISH: Self = Self(binding::VIRTIO_BLK_T_ZONE_FINISH);
    /// Empties a zone.
    pub const ZONE_RESET: Self = Self(binding::VIRTIO_BLK_T_ZONE_RESET);
    /// Empties all sequential zones.
    pub const ZONE_RESET_ALL: Self = Self(binding::VIRTIO_BLK_T_ZONE_RESET_ALL);
}

/// The status that ends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// The request was carried out.
    pub const OK: Self = Self(binding::VIRTIO_BLK_S_OK as u8);
    /// No device writes this value: it is put there before the device gets the request.
    pub(crate) const UNWRITTEN: Self = Self(0xff);

    /// What went wrong, as a kind and in words.
    pub fn error(self) -> Option<(ErrorKind, &'static str)> {
        Some(match u32::from(self.0) {
            binding::VIRTIO_BLK_S_OK => return None,
            binding::VIRTIO_BLK_S_IOERR => {
                (ErrorKind::Medium, "the device reports an I/O error (IOERR)")
            }
            binding::VIRTIO_BLK_S_UNSUPP => (
                ErrorKind::Unsupported,
                "the device does not support the request (UNSUPP)",
            ),
            binding::VIRTIO_BLK_S_ZONE_INVALID_CMD => (
                ErrorKind::InvalidZoneState,
                "the zone's type or state does not allow it, or it does not fit into what is left of \
                 the zone (ZONE_INVALID_CMD)",
            ),
            binding::VIRTIO_BLK_S_ZONE_UNALIGNED_WP => (
                ErrorKind::UnalignedWritePointer,
                "it does not begin at the zone's write pointer (ZONE_UNALIGNED_WP)",
            ),
            binding::VIRTIO_BLK_S_ZONE_OPEN_RESOURCE => (
                ErrorKind::OpenLimit,
                "too many zones are open; close or finish one (ZONE_OPEN_RESOURCE)",
            ),
            binding::VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE => (
                ErrorKind::ActiveLimit,
                "too many zones are active; finish or reset one (ZONE_ACTIVE_RESOURCE)",
            ),
            _ if self == Self::UNWRITTEN => (
                ErrorKind::Protocol,
                "the device returned the request without a status",
            ),
            _ => (
                ErrorKind::Protocol,
                "the device returned a status that does not exist",
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_byte_has_one_meaning() {
        let kinds: Vec<_> = (0..=u8::MAX)
            .map(|byte| Status(byte).error().map(|(kind, _)| kind))
            .collect();
        assert_eq!(
            kinds[..7],
            [
                None,
                Some(ErrorKind::Medium),
                Some(ErrorKind::Unsupported),
                Some(ErrorKind::InvalidZoneState),
                Some(ErrorKind::UnalignedWritePointer),
                Some(ErrorKind::OpenLimit),
                Some(ErrorKind::ActiveLimit),
            ]
        );
        assert!(
            kinds[7..]
                .iter()
                .all(|kind| *kind == Some(ErrorKind::Protocol))
        );
    }
}

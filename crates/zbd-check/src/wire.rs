//! The numbers of VIRTIO 1.3, 5.2, written down here once more so that nothing is shared with any
//! driver.

use vfio_virtio::Features;

pub(crate) const BLOCK_DEVICE: u16 = 2;
pub(crate) const SECTOR: u64 = 512;
pub(crate) const HEADER_LEN: usize = 16;
/// A status byte, and one after the sector of an append.
pub(crate) const STATUS_LEN: usize = 1;
pub(crate) const APPEND_LEN: usize = 9;
pub(crate) const ID_LEN: usize = 20;
/// The header of a zone report, and each descriptor.
pub(crate) const REPORT_ENTRY: usize = 64;

pub(crate) mod feature {
    use super::Features;

    pub(crate) const SIZE_MAX: Features = Features::bit(1);
    pub(crate) const SEG_MAX: Features = Features::bit(2);
    pub(crate) const RO: Features = Features::bit(5);
    pub(crate) const BLK_SIZE: Features = Features::bit(6);
    pub(crate) const FLUSH: Features = Features::bit(9);
    pub(crate) const TOPOLOGY: Features = Features::bit(10);
    pub(crate) const CONFIG_WCE: Features = Features::bit(11);
    pub(crate) const MQ: Features = Features::bit(12);
    pub(crate) const DISCARD: Features = Features::bit(13);
    pub(crate) const WRITE_ZEROES: Features = Features::bit(14);
    pub(crate) const LIFETIME: Features = Features::bit(15);
    pub(crate) const SECURE_ERASE: Features = Features::bit(16);
    pub(crate) const ZONED: Features = Features::bit(17);

    /// What of section 5.2 a session accepts where nothing else is asked for.
    pub(crate) const BLOCK: [Features; 13] = [
        SIZE_MAX,
        SEG_MAX,
        RO,
        BLK_SIZE,
        FLUSH,
        TOPOLOGY,
        CONFIG_WCE,
        MQ,
        DISCARD,
        WRITE_ZEROES,
        LIFETIME,
        SECURE_ERASE,
        ZONED,
    ];
}

/// Offsets in `struct virtio_blk_config` (5.2.4).
pub(crate) mod offset {
    pub(crate) const SIZE_MAX: usize = 0x08;
    pub(crate) const SEG_MAX: usize = 0x0c;
    pub(crate) const BLK_SIZE: usize = 0x14;
    pub(crate) const TOPOLOGY: usize = 0x18;
    pub(crate) const WRITEBACK: usize = 0x20;
    pub(crate) const UNUSED0: usize = 0x21;
    pub(crate) const NUM_QUEUES: usize = 0x22;
    pub(crate) const MAX_DISCARD: usize = 0x24;
    pub(crate) const MAX_WRITE_ZEROES: usize = 0x30;
    pub(crate) const UNUSED1: usize = 0x39;
    pub(crate) const MAX_SECURE_ERASE: usize = 0x3c;
    pub(crate) const SECURE_ERASE_ALIGNMENT: usize = 0x44;
    pub(crate) const ZONE_SECTORS: usize = 0x48;
    pub(crate) const MAX_OPEN: usize = 0x4c;
    pub(crate) const MAX_ACTIVE: usize = 0x50;
    pub(crate) const MAX_APPEND: usize = 0x54;
    pub(crate) const GRANULARITY: usize = 0x58;
    pub(crate) const MODEL: usize = 0x5c;
    pub(crate) const UNUSED2: usize = 0x5d;
    pub(crate) const END: usize = 0x60;
}

/// Types of requests (5.2.6).
pub(crate) mod kind {
    pub(crate) const IN: u32 = 0;
    pub(crate) const OUT: u32 = 1;
    pub(crate) const FLUSH: u32 = 4;
    pub(crate) const GET_ID: u32 = 8;
    pub(crate) const GET_LIFETIME: u32 = 10;
    pub(crate) const DISCARD: u32 = 11;
    pub(crate) const WRITE_ZEROES: u32 = 13;
    pub(crate) const SECURE_ERASE: u32 = 14;
    pub(crate) const APPEND: u32 = 15;
    pub(crate) const REPORT: u32 = 16;
    pub(crate) const OPEN: u32 = 18;
    pub(crate) const CLOSE: u32 = 20;
    pub(crate) const FINISH: u32 = 22;
    pub(crate) const RESET: u32 = 24;
    pub(crate) const RESET_ALL: u32 = 26;
}

/// Statuses (5.2.6).
pub(crate) mod status {
    pub(crate) const OK: u8 = 0;
    pub(crate) const IOERR: u8 = 1;
    pub(crate) const UNSUPP: u8 = 2;
    pub(crate) const INVALID_CMD: u8 = 3;
    pub(crate) const UNALIGNED_WP: u8 = 4;
    pub(crate) const OPEN_RESOURCE: u8 = 5;
    pub(crate) const ACTIVE_RESOURCE: u8 = 6;
}

pub(crate) fn request_name(kind: u32) -> &'static str {
    match kind {
        kind::IN => "IN",
        kind::OUT => "OUT",
        kind::FLUSH => "FLUSH",
        kind::GET_ID => "GET_ID",
        kind::GET_LIFETIME => "GET_LIFETIME",
        kind::DISCARD => "DISCARD",
        kind::WRITE_ZEROES => "WRITE_ZEROES",
        kind::SECURE_ERASE => "SECURE_ERASE",
        kind::APPEND => "ZONE_APPEND",
        kind::REPORT => "ZONE_REPORT",
        kind::OPEN => "ZONE_OPEN",
        kind::CLOSE => "ZONE_CLOSE",
        kind::FINISH => "ZONE_FINISH",
        kind::RESET => "ZONE_RESET",
        kind::RESET_ALL => "ZONE_RESET_ALL",
        _ => "unknown",
    }
}

pub(crate) fn status_name(status: u8) -> &'static str {
    match status {
        status::OK => "OK",
        status::IOERR => "IOERR",
        status::UNSUPP => "UNSUPP",
        status::INVALID_CMD => "ZONE_INVALID_CMD",
        status::UNALIGNED_WP => "ZONE_UNALIGNED_WP",
        status::OPEN_RESOURCE => "ZONE_OPEN_RESOURCE",
        status::ACTIVE_RESOURCE => "ZONE_ACTIVE_RESOURCE",
        _ => "undefined",
    }
}

/// The little-endian number of up to eight bytes at `offset`, 0 beyond the end.
pub(crate) fn number(bytes: &[u8], offset: usize, len: usize) -> u64 {
    let mut value = [0; 8];
    for (to, from) in value.iter_mut().zip(bytes.iter().skip(offset).take(len)) {
        *to = *from;
    }
    u64::from_le_bytes(value)
}

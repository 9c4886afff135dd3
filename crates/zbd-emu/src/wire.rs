//! Names, in the types used here, for numbers of the specification.
//!
//! What `virtio-bindings` has is taken from there; what it lacks (the PCI transport) is defined
//! where it is used.

use virtio_bindings::{virtio_blk as blk, virtio_config as config, virtio_ring as ring};

/// Sectors are 512 bytes whatever the block size (VIRTIO 1.3 §5.2.5).
pub(crate) const SECTOR_BYTES: u64 = 512;

/// The flag of a segment of WRITE_ZEROES (VIRTIO 1.3 §5.2.6).
pub(crate) const SEGMENT_UNMAP: u32 = blk::VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

/// Feature bits (VIRTIO 1.3 §5.2.3, §6).
pub(crate) mod feature {
    use super::{blk, config, ring};

    pub(crate) const SIZE_MAX: u64 = 1 << blk::VIRTIO_BLK_F_SIZE_MAX;
    pub(crate) const SEG_MAX: u64 = 1 << blk::VIRTIO_BLK_F_SEG_MAX;
    pub(crate) const RO: u64 = 1 << blk::VIRTIO_BLK_F_RO;
    pub(crate) const BLK_SIZE: u64 = 1 << blk::VIRTIO_BLK_F_BLK_SIZE;
    pub(crate) const FLUSH: u64 = 1 << blk::VIRTIO_BLK_F_FLUSH;
    pub(crate) const TOPOLOGY: u64 = 1 << blk::VIRTIO_BLK_F_TOPOLOGY;
    pub(crate) const CONFIG_WCE: u64 = 1 << blk::VIRTIO_BLK_F_CONFIG_WCE;
    pub(crate) const MQ: u64 = 1 << blk::VIRTIO_BLK_F_MQ;
    pub(crate) const DISCARD: u64 = 1 << blk::VIRTIO_BLK_F_DISCARD;
    pub(crate) const WRITE_ZEROES: u64 = 1 << blk::VIRTIO_BLK_F_WRITE_ZEROES;
    /// `virtio-bindings` does not have it.
    pub(crate) const LIFETIME: u64 = 1 << 15;
    pub(crate) const SECURE_ERASE: u64 = 1 << blk::VIRTIO_BLK_F_SECURE_ERASE;
    pub(crate) const ZONED: u64 = 1 << blk::VIRTIO_BLK_F_ZONED;
    pub(crate) const INDIRECT_DESC: u64 = 1 << ring::VIRTIO_RING_F_INDIRECT_DESC;
    pub(crate) const EVENT_IDX: u64 = 1 << ring::VIRTIO_RING_F_EVENT_IDX;
    pub(crate) const VERSION_1: u64 = 1 << config::VIRTIO_F_VERSION_1;
    pub(crate) const ACCESS_PLATFORM: u64 = 1 << config::VIRTIO_F_ACCESS_PLATFORM;
    pub(crate) const RING_PACKED: u64 = 1 << config::VIRTIO_F_RING_PACKED;
    pub(crate) const IN_ORDER: u64 = 1 << config::VIRTIO_F_IN_ORDER;
    pub(crate) const ORDER_PLATFORM: u64 = 1 << config::VIRTIO_F_ORDER_PLATFORM;
    pub(crate) const NOTIFICATION_DATA: u64 = 1 << config::VIRTIO_F_NOTIFICATION_DATA;
    pub(crate) const NOTIF_CONFIG_DATA: u64 = 1 << config::VIRTIO_F_NOTIF_CONFIG_DATA;
    pub(crate) const RING_RESET: u64 = 1 << config::VIRTIO_F_RING_RESET;
}

/// Device status bits (VIRTIO 1.3 §2.1).
pub(crate) mod device_status {
    use super::config;

    pub(crate) const DRIVER_OK: u8 = config::VIRTIO_CONFIG_S_DRIVER_OK as u8;
    pub(crate) const FEATURES_OK: u8 = config::VIRTIO_CONFIG_S_FEATURES_OK as u8;
    pub(crate) const NEEDS_RESET: u8 = config::VIRTIO_CONFIG_S_NEEDS_RESET as u8;
}

/// Request types (VIRTIO 1.3 §5.2.6).
pub(crate) mod request {
    use super::blk;

    pub(crate) const IN: u32 = blk::VIRTIO_BLK_T_IN;
    pub(crate) const OUT: u32 = blk::VIRTIO_BLK_T_OUT;
    pub(crate) const FLUSH: u32 = blk::VIRTIO_BLK_T_FLUSH;
    pub(crate) const GET_ID: u32 = blk::VIRTIO_BLK_T_GET_ID;
    /// `virtio-bindings` does not have it.
    pub(crate) const GET_LIFETIME: u32 = 10;
    pub(crate) const DISCARD: u32 = blk::VIRTIO_BLK_T_DISCARD;
    pub(crate) const WRITE_ZEROES: u32 = blk::VIRTIO_BLK_T_WRITE_ZEROES;
    pub(crate) const SECURE_ERASE: u32 = blk::VIRTIO_BLK_T_SECURE_ERASE;
    pub(crate) const ZONE_APPEND: u32 = blk::VIRTIO_BLK_T_ZONE_APPEND;
    pub(crate) const ZONE_REPORT: u32 = blk::VIRTIO_BLK_T_ZONE_REPORT;
    pub(crate) const ZONE_OPEN: u32 = blk::VIRTIO_BLK_T_ZONE_OPEN;
    pub(crate) const ZONE_CLOSE: u32 = blk::VIRTIO_BLK_T_ZONE_CLOSE;
    pub(crate) const ZONE_FINISH: u32 = blk::VIRTIO_BLK_T_ZONE_FINISH;
    pub(crate) const ZONE_RESET: u32 = blk::VIRTIO_BLK_T_ZONE_RESET;
    pub(crate) const ZONE_RESET_ALL: u32 = blk::VIRTIO_BLK_T_ZONE_RESET_ALL;
}

/// Status bytes (VIRTIO 1.3 §5.2.6).
pub(crate) mod status {
    use super::blk;

    pub(crate) const OK: u8 = blk::VIRTIO_BLK_S_OK as u8;
    pub(crate) const IOERR: u8 = blk::VIRTIO_BLK_S_IOERR as u8;
    pub(crate) const UNSUPP: u8 = blk::VIRTIO_BLK_S_UNSUPP as u8;
    pub(crate) const INVALID_CMD: u8 = blk::VIRTIO_BLK_S_ZONE_INVALID_CMD as u8;
    pub(crate) const UNALIGNED_WP: u8 = blk::VIRTIO_BLK_S_ZONE_UNALIGNED_WP as u8;
    pub(crate) const OPEN_RESOURCE: u8 = blk::VIRTIO_BLK_S_ZONE_OPEN_RESOURCE as u8;
    pub(crate) const ACTIVE_RESOURCE: u8 = blk::VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE as u8;
}

//! The device configuration of a block device (VIRTIO 1.3 §5.2.4).

use vfio_virtio::{Result, Width};

use super::Device;
use crate::{
    config::{Resolved, Switch, ZoneModel},
    disk::limits,
    wire::{device_status, feature},
};

const WRITEBACK: u64 = 0x20;
/// The length with the zoned characteristics, without them, and without the limits of secure erase
/// too: a device presents no more than what it offers.
const ZONED_BYTES: u64 = 0x60;
const ERASABLE_BYTES: u64 = 0x48;
const PLAIN_BYTES: u64 = 0x3c;

/// The length of the structure that a device with `config` presents.
pub(crate) fn len_bytes(config: &Resolved) -> u64 {
    if config.model != ZoneModel::None {
        ZONED_BYTES
    } else if config.features & feature::SECURE_ERASE != 0 {
        ERASABLE_BYTES
    } else {
        PLAIN_BYTES
    }
}

impl Device {
    /// Reads the configuration. Any naturally aligned access is served: a transport does not know
    /// which fields there are.
    pub(crate) fn read_blk(&self, offset: u64, width: Width) -> u32 {
        let bytes = self.blk_config();
        let start = offset as usize;
        let mut value = [0; 4];
        for (i, byte) in value.iter_mut().enumerate().take(width as usize) {
            *byte = bytes.get(start + i).copied().unwrap_or(0);
        }
        u32::from_le_bytes(value)
    }

    /// Writes the configuration, of which only `writeback` can be written.
    pub(crate) fn write_blk(&mut self, offset: u64, width: Width, value: u32) -> Result<()> {
        let negotiated = self.negotiated(feature::CONFIG_WCE) == Switch::On
            && self.negotiated(feature::FLUSH) == Switch::On;
        if offset == WRITEBACK && width == Width::Byte && negotiated {
            // A driver that reads the field back sees whether the device followed.
            self.set_writeback(value as u8 != 0);
        }
        Ok(())
    }

    fn blk_config(&self) -> [u8; ZONED_BYTES as usize] {
        let config = &self.config;
        let geometry = &config.geometry;
        let mut bytes = [0; ZONED_BYTES as usize];
        let mut put = |offset: usize, value: &[u8]| {
            bytes[offset..offset + value.len()].copy_from_slice(value);
        };
        put(0x00, &geometry.sectors.to_le_bytes());
        put(0x08, &config.segments.len_bytes.unwrap_or(0).to_le_bytes());
        put(0x0c, &config.seg_max.to_le_bytes());
        put(0x14, &config.block_size_bytes.to_le_bytes());
        // The topology: physical blocks are logical ones, transfers are best done in blocks.
        put(0x1a, &1u16.to_le_bytes());
        put(WRITEBACK as usize, &[u8::from(self.writeback)]);
        put(0x22, &config.queues.to_le_bytes());
        let secure_erase = limits::secure_erase(geometry);
        for (feature, offset, fields) in [
            (
                feature::DISCARD,
                0x24,
                [
                    limits::DISCARD.sectors,
                    limits::DISCARD.segments,
                    geometry.block_sectors as u32,
                ],
            ),
            (
                feature::WRITE_ZEROES,
                0x30,
                // write_zeroes_may_unmap
                [
                    limits::WRITE_ZEROES.sectors,
                    limits::WRITE_ZEROES.segments,
                    1,
                ],
            ),
            (
                feature::SECURE_ERASE,
                0x3c,
                [
                    secure_erase.sectors,
                    secure_erase.segments,
                    limits::secure_erase_alignment(geometry),
                ],
            ),
        ] {
            if config.features & feature != 0 {
                for (i, field) in fields.into_iter().enumerate() {
                    put(offset + 4 * i, &field.to_le_bytes());
                }
            }
        }
        // §5.2.5.2: a driver that did not accept the feature sees no characteristics.
        let declined = self.status & device_status::FEATURES_OK != 0
            && self.negotiated(feature::ZONED) == Switch::Off;
        if config.model != ZoneModel::None && !declined {
            put(0x48, &(geometry.zone_sectors as u32).to_le_bytes());
            put(0x4c, &geometry.max_open.to_le_bytes());
            put(0x50, &geometry.max_active.to_le_bytes());
            put(0x54, &config.max_append_sectors.to_le_bytes());
            put(0x58, &config.block_size_bytes.to_le_bytes());
            let model = match config.model {
                ZoneModel::None => 0,
                ZoneModel::HostManaged => 1,
                ZoneModel::HostAware => 2,
            };
            put(0x5c, &[model]);
        }
        bytes
    }
}

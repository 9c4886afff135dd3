//! The configuration of a block device (VIRTIO 1.3, 5.2.4).

use vfio_virtio::{Config, ConfiguredDevice, Features};
use virtio_bindings::virtio_blk as binding;

use crate::{Error, ErrorKind, Result, Sector, SectorCount, ZoneModel, units::SECTOR_LEN};

pub(super) const RO: Features = Features::bit(binding::VIRTIO_BLK_F_RO);
pub(super) const BLK_SIZE: Features = Features::bit(binding::VIRTIO_BLK_F_BLK_SIZE);
pub(super) const TOPOLOGY: Features = Features::bit(binding::VIRTIO_BLK_F_TOPOLOGY);
pub(super) const FLUSH: Features = Features::bit(binding::VIRTIO_BLK_F_FLUSH);
pub(super) const MQ: Features = Features::bit(binding::VIRTIO_BLK_F_MQ);
pub(super) const ZONED: Features = Features::bit(binding::VIRTIO_BLK_F_ZONED);
pub(super) const SIZE_MAX: Features = Features::bit(binding::VIRTIO_BLK_F_SIZE_MAX);

/// The names of the block device's features, for people.
pub(super) const NAMES: &[(Features, &str)] = &[
    (RO, "ro"),
    (BLK_SIZE, "blk_size"),
    (TOPOLOGY, "topology"),
    (FLUSH, "flush"),
    (MQ, "mq"),
    (ZONED, "zoned"),
    (SIZE_MAX, "size_max"),
    (Features::INDIRECT_DESC, "indirect_desc"),
    (Features::EVENT_IDX, "event_idx"),
    (Features::VERSION_1, "version_1"),
    (Features::ACCESS_PLATFORM, "access_platform"),
];

const CAPACITY: u64 = 0x00;
const SIZE_MAX_FIELD: u64 = 0x08;
const BLK_SIZE_FIELD: u64 = 0x14;
const PHYSICAL_BLOCK_EXP: u64 = 0x18;
const NUM_QUEUES: u64 = 0x22;
const ZONE_SECTORS: u64 = 0x48;
const MAX_OPEN_ZONES: u64 = 0x4c;
const MAX_ACTIVE_ZONES: u64 = 0x50;
const MAX_APPEND_SECTORS: u64 = 0x54;
const WRITE_GRANULARITY: u64 = 0x58;
const MODEL: u64 = 0x5c;

/// What the configuration says, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlkConfig {
    pub(super) capacity: SectorCount,
    pub(super) block_size: u32,
    pub(super) physical_block_size: u32,
    /// The greatest length of one data segment in bytes.
    pub(super) segment_len_max: u32,
    pub(super) num_queues: u16,
    /// `None` where ZONED was not accepted or the device says that it has no zones.
    pub(super) zoned: Option<ZonedConfig>,
}

/// The zoned part of the configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZonedConfig {
    pub(super) model: ZoneModel,
    pub(super) zone_size: SectorCount,
    pub(super) zone_count: u32,
    pub(super) max_open: u32,
    pub(super) max_active: u32,
    pub(super) max_append: SectorCount,
    pub(super) write_granularity: u32,
}

/// The fields as they stand, before anything is made of them.
struct Raw {
    capacity: u64,
    size_max: u32,
    block_size: u32,
    physical_block_exp: u8,
    num_queues: u16,
    zoned: Option<[u32; 5]>,
    model: u8,
}

impl BlkConfig {
    /// Reads the configuration and checks that it makes sense.
    pub(super) fn read(device: &ConfiguredDevice) -> Result<Self> {
        let features = device.features();
        device
            .read_config(|config| Raw::read(features, config))?
            .check()
    }

    /// The first sector after the device.
    pub(super) fn end(&self) -> Sector {
        Sector(self.capacity.0)
    }
}

impl Raw {
    fn read(features: Features, config: &Config<'_>) -> vfio_virtio::Result<Self> {
        let has = |feature| features.contains(feature);
        Ok(Self {
            capacity: config.u64(CAPACITY)?,
            size_max: if has(SIZE_MAX) {
                config.u32(SIZE_MAX_FIELD)?
            } else {
                u32::MAX
            },
            block_size: if has(BLK_SIZE) {
                config.u32(BLK_SIZE_FIELD)?
            } else {
                SECTOR_LEN as u32
            },
            physical_block_exp: if has(TOPOLOGY) {
                config.u8(PHYSICAL_BLOCK_EXP)?
            } else {
                0
            },
            num_queues: if has(MQ) { config.u16(NUM_QUEUES)? } else { 1 },
            zoned: if has(ZONED) {
                zoned_is_there(config)?;
                let mut fields = [0; 5];
                let offsets = [
                    ZONE_SECTORS,
                    MAX_OPEN_ZONES,
                    MAX_ACTIVE_ZONES,
                    MAX_APPEND_SECTORS,
                    WRITE_GRANULARITY,
                ];
                for (field, offset) in fields.iter_mut().zip(offsets) {
                    *field = config.u32(offset)?;
                }
                Some(fields)
            } else {
                None
            },
            model: if has(ZONED) { config.u8(MODEL)? } else { 0 },
        })
    }

    fn check(&self) -> Result<BlkConfig> {
        let block_size = self.block_size;
        if !block_size.is_power_of_two() || u64::from(block_size) < SECTOR_LEN {
            return Err(inconsistent(format!(
                "block size {block_size} is not a power of two from 512 on"
            )));
        }
        let physical_block_size = block_size
            .checked_shl(self.physical_block_exp.into())
            .filter(|&size| size >> self.physical_block_exp == block_size)
            .ok_or_else(|| {
                inconsistent(format!(
                    "2^{} logical blocks in a physical one are too many",
                    self.physical_block_exp
                ))
            })?;
        if self.capacity.checked_mul(SECTOR_LEN).is_none() {
            return Err(inconsistent(format!(
                "{} sectors are too many",
                self.capacity
            )));
        }
        if self.num_queues == 0 {
            return Err(inconsistent("it has no queues".to_owned()));
        }
        Ok(BlkConfig {
            capacity: SectorCount(self.capacity),
            block_size,
            physical_block_size,
            segment_len_max: self.size_max,
            num_queues: self.num_queues,
            zoned: self.check_zoned()?,
        })
    }

    fn check_zoned(&self) -> Result<Option<ZonedConfig>> {
        let Some([zone_sectors, max_open, max_active, max_append, granularity]) = self.zoned else {
            return Ok(None);
        };
        let model = match u32::from(self.model) {
            binding::VIRTIO_BLK_Z_NONE => return Ok(None),
            binding::VIRTIO_BLK_Z_HM => ZoneModel::HostManaged,
            binding::VIRTIO_BLK_Z_HA => ZoneModel::HostAware,
            other => return Err(inconsistent(format!("zone model {other} does not exist"))),
        };
        if zone_sectors == 0 {
            return Err(inconsistent("the zone size is 0".to_owned()));
        }
        if granularity == 0 || !granularity.is_multiple_of(SECTOR_LEN as u32) {
            return Err(inconsistent(format!(
                "the write granularity of {granularity} bytes is not a multiple of 512"
            )));
        }
        let zone_count = self.capacity.div_ceil(zone_sectors.into());
        let zone_count = u32::try_from(zone_count).map_err(|_| {
            inconsistent(format!(
                "{zone_count} zones of {zone_sectors} sectors are too many"
            ))
        })?;
        Ok(Some(ZonedConfig {
            model,
            zone_size: SectorCount(zone_sectors.into()),
            zone_count,
            max_open,
            max_active,
            max_append: SectorCount(max_append.into()),
            write_granularity: granularity,
        }))
    }
}

/// Some back ends serve a configuration that ends before the zoned fields.
fn zoned_is_there(config: &Config<'_>) -> vfio_virtio::Result<()> {
    let fields = [
        (ZONE_SECTORS + 4, "zone_sectors"),
        (MAX_OPEN_ZONES + 4, "max_open_zones"),
        (MAX_ACTIVE_ZONES + 4, "max_active_zones"),
        (MAX_APPEND_SECTORS + 4, "max_append_sectors"),
        (WRITE_GRANULARITY + 4, "write_granularity"),
        (MODEL + 1, "model"),
    ];
    match fields.iter().find(|(end, _)| *end > config.len_bytes()) {
        None => Ok(()),
        Some((_, field)) => Err(vfio_virtio::Error::new(
            vfio_virtio::ErrorKind::Protocol,
            format!(
                "the device offers ZONED, but its configuration of {} bytes has no field {field}",
                config.len_bytes()
            ),
        )),
    }
}

fn inconsistent(what: String) -> Error {
    Error::new(
        ErrorKind::Protocol,
        format!("the device's configuration is inconsistent: {what}"),
    )
}

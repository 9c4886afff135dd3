//! The configuration of a block device (VIRTIO 1.3, 5.2.4).

use vfio_virtio::{Config, ConfiguredDevice, Features, RunningDevice};
use virtio_bindings::virtio_blk as binding;

use crate::{
    Error, ErrorKind, RangeLimits, Result, Sector, SectorCount, ZeroesLimits, ZoneModel,
    units::SECTOR_LEN,
};

pub(super) const RO: Features = Features::bit(binding::VIRTIO_BLK_F_RO);
pub(super) const BLK_SIZE: Features = Features::bit(binding::VIRTIO_BLK_F_BLK_SIZE);
pub(super) const TOPOLOGY: Features = Features::bit(binding::VIRTIO_BLK_F_TOPOLOGY);
pub(super) const FLUSH: Features = Features::bit(binding::VIRTIO_BLK_F_FLUSH);
pub(super) const MQ: Features = Features::bit(binding::VIRTIO_BLK_F_MQ);
pub(super) const ZONED: Features = Features::bit(binding::VIRTIO_BLK_F_ZONED);
pub(super) const SIZE_MAX: Features = Features::bit(binding::VIRTIO_BLK_F_SIZE_MAX);
pub(super) const SEG_MAX: Features = Features::bit(binding::VIRTIO_BLK_F_SEG_MAX);
pub(super) const CONFIG_WCE: Features = Features::bit(binding::VIRTIO_BLK_F_CONFIG_WCE);
pub(super) const DISCARD: Features = Features::bit(binding::VIRTIO_BLK_F_DISCARD);
pub(super) const WRITE_ZEROES: Features = Features::bit(binding::VIRTIO_BLK_F_WRITE_ZEROES);
/// Not in the kernel's headers.
pub(super) const LIFETIME: Features = Features::bit(15);
pub(super) const SECURE_ERASE: Features = Features::bit(binding::VIRTIO_BLK_F_SECURE_ERASE);

/// The greatest number of zones: what is kept of each, and how long it takes to ask for all of them,
/// must not be up to the device. That of zones of 256 MiB on a petabyte.
const MOST_ZONES: u32 = 1 << 22;

/// The names of the block device's features, for people.
pub(super) const NAMES: &[(Features, &str)] = &[
    (RO, "ro"),
    (BLK_SIZE, "blk_size"),
    (TOPOLOGY, "topology"),
    (FLUSH, "flush"),
    (MQ, "mq"),
    (ZONED, "zoned"),
    (SIZE_MAX, "size_max"),
    (SEG_MAX, "seg_max"),
    (CONFIG_WCE, "config_wce"),
    (DISCARD, "discard"),
    (WRITE_ZEROES, "write_zeroes"),
    (LIFETIME, "lifetime"),
    (SECURE_ERASE, "secure_erase"),
    (Features::VERSION_1, "version_1"),
    (Features::ACCESS_PLATFORM, "access_platform"),
    (Features::RING_RESET, "ring_reset"),
    (Features::RING_PACKED, "ring_packed"),
    (Features::INDIRECT_DESC, "indirect_desc"),
    (Features::EVENT_IDX, "event_idx"),
    (Features::IN_ORDER, "in_order"),
    (Features::NOTIFICATION_DATA, "notification_data"),
    (Features::NOTIF_CONFIG_DATA, "notif_config_data"),
    (Features::ORDER_PLATFORM, "order_platform"),
];

/// Those of the features about which [`RingOptions`](crate::RingOptions) decide.
pub(super) const RING_FEATURES: &[Features] = &[
    Features::RING_PACKED,
    Features::INDIRECT_DESC,
    Features::EVENT_IDX,
    Features::IN_ORDER,
    Features::NOTIFICATION_DATA,
    Features::NOTIF_CONFIG_DATA,
    Features::ORDER_PLATFORM,
];

/// The size that the configuration states now.
pub(crate) fn capacity(device: &RunningDevice) -> Result<SectorCount> {
    let capacity = device.read_config(|config| config.u64(Offset::CAPACITY))?;
    match capacity.checked_mul(SECTOR_LEN) {
        Some(_) => Ok(SectorCount(capacity)),
        None => Err(inconsistent(format!("{capacity} sectors are too many"))),
    }
}

/// Where the cache mode is read and written.
pub(crate) const WRITEBACK: u64 = Offset::WRITEBACK;

/// Where the fields are.
pub(super) struct Offset;

impl Offset {
    const CAPACITY: u64 = 0x00;
    pub(super) const SIZE_MAX: u64 = 0x08;
    pub(super) const SEG_MAX: u64 = 0x0c;
    pub(super) const BLK_SIZE: u64 = 0x14;
    pub(super) const PHYSICAL_BLOCK_EXP: u64 = 0x18;
    pub(super) const WRITEBACK: u64 = 0x20;
    pub(super) const NUM_QUEUES: u64 = 0x22;
    const MAX_DISCARD_SECTORS: u64 = 0x24;
    const MAX_DISCARD_SEG: u64 = 0x28;
    pub(super) const DISCARD_ALIGNMENT: u64 = 0x2c;
    const MAX_ZEROES_SECTORS: u64 = 0x30;
    const MAX_ZEROES_SEG: u64 = 0x34;
    pub(super) const ZEROES_MAY_UNMAP: u64 = 0x38;
    const MAX_ERASE_SECTORS: u64 = 0x3c;
    const MAX_ERASE_SEG: u64 = 0x40;
    pub(super) const ERASE_ALIGNMENT: u64 = 0x44;
    const ZONE_SECTORS: u64 = 0x48;
    const MAX_OPEN_ZONES: u64 = 0x4c;
    const MAX_ACTIVE_ZONES: u64 = 0x50;
    const MAX_APPEND_SECTORS: u64 = 0x54;
    const WRITE_GRANULARITY: u64 = 0x58;
    pub(super) const MODEL: u64 = 0x5c;
}

/// The names of the block device's features in `set`.
pub(super) fn names(set: Features) -> impl Iterator<Item = &'static str> {
    NAMES
        .iter()
        .filter(move |(feature, _)| set.contains(*feature))
        .map(|(_, name)| *name)
}

/// What the configuration says, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlkConfig {
    pub(super) capacity: SectorCount,
    pub(super) block_size: u32,
    pub(super) physical_block_size: u32,
    pub(super) max_transfer: u32,
    pub(super) max_segments: u32,
    pub(super) max_segment: u32,
    pub(super) num_queues: u16,
    pub(super) discard: Option<RangeLimits>,
    pub(super) write_zeroes: Option<ZeroesLimits>,
    pub(super) secure_erase: Option<RangeLimits>,
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
    size_max: Option<u32>,
    seg_max: Option<u32>,
    block_size: u32,
    physical_block_exp: u8,
    num_queues: u16,
    /// Of discard and of secure erase the greatest number of sectors, that of ranges, and the
    /// alignment.
    discard: Option<[u32; 3]>,
    secure_erase: Option<[u32; 3]>,
    write_zeroes: Option<[u32; 2]>,
    zeroes_may_unmap: u8,
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
        if has(ZONED) {
            zoned_is_there(config)?;
        }
        Ok(Self {
            capacity: config.u64(Offset::CAPACITY)?,
            size_max: fields(config, has(SIZE_MAX), [Offset::SIZE_MAX])?.map(|[n]| n),
            seg_max: fields(config, has(SEG_MAX), [Offset::SEG_MAX])?.map(|[n]| n),
            block_size: if has(BLK_SIZE) {
                config.u32(Offset::BLK_SIZE)?
            } else {
                SECTOR_LEN as u32
            },
            physical_block_exp: if has(TOPOLOGY) {
                config.u8(Offset::PHYSICAL_BLOCK_EXP)?
            } else {
                0
            },
            num_queues: if has(MQ) {
                config.u16(Offset::NUM_QUEUES)?
            } else {
                1
            },
            discard: fields(
                config,
                has(DISCARD),
                [
                    Offset::MAX_DISCARD_SECTORS,
                    Offset::MAX_DISCARD_SEG,
                    Offset::DISCARD_ALIGNMENT,
                ],
            )?,
            secure_erase: fields(
                config,
                has(SECURE_ERASE),
                [
                    Offset::MAX_ERASE_SECTORS,
                    Offset::MAX_ERASE_SEG,
                    Offset::ERASE_ALIGNMENT,
                ],
            )?,
            write_zeroes: fields(
                config,
                has(WRITE_ZEROES),
                [Offset::MAX_ZEROES_SECTORS, Offset::MAX_ZEROES_SEG],
            )?,
            zeroes_may_unmap: if has(WRITE_ZEROES) {
                config.u8(Offset::ZEROES_MAY_UNMAP)?
            } else {
                0
            },
            zoned: fields(
                config,
                has(ZONED),
                [
                    Offset::ZONE_SECTORS,
                    Offset::MAX_OPEN_ZONES,
                    Offset::MAX_ACTIVE_ZONES,
                    Offset::MAX_APPEND_SECTORS,
                    Offset::WRITE_GRANULARITY,
                ],
            )?,
            model: if has(ZONED) {
                config.u8(Offset::MODEL)?
            } else {
                0
            },
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
        // One segment there is always, whatever the device says; and a segment of no bytes cannot
        // be meant as a limit.
        let max_segments = self.seg_max.unwrap_or(1).max(1);
        let max_segment = self.size_max.filter(|&n| n > 0).unwrap_or(u32::MAX);
        let max_transfer = max_segment.saturating_mul(max_segments) / block_size * block_size;
        if max_transfer == 0 {
            return Err(inconsistent(format!(
                "{max_segments} segments of {max_segment} bytes do not hold a block of {block_size}"
            )));
        }
        let zoned = self.check_zoned(max_transfer)?;
        let host_managed = matches!(
            zoned,
            Some(ZonedConfig {
                model: ZoneModel::HostManaged,
                ..
            })
        );
        Ok(BlkConfig {
            capacity: SectorCount(self.capacity),
            block_size,
            physical_block_size,
            max_transfer,
            max_segments,
            max_segment,
            num_queues: self.num_queues,
            discard: self.discard_limits().filter(|_| !host_managed),
            write_zeroes: self.zeroes_limits(),
            secure_erase: self.erase_limits(zoned.as_ref()),
            zoned,
        })
    }

    fn block_sectors(&self) -> u64 {
        u64::from(self.block_size) / SECTOR_LEN
    }

    /// A limit of 0 is none, and what is only said to be best is not imposed where it contradicts a
    /// limit: many devices leave these fields empty.
    fn discard_limits(&self) -> Option<RangeLimits> {
        let [max_sectors, max_ranges, alignment] = self.discard?;
        let max_sectors = unless_zero(max_sectors);
        let block = self.block_sectors();
        let alignment = lcm(alignment.max(1).into(), block).filter(|n| *n <= max_sectors.0);
        (block <= max_sectors.0).then_some(RangeLimits {
            max_sectors,
            max_ranges: max_ranges.max(1),
            alignment: SectorCount(alignment.unwrap_or(block)),
        })
    }

    fn zeroes_limits(&self) -> Option<ZeroesLimits> {
        let [max_sectors, max_ranges] = self.write_zeroes?;
        let max_sectors = unless_zero(max_sectors);
        (self.block_sectors() <= max_sectors.0).then_some(ZeroesLimits {
            max_sectors,
            max_ranges: max_ranges.max(1),
            may_unmap: self.zeroes_may_unmap != 0,
        })
    }

    /// An erasure is promised to be one, so a device that does not say what it can erase is not
    /// asked to. Of a zoned device, whole zones are erased (VIRTIO 1.3, 5.2.6.2).
    fn erase_limits(&self, zoned: Option<&ZonedConfig>) -> Option<RangeLimits> {
        let [max_sectors, max_ranges, alignment] = self.secure_erase?;
        if max_ranges == 0 || alignment == 0 {
            return None;
        }
        let unit = lcm(alignment.into(), self.block_sectors())?;
        let unit = match zoned {
            Some(zoned) => lcm(unit, zoned.zone_size.0)?,
            None => unit,
        };
        (unit <= u64::from(max_sectors)).then_some(RangeLimits {
            max_sectors: SectorCount(max_sectors.into()),
            max_ranges,
            alignment: SectorCount(unit),
        })
    }

    fn check_zoned(&self, max_transfer: u32) -> Result<Option<ZonedConfig>> {
        let Some([zone_sectors, max_open, max_active, max_append, granularity]) = self.zoned else {
            return Ok(None);
        };
        let model = match u32::from(self.model) {
            binding::VIRTIO_BLK_Z_NONE => return Ok(None),
            binding::VIRTIO_BLK_Z_HM => ZoneModel::HostManaged,
            binding::VIRTIO_BLK_Z_HA => ZoneModel::HostAware,
            other => return Err(inconsistent(format!("zone model {other} does not exist"))),
        };
        if zone_sectors == 0 || !u64::from(zone_sectors).is_multiple_of(self.block_sectors()) {
            return Err(inconsistent(format!(
                "a zone of {zone_sectors} sectors is not one or more blocks of {} bytes",
                self.block_size
            )));
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
        if zone_count > MOST_ZONES {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the device has {zone_count} zones of {zone_sectors} sectors, more than the {MOST_ZONES} that are supported; use larger zones"
                ),
            ));
        }
        let write_granularity = lcm(granularity.into(), self.block_size.into())
            .and_then(|n| u32::try_from(n).ok())
            .ok_or_else(|| {
                inconsistent(format!(
                    "a write granularity of {granularity} bytes does not go with blocks of {}",
                    self.block_size
                ))
            })?;
        let max_append = u64::from(max_append).min(u64::from(max_transfer) / SECTOR_LEN);
        Ok(Some(ZonedConfig {
            model,
            zone_size: SectorCount(zone_sectors.into()),
            zone_count,
            max_open,
            max_active,
            max_append: SectorCount(max_append),
            write_granularity,
        }))
    }
}

/// The le32 fields at `offsets`, where the device has them.
fn fields<const N: usize>(
    config: &Config<'_>,
    present: bool,
    offsets: [u64; N],
) -> vfio_virtio::Result<Option<[u32; N]>> {
    if !present {
        return Ok(None);
    }
    let mut values = [0; N];
    for (value, offset) in values.iter_mut().zip(offsets) {
        *value = config.u32(offset)?;
    }
    Ok(Some(values))
}

/// As many sectors as the device says; if it says none, as many as a range can count.
fn unless_zero(max_sectors: u32) -> SectorCount {
    SectorCount(match max_sectors {
        0 => u32::MAX.into(),
        n => n.into(),
    })
}

/// The least common multiple of two numbers that are not 0.
fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut gcd, mut rest) = (a, b);
    while rest != 0 {
        (gcd, rest) = (rest, gcd % rest);
    }
    (a / gcd).checked_mul(b)
}

/// Some back ends serve a configuration that ends before the zoned fields.
fn zoned_is_there(config: &Config<'_>) -> vfio_virtio::Result<()> {
    let fields = [
        (Offset::ZONE_SECTORS + 4, "zone_sectors"),
        (Offset::MAX_OPEN_ZONES + 4, "max_open_zones"),
        (Offset::MAX_ACTIVE_ZONES + 4, "max_active_zones"),
        (Offset::MAX_APPEND_SECTORS + 4, "max_append_sectors"),
        (Offset::WRITE_GRANULARITY + 4, "write_granularity"),
        (Offset::MODEL + 1, "model"),
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

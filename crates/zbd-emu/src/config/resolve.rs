//! Turns what was asked for into a geometry that holds together, or says why it does not.

use std::time::Duration;

use vfio_virtio::{Error, ErrorKind, Result};

use super::{DataFault, EmulatedConfig, Quirk, RingFormat, StoreKind, ZoneModel, offer};
use crate::{
    wire::SECTOR_BYTES,
    zone::{Geometry, ZoneKind},
};

const DEFAULT_ZONES: u32 = 64;
const DEFAULT_ZONE_BYTES: u64 = 16 << 20;
const DEFAULT_BLOCK_BYTES: u32 = 4096;
const DEFAULT_MAX_APPEND_BYTES: u64 = 512 << 10;
const DEFAULT_SERIAL: &str = "zbd-emu";
const DEFAULT_CACHE_BYTES: u64 = 64 << 20;
/// Blocks of the cache are counted in 32 bits, and it is memory of this process.
const MOST_CACHE_BYTES: u64 = 4 << 30;
const DEFAULT_MAX_OPEN: u32 = 32;
const DEFAULT_MAX_ACTIVE: u32 = 48;
/// The reports of more zones than this would serve no test, and the table itself takes memory.
const MAX_ZONES: u64 = 1 << 22;

/// The length of the string that GET_ID yields (§5.2.6).
pub(crate) const SERIAL_BYTES: usize = 20;
/// The vectors of which the MSI-X table and its pending bits have room.
const MOST_VECTORS: u16 = 128;

/// What the data segments of a request are held to, where that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentLimits {
    pub(crate) len_bytes: Option<u32>,
    pub(crate) count: Option<u32>,
}

/// A configuration whose parts agree, in the units of the device.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) model: ZoneModel,
    pub(crate) geometry: Geometry,
    pub(crate) max_append_sectors: u32,
    pub(crate) block_size_bytes: u32,
    pub(crate) queues: u16,
    pub(crate) queue_size: u16,
    /// Every feature that the device offers.
    pub(crate) features: u64,
    pub(crate) vectors: u16,
    /// Padded with zeroes (§5.2.6).
    pub(crate) serial: [u8; SERIAL_BYTES],
    /// Shown even where nothing is limited.
    pub(crate) seg_max: u32,
    pub(crate) segments: SegmentLimits,
    pub(crate) store: StoreKind,
    /// What the write cache of a file holds.
    pub(crate) cache_bytes: u64,
    pub(crate) latency: Duration,
    pub(crate) faults: Vec<DataFault>,
    pub(crate) quirks: Vec<Quirk>,
}

impl EmulatedConfig {
    pub(super) fn model(&self) -> ZoneModel {
        self.model.unwrap_or(ZoneModel::HostManaged)
    }
}

impl Resolved {
    pub(crate) fn new(config: &EmulatedConfig) -> Result<Self> {
        let model = config.model();
        let block_size_bytes = config.block_size_bytes.unwrap_or(DEFAULT_BLOCK_BYTES);
        let zone_size_bytes = config.zone_size_bytes.unwrap_or(DEFAULT_ZONE_BYTES);
        let max_append_bytes = config.max_append_bytes.unwrap_or(DEFAULT_MAX_APPEND_BYTES);
        let conventional = config.conventional_zones.unwrap_or(0);
        let block = u64::from(block_size_bytes);
        require(
            block.is_power_of_two() && (512..=65536).contains(&block),
            || format!("block-size={block} is not allowed: give a power of two from 512 to 64k"),
        )?;
        let aligned = |key: &str, bytes: u64| {
            require(bytes > 0 && bytes.is_multiple_of(block), || {
                format!("{key}={bytes} is not allowed: give a multiple of block-size, {block}")
            })
        };
        aligned("zone-size", zone_size_bytes)?;
        let zone_sectors = zone_size_bytes / SECTOR_BYTES;
        // zone_sectors is a le32 in the configuration (§5.2.4).
        require(u32::try_from(zone_sectors).is_ok(), || {
            format!("zone-size={zone_size_bytes} is not allowed: give less than 2t")
        })?;
        let size_bytes = match config.size_bytes {
            Some(size) => {
                aligned("size", size)?;
                size
            }
            None => u64::from(config.zones.unwrap_or(DEFAULT_ZONES))
                .checked_mul(zone_size_bytes)
                .filter(|size| *size <= 1 << 60)
                .ok_or_else(|| invalid("zones times zone-size exceeds an exbibyte".to_owned()))?,
        };
        let zones = size_bytes.div_ceil(zone_size_bytes);
        require((1..=MAX_ZONES).contains(&zones), || {
            format!("{zones} zones are not allowed: give 1 to {MAX_ZONES}")
        })?;
        let capacity_bytes = config.zone_capacity_bytes.unwrap_or(zone_size_bytes);
        aligned("zone-cap", capacity_bytes)?;
        require(capacity_bytes <= zone_size_bytes, || {
            format!(
                "zone-cap={capacity_bytes} is not allowed: give at most zone-size, \
                 {zone_size_bytes}"
            )
        })?;
        require(u64::from(conventional) <= zones, || {
            format!("conventional={conventional} is not allowed: there are {zones} zones")
        })?;
        require((1..=64).contains(&config.queues), || {
            format!("queues={} is not allowed: give 1 to 64", config.queues)
        })?;
        // Four descriptors are what one request without indirection needs at most.
        let queue_size = config.queue_size;
        require((4..=32768).contains(&queue_size), || {
            format!("queue-size={queue_size} is not allowed: give 4 to 32768")
        })?;
        require(
            config.ring == RingFormat::Packed || queue_size.is_power_of_two(),
            || {
                format!(
                    "queue-size={queue_size} is not allowed: give a power of two from 4 to 32768, \
                     or ring=packed"
                )
            },
        )?;
        let (max_open, max_active) = limits(config)?;
        require(max_append_bytes.is_multiple_of(block), || {
            format!(
                "max-append={max_append_bytes} is not allowed: give 0 or a multiple of block-size, \
                 {block}"
            )
        })?;
        let max_append_sectors = u32::try_from(max_append_bytes / SECTOR_BYTES)
            .map_err(|_| invalid("max-append is not allowed: give less than 2t".to_owned()))?;
        let sequential = match model {
            ZoneModel::HostManaged => ZoneKind::SequentialRequired,
            ZoneModel::HostAware => ZoneKind::SequentialPreferred,
            ZoneModel::None => ZoneKind::Conventional,
        };
        require(
            model == ZoneModel::HostManaged || capacity_bytes == zone_size_bytes,
            || "zone-cap below zone-size needs model=hm".to_owned(),
        )?;
        let serial = serial(config.serial.as_deref().unwrap_or(DEFAULT_SERIAL))?;
        // A header and an answer take two of the descriptors of a queue.
        let most_segments = u32::from(queue_size - 2);
        segments(
            config,
            most_segments,
            block_size_bytes,
            // §5.2.5.2: an append of the largest size must fit.
            match model {
                ZoneModel::None => 0,
                _ => max_append_bytes,
            },
        )?;
        let cache_bytes = cache(config, block)?;
        faults(config, max_append_bytes)?;
        require(config.vectors.unwrap_or_default() <= MOST_VECTORS, || {
            format!("more vectors than {MOST_VECTORS} are not allowed")
        })?;
        Ok(Self {
            model,
            geometry: Geometry {
                sectors: size_bytes / SECTOR_BYTES,
                zone_sectors,
                capacity_sectors: capacity_bytes / SECTOR_BYTES,
                conventional_zones: conventional,
                sequential,
                block_sectors: block / SECTOR_BYTES,
                max_open,
                max_active,
            },
            max_append_sectors,
            block_size_bytes,
            queues: config.queues,
            queue_size: config.queue_size,
            features: offer::features(config),
            vectors: config.vectors.unwrap_or(config.queues + 1),
            serial,
            seg_max: config.seg_max.unwrap_or(most_segments),
            segments: SegmentLimits {
                len_bytes: config.size_max,
                count: config.seg_max,
            },
            store: config.store.clone(),
            cache_bytes,
            latency: config.latency,
            faults: config.faults.clone(),
            quirks: config.quirks.clone(),
        })
    }
}

impl Resolved {
    /// The geometry of a device that is not zoned with another size.
    pub(crate) fn resized(&self, sectors: u64) -> Result<Geometry> {
        require(self.model == ZoneModel::None, || {
            "a zoned device cannot change its size: give model=none".to_owned()
        })?;
        let most = MAX_ZONES.saturating_mul(self.geometry.zone_sectors);
        require((1..=most).contains(&sectors), || {
            format!("{sectors} sectors are not allowed: give 1 to {most}")
        })?;
        Ok(Geometry {
            sectors,
            ..self.geometry
        })
    }
}

fn serial(text: &str) -> Result<[u8; SERIAL_BYTES]> {
    let mut serial = [0; SERIAL_BYTES];
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    require(
        printable && !text.contains(',') && text.len() <= SERIAL_BYTES,
        || {
            format!(
                "serial={text} is not allowed: give at most {SERIAL_BYTES} characters of ASCII, no \
             comma and no space"
            )
        },
    )?;
    serial[..text.len()].copy_from_slice(text.as_bytes());
    Ok(serial)
}

/// What the write cache may hold, and whether the store is one that has one.
fn cache(config: &EmulatedConfig, block: u64) -> Result<u64> {
    if let StoreKind::File(path) = &config.store {
        let text = path.to_str().unwrap_or_default();
        require(text.contains('/') && !text.contains(','), || {
            format!(
                "store={} is not allowed: give a path with a / in it, no comma and valid Unicode",
                path.display()
            )
        })?;
    } else {
        require(config.cache_bytes.is_none(), || {
            "cache is not allowed: only a file has one, give store=PATH too".to_owned()
        })?;
    }
    let bytes = config.cache_bytes.unwrap_or(DEFAULT_CACHE_BYTES);
    require((block..=MOST_CACHE_BYTES).contains(&bytes), || {
        format!("cache={bytes} is not allowed: give block-size, {block}, to {MOST_CACHE_BYTES}")
    })?;
    Ok(bytes)
}

/// Whether there is something that could be done wrong.
fn faults(config: &EmulatedConfig, max_append_bytes: u64) -> Result<()> {
    require(
        config.faults.is_empty() || config.store != StoreKind::Null,
        || {
            "fault with store=null is not allowed: no data are kept that could be wrong; give \
             store=mem or store=PATH"
                .to_owned()
        },
    )?;
    let takes_appends = config.model() == ZoneModel::HostManaged && max_append_bytes != 0;
    match config
        .faults
        .iter()
        .find(|fault| fault.kind.is_of_appends())
    {
        Some(fault) if !takes_appends => Err(invalid(format!(
            "fault={fault} is not allowed: the device takes no appends; give model=hm and a \
             max-append above 0"
        ))),
        _ => Ok(()),
    }
}

fn segments(config: &EmulatedConfig, most: u32, block: u32, max_append_bytes: u64) -> Result<()> {
    let count = config.seg_max.unwrap_or(most);
    require((1..=most).contains(&count), || {
        format!("seg-max={count} is not allowed: give 1 to {most}, what a queue has room for")
    })?;
    let Some(len) = config.size_max else {
        return Ok(());
    };
    require(len >= block, || {
        format!("size-max={len} is not allowed: give block-size, {block}, or more")
    })?;
    let largest = u64::from(count) * u64::from(len);
    require(max_append_bytes <= largest, || {
        format!(
            "max-append={max_append_bytes} is not allowed: {count} segments of size-max={len} make \
             {largest}"
        )
    })
}

/// The open and active limits, each defaulting to something that agrees with the other.
fn limits(config: &EmulatedConfig) -> Result<(u32, u32)> {
    if config.model() != ZoneModel::HostManaged {
        // A host-aware zone accepts any write at any time, so there is no write that a limit could
        // refuse.
        return match (config.max_open_zones, config.max_active_zones) {
            (None | Some(0), None | Some(0)) => Ok((0, 0)),
            _ => Err(invalid("max-open and max-active need model=hm".to_owned())),
        };
    }
    let (open, active) = match (config.max_open_zones, config.max_active_zones) {
        (Some(open), Some(active)) => (open, active),
        (Some(0), None) => (0, 0),
        (Some(open), None) => (open, open.max(DEFAULT_MAX_ACTIVE)),
        (None, Some(0)) => (DEFAULT_MAX_OPEN, 0),
        (None, Some(active)) => (active.min(DEFAULT_MAX_OPEN), active),
        (None, None) => (DEFAULT_MAX_OPEN, DEFAULT_MAX_ACTIVE),
    };
    require(active == 0 || (open != 0 && open <= active), || {
        format!(
            "max-open={open} with max-active={active} is not allowed: every open zone is active, \
             so give max-open from 1 to {active}"
        )
    })?;
    Ok((open, active))
}

fn require(holds: bool, text: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(invalid(text())) }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

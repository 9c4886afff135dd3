//! What a device says of itself.

use vfio_virtio::{Config, Features, Result};

use crate::wire::{feature, number, offset};

/// The zoned model of a device (VIRTIO 1.3, 5.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Model {
    /// It does not offer ZONED.
    NotZoned,
    /// It offers ZONED and says that it has no zones, or something that is not defined.
    None,
    /// Host-managed.
    HostManaged,
    /// Host-aware.
    HostAware,
}

/// What a device says of itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Device {
    /// The function's name.
    pub name: String,
    /// The features that it offers.
    pub offered: Features,
    /// Those that are accepted where a requirement needs no other.
    pub accepted: Features,
    /// Its zoned model.
    pub model: Model,
    /// Its size in sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// Its configuration with these features accepted, as far as it goes.
    pub config: Vec<u8>,
}

impl Device {
    pub(crate) fn field(&self, offset: usize, len: usize) -> u64 {
        number(&self.config, offset, len)
    }

    pub(crate) fn offers(&self, feature: Features) -> bool {
        self.offered.contains(feature)
    }

    /// Whether it is host-managed or host-aware.
    pub fn is_zoned(&self) -> bool {
        matches!(self.model, Model::HostManaged | Model::HostAware)
    }

    /// The size of a zone in sectors, 0 if it has none.
    pub fn zone_sectors(&self) -> u64 {
        match self.is_zoned() {
            true => self.field(offset::ZONE_SECTORS, 4),
            false => 0,
        }
    }

    /// How many zones follow from its capacity.
    pub fn zone_count(&self) -> u64 {
        match self.zone_sectors() {
            0 => 0,
            sectors => self.capacity_sectors.div_ceil(sectors),
        }
    }

    /// The most zones that may be open; 0 for no limit.
    pub fn max_open(&self) -> u64 {
        self.field(offset::MAX_OPEN, 4)
    }

    /// The most zones that may be active; 0 for no limit.
    pub fn max_active(&self) -> u64 {
        self.field(offset::MAX_ACTIVE, 4)
    }

    /// The largest append in sectors; 0 where there is none.
    pub fn max_append_sectors(&self) -> u64 {
        self.field(offset::MAX_APPEND, 4)
    }

    /// What lengths and places of data are to be multiples of.
    pub(crate) fn unit(&self) -> usize {
        let usable = |len: u64| (len > 0 && len.is_multiple_of(512)).then_some(len as usize);
        let block = match self.offers(feature::BLK_SIZE) {
            true => usable(self.field(offset::BLK_SIZE, 4)),
            false => None,
        };
        let granularity = match self.is_zoned() {
            true => usable(self.field(offset::GRANULARITY, 4)),
            false => None,
        };
        block.unwrap_or(512).max(granularity.unwrap_or(512))
    }

    /// The longest segment of data.
    pub(crate) fn segment_len(&self) -> usize {
        const USUAL: usize = 256 << 10;
        match self.field(offset::SIZE_MAX, 4) {
            0 => USUAL,
            len if self.offers(feature::SIZE_MAX) => (len as usize).min(USUAL),
            _ => USUAL,
        }
    }

    /// The most segments of data.
    pub(crate) fn segments(&self) -> usize {
        match self.offers(feature::SEG_MAX) {
            true => (self.field(offset::SEG_MAX, 4) as usize).max(1),
            // Header and status take a descriptor each.
            false => usize::MAX,
        }
    }
}

/// The model that a device states while it offers ZONED.
pub(crate) fn model(offered: Features, config: &Config<'_>) -> Result<Model> {
    if !offered.contains(feature::ZONED) {
        return Ok(Model::NotZoned);
    }
    if config.len_bytes() <= offset::MODEL as u64 {
        return Ok(Model::None);
    }
    Ok(match config.u8(offset::MODEL as u64)? {
        1 => Model::HostManaged,
        2 => Model::HostAware,
        _ => Model::None,
    })
}

/// All of the configuration, each field in its own width (4.1.3.1). To be read once the features are
/// settled, because `writeback` may not be read before.
pub(crate) fn bytes(config: &Config<'_>) -> Result<Vec<u8>> {
    const BYTES: [(u64, u64); 5] = [(0x12, 2), (0x18, 2), (0x20, 2), (0x38, 4), (0x5c, 4)];
    const WORDS: [u64; 3] = [0x10, 0x1a, 0x22];
    let end = config.len_bytes().min(offset::END as u64);
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < end {
        let at = bytes.len() as u64;
        let is_byte = BYTES
            .iter()
            .any(|(from, len)| (*from..from + len).contains(&at));
        if is_byte || at + 2 > end {
            bytes.push(config.u8(at)?);
        } else if WORDS.contains(&at) || at + 4 > end {
            bytes.extend(config.u16(at)?.to_le_bytes());
        } else {
            bytes.extend(config.u32(at)?.to_le_bytes());
        }
    }
    Ok(bytes)
}

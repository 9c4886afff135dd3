//! What lies where in a file.
//!
//! ```text
//! 0         header: what the medium is, with a checksum
//! 4 KiB     journal: changes that are to happen as a whole (`journal`)
//! + 8 MiB   table: of each zone a record of 32 bytes, how far it is written and its state
//! aligned   data: sector n of the device at n * 512
//! ```
//!
//! All numbers are little-endian. The header is written twice: as the first thing of a new file,
//! marked as one that is being made, and as the last, marked as ready. A file that never became
//! ready holds nothing and is made anew.

use crate::{
    config::{Resolved, SERIAL_BYTES, ZoneModel},
    wire::SECTOR_BYTES,
    zone::{Zone, ZoneKind, ZoneState},
};

pub(super) const HEADER_BYTES: usize = 4096;
pub(super) const JOURNAL_AT: u64 = HEADER_BYTES as u64;
pub(super) const JOURNAL_BYTES: u64 = 8 << 20;
pub(super) const TABLE_AT: u64 = JOURNAL_AT + JOURNAL_BYTES;
pub(super) const RECORD_BYTES: usize = 32;
const DATA_ALIGN: u64 = 1 << 16;
const MAGIC: [u8; 16] = *b"zbd-emu-store\n\x1a\0";
const VERSION: u32 = 1;
const CRC_AT: usize = HEADER_BYTES - 4;

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Medium {
    pub(crate) model: ZoneModel,
    pub(crate) sectors: u64,
    pub(crate) zone_sectors: u64,
    pub(crate) capacity_sectors: u64,
    pub(crate) block_bytes: u32,
    pub(crate) conventional_zones: u32,
    pub(crate) max_open: u32,
    pub(crate) max_active: u32,
    pub(crate) max_append_sectors: u32,
    pub(crate) serial: [u8; SERIAL_BYTES],
}

impl Medium {
    pub(super) fn of(config: &Resolved) -> Self {
        let geometry = &config.geometry;
        Self {
            model: config.model,
            sectors: geometry.sectors,
            zone_sectors: geometry.zone_sectors,
            capacity_sectors: geometry.capacity_sectors,
            block_bytes: config.block_size_bytes,
            conventional_zones: geometry.conventional_zones,
            max_open: geometry.max_open,
            max_active: geometry.max_active,
            max_append_sectors: config.max_append_sectors,
            serial: config.serial,
        }
    }
}

/// Whether a file was finished when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Making,
    Ready,
}

/// The first page of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) stage: Stage,
    /// Tells the file from others: what was copied from another file's journal is not valid here.
    pub(super) id: u64,
    pub(super) medium: Medium,
}

/// Why a page is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoHeader {
    Foreign,
    Version(u32),
    Damaged,
}

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let medium = &self.medium;
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |value: &[u8]| {
            bytes[at..at + value.len()].copy_from_slice(value);
            at += value.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&u32::from(self.stage == Stage::Ready).to_le_bytes());
        put(&self.id.to_le_bytes());
        put(&medium.sectors.to_le_bytes());
        put(&medium.zone_sectors.to_le_bytes());
        put(&medium.capacity_sectors.to_le_bytes());
        put(&medium.block_bytes.to_le_bytes());
        put(&medium.conventional_zones.to_le_bytes());
        put(&medium.max_open.to_le_bytes());
        put(&medium.max_active.to_le_bytes());
        put(&medium.max_append_sectors.to_le_bytes());
        put(&model_number(medium.model).to_le_bytes());
        put(&medium.serial);
        let crc = crc32c::crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, NoHeader> {
        let mut at = MAGIC.len();
        if bytes[..at] != MAGIC {
            return Err(NoHeader::Foreign);
        }
        let crc = u32::from_le_bytes(take(bytes, CRC_AT));
        let version = u32::from_le_bytes(take(bytes, at));
        if crc != crc32c::crc32c(&bytes[..CRC_AT]) {
            return Err(NoHeader::Damaged);
        }
        if version != VERSION {
            return Err(NoHeader::Version(version));
        }
        at += 4;
        let mut word = || {
            let value = u32::from_le_bytes(take(bytes, at));
            at += 4;
            value
        };
        // The lower half comes first.
        fn long(word: &mut impl FnMut() -> u32) -> u64 {
            u64::from(word()) | u64::from(word()) << 32
        }
        let stage = match word() {
            0 => Stage::Making,
            _ => Stage::Ready,
        };
        let id = long(&mut word);
        let sectors = long(&mut word);
        let zone_sectors = long(&mut word);
        let capacity_sectors = long(&mut word);
        let block_bytes = word();
        let conventional_zones = word();
        let max_open = word();
        let max_active = word();
        let max_append_sectors = word();
        let model = match word() {
            0 => ZoneModel::None,
            1 => ZoneModel::HostManaged,
            2 => ZoneModel::HostAware,
            _ => return Err(NoHeader::Damaged),
        };
        Ok(Self {
            stage,
            id,
            medium: Medium {
                model,
                sectors,
                zone_sectors,
                capacity_sectors,
                block_bytes,
                conventional_zones,
                max_open,
                max_active,
                max_append_sectors,
                serial: take(bytes, at),
            },
        })
    }
}

fn model_number(model: ZoneModel) -> u32 {
    match model {
        ZoneModel::None => 0,
        ZoneModel::HostManaged => 1,
        ZoneModel::HostAware => 2,
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

/// Where the data begin and the file ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) data_at: u64,
    pub(super) len_bytes: u64,
}

impl Layout {
    pub(super) fn of(medium: &Medium) -> Self {
        let zones = medium.sectors.div_ceil(medium.zone_sectors);
        let table_end = TABLE_AT + zones * RECORD_BYTES as u64;
        let data_at = table_end.next_multiple_of(DATA_ALIGN);
        Self {
            data_at,
            len_bytes: data_at + medium.sectors * SECTOR_BYTES,
        }
    }

    pub(super) fn record_at(zone: usize) -> u64 {
        TABLE_AT + (zone * RECORD_BYTES) as u64
    }
}

/// What is kept of a zone. An open zone is a closed one, or an empty one while nothing is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// How many sectors of the zone are written, all of a conventional one.
    pub(super) written: u64,
    pub(super) state: ZoneState,
    /// Tells this life of the zone from those before its resets. Not in the file: there, data of
    /// an earlier life are beyond what is written.
    pub(super) resets: u32,
}

impl Record {
    pub(super) fn of(zone: &Zone) -> Self {
        let written = zone.written_end - zone.start;
        Self {
            written,
            state: match zone.state {
                ZoneState::ImplicitlyOpen | ZoneState::ExplicitlyOpen | ZoneState::Closed => {
                    Self::unfinished(written)
                }
                state => state,
            },
            resets: zone.resets,
        }
    }

    /// The state of a zone that is neither full nor failed.
    pub(super) fn unfinished(written: u64) -> ZoneState {
        match written {
            0 => ZoneState::Empty,
            _ => ZoneState::Closed,
        }
    }

    pub(super) fn encode(&self, zone: usize, id: u64) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.written.to_le_bytes());
        bytes[8] = self.state as u8;
        let crc = record_crc(&bytes, zone, id);
        bytes[RECORD_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The record of `zone`, as yet empty, if the bytes are one and it can be one of this zone.
    pub(super) fn decode(bytes: &[u8], zone: &Zone, index: usize, id: u64) -> Option<Self> {
        let bytes: [u8; RECORD_BYTES] = bytes.try_into().ok()?;
        if u32::from_le_bytes(take(&bytes, RECORD_BYTES - 4)) != record_crc(&bytes, index, id) {
            return None;
        }
        let written = u64::from_le_bytes(take(&bytes, 0));
        let room = zone.writable_end - zone.start;
        let state = [
            ZoneState::NotWritePointer,
            ZoneState::Empty,
            ZoneState::Closed,
            ZoneState::ReadOnly,
            ZoneState::Full,
            ZoneState::Offline,
        ]
        .into_iter()
        .find(|state| *state as u8 == bytes[8])?;
        let fits = match state {
            ZoneState::NotWritePointer => written == room,
            ZoneState::Empty => written == 0,
            ZoneState::Closed => (1..room).contains(&written),
            _ => written <= room,
        };
        let conventional = zone.kind == ZoneKind::Conventional;
        (fits && conventional == (state == ZoneState::NotWritePointer)).then_some(Self {
            written,
            state,
            resets: 0,
        })
    }
}

/// Not that of another zone or another file.
fn record_crc(bytes: &[u8; RECORD_BYTES], zone: usize, id: u64) -> u32 {
    let seed = crc32c::crc32c(&id.to_le_bytes());
    let seed = crc32c::crc32c_append(seed, &(zone as u64).to_le_bytes());
    crc32c::crc32c_append(seed, &bytes[..RECORD_BYTES - 4])
}

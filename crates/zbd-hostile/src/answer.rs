//! What the device answers to a request: the truth, or something else.

use crate::{
    Key,
    device::Device,
    ring::{Chain, Piece},
};

const ZONE_APPEND: u32 = 15;
const ZONE_REPORT: u32 = 16;
const APPEND_TAIL: u32 = 9;

/// What the device answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status byte, if it wrote one.
    pub status: Option<u8>,
    /// The value before the status, if it wrote one.
    pub value: Option<u64>,
    /// What it wrote at the start of the data, if it did.
    pub stamp: Option<u64>,
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    #[default]
    None,
    /// The status is this one.
    Status(u8),
    /// There is no status.
    NoStatus,
    /// Where an append went is this.
    Value(u64),
    /// Where an append went is not said.
    NoValue,
    /// The data are not written.
    NoData,
    /// A field of the report is wrong.
    Report,
}

impl Device {
    /// Writes the answer to a request, and yields how many bytes that were.
    pub(crate) fn answer_chain(&mut self, chain: &Chain, flaw: Flaw) -> u32 {
        let Some((tail, data)) = chain.writable.split_last() else {
            return 0;
        };
        let head = chain.readable.first().and_then(|piece| {
            let number = u128::from_le_bytes(self.memory.read(piece.iova)?);
            Some((number as u32, (number >> 64) as u64))
        });
        let (request_type, sector) = head.unwrap_or_default();
        let mut answer = Answer {
            status: Some(0),
            ..Answer::default()
        };
        let mut written = tail.len;
        if flaw != Flaw::NoData {
            // What the driver made is far from overflowing; what was written over it may not be.
            written = data
                .iter()
                .fold(written, |sum, piece| sum.wrapping_add(piece.len));
            answer.stamp = match (request_type, data.first()) {
                (ZONE_REPORT, Some(piece)) => {
                    Some(self.write_report(*piece, sector, flaw == Flaw::Report))
                }
                (_, Some(piece)) => self.write_stamp(*piece),
                _ => None,
            };
        }
        if tail.len == APPEND_TAIL {
            let value = match flaw {
                Flaw::NoValue => None,
                Flaw::Value(value) => Some(value),
                _ if request_type == ZONE_APPEND => Some(sector),
                _ => Some(self.count()),
            };
            if let Some(value) = value {
                let _ = self.memory.write(tail.iova, &value.to_le_bytes());
            }
            answer.value = value;
        }
        match flaw {
            Flaw::NoStatus => answer.status = None,
            Flaw::Status(status) => answer.status = Some(status),
            _ => {}
        }
        if let Some(status) = answer.status {
            let at = tail.iova.wrapping_add(u64::from(tail.len)).wrapping_sub(1);
            let _ = self.memory.write(at, &[status]);
        }
        self.note(Key::Head(sector), answer);
        let first_data = match data.first() {
            Some(piece) => Some(piece),
            None => chain.readable.get(1),
        };
        if let Some(piece) = first_data {
            self.note(Key::Data(piece.iova), answer);
        }
        written
    }

    /// Remembers an answer. What it leaves out is still there from an earlier one.
    fn note(&mut self, key: Key, answer: Answer) {
        let noted = self.answers.entry(key).or_default();
        noted.status = answer.status.or(noted.status);
        noted.value = answer.value.or(noted.value);
        noted.stamp = answer.stamp.or(noted.stamp);
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Marks the beginning of data with a number of its own.
    fn write_stamp(&mut self, piece: Piece) -> Option<u64> {
        let stamp = self.count().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if piece.len < 8 {
            return None;
        }
        self.memory.write(piece.iova, &stamp.to_le_bytes())?;
        Some(stamp)
    }

    fn field(&self, at: usize) -> u32 {
        let bytes = [0, 1, 2, 3].map(|i| self.fields[at + i]);
        u32::from_le_bytes(bytes)
    }

    /// Reports the zones from `sector` on, and yields the first word of the report.
    fn write_report(&mut self, piece: Piece, sector: u64, is_flawed: bool) -> u64 {
        let zone_size = u64::from(self.field(0x48)).max(1);
        let capacity = u64::from(self.field(0)) | u64::from(self.field(4)) << 32;
        let room = u64::from(piece.len.saturating_sub(64)) / 64;
        let first = sector / zone_size;
        let zones = capacity.div_ceil(zone_size).saturating_sub(first).min(room);
        // Enough for all configurations that make sense.
        let zones = zones.min(8192);
        self.effort += 1 + zones / 256;
        let flaw = if is_flawed {
            1 + self.script.below(9)
        } else {
            0
        };
        let flawed_zone = match is_flawed {
            true => self.script.below(zones as usize) as u64,
            false => u64::MAX,
        };
        let count = match flaw {
            1 => self.script.number(zones),
            2 => zones / 2,
            3 => 0,
            _ => zones,
        };
        let _ = self.memory.write(piece.iova, &count.to_le_bytes());
        for zone in 0..zones {
            let is_this = zone == flawed_zone;
            let start = (first + zone).wrapping_mul(zone_size);
            let size = zone_size.min(capacity.wrapping_sub(start));
            let number = |true_value: u64, kind: usize| match is_this && flaw == kind {
                true => self.script.number(true_value),
                false => true_value,
            };
            let byte = |true_value: u8, kind: usize| match is_this && flaw == kind {
                true => self.script.u8(),
                false => true_value,
            };
            let conventional = (first + zone) % 4 == 3;
            let mut descriptor = [0; 26];
            descriptor[..8].copy_from_slice(&number(size, 4).to_le_bytes());
            descriptor[8..16].copy_from_slice(&number(start, 5).to_le_bytes());
            descriptor[16..24].copy_from_slice(&number(start, 6).to_le_bytes());
            descriptor[24] = byte(if conventional { 1 } else { 2 }, 7);
            descriptor[25] = byte(if conventional { 0 } else { 2 }, 8);
            let at = piece.iova.wrapping_add(64 + 64 * zone);
            let _ = self.memory.write(at, &descriptor);
        }
        count
    }
}

//! What a power cut leaves of what was not flushed.

use super::{FileStore, Record};
use crate::{
    wire::SECTOR_BYTES,
    zone::{ZoneState, ZoneTable},
};

impl FileStore {
    /// Writes back what of the unflushed changes `seed` has survive. See
    /// [`EmulatedFunction::power_cut`](crate::EmulatedFunction::power_cut) for what may.
    pub(crate) fn cut(&mut self, zones: &ZoneTable, seed: u64) {
        let mut chance = Chance(seed);
        let block_sectors = self.block_bytes as u64 / SECTOR_BYTES;
        let zone_sectors = zones.geometry().zone_sectors;
        // What each zone will be, and whether blocks of it that are seen may change.
        let mut lost = vec![false; self.durable.len()];
        let target: Vec<Record> = zones
            .zones()
            .iter()
            .enumerate()
            .map(|(index, zone)| {
                let durable = self.durable[index];
                let current = Record::of(zone);
                if current.resets != durable.resets && chance.coin() {
                    // What is cached is of a life that never was.
                    lost[index] = true;
                    return durable;
                }
                let capacity = zone.writable_end - zone.start;
                survivor(durable, current, capacity, block_sectors, &mut chance)
            })
            .collect();
        let durable = self.durable.clone();
        // An error leaves less, but nothing that could not be.
        let outcome = self.commit(&target, zones, &(0..0), |block| {
            let sector = block * block_sectors;
            let zone = (sector / zone_sectors) as usize;
            let is_old = sector % zone_sectors + block_sectors <= durable[zone].written;
            // A block in which the zone ends goes with what follows.
            !lost[zone] && (!is_old || chance.coin())
        });
        let _ = self.note(outcome);
    }
}

/// What becomes of a zone whose resets have happened.
fn survivor(
    durable: Record,
    current: Record,
    capacity: u64,
    block_sectors: u64,
    chance: &mut Chance,
) -> Record {
    if current.state == ZoneState::NotWritePointer {
        return current;
    }
    let same_life = current.resets == durable.resets;
    let begin = if same_life { durable.written } else { 0 };
    let first = begin / block_sectors;
    let steps = current.written.div_ceil(block_sectors) - first;
    let written = ((first + chance.below(steps + 1)) * block_sectors).clamp(begin, current.written);
    let state = if written == current.written && chance.coin() {
        current.state
    } else if same_life && written == durable.written {
        durable.state
    } else if written == capacity {
        ZoneState::Full
    } else {
        Record::unfinished(written)
    };
    Record {
        written,
        state,
        resets: current.resets,
    }
}

/// A sequence of numbers that looks random: SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 0
    }
}

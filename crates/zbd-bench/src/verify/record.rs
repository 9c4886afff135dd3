//! What is written: sectors that say themselves which they are.

use zbd_core::SECTOR_LEN;

pub(super) const SECTOR: usize = SECTOR_LEN as usize;
const MAGIC: [u8; 8] = *b"zbdVRFY1";
const FILLING: usize = 40;
const CHECKSUM: usize = SECTOR - 4;

/// A sector as it is stored.
pub(super) type Bytes = [u8; SECTOR];

/// Which sector of which record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The seed of the run.
    pub(crate) seed: u64,
    pub(crate) round: u32,
    /// The zone that it was meant for.
    pub(crate) zone: u32,
    /// The number of the record among all that were ever written to that zone.
    pub(crate) sequence: u32,
    /// The task that wrote it.
    pub(crate) task: u32,
    /// The number of the sector in the record.
    pub(crate) index: u32,
    /// The length of the record.
    pub(crate) sectors: u32,
}

impl Stamp {
    /// The sector as it has to be.
    pub(super) fn bytes(&self) -> Bytes {
        let mut bytes = [0; SECTOR];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.seed.to_le_bytes());
        let numbers = [
            self.round,
            self.zone,
            self.sequence,
            self.task,
            self.index,
            self.sectors,
        ];
        for (place, number) in bytes[16..FILLING].chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        // Something else in every sector, so that no byte of one can stand in for another's.
        let head = u64::from(crc32c::crc32c(&bytes[..FILLING]));
        let mixed = self.seed ^ head << 32 ^ u64::from(self.sequence) << 16 ^ u64::from(self.index);
        fastrand::Rng::with_seed(mixed).fill(&mut bytes[FILLING..CHECKSUM]);
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM]);
        bytes[CHECKSUM..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a sector; `None` if it is none that this tool wrote, or was damaged.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != SECTOR || bytes[..8] != MAGIC {
            return None;
        }
        let checksum = crc32c::crc32c(&bytes[..CHECKSUM]);
        if bytes[CHECKSUM..] != checksum.to_le_bytes() {
            return None;
        }
        let number = |at: usize| {
            let mut number = [0; 4];
            number.copy_from_slice(&bytes[at..at + 4]);
            u32::from_le_bytes(number)
        };
        Some(Self {
            seed: u64::from(number(8)) | u64::from(number(12)) << 32,
            round: number(16),
            zone: number(20),
            sequence: number(24),
            task: number(28),
            index: number(32),
            sectors: number(36),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp {
        seed: 0x1234_5678_9abc_def0,
        round: 3,
        zone: 5,
        sequence: 7,
        task: 11,
        index: 13,
        sectors: 17,
    };

    #[test]
    fn a_sector_is_read_as_what_it_was_written() {
        assert_eq!(Stamp::parse(&STAMP.bytes()), Some(STAMP));
        assert_eq!(Stamp::parse(&[0; SECTOR]), None);
        assert_eq!(Stamp::parse(&STAMP.bytes()[1..]), None);
    }

    #[test]
    fn no_bit_of_a_sector_can_be_wrong_unseen() {
        for bit in 0..SECTOR * 8 {
            let mut bytes = STAMP.bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Stamp::parse(&bytes), None, "bit {bit}");
        }
    }

    #[test]
    fn neighbouring_sectors_have_little_in_common() {
        let next = Stamp { index: 14, ..STAMP };
        let (one, other) = (STAMP.bytes(), next.bytes());
        let same = one[FILLING..].iter().zip(&other[FILLING..]);
        assert!(same.filter(|(a, b)| a == b).count() < 20);
    }
}

//! What the device says of itself: PCI configuration space, features, and the configuration of a
//! block device.

use crate::script::Script;

/// The BAR of all structures.
pub(crate) const BAR: u8 = 4;
pub(crate) const BAR_LEN: u64 = 0x4000;
pub(crate) const DEVICE_OFFSET: u64 = 0x2000;
pub(crate) const NOTIFY_OFFSET: u64 = 0x3000;
const COMMON_LEN: u32 = 0x40;
/// The length of the block device's configuration, with the zoned fields.
pub(crate) const BLK_LEN: usize = 0x60;

pub(crate) const PACKED: u64 = 1 << 34;
pub(crate) const IN_ORDER: u64 = 1 << 35;
const VERSION_1: u64 = 1 << 32;
const ACCESS_PLATFORM: u64 = 1 << 33;
const ZONED: u64 = 1 << 17;
const FLUSH: u64 = 1 << 9;
const BLK_SIZE: u64 = 1 << 6;
const SEG_MAX: u64 = 1 << 2;
const INDIRECT: u64 = 1 << 28;

/// The features whose bits a script may turn over, each with one bit of a number.
const FEATURES: [u32; 24] = [
    29, 35, 28, 38, 39, 40, 36, 11, 13, 14, 15, 16, 1, 2, 5, 6, 9, 10, 12, 17, 34, 33, 32, 63,
];

/// What a device lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lies {
    /// Everything: configuration, registers, rings, answers.
    Everywhere,
    /// The rings and the answers, behind registers that can be trusted. Split rings.
    InSplitRings,
    /// As `InSplitRings`, with packed rings.
    InPackedRings,
    /// Nothing.
    Nowhere,
}

/// The features that are offered.
pub(crate) fn features(script: &Script, lies: Lies) -> u64 {
    let ordinary = VERSION_1 | ACCESS_PLATFORM | INDIRECT;
    match lies {
        Lies::Nowhere => ordinary | ZONED | FLUSH | BLK_SIZE | SEG_MAX,
        Lies::Everywhere => {
            let turned = script.u16() as u32 | u32::from(script.u8()) << 16;
            let turned = FEATURES
                .iter()
                .enumerate()
                .filter(|(i, _)| turned >> i & 1 == 1)
                .fold(0, |bits, (_, number)| bits | 1 << number);
            (ordinary | ZONED | FLUSH | BLK_SIZE | SEG_MAX) ^ turned
        }
        Lies::InSplitRings | Lies::InPackedRings => {
            let turned = script.u8();
            let turned = FEATURES[..6]
                .iter()
                .enumerate()
                .filter(|(i, _)| turned >> i & 1 == 1)
                .fold(0, |bits, (_, number)| bits | 1 << number);
            let packed = match lies {
                Lies::InPackedRings => PACKED,
                _ => 0,
            };
            (ordinary | packed) ^ turned
        }
    }
}

/// A configuration space with the structures of virtio-pci, and then with some bytes of it changed.
pub(crate) fn pci(script: &Script, lies: Lies) -> [u8; 256] {
    let mut space = [0; 256];
    space[..4].copy_from_slice(&[0xf4, 0x1a, 0x42, 0x10]);
    space[0x06] = 0x10;
    space[0x34] = 0x40;
    let mut capability = |at: usize, next: u8, len: u8, kind: u8, offset: u64, length: u32| {
        space[at..at + 5].copy_from_slice(&[0x09, next, len, kind, BAR]);
        space[at + 8..at + 12].copy_from_slice(&(offset as u32).to_le_bytes());
        space[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
    };
    capability(0x40, 0x50, 16, 1, 0, COMMON_LEN);
    capability(0x50, 0x64, 20, 2, NOTIFY_OFFSET, 0x1000);
    capability(0x64, 0x74, 16, 3, 0x1000, 1);
    capability(0x74, 0, 16, 4, DEVICE_OFFSET, BLK_LEN as u32);
    space[0x60] = 4;
    if lies == Lies::Everywhere {
        for _ in 0..script.pick([0, 0, 0, 0, 0, 1, 2, 6]) {
            let at = match script.below(4) {
                // Most of it means nothing: where it does, more often.
                0 => script.u8(),
                1 => script.pick([0x00, 0x02, 0x06, 0x34, 0x41, 0x51, 0x65, 0x75]),
                2 => script.pick([0x42, 0x43, 0x44, 0x48, 0x4c, 0x4d, 0x52, 0x54]),
                _ => script.pick([0x58, 0x5c, 0x60, 0x63, 0x76, 0x78, 0x7c, 0x80]),
            };
            space[usize::from(at)] = script.u8();
        }
    }
    space
}

/// The configuration of a block device: one that makes sense, and then with some bytes changed.
pub(crate) fn block_device(script: &Script, lies: Lies) -> [u8; BLK_LEN] {
    let mut fields = [0; BLK_LEN];
    let mut put = |at: usize, bytes: &[u8]| fields[at..at + bytes.len()].copy_from_slice(bytes);
    let lying = lies == Lies::Everywhere;
    let zone_sectors: u32 = match lying {
        true => script.pick([64, 8, 16, 2048, 24, 1, 1 << 31]),
        false => 64,
    };
    let zones: u64 = match lying {
        true => script.pick([4, 2, 8, 1, 64, 3, 4, 300]),
        false => 4,
    };
    let rest = if lying { script.pick([0, 0, 0, 8]) } else { 0 };
    let capacity = u64::from(zone_sectors) * zones + rest;
    put(0x00, &capacity.to_le_bytes());
    put(0x08, &0x10_0000_u32.to_le_bytes()); // size_max
    put(0x0c, &126_u32.to_le_bytes()); // seg_max
    put(0x14, &512_u32.to_le_bytes()); // blk_size
    put(0x20, &[1]); // writeback
    put(0x22, &2_u16.to_le_bytes()); // num_queues
    for (at, value) in [
        (0x24, 4096_u32), // max_discard_sectors
        (0x28, 1),        // max_discard_seg
        (0x2c, 1),        // discard_sector_alignment
        (0x30, 4096),     // max_write_zeroes_sectors
        (0x34, 1),        // max_write_zeroes_seg
        (0x38, 1),        // write_zeroes_may_unmap
        (0x3c, 1 << 20),  // max_secure_erase_sectors
        (0x40, 1),        // max_secure_erase_seg
        (0x44, 1),        // secure_erase_sector_alignment
        (0x48, zone_sectors),
        (0x4c, 0),   // max_open_zones
        (0x50, 0),   // max_active_zones
        (0x54, 64),  // max_append_sectors
        (0x58, 512), // write_granularity
        (0x5c, 1),   // model
    ] {
        put(at, &value.to_le_bytes());
    }
    if lying {
        for _ in 0..script.pick([0, 0, 0, 0, 1, 2, 4, 12]) {
            let at = script.below(BLK_LEN);
            fields[at] = script.u8();
        }
    }
    fields
}

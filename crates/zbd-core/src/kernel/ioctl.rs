#![expect(unsafe_code, reason = "the ioctls of zoned block devices")]
//! What io_uring has no operation for: zone reports, zone commands, discards.

use std::os::fd::AsFd;

use rustix::{
    io::Errno,
    ioctl::{Opcode, Setter, Updater, ioctl, opcode},
};

use crate::{Sector, SectorCount, ZoneAction};

const GROUP: u8 = 0x12;
const DISCARD: Opcode = opcode::none(GROUP, 119);
const REPORT: Opcode = opcode::read_write::<[u64; 2]>(GROUP, 130);
const RESET: Opcode = opcode::write::<Range>(GROUP, 131);
const OPEN: Opcode = opcode::write::<Range>(GROUP, 134);
const CLOSE: Opcode = opcode::write::<Range>(GROUP, 135);
const FINISH: Opcode = opcode::write::<Range>(GROUP, 136);

/// How many zones are asked for at once: a report of 32 KiB.
const BATCH: usize = 511;
/// The report's flag that says that the zones have capacities (`BLK_ZONE_REP_CAPACITY`).
const HAS_CAPACITY: u32 = 1;

/// `struct blk_zone_range`, and the range of a discard in bytes.
type Range = [u64; 2];

/// `struct blk_zone`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct RawZone {
    pub(super) start: u64,
    pub(super) len: u64,
    pub(super) write_pointer: u64,
    pub(super) zone_type: u8,
    pub(super) state: u8,
    pub(super) non_seq: u8,
    pub(super) reset: u8,
    pub(super) reserved: [u8; 4],
    pub(super) capacity: u64,
    pub(super) reserved_too: [u8; 24],
}

const _: () = assert!(size_of::<RawZone>() == 64);

/// `struct blk_zone_report` with room for zones.
#[repr(C)]
struct Report {
    sector: u64,
    count: u32,
    flags: u32,
    zones: [RawZone; BATCH],
}

/// At the most `most` zones, from the one on in which `from` lies.
pub(super) fn report(device: impl AsFd, from: Sector, most: usize) -> Result<Vec<RawZone>, Errno> {
    let mut zones: Vec<RawZone> = Vec::new();
    let mut from = from.0;
    while zones.len() < most {
        let mut report = Box::new(Report {
            sector: from,
            count: BATCH.min(most - zones.len()) as u32,
            flags: 0,
            zones: [RawZone::default(); BATCH],
        });
        // SAFETY: the kernel reads the head of a report and writes it and as many zones as its
        // count says, for which there is room.
        let request = unsafe { Updater::<REPORT, Report>::new(&mut report) };
        // SAFETY: as above; the number is that of a request on such a report.
        unsafe { ioctl(device.as_fd(), request) }?;
        let count = (report.count as usize).min(BATCH);
        let Some(last) = report.zones[..count].last() else {
            break;
        };
        // A device whose zones lead nowhere must not be asked for ever.
        let next = last.start.saturating_add(last.len);
        if next <= from {
            break;
        }
        from = next;
        let has_capacity = report.flags & HAS_CAPACITY != 0;
        zones.extend(report.zones[..count].iter().map(|zone| RawZone {
            capacity: if has_capacity {
                zone.capacity
            } else {
                zone.len
            },
            ..*zone
        }));
    }
    zones.truncate(most);
    Ok(zones)
}

/// Changes the state of the zones in a range.
pub(super) fn manage(
    device: impl AsFd,
    action: ZoneAction,
    at: Sector,
    len: SectorCount,
) -> Result<(), Errno> {
    let range = [at.0, len.0];
    match action {
        ZoneAction::Open => send::<OPEN>(device, range),
        ZoneAction::Close => send::<CLOSE>(device, range),
        ZoneAction::Finish => send::<FINISH>(device, range),
        ZoneAction::Reset => send::<RESET>(device, range),
    }
}

/// Tells the device that a range is no longer needed.
pub(super) fn discard(device: impl AsFd, at: Sector, len: SectorCount) -> Result<(), Errno> {
    send::<DISCARD>(device, [at.0.saturating_mul(512), len.bytes()])
}

fn send<const OPCODE: Opcode>(device: impl AsFd, range: Range) -> Result<(), Errno> {
    // SAFETY: all requests that this is used for read two words of 64 bits and nothing else.
    let request = unsafe { Setter::<OPCODE, Range>::new(range) };
    // SAFETY: as above.
    unsafe { ioctl(device.as_fd(), request) }
}

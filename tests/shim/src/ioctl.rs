//! The block device ioctls, answered for our disks.
#![expect(
    unsafe_code,
    reason = "reads and writes ioctl arguments behind QEMU's pointers"
)]

use std::ffi::{c_int, c_ulong, c_void};

use crate::kernel;
use crate::panel::Counter;
use crate::registry::Disk;
use crate::zones::{Command, State, Zone};

const BLKROGET: c_ulong = 0x125e;
const BLKSSZGET: c_ulong = 0x1268;
const BLKPBSZGET: c_ulong = 0x127b;
const BLKGETSIZE64: c_ulong = 0x8008_1272;
const BLKREPORTZONE: c_ulong = 0xc010_1282;
const BLKRESETZONE: c_ulong = 0x4010_1283;
const BLKOPENZONE: c_ulong = 0x4010_1286;
const BLKCLOSEZONE: c_ulong = 0x4010_1287;
const BLKFINISHZONE: c_ulong = 0x4010_1288;

/// Flag of a report whose zones carry their capacity.
const REP_CAPACITY: u32 = 1;

/// `struct blk_zone_report`, without the zones that follow it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Report {
    sector: u64,
    zones: u32,
    flags: u32,
}

/// `struct blk_zone`, in sectors.
#[repr(C)]
#[derive(Clone, Copy)]
struct Descriptor {
    start: u64,
    len: u64,
    pointer: u64,
    kind: u8,
    condition: u8,
    non_sequential: u8,
    reset_recommended: u8,
    reserved: [u8; 4],
    capacity: u64,
    reserved_too: [u8; 24],
}

const _: () = assert!(size_of::<Report>() == 16 && size_of::<Descriptor>() == 64);

/// `struct blk_zone_range`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    sector: u64,
    sectors: u64,
}

/// Answers `request` about `disk`; `None` if it is not one of those answered here.
///
/// # Safety
/// `argument` must be what the request asks for, as with `ioctl(2)`.
pub unsafe fn answer(
    fd: c_int,
    disk: &Disk,
    request: c_ulong,
    argument: *mut c_void,
) -> Option<c_int> {
    let geometry = &disk.geometry;
    let answered = match request {
        // SAFETY: the request's argument is an int to fill.
        BLKROGET => unsafe { fill::<c_int>(argument, 0) },
        // SAFETY: the request's argument is an int to fill.
        BLKSSZGET => unsafe { fill::<c_int>(argument, geometry.logical_block as c_int) },
        // SAFETY: the request's argument is an int to fill.
        BLKPBSZGET => unsafe { fill::<c_int>(argument, geometry.physical_block as c_int) },
        // SAFETY: the request's argument is a u64 to fill.
        BLKGETSIZE64 => unsafe { fill::<u64>(argument, disk.size) },
        // SAFETY: the request's argument is a report with room for the zones that it asks for.
        BLKREPORTZONE => unsafe { report(disk, argument.cast()) },
        BLKRESETZONE | BLKOPENZONE | BLKCLOSEZONE | BLKFINISHZONE => {
            // SAFETY: the request's argument is a range.
            let range = unsafe { argument.cast::<Range>().read_unaligned() };
            match command(fd, disk, request, range) {
                Ok(()) => 0,
                Err(errno) => {
                    disk.panel.count(Counter::RefusedCommands, 1);
                    kernel::fail(errno)
                }
            }
        }
        _ => return None,
    };
    Some(answered)
}

/// # Safety
/// `argument` must point to a `T` that may be written.
unsafe fn fill<T>(argument: *mut c_void, value: T) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { argument.cast::<T>().write_unaligned(value) };
    0
}

/// # Safety
/// `header` must be followed by room for as many zones as it asks for.
unsafe fn report(disk: &Disk, header: *mut Report) -> c_int {
    disk.panel.count(Counter::Reports, 1);
    // SAFETY: the caller's promise.
    let asked = unsafe { header.read_unaligned() };
    // SAFETY: the descriptors start where the header ends.
    let descriptors = unsafe { header.add(1) }.cast::<Descriptor>();
    let zones = disk.zones();
    let mut given = 0;
    for zone in zones
        .from(asked.sector.saturating_mul(512))
        .iter()
        .take(asked.zones as usize)
    {
        // SAFETY: `given` stays below the number of zones that there is room for.
        let place = unsafe { descriptors.add(given) };
        // SAFETY: as above.
        unsafe { place.write_unaligned(describe(zone)) };
        given += 1;
    }
    let answer = Report {
        sector: asked.sector,
        zones: given as u32,
        flags: REP_CAPACITY,
    };
    // SAFETY: the caller's promise.
    unsafe { header.write_unaligned(answer) };
    0
}

fn describe(zone: &Zone) -> Descriptor {
    Descriptor {
        start: zone.start / 512,
        len: zone.size / 512,
        pointer: zone.pointer / 512,
        kind: if zone.state == State::Conventional {
            1
        } else {
            2
        },
        condition: zone.state as u8,
        non_sequential: 0,
        reset_recommended: 0,
        reserved: [0; 4],
        capacity: zone.capacity / 512,
        reserved_too: [0; 24],
    }
}

fn command(fd: c_int, disk: &Disk, request: c_ulong, range: Range) -> Result<(), c_int> {
    let (command, counter) = match request {
        BLKOPENZONE => (Command::Open, Counter::Opens),
        BLKCLOSEZONE => (Command::Close, Counter::Closes),
        BLKFINISHZONE => (Command::Finish, Counter::Finishes),
        _ => (Command::Reset, Counter::Resets),
    };
    disk.panel.count(counter, 1);
    let offset = range.sector.checked_mul(512).ok_or(libc::EINVAL)?;
    let len = range.sectors.checked_mul(512).ok_or(libc::EINVAL)?;
    let mut zones = disk.zones();
    zones.command(command, offset, len)?;
    if command == Command::Reset {
        // What a reset leaves behind reads as zeros, and the file shrinks again.
        for zone in zones
            .from(offset)
            .iter()
            .take_while(|zone| zone.start < offset + len)
        {
            if zone.state == State::Empty {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                kernel::fallocate(fd, mode, zone.start as i64, zone.size as i64);
            }
        }
    }
    Ok(())
}

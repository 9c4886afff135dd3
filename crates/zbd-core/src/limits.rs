//! What a request must be for the device to see it: inside the limits that the device states.

use vfio_virtio::DmaBuffer;

use crate::{
    DeviceInfo, Error, ErrorKind, Result, Sector, SectorCount, ZoneId, ZoneType, ZonedInfo,
    units::SECTOR_LEN,
};

mod commands;
mod plain;
mod ranges;

pub(crate) use commands::command;
pub(crate) use plain::Plain;
pub(crate) use ranges::{RangeKind, pieces};

/// Checks an append and yields the first and the last sector at which it may begin.
#[inline]
pub(crate) fn append(
    info: &DeviceInfo,
    zone: ZoneId,
    buffer: &DmaBuffer,
) -> Result<(Sector, Sector)> {
    let Some(zoned) = &info.zoned else {
        return Err(not_zoned(info));
    };
    writable(info)?;
    check_segments(info, buffer)?;
    let len = buffer.len() as u32;
    let sectors = SectorCount(u64::from(len) / SECTOR_LEN);
    match zoned.shapes.get(zone.0 as usize) {
        Some(shape)
            if zoned.is_granular(len)
                && sectors <= zoned.max_append
                && sectors <= shape.capacity
                && shape.zone_type == ZoneType::SequentialRequired =>
        {
            let start = zoned.start(zone);
            Ok((start, Sector(start.0 + (shape.capacity.0 - sectors.0))))
        }
        _ => Err(bad_append(zoned, zone, len)),
    }
}

/// Checks a read.
#[inline]
pub(crate) fn read(info: &DeviceInfo, at: Sector, buffer: &DmaBuffer) -> Result<()> {
    transfer(info, at, buffer)
}

/// Checks a write.
#[inline]
pub(crate) fn write(info: &DeviceInfo, at: Sector, buffer: &DmaBuffer) -> Result<()> {
    transfer(info, at, buffer)?;
    writable(info)?;
    match &info.zoned {
        Some(zoned) if zoned.write_granularity > info.block_size => granular(zoned, at, buffer),
        _ => Ok(()),
    }
}

/// Checks that a write to a sequential zone is made of units that are larger than blocks.
#[inline(never)]
fn granular(zoned: &ZonedInfo, at: Sector, buffer: &DmaBuffer) -> Result<()> {
    let unit = u64::from(zoned.write_granularity);
    let sequential = zoned
        .zone_of(at)
        .and_then(|zone| zoned.zone_type(zone))
        .is_some_and(|zone_type| zone_type != ZoneType::Conventional);
    if sequential
        && !((buffer.len() as u64).is_multiple_of(unit) && at.0.is_multiple_of(unit / SECTOR_LEN))
    {
        return Err(invalid(format!(
            "{} bytes at sector {at}, in a sequential zone, are not multiples of the write granularity of {unit} bytes",
            buffer.len()
        )));
    }
    Ok(())
}

#[inline]
fn transfer(info: &DeviceInfo, at: Sector, buffer: &DmaBuffer) -> Result<()> {
    let len = buffer.len() as u32;
    let block_mask = info.block_size - 1;
    let sector_mask = u64::from(block_mask) / SECTOR_LEN;
    let end = at.0.saturating_add(u64::from(len) / SECTOR_LEN);
    if len & block_mask != 0
        || at.0 & sector_mask != 0
        || len > info.max_transfer
        || end > info.capacity.0
    {
        return Err(bad_transfer(info, at, len));
    }
    check_segments(info, buffer)
}

/// Checks that the device takes the buffer in the pieces that it consists of, mostly one.
#[inline]
fn check_segments(info: &DeviceInfo, buffer: &DmaBuffer) -> Result<()> {
    if !buffer.is_contiguous() {
        return check_scattered(info, buffer);
    }
    if buffer.len() > info.max_segment as usize {
        return Err(bad_segment(info, buffer.len()));
    }
    Ok(())
}

/// Each piece must be whole blocks: devices that hand pieces on one by one, as QEMU does with those
/// of an append, fail others.
#[cold]
fn check_scattered(info: &DeviceInfo, buffer: &DmaBuffer) -> Result<()> {
    let count = buffer.segments().count();
    if count > info.max_segments as usize {
        return Err(invalid(format!(
            "a buffer of {count} segments exceeds the device's greatest number of {}; join fewer",
            info.max_segments
        )));
    }
    for segment in buffer.segments() {
        if segment.len_bytes > info.max_segment {
            return Err(bad_segment(info, segment.len_bytes as usize));
        }
        if !segment.len_bytes.is_multiple_of(info.block_size) {
            return Err(invalid(format!(
                "a segment of {} bytes is not whole blocks of {} bytes",
                segment.len_bytes, info.block_size
            )));
        }
    }
    Ok(())
}

#[inline]
fn writable(info: &DeviceInfo) -> Result<()> {
    if info.read_only {
        Err(read_only(info))
    } else {
        Ok(())
    }
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidRequest, what)
}

fn check_zone(zoned: &ZonedInfo, zone: ZoneId) -> Result<ZoneType> {
    zoned.zone_type(zone).ok_or_else(|| {
        invalid(format!(
            "there is no zone {zone}; the device has {}",
            zoned.zone_count
        ))
    })
}

#[cold]
fn not_zoned(info: &DeviceInfo) -> Error {
    info.zoned()
        .err()
        .unwrap_or_else(|| invalid(format!("{} is zoned", info.name)))
}

#[cold]
fn read_only(info: &DeviceInfo) -> Error {
    Error::new(ErrorKind::ReadOnly, format!("{} is read-only", info.name))
}

#[cold]
fn past_the_end(info: &DeviceInfo, at: Sector, len: u32) -> Error {
    invalid(format!(
        "{len} bytes at sector {at} are past the end of {} with its {} sectors",
        info.name, info.capacity
    ))
}

#[cold]
fn bad_append(zoned: &ZonedInfo, zone: ZoneId, len: u32) -> Error {
    let shape = match check_zone(zoned, zone) {
        Err(error) => return error,
        Ok(ZoneType::SequentialRequired) => zoned.shapes[zone.0 as usize],
        Ok(other) => {
            return invalid(format!(
                "zone {zone} is {other}: it is written at chosen sectors and takes no appends"
            ));
        }
    };
    if zoned.max_append.0 == 0 {
        return Error::new(
            ErrorKind::Unsupported,
            "the device knows no zone append (its max_append_sectors is 0); write at the write pointer instead",
        );
    }
    if !len.is_multiple_of(zoned.write_granularity) {
        return invalid(format!(
            "an append of {len} bytes is not a multiple of the write granularity of {} bytes",
            zoned.write_granularity
        ));
    }
    if u64::from(len) > zoned.max_append.bytes() {
        return invalid(format!(
            "an append of {len} bytes exceeds the device's greatest of {} bytes; append less at a time, or let a ZoneWriter split it",
            zoned.max_append.bytes()
        ));
    }
    invalid(format!(
        "an append of {len} bytes exceeds the capacity of zone {zone}, {} bytes",
        shape.capacity.bytes()
    ))
}

#[cold]
fn bad_segment(info: &DeviceInfo, len: usize) -> Error {
    invalid(format!(
        "a segment of {len} bytes exceeds the device's greatest of {} bytes (size_max); use smaller buffers",
        info.max_segment
    ))
}

#[cold]
fn bad_transfer(info: &DeviceInfo, at: Sector, len: u32) -> Error {
    let block = info.block_size;
    if !len.is_multiple_of(block) || !at.0.is_multiple_of(u64::from(block) / SECTOR_LEN) {
        return invalid(format!(
            "{len} bytes at sector {at} are not whole blocks of {block} bytes"
        ));
    }
    if len > info.max_transfer {
        return invalid(format!(
            "a transfer of {len} bytes exceeds the device's greatest of {} bytes",
            info.max_transfer
        ));
    }
    past_the_end(info, at, len)
}

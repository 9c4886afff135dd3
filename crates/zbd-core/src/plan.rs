//! What becomes of a request before the device sees it: checked against the device's limits and
//! translated into a request type and a sector.

use vfio_virtio::{Data, DmaBuffer};

use crate::{
    DeviceInfo, Error, ErrorKind, Request, Result, Sector, SectorCount, ZoneAction, ZoneId,
    ZoneType, ZonedInfo, units::SECTOR_LEN, virtio::RequestType,
};

/// A request that the device can be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) request_type: RequestType,
    /// The sector that goes into the request's header.
    pub(crate) at: Sector,
    /// For an append, the last sector at which it may begin without leaving its zone.
    pub(crate) append_limit: Option<Sector>,
}

/// Checks `request` against what `info` allows.
#[inline]
pub(crate) fn plan(info: &DeviceInfo, request: &Request) -> Result<Plan> {
    match request {
        Request::Append { zone, buffer } => append(info, *zone, buffer),
        Request::Read { at, buffer } => {
            check_transfer(info, *at, buffer)?;
            Ok(Plan::new(RequestType::IN, *at))
        }
        Request::Write { at, buffer } => {
            check_transfer(info, *at, buffer)?;
            check_writable(info)?;
            Ok(Plan::new(RequestType::OUT, *at))
        }
        Request::Flush => Ok(Plan::new(RequestType::FLUSH, Sector(0))),
        other => zone_command(info, other),
    }
}

#[inline]
fn append(info: &DeviceInfo, zone: ZoneId, buffer: &DmaBuffer) -> Result<Plan> {
    let Some(zoned) = &info.zoned else {
        return Err(not_zoned(info));
    };
    check_writable(info)?;
    let len = buffer.len() as u32;
    let sectors = SectorCount(u64::from(len) / SECTOR_LEN);
    match zoned.shapes.get(zone.0 as usize) {
        Some(shape)
            if len.is_multiple_of(zoned.write_granularity)
                && sectors <= zoned.max_append
                && sectors <= shape.capacity
                && shape.zone_type != ZoneType::Conventional =>
        {
            let start = zoned.start(zone);
            Ok(Plan {
                request_type: RequestType::ZONE_APPEND,
                at: start,
                append_limit: Some(Sector(start.0 + (shape.capacity.0 - sectors.0))),
            })
        }
        _ => Err(bad_append(zoned, zone, len)),
    }
}

#[inline]
fn check_transfer(info: &DeviceInfo, at: Sector, buffer: &DmaBuffer) -> Result<()> {
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
    Ok(())
}

#[inline]
fn check_writable(info: &DeviceInfo) -> Result<()> {
    if info.read_only {
        Err(read_only(info))
    } else {
        Ok(())
    }
}

#[cold]
fn zone_command(info: &DeviceInfo, request: &Request) -> Result<Plan> {
    let zoned = info.zoned()?;
    match request {
        Request::Report { from, buffer } => {
            if buffer.len() < ZonedInfo::report_len(1) {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    format!(
                        "a report of one zone takes {} bytes, the buffer has {}",
                        ZonedInfo::report_len(1),
                        buffer.len()
                    ),
                ));
            }
            if *from >= Sector(info.capacity.0) {
                return Err(past_the_end(info, *from, 0));
            }
            Ok(Plan::new(RequestType::ZONE_REPORT, *from))
        }
        Request::Manage { action, zone } => {
            check_writable(info)?;
            check_zone(zoned, *zone)?;
            let request_type = match action {
                ZoneAction::Open => RequestType::ZONE_OPEN,
                ZoneAction::Close => RequestType::ZONE_CLOSE,
                ZoneAction::Finish => RequestType::ZONE_FINISH,
                ZoneAction::Reset => RequestType::ZONE_RESET,
            };
            Ok(Plan::new(request_type, zoned.start(*zone)))
        }
        _ => {
            check_writable(info)?;
            Ok(Plan::new(RequestType::ZONE_RESET_ALL, Sector(0)))
        }
    }
}

impl Plan {
    #[inline]
    fn new(request_type: RequestType, at: Sector) -> Self {
        Self {
            request_type,
            at,
            append_limit: None,
        }
    }

    /// The request that this plan was made for.
    #[cold]
    pub(crate) fn into_request(self, info: &DeviceInfo, data: Data) -> Request {
        let at = self.at;
        let zone = || {
            let zoned = info.zoned.as_ref();
            zoned
                .and_then(|zoned| zoned.zone_of(at))
                .unwrap_or_default()
        };
        let action = match self.request_type {
            RequestType::ZONE_OPEN => ZoneAction::Open,
            RequestType::ZONE_CLOSE => ZoneAction::Close,
            RequestType::ZONE_FINISH => ZoneAction::Finish,
            _ => ZoneAction::Reset,
        };
        match (data, self.request_type) {
            (Data::ToDevice(buffer), RequestType::ZONE_APPEND) => Request::Append {
                zone: zone(),
                buffer,
            },
            (Data::ToDevice(buffer), _) => Request::Write { at, buffer },
            (Data::FromDevice(buffer), RequestType::ZONE_REPORT) => {
                Request::Report { from: at, buffer }
            }
            (Data::FromDevice(buffer), _) => Request::Read { at, buffer },
            (Data::None, RequestType::FLUSH) => Request::Flush,
            (Data::None, RequestType::ZONE_RESET_ALL) => Request::ResetAll,
            (Data::None, _) => Request::Manage {
                action,
                zone: zone(),
            },
        }
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
        Ok(ZoneType::Conventional) => {
            return invalid(format!(
                "zone {zone} is conventional: it is written at chosen sectors and takes no appends"
            ));
        }
        Ok(_) => zoned.shapes[zone.0 as usize],
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
            "an append of {len} bytes exceeds the device's greatest of {} bytes",
            zoned.max_append.bytes()
        ));
    }
    invalid(format!(
        "an append of {len} bytes exceeds the capacity of zone {zone}, {} bytes",
        shape.capacity.bytes()
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

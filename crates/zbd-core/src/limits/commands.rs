//! Requests that are not transfers.

use vfio_virtio::DmaBuffer;

use super::{
    check_segments, check_zone, invalid, past_the_end,
    ranges::{self, RangeKind},
    writable,
};
use crate::{
    DeviceInfo, Error, ErrorKind, Request, Result, Sector, ZoneAction, ZonedInfo,
    virtio::RequestType,
};

/// Checks a request that is not a transfer and yields its type and the sector that it names.
#[cold]
pub(crate) fn command(info: &DeviceInfo, request: &Request) -> Result<(RequestType, Sector)> {
    match request {
        Request::Flush => {
            // VIRTIO 1.3, 5.2.3: the command is the feature.
            if !info.volatile_cache {
                return Err(unsupported(format!(
                    "{} knows no flush (no FLUSH): what it completes is durable already, or cannot be made so",
                    info.name
                )));
            }
            Ok((RequestType::FLUSH, Sector(0)))
        }
        Request::Report { from, buffer } => {
            info.zoned()?;
            written(buffer)?;
            if buffer.len() < ZonedInfo::report_len(1) {
                return Err(invalid(format!(
                    "a report of one zone takes {} bytes, the buffer has {}",
                    ZonedInfo::report_len(1),
                    buffer.len()
                )));
            }
            check_segments(info, buffer)?;
            if *from >= Sector(info.capacity.0) {
                return Err(past_the_end(info, *from, 0));
            }
            Ok((RequestType::ZONE_REPORT, *from))
        }
        Request::Manage { action, zone } => {
            let zoned = info.zoned()?;
            writable(info)?;
            check_zone(zoned, *zone)?;
            let request_type = match action {
                ZoneAction::Open => RequestType::ZONE_OPEN,
                ZoneAction::Close => RequestType::ZONE_CLOSE,
                ZoneAction::Finish => RequestType::ZONE_FINISH,
                ZoneAction::Reset => RequestType::ZONE_RESET,
            };
            Ok((request_type, zoned.start(*zone)))
        }
        Request::ResetAll => {
            info.zoned()?;
            writable(info)?;
            Ok((RequestType::ZONE_RESET_ALL, Sector(0)))
        }
        Request::Discard { at, len } => ranges::one(info, RangeKind::Discard, *at, *len),
        Request::WriteZeroes { at, len, .. } => {
            ranges::one(info, RangeKind::WriteZeroes, *at, *len)
        }
        Request::SecureErase { at, len } => ranges::one(info, RangeKind::SecureErase, *at, *len),
        Request::GetId { buffer } => {
            exactly(info, buffer, Request::ID_LEN, "an ID string")?;
            Ok((RequestType::GET_ID, Sector(0)))
        }
        Request::GetLifetime { buffer } => {
            if !info.lifetime {
                return Err(unsupported(format!(
                    "{} does not tell how worn it is (no LIFETIME)",
                    info.name
                )));
            }
            exactly(info, buffer, Request::LIFETIME_LEN, "a lifetime")?;
            Ok((RequestType::GET_LIFETIME, Sector(0)))
        }
        Request::Read { .. } | Request::Write { .. } | Request::Append { .. } => {
            Err(invalid("a transfer is no command".to_owned()))
        }
    }
}

/// VIRTIO 1.3, 5.2.6.1: the length is part of the request.
fn exactly(info: &DeviceInfo, buffer: &DmaBuffer, len: usize, what: &str) -> Result<()> {
    if buffer.len() != len {
        return Err(invalid(format!(
            "{what} takes a buffer of {len} bytes, this one has {}; set its length",
            buffer.len()
        )));
    }
    written(buffer)?;
    check_segments(info, buffer)
}

/// A buffer for an answer is prepared before the queue sees it.
fn written(buffer: &DmaBuffer) -> Result<()> {
    match buffer.is_read_only() {
        true => Err(invalid(
            "the answer would be written to a buffer that was lent from bytes; use an allocated one"
                .to_owned(),
        )),
        false => Ok(()),
    }
}

pub(super) fn unsupported(what: String) -> Error {
    Error::new(ErrorKind::Unsupported, what)
}

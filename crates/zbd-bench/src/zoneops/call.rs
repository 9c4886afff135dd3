//! One operation as the requests that it takes, one after the other.

use zbd_core::{
    Completion, DmaBuffer, Error, ErrorKind, IoQueue, Request, Result, Zone, ZoneId, ZonedInfo,
};

use super::operation::Operation;

/// How many zones are asked for with one report.
const REPORT_ZONES: u32 = 1023;

/// What operations need of a device.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) zoned: ZonedInfo,
    /// Where reports go. Missing while it is with the device.
    report: Option<DmaBuffer>,
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Call {
    operation: Operation,
    zone: ZoneId,
    /// The next zone to be reported.
    next: u32,
    /// The end of what is to be reported.
    end: u32,
}

/// The length of a buffer for reports of a device.
pub(super) fn report_len(zone_count: u32) -> usize {
    ZonedInfo::report_len(zone_count.min(REPORT_ZONES))
}

/// In how many requests all zones are reported.
pub(crate) fn report_requests(zone_count: u32) -> u32 {
    zone_count.div_ceil(REPORT_ZONES)
}

impl Tools {
    pub(super) fn new(queue: &IoQueue) -> Result<Self> {
        let zoned = queue.info().zoned()?.clone();
        let report = Some(queue.buffer(report_len(zoned.zone_count))?);
        Ok(Self { zoned, report })
    }
}

impl Call {
    /// An operation on a zone, or on all.
    pub(super) fn new(operation: Operation, zone: &Zone, tools: &Tools) -> Self {
        let (next, end) = match operation {
            Operation::ReportAll => (0, tools.zoned.zone_count),
            Operation::ReportOne => (zone.id.0, zone.id.0 + 1),
            _ => (0, 0),
        };
        Self {
            operation,
            zone: zone.id,
            next,
            end,
        }
    }

    /// The request that comes next.
    pub(super) fn request(&self, tools: &mut Tools) -> Result<Request> {
        if let Some(action) = self.operation.action() {
            let zone = self.zone;
            return Ok(Request::Manage { action, zone });
        }
        match self.operation {
            Operation::ResetAll => Ok(Request::ResetAll),
            Operation::Flush => Ok(Request::Flush),
            _ => {
                let mut buffer = tools.report.take().ok_or_else(lost)?;
                let zones = (self.end - self.next).min(REPORT_ZONES);
                buffer.set_len(ZonedInfo::report_len(zones));
                // What the device leaves unwritten must not look like a report.
                buffer.fill(0);
                let from = tools.zoned.start(ZoneId(self.next));
                Ok(Request::Report { from, buffer })
            }
        }
    }

    /// Whether that was the last request, which has succeeded.
    pub(super) fn is_done(&mut self, done: Completion, tools: &mut Tools) -> Result<bool> {
        if self.next == self.end {
            return Ok(true);
        }
        let buffer = done.buffer.ok_or_else(lost)?;
        let zones = tools.zoned.parse_report(ZoneId(self.next), &buffer)?;
        tools.report = Some(buffer);
        if zones.is_empty() {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("the device reports no zones from zone {} on", self.next),
            ));
        }
        self.next = self.end.min(self.next.saturating_add(zones.len() as u32));
        Ok(self.next == self.end)
    }
}

fn lost() -> Error {
    Error::new(
        ErrorKind::Protocol,
        "the buffer of a report has not come back",
    )
}

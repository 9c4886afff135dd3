//! Requests one at a time, for what is not measured: reports, resets, filling.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use crossbeam_utils::Backoff;
use zbd_core::{
    Completion, Error, ErrorKind, IoQueue, Request, Result, Zone, ZoneAction, ZoneId, ZonedInfo,
};

/// How many zones are asked for with one report.
const REPORT_ZONES: u32 = 1023;

/// How long one such request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries out one request on a queue that has none in flight.
pub(crate) fn execute(queue: &mut IoQueue, request: Request) -> Result<Completion> {
    queue
        .submit(request, 0)
        .map_err(|rejected| rejected.error)?;
    queue.commit();
    let begun = Instant::now();
    let backoff = Backoff::new();
    loop {
        match queue.poll() {
            Some(Completion {
                result: Err(error), ..
            }) => return Err(error),
            Some(done) => return Ok(done),
            None if backoff.is_completed() && begun.elapsed() > PATIENCE => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{} has not answered for {PATIENCE:?}", queue.info().name),
                ));
            }
            None => backoff.snooze(),
        }
    }
}

/// Changes the state of a zone.
pub(crate) fn manage(queue: &mut IoQueue, action: ZoneAction, zone: ZoneId) -> Result<()> {
    execute(queue, Request::Manage { action, zone }).map(drop)
}

/// Reports the zones with these numbers, none if the device has none.
pub(crate) fn report(queue: &mut IoQueue, zones: Range<u32>) -> Result<Vec<Zone>> {
    let info = queue.info().clone();
    let Some(zoned) = &info.zoned else {
        return Ok(Vec::new());
    };
    let end = zones.end.min(zoned.zone_count);
    let mut report: Vec<Zone> = Vec::new();
    let mut next = zones.start;
    while next < end {
        let len = ZonedInfo::report_len((end - next).min(REPORT_ZONES));
        let mut buffer = queue.buffer(len)?;
        // What the device leaves unwritten must not look like a report.
        buffer.fill(0);
        let from = zoned.start(ZoneId(next));
        let done = execute(queue, Request::Report { from, buffer })?;
        let part = match &done.buffer {
            Some(buffer) => zoned.parse_report(ZoneId(next), buffer)?,
            None => Vec::new(),
        };
        if part.is_empty() {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("{} reports no zones from zone {next} on", info.name),
            ));
        }
        next += part.len() as u32;
        report.extend(part);
    }
    report.truncate((end - zones.start.min(end)) as usize);
    Ok(report)
}

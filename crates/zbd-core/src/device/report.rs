//! Reports of zones.

use std::{
    collections::VecDeque,
    ops::{Bound, Range, RangeBounds},
};

use futures_util::stream;
use vfio_virtio::DmaBuffer;

use super::{Driver, ZonedDevice, owned};
use crate::{Error, ErrorKind, Request, Result, Zone, ZoneId, ZonedInfo, virtio};

/// How many zones are asked for with one report.
const REPORT_ZONES: u32 = 1023;
/// How many fit into a report of one page.
const PAGE_ZONES: u32 = 63;

impl<D: Driver> ZonedDevice<D> {
    /// Reports the zones in `zones`; `..` stands for all.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`]: the device has no zones.
    /// - [`ErrorKind::Protocol`]: the report contradicts itself.
    ///
    /// # Cancellation
    /// Nothing happens.
    pub async fn report(&self, zones: impl RangeBounds<ZoneId>) -> Result<Vec<Zone>> {
        let mut reports = self.reports(zones)?;
        let mut report = Vec::with_capacity((reports.end - reports.next) as usize);
        while let Some(zone) = reports.next().await? {
            report.push(zone);
        }
        Ok(report)
    }

    /// Reports the zones in `zones` one after the other, for devices with more of them than one
    /// would keep: the device is asked for a part when the one before has been taken.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`]: the device has no zones.
    pub fn reports(&self, zones: impl RangeBounds<ZoneId>) -> Result<ZoneReports<D>> {
        let info = self.info();
        let zoned = info.zoned()?;
        let next = match zones.start_bound() {
            Bound::Included(zone) => zone.0,
            Bound::Excluded(zone) => zone.0.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match zones.end_bound() {
            Bound::Included(zone) => zone.0.saturating_add(1),
            Bound::Excluded(zone) => zone.0,
            Bound::Unbounded => zoned.zone_count,
        };
        let end = end.min(zoned.zone_count);
        Ok(ZoneReports {
            device: self.clone(),
            next: next.min(end),
            end,
            part: VecDeque::new(),
        })
    }

    /// One report, of `count` zones at the most from `first` on.
    async fn report_part(&self, first: ZoneId, count: u32) -> Result<Vec<Zone>> {
        let info = self.info();
        let zones = virtio::zones_per_report(count.min(REPORT_ZONES), info.max_segment);
        let buffer = self.wait_for_buffer(ZonedInfo::report_len(zones)).await?;
        self.report_into(first, buffer).await
    }

    /// As [`report`](Self::report), with what memory there is now. Whoever waits for this may hold
    /// all the rest of it, so that waiting for more would never end.
    ///
    /// # Errors
    /// As [`report`](Self::report), and [`ErrorKind::OutOfMemory`].
    pub(super) async fn report_at_once(&self, zones: Range<u32>) -> Result<Vec<Zone>> {
        let info = self.info();
        let mut report: Vec<Zone> = Vec::with_capacity(zones.len());
        while report.len() < zones.len() {
            let first = zones.start + report.len() as u32;
            let count = zones.end - first;
            let zones = |count| virtio::zones_per_report(count, info.max_segment);
            let buffer = |count| self.buffer(ZonedInfo::report_len(zones(count)));
            let buffer = match buffer(count.min(REPORT_ZONES)) {
                Err(error) if error.kind() == ErrorKind::OutOfMemory => {
                    buffer(count.min(PAGE_ZONES))?
                }
                buffer => buffer?,
            };
            let mut part = self.report_into(ZoneId(first), buffer).await?;
            part.truncate(count as usize);
            report.append(&mut part);
        }
        Ok(report)
    }

    /// Fills `buffer` with a report from `first` on.
    async fn report_into(&self, first: ZoneId, mut buffer: DmaBuffer) -> Result<Vec<Zone>> {
        let info = self.info();
        let zoned = info.zoned()?;
        // What the device leaves unwritten must not look like a report.
        buffer.fill(0);
        let from = zoned.start(first);
        let (_, buffer) = self.run(Request::Report { from, buffer }).await?;
        let part = zoned.parse_report(first, &owned(buffer)?)?;
        if part.is_empty() {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!("the device reports no zones from zone {first} on"),
            ));
        }
        Ok(part)
    }
}

/// Zones of a device, one after the other: see [`ZonedDevice::reports`].
#[derive(Debug)]
pub struct ZoneReports<D: Driver = super::Lanes> {
    device: ZonedDevice<D>,
    /// The next zone to ask for.
    next: u32,
    end: u32,
    part: VecDeque<Zone>,
}

impl<D: Driver> ZoneReports<D> {
    /// The next zone; `None` after the last one.
    ///
    /// # Errors
    /// As [`ZonedDevice::report`]. The same zone can be asked for again.
    ///
    /// # Cancellation
    /// No zone is passed over.
    pub async fn next(&mut self) -> Result<Option<Zone>> {
        if self.part.is_empty() && self.next < self.end {
            let left = self.end - self.next;
            let mut part = self.device.report_part(ZoneId(self.next), left).await?;
            part.truncate(left as usize);
            self.next += part.len() as u32;
            self.part = part.into();
        }
        Ok(self.part.pop_front())
    }

    /// The same as a [`Stream`](futures_util::Stream), which ends after the first error.
    pub fn into_stream(self) -> impl futures_util::Stream<Item = Result<Zone>> {
        stream::try_unfold(self, |mut reports| async move {
            Ok(reports.next().await?.map(|zone| (zone, reports)))
        })
    }
}

//! The async door: a device shared by any number of tasks.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
    sync::Arc,
    time::Duration,
};

use tokio::sync::broadcast;
use vfio_virtio::DmaBuffer;

use crate::{
    DeviceEvent, DeviceInfo, DeviceSpec, Error, ErrorKind, IoQueue, OpenOptions, Request, Result,
    Sector, Zone, ZoneAction, ZoneId, ZonedInfo, virtio,
};

mod engine;
mod lane;
mod management;
mod operation;
mod slots;

use engine::Engine;

/// How many zones are asked for with one report.
const REPORT_ZONES: u32 = 1023;

/// An open device that any number of tasks, on any executor, use at once.
///
/// Clones share the device. A thread of its own polls each queue while requests are in flight and
/// sleeps when there are none.
///
/// # Buffers
///
/// Requests take buffers of the device's DMA memory ([`buffer`](Self::buffer)) by value and give
/// them back with the result; a failed request gives them back in the
/// [`Error`](Error::into_buffer).
///
/// # Cancellation
///
/// Dropping a future of this type at any time is safe. Before the request has been accepted,
/// nothing happened. After that the request goes on: virtio-blk knows no way to take it back, so
/// the data of a dropped append land somewhere in the zone. Its buffer returns to the pool when the
/// device is done with it.
///
/// # Dropping
///
/// When the last clone and the last future are gone, the device is reset and closed. Requests
/// whose futures were dropped may or may not have been carried out; what must not be lost has to
/// be awaited.
#[derive(Clone)]
pub struct ZonedDevice {
    engine: Arc<Engine>,
    /// How long a request may take.
    timeout: Option<Duration>,
}

/// Announcements of a device, from when this was made on.
#[derive(Debug)]
pub struct DeviceEvents(broadcast::Receiver<DeviceEvent>);

impl DeviceEvents {
    /// The next announcement; none once the device has been closed. If more came than are kept,
    /// the oldest are passed over.
    pub async fn next(&mut self) -> Option<DeviceEvent> {
        loop {
            match self.0.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// A completed append.
#[derive(Debug)]
pub struct Appended {
    /// Where the device put the data.
    pub sector: Sector,
    /// The buffer that held them.
    pub buffer: DmaBuffer,
}

impl ZonedDevice {
    /// Opens the device that `spec` names (see [`DeviceSpec`]) with the default options.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(spec: &str) -> Result<Self> {
        Self::open_with(&spec.parse()?, &OpenOptions::default())
    }

    /// Opens the device that `spec` names.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open_with(spec: &DeviceSpec, options: &OpenOptions) -> Result<Self> {
        Self::from_queues(options.open(spec)?)
    }

    /// Shares queues that have been opened already, all of one device.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if there are none or they have requests in flight, and
    /// [`ErrorKind::Io`] if no thread can be started.
    pub fn from_queues(queues: Vec<IoQueue>) -> Result<Self> {
        Ok(Self {
            engine: Arc::new(Engine::start(queues)?),
            timeout: None,
        })
    }

    /// The same device, whose requests end as [`ErrorKind::Timeout`] when the device has not
    /// returned them after `timeout`; `None` for as long as it takes, which is the default.
    ///
    /// The time runs from when the request has got a slot. A request whose time was up may still be
    /// carried out; its buffer stays with the device until that has returned it or has been
    /// [reset](Self::recover), and goes back to the pool then.
    #[must_use]
    pub fn with_timeout(&self, timeout: Option<Duration>) -> Self {
        Self {
            engine: Arc::clone(&self.engine),
            timeout,
        }
    }

    /// Resets the device and sets it up again: what to do about a device that does not return
    /// requests, asks for a reset, or broke the rules.
    ///
    /// Afterwards all requests that were in flight have ended: those that the device had returned
    /// as they ended, the others with [`ErrorKind::DeviceReset`] and their buffers. Data that were
    /// not flushed may be lost.
    ///
    /// Takes as long as the device takes to finish what it cannot break off.
    ///
    /// # Errors
    /// - [`ErrorKind::Timeout`], [`ErrorKind::DeviceGone`]: the device does not confirm its reset.
    /// - Others: it was reset but cannot be set up again.
    ///
    /// # Cancellation
    /// The reset takes place once this has been polled, whether it is awaited to the end or not.
    pub async fn recover(&self) -> Result<()> {
        self.engine.recover().await
    }

    /// What the device announces from now on.
    pub fn events(&self) -> DeviceEvents {
        DeviceEvents(self.engine.events())
    }

    /// What is known of the device now. When it [is resized](DeviceEvent::Resized), something else.
    pub fn info(&self) -> Arc<DeviceInfo> {
        self.engine.info()
    }

    /// A buffer of the device's DMA memory. Its contents are whatever they were.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when there is no piece of that size.
    pub fn buffer(&self, len_bytes: usize) -> Result<DmaBuffer> {
        Ok(self.engine.memory().allocate(len_bytes)?)
    }

    /// How often the device has been notified of new requests, over all queues.
    pub fn doorbells(&self) -> u64 {
        self.engine.doorbells()
    }

    /// Appends the whole buffer to `zone`. Any number of appends to one zone can be in flight; in
    /// which order they land is up to the device.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: no such zone, a conventional one, or a length that is no
    ///   multiple of the write granularity or exceeds the greatest append.
    /// - [`ErrorKind::InvalidZoneState`]: the data do not fit into what is left of the zone, or it
    ///   is read-only or offline.
    /// - [`ErrorKind::OpenLimit`], [`ErrorKind::ActiveLimit`]: the zone would have to be opened,
    ///   and too many are.
    /// - [`ErrorKind::Protocol`]: the device put the data outside the zone.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn append(&self, zone: ZoneId, buffer: DmaBuffer) -> Result<Appended> {
        let (sector, buffer) = self.run(Request::Append { zone, buffer }).await?;
        Ok(Appended {
            sector,
            buffer: owned(buffer)?,
        })
    }

    /// Writes the whole buffer from `at` on and gives it back.
    ///
    /// Writes to a sequential zone must begin at its write pointer, so of several in flight all
    /// but the first would fail unless the device happens to take them in order; use
    /// [`append`](Self::append).
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: not whole blocks, or past the end of the device.
    /// - [`ErrorKind::UnalignedWritePointer`]: not at the write pointer.
    /// - As [`append`](Self::append) besides.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn write(&self, at: Sector, buffer: DmaBuffer) -> Result<DmaBuffer> {
        let (_, buffer) = self.run(Request::Write { at, buffer }).await?;
        owned(buffer)
    }

    /// Reads `len_bytes` from `at` on into a buffer of the device's DMA memory.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: not whole blocks, or past the end of the device.
    /// - [`ErrorKind::OutOfMemory`]: no buffer of that size is to be had.
    /// - [`ErrorKind::Medium`]: the device could not read.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn read(&self, at: Sector, len_bytes: usize) -> Result<DmaBuffer> {
        self.read_into(at, self.buffer(len_bytes)?).await
    }

    /// Reads the whole buffer from `at` on.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn read_into(&self, at: Sector, buffer: DmaBuffer) -> Result<DmaBuffer> {
        let (_, buffer) = self.run(Request::Read { at, buffer }).await?;
        owned(buffer)
    }

    /// Makes durable what was completed before the call. Does nothing on a device that knows no
    /// flush, where whatever is completed is durable. The mode of the write cache is not asked for:
    /// what was completed before it was switched may still be volatile.
    ///
    /// # Errors
    /// [`ErrorKind::Medium`]: the device could not write what it held.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn flush(&self) -> Result<()> {
        if self.info().volatile_cache {
            self.run(Request::Flush).await?;
        }
        Ok(())
    }

    /// Reports the zones in `zones`; `..` stands for all.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`]: the device has no zones.
    /// - [`ErrorKind::Protocol`]: the report contradicts itself.
    pub async fn report(&self, zones: impl RangeBounds<ZoneId>) -> Result<Vec<Zone>> {
        let info = self.info();
        let zoned = info.zoned()?;
        let mut next = match zones.start_bound() {
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
        let mut report = Vec::new();
        while next < end {
            let zones = (end - next).min(REPORT_ZONES);
            let zones = virtio::zones_per_report(zones, self.info().max_segment);
            let mut buffer = self.buffer(ZonedInfo::report_len(zones))?;
            // What the device leaves unwritten must not look like a report.
            buffer.fill(0);
            let from = zoned.start(ZoneId(next));
            let (_, buffer) = self.run(Request::Report { from, buffer }).await?;
            let part = zoned.parse_report(ZoneId(next), &owned(buffer)?)?;
            if part.is_empty() {
                return Err(Error::new(
                    ErrorKind::Protocol,
                    format!("the device reports no zones from zone {next} on"),
                ));
            }
            next += part.len() as u32;
            report.extend(part);
        }
        Ok(report)
    }

    /// A zone, whether it exists or not.
    pub fn zone(&self, id: ZoneId) -> ZoneHandle<'_> {
        ZoneHandle { device: self, id }
    }

    /// Resets all sequential zones: their data are gone.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`]: the device has no zones.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn reset_all(&self) -> Result<()> {
        self.run(Request::ResetAll).await?;
        Ok(())
    }

    async fn run(&self, request: Request) -> Result<(Sector, Option<DmaBuffer>)> {
        let done = operation::run(&self.engine, request, self.timeout).await?;
        match done.result {
            Ok(sector) => Ok((sector, done.buffer)),
            Err(error) => Err(error.with_buffer(done.buffer)),
        }
    }
}

/// A completion that succeeded has the buffer that its request had.
fn owned(buffer: Option<DmaBuffer>) -> Result<DmaBuffer> {
    buffer.ok_or_else(|| {
        Error::new(
            ErrorKind::Protocol,
            "a request came back without its buffer",
        )
    })
}

impl fmt::Debug for ZonedDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZonedDevice")
            .field("name", &self.info().name)
            .finish_non_exhaustive()
    }
}

/// One zone of a [`ZonedDevice`].
#[derive(Clone, Copy, Debug)]
pub struct ZoneHandle<'a> {
    device: &'a ZonedDevice,
    id: ZoneId,
}

impl ZoneHandle<'_> {
    /// Opens the zone explicitly: it stays open until it is closed, finished, reset or full.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: there is no such zone.
    /// - [`ErrorKind::InvalidZoneState`]: the zone is conventional, full, read-only or offline.
    /// - [`ErrorKind::OpenLimit`], [`ErrorKind::ActiveLimit`]: too many zones are open or active.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn open(&self) -> Result<()> {
        self.manage(ZoneAction::Open).await
    }

    /// Closes the zone, which stays active unless nothing was written to it.
    ///
    /// # Errors
    /// As [`open`](Self::open), without the limits.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn close(&self) -> Result<()> {
        self.manage(ZoneAction::Close).await
    }

    /// Makes the zone full, whatever was written to it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn finish(&self) -> Result<()> {
        self.manage(ZoneAction::Finish).await
    }

    /// Empties the zone: its data are gone.
    ///
    /// # Errors
    /// As [`open`](Self::open), without the limits.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn reset(&self) -> Result<()> {
        self.manage(ZoneAction::Reset).await
    }

    /// Appends the whole buffer; see [`ZonedDevice::append`].
    ///
    /// # Errors
    /// As [`ZonedDevice::append`].
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn append(&self, buffer: DmaBuffer) -> Result<Appended> {
        self.device.append(self.id, buffer).await
    }

    /// What the device says of the zone now.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: there is no such zone.
    /// - As [`ZonedDevice::report`] besides.
    pub async fn report(&self) -> Result<Zone> {
        let mut zones = self.device.report(self.id..=self.id).await?;
        zones.pop().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidRequest,
                format!("there is no zone {}", self.id),
            )
        })
    }

    async fn manage(&self, action: ZoneAction) -> Result<()> {
        let zone = self.id;
        self.device.run(Request::Manage { action, zone }).await?;
        Ok(())
    }
}

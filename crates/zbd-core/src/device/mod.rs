//! The async door: a device shared by any number of tasks.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::broadcast;
use vfio_virtio::{DmaArena, DmaBuffer, RunningDevice};

use crate::{
    DeviceEvent, DeviceInfo, DeviceSpec, Error, ErrorKind, IoQueue, OpenOptions, Request, Result,
    Sector, ZoneId,
};

mod accounts;
mod admission;
mod backlog;
mod bytes;
mod data;
mod driver;
mod lane;
mod lanes;
mod large;
mod local;
mod management;
mod operation;
mod quick;
mod report;
mod slots;
mod zone;

pub(crate) use driver::Finished;
pub(crate) use local::woken_in_vain;
pub(crate) use operation::Operation;

pub use driver::Driver;
pub use lanes::Lanes;
pub use local::{Local, on_thread_park, on_thread_park_with_io};
pub use report::ZoneReports;
pub use zone::ZoneHandle;

/// An open device that any number of tasks, on any executor, use at once.
///
/// Clones share the device. What drives its queues is the parameter: [`Lanes`], the default, are a
/// thread for each queue, which spins and sleeps as [`OpenOptions::wait`] says.
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
pub struct ZonedDevice<D: Driver = Lanes> {
    driver: D,
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
            driver: Lanes::start(queues)?,
            timeout: None,
        })
    }
}

impl ZonedDevice<Local> {
    /// Opens the device that `spec` names for this thread alone, with one queue, which this thread
    /// drives: see [`Local`] and [`on_thread_park`].
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open_local(spec: &str) -> Result<Self> {
        Self::from_queue(IoQueue::open(spec)?)
    }

    /// Drives a queue that has been opened already from this thread.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`] if it has requests in flight.
    pub fn from_queue(queue: IoQueue) -> Result<Self> {
        Ok(Self {
            driver: Local::new(queue)?,
            timeout: None,
        })
    }

    /// Shows the device what was submitted, takes what it has returned, and wakes the tasks whose
    /// requests have ended; true if there were some. Never waits. For executors that have no such
    /// hook as [`on_thread_park`] is for: call it whenever there is nothing else to do.
    pub fn drive(&self) -> bool {
        self.driver.drive()
    }
}

impl<D: Driver> ZonedDevice<D> {
    /// The same device, whose requests end as [`ErrorKind::Timeout`] when the device has not
    /// returned them after `timeout`; `None` for as long as it takes, which is the default.
    ///
    /// The time runs from when the request has got a slot. A request whose time was up may still be
    /// carried out; its buffer stays with the device until that has returned it or has been
    /// [reset](Self::recover), and goes back to the pool then.
    #[must_use]
    pub fn with_timeout(&self, timeout: Option<Duration>) -> Self {
        Self {
            driver: self.driver.clone(),
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
        self.driver.recover().await
    }

    /// What the device announces from now on.
    pub fn events(&self) -> DeviceEvents {
        DeviceEvents(self.driver.events())
    }

    /// What is known of the device now. When it [is resized](DeviceEvent::Resized), something else.
    pub fn info(&self) -> Arc<DeviceInfo> {
        self.driver.info()
    }

    /// A buffer of the device's DMA memory. Its contents are whatever they were.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] when there is no piece of that size now;
    /// [`wait_for_buffer`](Self::wait_for_buffer) waits for one.
    pub fn buffer(&self, len_bytes: usize) -> Result<DmaBuffer> {
        Ok(self.memory().allocate(len_bytes)?)
    }

    /// The virtio device; none if the kernel drives it.
    pub(crate) fn running(&self) -> Result<Option<Arc<RunningDevice>>> {
        self.driver.device()
    }

    /// What tells the device from others, whichever of its queues this is made of.
    pub(crate) fn opened(&self) -> &Arc<DeviceInfo> {
        self.driver.opened()
    }

    /// The DMA memory that buffers come from.
    pub fn memory(&self) -> &DmaArena {
        self.driver.memory()
    }

    /// How often the device has been notified of new requests, over all queues.
    pub fn doorbells(&self) -> u64 {
        self.driver.doorbells()
    }

    /// A zone, whether it exists or not.
    pub fn zone(&self, id: ZoneId) -> ZoneHandle<'_, D> {
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

    /// Runs `request` and waits for its end.
    #[inline]
    fn run<'a, R: Into<Request> + 'a>(&'a self, request: R) -> D::Run<'a, R> {
        self.driver.run(request, self.timeout)
    }
}

/// A completion that succeeded has the buffer that its request had.
#[inline]
fn owned(buffer: Option<DmaBuffer>) -> Result<DmaBuffer> {
    buffer.ok_or_else(|| {
        Error::new(
            ErrorKind::Protocol,
            "a request came back without its buffer",
        )
    })
}

impl<D: Driver> fmt::Debug for ZonedDevice<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZonedDevice")
            .field("name", &self.info().name)
            .finish_non_exhaustive()
    }
}

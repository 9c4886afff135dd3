//! The ordered writer of a zone: many appends in flight, and their extents in the order in which
//! they were submitted.

pub(crate) mod flight;
mod pieces;

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use crate::{
    DmaBuffer, Driver, Error, ErrorKind, Lanes, Result, Sector, SectorCount, ZoneId, ZoneState,
    ZoneType, ZonedDevice, device::Operation,
};
use flight::{Flight, Waiter};
use pieces::{Group, Job, Method, State};

/// Where a part of what was written is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first sector.
    pub sector: Sector,
    /// Its length.
    pub len: SectorCount,
}

/// What has been written.
#[derive(Debug)]
pub struct Written {
    /// Where the data are, in their order: one extent unless the device takes no append that long.
    pub extents: Vec<Extent>,
    /// The buffer that held them.
    pub buffer: DmaBuffer,
}

/// The writer of one zone, which keeps many requests in flight and the order of what it is given.
///
/// Appends land in any order; the extents say where. Positions count what has been submitted, in
/// sectors from the first write on, whatever the order on the device. Data longer than the device's
/// greatest append are split. Where the device knows no append, and in zones that prefer to be
/// written in sequence, it writes at the write pointer, one request at a time.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use zbd_core::{ZoneId, ZoneWriter, ZonedDevice};
///
/// let device = ZonedDevice::open("emu:")?;
/// let mut writer = ZoneWriter::open(&device, ZoneId(3), 32).await?;
/// let mut writes = Vec::new();
/// for n in 0..100 {
///     let mut buffer = device.buffer(4096)?;
///     buffer.fill(n);
///     writes.push(writer.write(buffer).await?);
/// }
/// let durable = writer.flush().await?;
/// assert_eq!(durable.bytes(), 100 * 4096);
/// for (n, write) in (0..).zip(writes) {
///     let at = write.await?.extents[0].sector;
///     assert_eq!(device.read(at, 4096).await?.to_vec(), [n; 4096]);
/// }
/// writer.finish().await?;
/// # Ok::<(), zbd_core::Error>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Failure
///
/// A part that could not be written leaves a hole. What was submitted behind it may be on the device,
/// and its [`Write`] says where, but the [durable position](Self::durable) stays before the hole, and
/// the writer takes nothing more.
///
/// # Cancellation
///
/// Requests belong to the writer, not to the futures that wait for them: what has been submitted goes
/// on when its [`Write`] is dropped, and [`flush`](Self::flush) covers it. They make progress when
/// any future of the writer is polled. When the writer and its [`Write`]s are gone, what is in flight
/// may or may not be carried out.
pub struct ZoneWriter<D: Driver = Lanes> {
    shared: Arc<Shared<D>>,
}

struct Shared<D: Driver> {
    device: ZonedDevice<D>,
    zone: ZoneId,
    method: Method,
    window: usize,
    flight: Flight<D, Job>,
    state: Mutex<State>,
}

impl<D: Driver> ZoneWriter<D> {
    /// A writer for `zone` from its write pointer on, with at most `window` requests in flight. It
    /// must be the only one that writes to the zone.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: there is no such zone, or it is conventional.
    /// - [`ErrorKind::InvalidZoneState`]: it is full, read-only or offline.
    pub async fn open(device: &ZonedDevice<D>, zone: ZoneId, window: usize) -> Result<Self> {
        let reported = device.zone(zone).report().await?;
        let at = match (reported.state, reported.write_pointer) {
            _ if reported.zone_type == ZoneType::Conventional => {
                return Err(Error::new(
                    ErrorKind::InvalidRequest,
                    format!(
                        "zone {zone} is conventional and has no write pointer; write to it wherever you like"
                    ),
                ));
            }
            (state @ (ZoneState::Full | ZoneState::ReadOnly | ZoneState::Offline), _)
            | (state, None) => {
                return Err(Error::new(
                    ErrorKind::InvalidZoneState,
                    format!(
                        "zone {zone} is {state} and cannot be written; use another, or reset it if it is full"
                    ),
                ));
            }
            (_, Some(at)) => at,
        };
        let method = Method::of(&device.info(), reported.zone_type)?;
        let left = reported.capacity_end().0.saturating_sub(at.0);
        Ok(Self {
            shared: Arc::new(Shared {
                device: device.clone(),
                zone,
                window: if method.appends { window.max(1) } else { 1 },
                method,
                flight: Flight::new(),
                state: Mutex::new(State::new(at, SectorCount(left))),
            }),
        })
    }

    /// The zone.
    pub fn zone(&self) -> ZoneId {
        self.shared.zone
    }

    /// How much can still be submitted.
    pub fn room(&self) -> SectorCount {
        self.shared.state().room
    }

    /// The position up to which data have been submitted.
    pub fn submitted(&self) -> SectorCount {
        self.shared.state().submitted
    }

    /// The position up to which everything is durable, as the last [`flush`](Self::flush) left it.
    pub fn durable(&self) -> SectorCount {
        self.shared.state().durable
    }

    /// Submits the whole buffer, in as many parts as the device needs, and yields what waits for its
    /// end. Waits while the window is full.
    ///
    /// A buffer that is too long for one request, or consists of several segments, is copied part by
    /// part into DMA memory of the device.
    ///
    /// # Errors
    /// All give the buffer back.
    /// - [`ErrorKind::InvalidRequest`]: the length is no multiple of the write granularity.
    /// - [`ErrorKind::InvalidZoneState`]: there is not so much [room](Self::room); nothing was
    ///   submitted.
    /// - [`ErrorKind::OutOfMemory`]: there is no memory for a part, and nothing in flight that would
    ///   give some back.
    /// - That of an earlier failure; see [`ZoneWriter`].
    ///
    /// # Cancellation
    /// The parts that have been submitted are written, the others are not;
    /// [`submitted`](Self::submitted) tells how far it came. A buffer of one part is submitted when
    /// this ends, and not before.
    pub async fn write(&mut self, buffer: DmaBuffer) -> Result<Write<D>> {
        let shared = &self.shared;
        if let Err(error) = shared.admit(&buffer) {
            return Err(error.with_buffer(Some(buffer)));
        }
        let count = buffer.len().div_ceil(shared.method.max_len);
        let group = Arc::new(Mutex::new(Group::new(count)));
        if count == 1 && buffer.is_contiguous() {
            let mut buffer = Some(buffer);
            let submitted = shared
                .until(|| shared.submit_part(&mut buffer, 0, &group))
                .await;
            submitted.map_err(|error| error.with_buffer(buffer))?;
        } else {
            let submitted = shared.submit_copies(&buffer, &group).await;
            match submitted {
                Ok(()) => group_lock(&group).buffer = Some(buffer),
                Err(error) => return Err(error.with_buffer(Some(buffer))),
            }
        }
        // On its way, whether or not somebody waits.
        shared.turn();
        Ok(Write {
            shared: Arc::clone(shared),
            waiter: shared.flight.waiter(),
            group,
        })
    }

    /// Makes durable what has been submitted, and yields the position up to which everything is.
    ///
    /// # Errors
    /// That of the part that could not be written, or of the flush. What is before the hole has been
    /// made durable, if it could be: see [`durable`](Self::durable).
    ///
    /// # Cancellation
    /// A flush that has begun goes on.
    pub async fn flush(&self) -> Result<SectorCount> {
        let shared = &self.shared;
        let target = self.submitted();
        shared
            .until(|| {
                let mut state = shared.state();
                if state.durable >= target {
                    return Some(Ok(state.durable));
                }
                let end = match &state.failure {
                    Some(failure) if state.durable >= failure.from => {
                        return Some(Err(failure.error()));
                    }
                    Some(failure) => failure.from.min(target),
                    None => target,
                };
                if !state.is_flushing && state.complete >= end {
                    state.is_flushing = true;
                    let upto = state.complete;
                    shared.submit(Operation::Flush, Job::Flush { upto });
                }
                None
            })
            .await
    }

    /// Waits until all that was submitted is written, and makes the zone full. It is not flushed.
    ///
    /// # Errors
    /// - That of the part that could not be written; the zone is not finished then.
    /// - As [`ZoneHandle::finish`](crate::ZoneHandle::finish).
    ///
    /// # Cancellation
    /// The zone may or may not be finished, and takes no more writes of this writer if it is about to
    /// be. Calling this again is safe.
    pub async fn finish(&mut self) -> Result<()> {
        let shared = &self.shared;
        shared
            .until(|| {
                let mut state = shared.state();
                if let Some(failure) = &state.failure {
                    return Some(Err(failure.error()));
                }
                if let Some(result) = state.finished.take() {
                    return Some(result);
                }
                if state.in_flight == 0 && !state.is_finishing {
                    // Written to its end, it is full by itself, or has been finished before.
                    if state.room.0 == 0 {
                        return Some(Ok(()));
                    }
                    state.is_finishing = true;
                    shared.submit(Operation::Finish(shared.zone), Job::Finish);
                }
                None
            })
            .await
    }
}

impl<D: Driver> Shared<D> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self) {
        let end = |job, finished| self.state().end(job, finished);
        self.flight.turn(end);
    }

    fn submit(&self, operation: Operation, job: Job) {
        self.flight.submit(&self.device, operation, job);
    }

    async fn until<R>(&self, mut check: impl FnMut() -> Option<R>) -> R {
        self.flight
            .until(|| None, || self.turn(), |_| check())
            .await
    }

    /// Refuses what cannot be written whole.
    fn admit(&self, buffer: &DmaBuffer) -> Result<()> {
        let state = self.state();
        state.is_writable()?;
        let granule = self.method.granule;
        if !buffer.len().is_multiple_of(granule) {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "{} bytes are no multiple of the write granularity of {granule} bytes; fill the last one up",
                    buffer.len()
                ),
            ));
        }
        if buffer.len() as u64 > state.room.bytes() {
            return Err(Error::new(
                ErrorKind::InvalidZoneState,
                format!(
                    "{} bytes do not fit into what is left of zone {}, which is {} bytes; finish it and go on in another",
                    buffer.len(),
                    self.zone,
                    state.room.bytes()
                ),
            ));
        }
        Ok(())
    }

    /// Submits `buffer` as part `part` of `group`, if the window has room.
    fn submit_part(
        &self,
        buffer: &mut Option<DmaBuffer>,
        part: usize,
        group: &Arc<Mutex<Group>>,
    ) -> Option<Result<()>> {
        let mut state = self.state();
        if let Err(error) = state.is_writable() {
            return Some(Err(error));
        }
        if state.in_flight >= self.window {
            return None;
        }
        let Some(buffer) = buffer.take() else {
            return Some(Ok(()));
        };
        let len = SectorCount(buffer.len() as u64 / crate::SECTOR_LEN);
        let (number, at) = state.submit(len);
        let zone = self.zone;
        let operation = match self.method.appends {
            true => Operation::Append { zone, buffer },
            false => Operation::Write { at, buffer },
        };
        let job = Job::Part {
            number,
            part,
            group: Arc::clone(group),
            len,
        };
        self.submit(operation, job);
        Some(Ok(()))
    }

    async fn submit_copies(&self, buffer: &DmaBuffer, group: &Arc<Mutex<Group>>) -> Result<()> {
        let max = self.method.max_len;
        let mut copied = Vec::new();
        for (part, start) in (0..buffer.len()).step_by(max).enumerate() {
            let len = max.min(buffer.len() - start);
            let mut piece = Some(self.until(|| self.allocate(len)).await?);
            if let Some(piece) = &mut piece {
                copied.resize(len, 0);
                buffer.read_at(start, &mut copied);
                piece.copy_from_slice(&copied);
            }
            self.until(|| self.submit_part(&mut piece, part, group))
                .await?;
        }
        Ok(())
    }

    fn allocate(&self, len: usize) -> Option<Result<DmaBuffer>> {
        match self.device.buffer(len) {
            Err(error)
                if error.kind() == ErrorKind::OutOfMemory && self.flight.hub().on_way() > 0 =>
            {
                None
            }
            buffer => Some(buffer),
        }
    }
}

fn group_lock(group: &Mutex<Group>) -> MutexGuard<'_, Group> {
    group.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the end of one [`ZoneWriter::write`], in whatever order they are awaited. Yields where
/// the data are, and their buffer.
///
/// # Cancellation
/// Dropped, it changes nothing: the data are written all the same.
#[must_use = "what is not awaited may have failed; a flush tells"]
pub struct Write<D: Driver = Lanes> {
    shared: Arc<Shared<D>>,
    waiter: Waiter,
    group: Arc<Mutex<Group>>,
}

impl<D: Driver> Future for Write<D> {
    type Output = Result<Written>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self {
            shared,
            waiter,
            group,
        } = &mut *self;
        // Most have ended when they are asked.
        if !waiter.is_known() {
            shared.turn();
        }
        let check = |_: &mut Context<'_>| group_lock(group).take_end();
        waiter.poll_until(cx, || None, || shared.turn(), check)
    }
}

impl<D: Driver> fmt::Debug for Write<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("zone", &self.shared.zone)
            .finish_non_exhaustive()
    }
}

impl<D: Driver> fmt::Debug for ZoneWriter<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state();
        f.debug_struct("ZoneWriter")
            .field("zone", &self.shared.zone)
            .field("submitted", &state.submitted)
            .field("durable", &state.durable)
            .field("room", &state.room)
            .finish_non_exhaustive()
    }
}

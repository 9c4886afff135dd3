//! What a log has on its way, and what it learns from how that ends.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::sync::Semaphore;

use super::{
    fence::{Fence, fenced},
    geometry::Geometry,
    record::{HEADER_LEN, Header, Kind, granules},
    state::{Failure, LogZone, Mark, NoRoom, Phase, Place, Purpose, State, Task},
};
use crate::{
    DmaBuffer, Driver, Error, ErrorKind, Result, ZonedDevice,
    device::{Finished, Operation},
    writer::flight::{Flight, Ticket, Waiter},
};

/// What an operation of a log is for.
pub(super) enum Job {
    Record { id: u64, zone: usize, granules: u64 },
    Mark(Mark),
    Flush { upto: u64, mark: Option<Mark> },
    Finish { zone: usize },
    Reset { zone: usize },
}

/// What the handles of a log share.
pub(super) struct Engine<D: Driver> {
    pub(super) device: ZonedDevice<D>,
    pub(super) geometry: Geometry,
    pub(super) fence: Arc<Fence>,
    /// How many records may still go on their way.
    window: Semaphore,
    flight: Flight<D, Job>,
    state: Arc<Mutex<State>>,
}

impl<D: Driver> Engine<D> {
    pub(super) fn new(
        device: &ZonedDevice<D>,
        geometry: Geometry,
        window: usize,
        state: State,
    ) -> Self {
        let flight = Flight::new();
        let state = Arc::new(Mutex::new(state));
        let fence = Fence::new(flight.hub(), &state, device.opened(), &geometry.zones);
        Self {
            device: device.clone(),
            geometry,
            fence: Arc::new(fence),
            window: Semaphore::new(window.clamp(1, Semaphore::MAX_PERMITS)),
            flight,
            state,
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the handle may still write.
    pub(super) fn is_writable(&self, state: &State) -> Result<()> {
        match &state.failure {
            _ if self.fence.is_raised() => Err(fenced()),
            Some(failure) => Err(failure.error()),
            None => Ok(()),
        }
    }

    /// Waits until `check` yields something, woken when anything ends.
    async fn until<R>(
        &self,
        mut check: impl FnMut(&mut State, &mut Context<'_>) -> Option<R>,
    ) -> R {
        let check = |cx: &mut Context<'_>| check(&mut self.state(), cx);
        self.flight.until(|| None, || self.turn(), check).await
    }

    /// Polls all that has been woken.
    fn turn(&self) {
        self.flight.turn(|job, finished| self.end(job, finished));
    }

    /// Learns how an operation has ended, and does what follows from it.
    fn end(&self, job: Job, finished: Finished) {
        let mut state = self.state();
        match job {
            Job::Record { id, zone, granules } => match finished {
                Ok((sector, _)) => {
                    state.settle_record(id, Place::At(sector));
                    state.landed(zone);
                    state.freed += 1;
                }
                Err(error) => self.retry(&mut state, id, zone, granules, error),
            },
            Job::Mark(mark) => {
                state.is_marking = false;
                match finished {
                    Ok(_) => state.written_mark = Some(mark),
                    Err(error) => {
                        let failure =
                            Failure::new(state.next(), "its mark was not written", &error);
                        state.fail(failure);
                    }
                }
                state.landed(mark.zone);
            }
            Job::Flush { upto, mark } => {
                state.is_flushing = false;
                match finished {
                    // The next writer may have looked at the zones before this was durable.
                    Ok(_) if self.fence.is_raised() => {}
                    Ok(_) => {
                        state.durable = state.durable.max(upto);
                        state.durable_mark = mark;
                        state.collect();
                    }
                    // What a later flush says of data that this one could not write is not known.
                    Err(error) => {
                        let failure = Failure::new(state.durable, "a flush failed", &error);
                        state.fail(failure);
                    }
                }
            }
            Job::Finish { zone } => {
                let seal = match finished {
                    Ok((_, seal)) => seal,
                    Err(error) => {
                        // Its records are where they are; it may go on to count as active.
                        let id = state.zones[zone].id;
                        tracing::warn!(zone = id.0, "a zone of a log was not finished: {error}");
                        error.into_buffer()
                    }
                };
                state.seal = seal.or_else(|| self.device.buffer(self.geometry.granule).ok());
                state.finished(zone);
            }
            Job::Reset { zone } => match finished {
                Ok(_) => state.reset(zone),
                Err(error) => {
                    let place = &mut state.zones[zone];
                    place.phase = Phase::Unusable;
                    let what = format!(
                        "zone {} was not reset, and the log does without it until it is opened anew; its records are given up all the same",
                        place.id
                    );
                    let failure = Error::new(error.kind(), what).with_source(error);
                    state.reset_failure = Some(failure);
                }
            },
        }
        self.carry_out(&mut state);
        let freed = std::mem::take(&mut state.freed);
        drop(state);
        // Wakes others, which is not done under the lock.
        self.window.add_permits(freed);
    }

    /// Writes a record elsewhere whose zone was full or could not be written, which the device
    /// says before it writes anything. Every other error is the end.
    fn retry(&self, state: &mut State, id: u64, zone: usize, granules: u64, error: Error) {
        let mut failure = Failure::new(id, &format!("record {id} was not written"), &error);
        if error.kind() == ErrorKind::InvalidZoneState
            && !self.fence.is_raised()
            && let Some(buffer) = error.into_buffer()
        {
            state.give_up(zone);
            match state.place(Purpose::Data, granules) {
                Ok(other) => {
                    let ticket = self.append(state, id, other, granules, buffer);
                    state.move_to(id, other, ticket);
                    return state.landed(zone);
                }
                Err(_) => {
                    let full = self.full();
                    failure =
                        Failure::new(id, "a zone took no more, and there was no other", &full);
                }
            }
        }
        state.settle_record(id, Place::Nowhere);
        state.fail(failure);
        state.landed(zone);
        state.freed += 1;
    }

    fn append(
        &self,
        state: &State,
        id: u64,
        zone: usize,
        granules: u64,
        buffer: DmaBuffer,
    ) -> Ticket {
        let operation = Operation::Append {
            zone: state.zones[zone].id,
            buffer,
        };
        self.submit(operation, Job::Record { id, zone, granules })
    }

    fn submit(&self, operation: Operation, job: Job) -> Ticket {
        self.flight.submit(&self.device, operation, job)
    }

    /// Submits what has come up.
    pub(super) fn carry_out(&self, state: &mut State) {
        for task in std::mem::take(&mut state.tasks) {
            // The zones are the next writer's, which has seen, or will see, what is to be done.
            if self.fence.is_raised() {
                continue;
            }
            match task {
                Task::Finish(zone) => {
                    let id = state.zones[zone].id;
                    let Some(mut seal) = state.seal.take() else {
                        // Another zone is sealed with it; this one is next.
                        state.tasks.push(task);
                        continue;
                    };
                    let header = state.header(Kind::Seal, state.next(), 0, 0);
                    seal.write_at(0, &header.encode());
                    zero_from(&mut seal, HEADER_LEN);
                    self.submit(Operation::Seal { zone: id, seal }, Job::Finish { zone })
                }
                Task::Reset(zone) => {
                    let id = state.zones[zone].id;
                    self.submit(Operation::Reset(id), Job::Reset { zone })
                }
            };
        }
    }

    /// One who will poll what is on its way.
    pub(super) fn waiter(&self) -> Waiter {
        self.flight.waiter()
    }

    /// Polls what has been woken, and lets `cx` be woken when there is more.
    pub(super) fn poll(&self, waiter: &mut Waiter, cx: &mut Context<'_>) {
        let _: Poll<()> = waiter.poll_until(cx, || None, || self.turn(), |_| None);
    }

    /// Waits until nothing is on its way any more.
    pub(super) async fn quiesce(&self) {
        self.fence.settle();
        self.until(|_, _| (self.flight.hub().on_way() == 0).then_some(()))
            .await;
    }

    /// Appends a record and waits until it is written.
    pub(super) async fn add(&self, payload: &[u8], expected: Option<u64>) -> Result<u64> {
        let max = self.geometry.max_payload;
        if payload.len() > max {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "a record of {} bytes exceeds the greatest of {max} bytes, which is what one append takes without the header (max_record_len); use several records",
                    payload.len()
                ),
            ));
        }
        let mut acquire = pin!(self.window.acquire());
        let permit = self
            .until(|state, cx| {
                if let Err(error) = self.is_writable(state) {
                    return Some(Err(error));
                }
                match acquire.as_mut().poll(cx) {
                    Poll::Ready(permit) => Some(permit.map_err(|_| fenced())),
                    Poll::Pending => None,
                }
            })
            .await?;
        let granules = granules(payload.len(), self.geometry.granule);
        let mut buffer = self
            .buffer(granules as usize * self.geometry.granule)
            .await?;
        let end = HEADER_LEN + payload.len();
        buffer.write_at(HEADER_LEN, payload);
        zero_from(&mut buffer, end);
        let crc = crc32c::crc32c(payload);
        let mut buffer = Some(buffer);
        let id = self
            .until(|state, _| {
                let placed = self.put(state, expected, granules, payload.len(), crc, &mut buffer);
                // What `put` has found out about zones.
                self.carry_out(state);
                placed.transpose()
            })
            .await?;
        permit.forget();
        self.written(id).await?;
        Ok(id)
    }

    /// Gives a record its id and its zone, and puts it on its way; nothing if it has to wait.
    fn put(
        &self,
        state: &mut State,
        expected: Option<u64>,
        granules: u64,
        len: usize,
        crc: u32,
        buffer: &mut Option<DmaBuffer>,
    ) -> Result<Option<u64>> {
        self.is_writable(state)?;
        let id = state.next();
        if let Some(expected) = expected
            && expected != id
        {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("the next record of the log is {id}, not {expected}; it was not written"),
            ));
        }
        if id == u64::MAX {
            return Err(Error::new(
                ErrorKind::LogFull,
                "the log has used up its ids",
            ));
        }
        let zone = match state.place(Purpose::Data, granules) {
            Ok(zone) => zone,
            Err(NoRoom::Wait) => return Ok(None),
            Err(NoRoom::Full) => return Err(self.full()),
        };
        let len = len as u32;
        let header = state.header(Kind::Data, id, len, crc);
        let Some(mut buffer) = buffer.take() else {
            return Ok(None);
        };
        buffer.write_at(0, &header.encode());
        let ticket = self.append(state, id, zone, granules, buffer);
        state.enter(zone, len, ticket);
        Ok(Some(id))
    }

    #[cold]
    fn full(&self) -> Error {
        let zones = &self.geometry.zones;
        Error::new(
            ErrorKind::LogFull,
            format!(
                "all zones of the log ({}..{}) hold records that have not been trimmed; trim it",
                zones.start, zones.end
            ),
        )
    }

    /// Waits until record `id` is written.
    async fn written(&self, id: u64) -> Result<()> {
        let ticket = || match self.state().entry(id)?.place {
            Place::InFlight(ticket) => Some(ticket),
            _ => None,
        };
        let check = |_: &mut Context<'_>| {
            let state = self.state();
            if let Some(failure) = state.failure.as_ref().filter(|failure| failure.from <= id) {
                return Some(Err(failure.error()));
            }
            match state.entry(id).map(|entry| &entry.place) {
                Some(Place::InFlight(_)) => None,
                // Trimmed meanwhile, and so written, or written.
                None | Some(Place::At(_)) => Some(Ok(())),
                Some(Place::Nowhere) => Some(self.is_writable(&state)),
            }
        };
        self.flight.until(ticket, || self.turn(), check).await
    }

    /// DMA memory, for which it waits while it has some itself.
    async fn buffer(&self, len: usize) -> Result<DmaBuffer> {
        self.until(|_, _| match self.device.buffer(len) {
            Err(error)
                if error.kind() == ErrorKind::OutOfMemory && self.flight.hub().on_way() > 0 =>
            {
                None
            }
            buffer => Some(buffer),
        })
        .await
    }

    /// Makes all records below `target` durable.
    pub(super) async fn sync(&self, target: u64) -> Result<u64> {
        self.until(|state, _| {
            if state.durable >= target {
                return Some(Ok(state.durable));
            }
            if self.fence.is_raised() {
                return Some(Err(fenced()));
            }
            if let Some(failure) = &state.failure {
                // What is before the hole can still be made durable.
                if state.durable >= failure.from {
                    return Some(Err(failure.error()));
                }
            }
            let end = state.failure.as_ref().map_or(target, |hole| hole.from);
            if !state.is_flushing && state.complete >= target.min(end) {
                self.flush(state);
            }
            None
        })
        .await
    }

    /// Flushes what has been written.
    fn flush(&self, state: &mut State) {
        state.is_flushing = true;
        let job = Job::Flush {
            upto: state.complete,
            mark: state.written_mark,
        };
        self.submit(Operation::Flush, job);
    }

    /// Gives up the records below `below`.
    pub(super) async fn trim(&self, below: u64) -> Result<()> {
        let next = self.state().next();
        if below > next {
            return Err(Error::new(
                ErrorKind::InvalidRequest,
                format!("the log ends before record {next}, so it cannot be trimmed up to {below}"),
            ));
        }
        self.sync(below).await?;
        self.mark(below).await
    }

    /// Writes down, durably, that nothing below `below` is wanted, and resets the zones that hold
    /// nothing else. What is below is durable.
    pub(super) async fn mark(&self, below: u64) -> Result<()> {
        self.until(|state, _| {
            if let Err(error) = self.is_writable(state) {
                return Some(Err(error));
            }
            state.trim(below);
            let covers = |mark: Option<Mark>| mark.is_some_and(|mark| mark.base >= below);
            if covers(state.durable_mark) {
                let is_resetting = |zone: &LogZone| zone.phase == Phase::Resetting;
                if state.zones.iter().any(is_resetting) {
                    return None;
                }
                return Some(match state.reset_failure.take() {
                    Some(failure) => Err(failure),
                    None => Ok(()),
                });
            }
            if covers(state.written_mark) {
                if !state.is_flushing {
                    self.flush(state);
                }
            } else if !state.is_marking
                && let Err(error) = self.put_mark(state)
            {
                return Some(Err(error));
            }
            self.carry_out(state);
            None
        })
        .await
    }

    /// Puts a mark on its way, unless it has to wait.
    fn put_mark(&self, state: &mut State) -> Result<()> {
        let mut buffer = match self.device.buffer(self.geometry.granule) {
            Err(error)
                if error.kind() == ErrorKind::OutOfMemory && self.flight.hub().on_way() > 0 =>
            {
                return Ok(());
            }
            buffer => buffer?,
        };
        let zone = match state.place(state.mark_purpose(), 1) {
            Ok(zone) => zone,
            Err(NoRoom::Wait) => return Ok(()),
            Err(NoRoom::Full) => return Err(self.full()),
        };
        let header: Header = state.header(Kind::Mark, state.next(), 0, 0);
        buffer.write_at(0, &header.encode());
        zero_from(&mut buffer, HEADER_LEN);
        state.is_marking = true;
        let mark = Mark {
            base: state.base,
            zone,
        };
        let zone = state.zones[zone].id;
        self.submit(Operation::Append { zone, buffer }, Job::Mark(mark));
        Ok(())
    }

    /// Reads the payload of record `id`.
    pub(super) async fn read(&self, id: u64) -> Result<Vec<u8>> {
        let missing = |state: &State| {
            Error::new(
                ErrorKind::InvalidRequest,
                format!(
                    "record {id} cannot be read: the log has those from {} to {} that have been written",
                    state.base,
                    state.next()
                ),
            )
        };
        let info = {
            let state = self.state();
            state
                .info(id, &self.geometry)
                .ok_or_else(|| missing(&state))?
        };
        let granule = self.geometry.granule;
        let len = granules(info.len_bytes, granule) as usize * granule;
        let stored = self.device.read(info.sector, len).await?;
        let mut header = [0; HEADER_LEN];
        stored.read_at(0, &mut header);
        let mut payload = vec![0; info.len_bytes];
        stored.read_at(HEADER_LEN, &mut payload);
        let header = Header::decode(&header)?;
        let state = self.state();
        let is_it = header.is_some_and(|header| {
            header.kind == Kind::Data
                && header.identity == state.identity
                && (header.id, header.epoch) == (id, info.epoch)
                && header.len as usize == info.len_bytes
                && header.payload_crc == crc32c::crc32c(&payload)
        });
        match is_it {
            true => Ok(payload),
            // Its zone may have been reset while it was read.
            false if id < state.base => Err(missing(&state)),
            false => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "what is stored at sector {} in zone {} is not record {id} as it was written: the medium is damaged, or others write to the zones of the log",
                    info.sector, info.zone
                ),
            )),
        }
    }
}

/// What a buffer held before must not be stored.
fn zero_from(buffer: &mut DmaBuffer, at: usize) {
    const ZEROES: [u8; 512] = [0; 512];
    let mut at = at;
    while at < buffer.len() {
        let len = ZEROES.len().min(buffer.len() - at);
        buffer.write_at(at, &ZEROES[..len]);
        at += len;
    }
}

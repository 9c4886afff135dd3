//! One request at a time: zones are made ready, and operations are timed.

use std::time::Instant;

use zbd_core::{
    Completion, DmaBuffer, Error, ErrorKind, IoQueue, Request, SECTOR_LEN, SectorCount, Zone,
    ZoneAction, ZoneState,
};

use super::{
    call::{Call, Tools},
    operation::{Fill, Measures, Operation},
    pause::Pause,
};
use crate::{
    failure::chain,
    job::{control, stop::Stop},
    report::figures,
};

/// The greatest write with which zones are filled.
pub(super) const FILL_LEN: u64 = 1 << 20;

/// A zone that is used.
#[derive(Debug)]
pub(super) struct Used {
    pub(super) zone: Zone,
    /// Whether it may be other than empty.
    pub(super) touched: bool,
}

impl Used {
    pub(super) fn new(zone: &Zone, touched: bool) -> Self {
        Self {
            zone: *zone,
            touched,
        }
    }
}

/// What went wrong, and with what.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub(crate) what: String,
    pub(crate) error: Error,
    /// The state of the zone, as far as the device has told it since.
    pub(super) state: Option<ZoneState>,
}

impl Trouble {
    pub(super) fn new(what: impl Into<String>, error: Error) -> Self {
        Self {
            what: what.into(),
            error,
            state: None,
        }
    }

    pub(crate) fn text(&self) -> String {
        format!("cannot {}: {}", self.what, chain(&self.error))
    }
}

/// The queue of the operations, and what they need.
#[derive(Debug)]
pub(super) struct Hands {
    pub(super) queue: IoQueue,
    pub(super) tools: Tools,
    pub(super) measures: Measures,
    pub(super) stop: Stop,
    /// What is written to zones. Missing while it is with the device.
    data: Option<DmaBuffer>,
    /// The greatest write with which zones are filled.
    most: u64,
    /// How much has been written.
    pub(super) filled: u64,
}

impl Hands {
    pub(super) fn new(queue: IoQueue, measures: Measures, stop: Stop) -> Result<Self, Error> {
        let tools = Tools::new(&queue)?;
        let most = FILL_LEN.min(queue.info().max_transfer.into());
        let most = (most / measures.unit * measures.unit).max(measures.block);
        let mut data = queue.buffer(most as usize)?;
        data.fill(0x5a);
        Ok(Self {
            queue,
            tools,
            measures,
            stop,
            data: Some(data),
            most,
            filled: 0,
        })
    }

    /// Makes a zone what it has to be for an operation. Nothing is in flight.
    pub(super) fn prepare(&mut self, operation: Operation, used: &mut Used) -> Result<(), Trouble> {
        // A flush only needs something that was written.
        if operation == Operation::Flush && self.append_block(used)? {
            return Ok(());
        }
        self.empty(used)?;
        used.touched = true;
        match operation {
            Operation::Close => {
                self.manage(ZoneAction::Open, &used.zone)?;
                self.write(&used.zone, Fill::OneBlock)
            }
            Operation::OpenClosed => {
                self.write(&used.zone, Fill::OneBlock)?;
                self.manage(ZoneAction::Close, &used.zone)
            }
            _ => self.write(&used.zone, operation.fill()),
        }
    }

    /// Empties a zone, if it may be other than empty.
    pub(super) fn empty(&mut self, used: &mut Used) -> Result<(), Trouble> {
        if used.touched {
            self.manage(ZoneAction::Reset, &used.zone)?;
            used.touched = false;
        }
        Ok(())
    }

    fn manage(&mut self, action: ZoneAction, zone: &Zone) -> Result<(), Trouble> {
        control::manage(&mut self.queue, action, zone.id)
            .map_err(|error| self.trouble(verb(action), zone, error))
    }

    /// Writes from the zone's start on, as much as the fill level says.
    fn write(&mut self, zone: &Zone, fill: Fill) -> Result<(), Trouble> {
        let (from, to) = match fill {
            // Where zones differ, this one may hold more than what the others do.
            Fill::All => (
                0,
                zone.capacity.bytes() / self.measures.unit * self.measures.unit,
            ),
            fill => (0, self.measures.bytes(fill)),
        };
        self.write_range(zone, from, to)
    }

    fn write_range(&mut self, zone: &Zone, from: u64, to: u64) -> Result<(), Trouble> {
        let mut written = from;
        while written < to {
            if self.stop.is_set() {
                return Ok(());
            }
            let mut buffer = self
                .data
                .take()
                .ok_or_else(|| Trouble::new(format!("fill zone {}", zone.id), lost()))?;
            let len = (to - written).min(self.most);
            buffer.set_len(len as usize);
            let at = zone.start + SectorCount(written / SECTOR_LEN);
            let done = control::execute(&mut self.queue, Request::Write { at, buffer })
                .map_err(|error| self.trouble("fill", zone, error))?;
            self.data = done.buffer;
            written += len;
            self.filled += len;
        }
        Ok(())
    }

    /// Writes another block to a zone that only this fills, if there is room.
    fn append_block(&mut self, used: &mut Used) -> Result<bool, Trouble> {
        if !used.touched {
            return Ok(false);
        }
        let block = self.measures.block;
        let id = used.zone.id.0;
        let report = control::report(&mut self.queue, id..id + 1)
            .map_err(|error| self.trouble("report", &used.zone, error))?;
        let written = report
            .first()
            .filter(|zone| zone.state.is_active())
            .and_then(Zone::written)
            .map(SectorCount::bytes);
        match written {
            Some(written) if written + 2 * block <= self.measures.capacity => {
                self.write_range(&used.zone, written, written + block)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// How long an operation takes of which nothing else is in flight, in nanoseconds.
    pub(super) fn time(&mut self, operation: Operation, zone: &Zone) -> Result<u64, Trouble> {
        let mut call = Call::new(operation, zone, &self.tools);
        let mut total = 0;
        loop {
            let request = call
                .request(&mut self.tools)
                .map_err(|error| Trouble::new(describe(operation, zone, None), error))?;
            let begun = Instant::now();
            let done = self.execute(request);
            total += nanos(begun);
            let done = done.map_err(|error| self.failed(operation, zone, error))?;
            if call
                .is_done(done, &mut self.tools)
                .map_err(|error| Trouble::new(describe(operation, zone, None), error))?
            {
                return Ok(total);
            }
        }
    }

    /// How to wait for this device.
    pub(super) fn pause(&self) -> Pause {
        Pause::new(self.queue.info().backend)
    }

    /// Carries out one request, watched as closely as can be.
    fn execute(&mut self, request: Request) -> Result<Completion, Error> {
        self.queue
            .submit(request, 0)
            .map_err(|rejected| rejected.error)?;
        self.queue.commit();
        let mut pause = self.pause();
        loop {
            match self.queue.poll() {
                Some(Completion {
                    result: Err(error), ..
                }) => return Err(error),
                Some(done) => return Ok(done),
                None => pause.once(&self.stop)?,
            }
        }
    }

    /// The failure of an operation, with what the device says of its zone.
    pub(super) fn failed(&mut self, operation: Operation, zone: &Zone, error: Error) -> Trouble {
        let now = self.look(zone, &error);
        Trouble {
            state: now.map(|zone| zone.state),
            ..Trouble::new(describe(operation, zone, now.as_ref()), error)
        }
    }

    /// The failure of what makes a zone ready.
    pub(super) fn trouble(&mut self, verb: &str, zone: &Zone, error: Error) -> Trouble {
        let now = self.look(zone, &error);
        let what = format!("{verb} {}, to prepare it", named(zone, now.as_ref()));
        Trouble::new(what, error)
    }

    /// A block to be written, which is to be given back.
    pub(super) fn block(&mut self) -> Result<DmaBuffer, Error> {
        let block = self.measures.block;
        let mut buffer = self.data.take().ok_or_else(lost)?;
        buffer.set_len(block as usize);
        self.filled += block;
        Ok(buffer)
    }

    pub(super) fn give_back(&mut self, buffer: Option<DmaBuffer>) {
        self.data = buffer;
    }

    /// The zone as it is now, if the device still answers.
    fn look(&mut self, zone: &Zone, error: &Error) -> Option<Zone> {
        if !answers(error) || self.queue.in_flight() > 0 {
            return None;
        }
        let report = control::report(&mut self.queue, zone.id.0..zone.id.0 + 1).ok()?;
        report.first().copied()
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Protocol, "a write came back without its buffer")
}

/// Whether a device that returned this error can be expected to answer.
pub(super) fn answers(error: &Error) -> bool {
    !matches!(
        error.kind(),
        ErrorKind::Timeout | ErrorKind::DeviceGone | ErrorKind::NeedsReset | ErrorKind::Protocol
    )
}

/// An operation in words.
fn describe(operation: Operation, zone: &Zone, now: Option<&Zone>) -> String {
    match operation.action() {
        Some(action) => format!("{} {}", verb(action), named(zone, now)),
        None => match operation {
            Operation::ReportAll => "report all zones".to_owned(),
            Operation::ReportOne => format!("report zone {}", zone.id),
            Operation::ResetAll => "reset all zones".to_owned(),
            _ => "flush".to_owned(),
        },
    }
}

/// A zone with its state.
fn named(zone: &Zone, now: Option<&Zone>) -> String {
    let Some(now) = now else {
        return format!("zone {}", zone.id);
    };
    let written = match now.written() {
        Some(written) => format!(", with {} written", figures::bytes(written.bytes())),
        None => String::new(),
    };
    format!("zone {}, which is {}{written}", zone.id, now.state)
}

pub(super) const fn verb(action: ZoneAction) -> &'static str {
    match action {
        ZoneAction::Open => "open",
        ZoneAction::Close => "close",
        ZoneAction::Finish => "finish",
        ZoneAction::Reset => "reset",
    }
}

/// The nanoseconds since then.
pub(super) fn nanos(since: Instant) -> u64 {
    since.elapsed().as_nanos().try_into().unwrap_or(u64::MAX)
}

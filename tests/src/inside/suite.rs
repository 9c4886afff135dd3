//! Everything that a queue is there for, on a few zones of its own: what is done on every kind of
//! ring, and looked at byte by byte.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use zbd_core::{
    Backend, Completion, DmaBuffer, Error, ErrorKind, IoQueue, Request, Sector, Zone, ZoneAction,
    ZoneId, ZoneState, ZonedInfo, parse_id,
};

use super::record::{self, Placed, Record, UNIT, ensure_same};

/// How many zones, one after the other, the suite takes; the last two are empty afterwards.
pub const ZONES: u32 = 5;

const SECTORS: u64 = UNIT as u64 / 512;
/// How many appends there are in all, many times as many as a queue has slots.
const APPENDS: u64 = 700;
/// How many are shown to the device together.
const BATCH: usize = 8;
const WRITES: u64 = 64;
/// How much is read at once.
const CHUNK: u64 = 128 << 10;
/// How long a device may return nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// How completions are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// By polling.
    Polling,
    /// By interrupt.
    Sleeping,
}

/// The suite, on a queue.
#[derive(Debug)]
pub struct Suite<'a> {
    queue: &'a mut IoQueue,
    first: u32,
    seed: u64,
    waiting: Waiting,
}

impl<'a> Suite<'a> {
    /// The suite on [`ZONES`] empty sequential zones from `first` on.
    #[must_use]
    pub fn new(queue: &'a mut IoQueue, first: u32, waiting: Waiting) -> Self {
        Self {
            queue,
            first,
            seed: u64::from(first) << 8,
            waiting,
        }
    }

    /// Does everything, and returns the records that are in the zones now.
    ///
    /// # Errors
    /// Says what was not as it should be.
    pub fn run(mut self, serial: &str) -> Result<Vec<Placed>> {
        self.id(serial).context("ID")?;
        self.run_without_id()
    }

    /// Does everything on a device that has no serial number.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_without_id(mut self) -> Result<Vec<Placed>> {
        let mut placed = self.append().context("appends")?;
        placed.extend(self.write().context("writes")?);
        let flushed = self.one(Request::Flush)?;
        flushed.result.context("flush")?;
        self.verify(&placed).context("verification")?;
        self.misplace().context("misplaced write")?;
        self.manage().context("zone commands")?;
        self.fill().context("full zone")?;
        self.verify(&placed).context("verification in the end")?;
        Ok(placed)
    }

    fn zone(&self, index: u32) -> ZoneId {
        ZoneId(self.first + index)
    }

    fn id(&mut self, serial: &str) -> Result<()> {
        let buffer = self.queue.buffer(Request::ID_LEN)?;
        let id = self.one(Request::GetId { buffer })?;
        id.result?;
        let id = parse_id(&id.buffer.context("no buffer came back")?);
        ensure!(id == serial, "{id:?}, not {serial:?}");
        Ok(())
    }

    /// Appends to two zones in turn, with as many in flight as there is room for.
    fn append(&mut self) -> Result<Vec<Placed>> {
        let (seed, first) = (self.seed, self.first);
        let record = |sequence: u64| Record {
            seed,
            sequence,
            zone: first + (sequence % 2) as u32,
            // Lengths differ, so that neither a shifted nor a swapped location can pass.
            units: 1 + (sequence % 3 / 2) as u32,
        };
        let (mut next, mut placed, mut ended) = (0, Vec::new(), BTreeSet::new());
        let mut is_full = false;
        while ended.len() < APPENDS as usize {
            while next < APPENDS && !is_full {
                let end = APPENDS.min(next + BATCH as u64);
                while next < end && !is_full {
                    let buffer = self.record_buffer(record(next), next.is_multiple_of(5))?;
                    let zone = ZoneId(record(next).zone);
                    let append = Request::Append { zone, buffer };
                    match self.queue.submit(append, next) {
                        Ok(()) => next += 1,
                        Err(rejected) if rejected.error.kind() == ErrorKind::QueueFull => {
                            is_full = true;
                        }
                        Err(rejected) => return Err(rejected.error.into()),
                    }
                }
                self.queue.commit();
            }
            is_full = false;
            let done = self.next()?;
            let record = record(done.token);
            ensure!(ended.insert(done.token), "{record:?} ended twice");
            let sector = done.result.with_context(|| format!("{record:?}"))?.0;
            let buffer = done.buffer.context("no buffer came back")?;
            ensure!(buffer.to_vec() == record.bytes(), "another buffer");
            placed.push(Placed { sector, record });
        }
        Ok(placed)
    }

    /// Writes a zone from its start on, in order.
    fn write(&mut self) -> Result<Vec<Placed>> {
        let zone = self.zone(2);
        let start = self.queue.info().zoned()?.start(zone);
        let placed: Vec<Placed> = (0..WRITES)
            .map(|index| Placed {
                sector: start.0 + index * SECTORS,
                record: Record {
                    seed: self.seed,
                    sequence: APPENDS + index,
                    zone: zone.0,
                    units: 1,
                },
            })
            .collect();
        let together = usize::from(self.queue.depth()).min(16);
        for batch in placed.chunks(together) {
            for placed in batch {
                let several = placed.record.sequence.is_multiple_of(5);
                let buffer = self.record_buffer(placed.record, several)?;
                let at = Sector(placed.sector);
                let write = Request::Write { at, buffer };
                let submitted = self.queue.submit(write, placed.sector);
                submitted.map_err(Error::from)?;
            }
            self.queue.commit();
            let mut left: BTreeSet<u64> = batch.iter().map(|placed| placed.sector).collect();
            while !left.is_empty() {
                let done = self.next()?;
                ensure!(left.remove(&done.token), "{} ended twice", done.token);
                let at = done.result.with_context(|| format!("at {}", done.token))?;
                ensure!(at.0 == done.token && done.buffer.is_some());
            }
        }
        Ok(placed)
    }

    /// Passes if the zones hold what was `placed`, up to their write pointers, and nothing else.
    fn verify(&mut self, placed: &[Placed]) -> Result<()> {
        let mut found = Vec::new();
        for zone in self.report()? {
            let written = zone.written().context("no write pointer")?;
            let records = placed
                .iter()
                .filter(|placed| placed.record.zone == zone.id.0);
            let expected: u64 = records.map(|placed| placed.record.len_bytes() as u64).sum();
            ensure!(written.bytes() == expected, "{expected} bytes: {zone:?}");
            let mut data = Vec::new();
            while (data.len() as u64) < expected {
                let len = CHUNK.min(expected - data.len() as u64);
                let at = Sector(zone.start.0 + data.len() as u64 / 512);
                let mut buffer = self.pieces(usize::try_from(len)?)?;
                buffer.fill(0xee);
                let read = self.one(Request::Read { at, buffer })?;
                ensure!(read.result? == at);
                data.extend(read.buffer.context("no buffer came back")?.to_vec());
            }
            found.extend(record::parse_all(zone.start.0, &data)?);
        }
        ensure_same(placed, &found)
    }

    /// A write elsewhere than at the write pointer fails, alone among others.
    fn misplace(&mut self) -> Result<()> {
        let start = self.queue.info().zoned()?.start(self.zone(3));
        let at = Sector(start.0 + SECTORS);
        let buffer = self.queue.buffer(UNIT)?;
        let write = self.one(Request::Write { at, buffer })?;
        // QEMU does not say what was wrong.
        let expected = match self.queue.info().backend {
            Backend::Kernel => ErrorKind::UnalignedWritePointer,
            _ => ErrorKind::Medium,
        };
        refused(write, expected)
    }

    fn manage(&mut self) -> Result<()> {
        use ZoneState::{Closed, Empty, ExplicitlyOpen, Full, ImplicitlyOpen};
        let zone = self.zone(3);
        let manage = |action| Request::Manage { action, zone };
        for (number, (action, becomes)) in [
            (Some(ZoneAction::Open), ExplicitlyOpen),
            (Some(ZoneAction::Close), Empty),
            (None, ImplicitlyOpen),
            (Some(ZoneAction::Close), Closed),
            (Some(ZoneAction::Finish), Full),
            (Some(ZoneAction::Reset), Empty),
        ]
        .into_iter()
        .enumerate()
        {
            let request = match action {
                Some(action) => manage(action),
                None => {
                    let buffer = self.queue.buffer(UNIT)?;
                    Request::Append { zone, buffer }
                }
            };
            let done = self.one(request)?;
            done.result.with_context(|| format!("step {number}"))?;
            let now = self.report()?[3];
            ensure!(now.state == becomes, "step {number}: {now:?}");
        }
        Ok(())
    }

    /// Appends to a full zone fail, wherever QEMU puts them; see `full_zone_takes_no_more`.
    fn fill(&mut self) -> Result<()> {
        let (full, next) = (self.zone(3), self.zone(4));
        let action = ZoneAction::Finish;
        self.one(Request::Manage { action, zone: full })?.result?;
        for _ in 0..2 {
            let buffer = self.queue.buffer(UNIT)?;
            let append = self.one(Request::Append { zone: full, buffer })?;
            let kind = append.result.as_ref().err().map(Error::kind);
            let is_stray = kind == Some(ErrorKind::Protocol);
            let expected = match is_stray {
                true => ErrorKind::Protocol,
                false => ErrorKind::InvalidZoneState,
            };
            refused(append, expected)?;
        }
        for zone in [full, next] {
            let action = ZoneAction::Reset;
            self.one(Request::Manage { action, zone })?.result?;
        }
        Ok(())
    }

    /// The suite's zones, as one report shows them.
    fn report(&mut self) -> Result<Vec<Zone>> {
        let zoned = self.queue.info().zoned()?;
        let from = zoned.start(self.zone(0));
        let mut buffer = self.queue.buffer(ZonedInfo::report_len(ZONES))?;
        buffer.fill(0);
        let report = self.one(Request::Report { from, buffer })?;
        report.result.context("report")?;
        let buffer = report.buffer.context("no buffer came back")?;
        let zones = self.queue.info().zoned()?;
        let zones = zones.parse_report(self.zone(0), &buffer)?;
        ensure!(zones.len() == ZONES as usize, "{zones:?}");
        Ok(zones)
    }

    fn record_buffer(&self, record: Record, several: bool) -> Result<DmaBuffer> {
        let len = record.len_bytes();
        let mut buffer = match several {
            true => self.pieces(len)?,
            false => self.queue.buffer(len)?,
        };
        buffer.copy_from_slice(&record.bytes());
        Ok(buffer)
    }

    /// A buffer of several segments, of which the first is the shortest.
    fn pieces(&self, len: usize) -> Result<DmaBuffer> {
        let block = self.queue.info().physical_block_size as usize;
        let lens = match len / block {
            1 => vec![len],
            2 => vec![block, len - block],
            blocks => {
                let middle = blocks / 2 * block;
                vec![block, middle, len - middle - block]
            }
        };
        let mut whole: Option<DmaBuffer> = None;
        for len in lens.into_iter().filter(|len| *len > 0) {
            let piece = self.queue.buffer(len)?;
            match &mut whole {
                None => whole = Some(piece),
                Some(whole) => whole.join(piece).map_err(|(error, _)| error)?,
            }
        }
        whole.context("an empty buffer")
    }

    /// Sends one request and waits for its end.
    fn one(&mut self, request: Request) -> Result<Completion> {
        const TOKEN: u64 = u64::MAX;
        self.queue.submit(request, TOKEN).map_err(Error::from)?;
        self.queue.commit();
        let done = self.next()?;
        ensure!(done.token == TOKEN, "token {}", done.token);
        Ok(done)
    }

    fn next(&mut self) -> Result<Completion> {
        let start = Instant::now();
        loop {
            if let Some(done) = self.queue.poll() {
                return Ok(done);
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "nothing for {PATIENCE:?}; {} in flight",
                    self.queue.in_flight()
                );
            }
            if self.waiting == Waiting::Sleeping {
                // Time that is up shows as an interrupt that did not come.
                self.queue.wait(2 * PATIENCE)?;
            }
        }
    }
}

/// Passes if the request ended like this, with its buffer.
fn refused(done: Completion, kind: ErrorKind) -> Result<()> {
    match done.result {
        Ok(at) => bail!("the device did it, at sector {at}"),
        Err(error) => ensure!(error.kind() == kind, "{error:?}, not {kind:?}"),
    }
    ensure!(done.buffer.is_some(), "no buffer came back");
    Ok(())
}

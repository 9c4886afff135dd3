//! What a writer knows of what it has submitted. Nothing here waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Extent, Written};
use crate::{
    DeviceInfo, DmaBuffer, Error, ErrorKind, Result, Sector, SectorCount, ZoneType,
    device::Finished,
};

/// How a zone is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    /// Or writes at the write pointer.
    pub(super) appends: bool,
    /// What every length is a multiple of, in bytes.
    pub(super) granule: usize,
    /// The greatest length of one request in bytes.
    pub(super) max_len: usize,
}

impl Method {
    pub(super) fn of(info: &DeviceInfo, zone_type: ZoneType) -> Result<Self> {
        let zoned = info.zoned()?;
        let appends = zone_type == ZoneType::SequentialRequired && zoned.max_append.0 > 0;
        let granule = zoned.write_granularity as usize;
        let mut max_len = u64::from(info.max_transfer.min(info.max_segment));
        if appends {
            max_len = max_len.min(zoned.max_append.bytes());
        }
        let max_len = max_len as usize / granule * granule;
        if max_len == 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} takes no segment as long as its write granularity of {granule} bytes",
                    info.name
                ),
            ));
        }
        Ok(Self {
            appends,
            granule,
            max_len,
        })
    }
}

/// What an operation of a writer is for.
pub(super) enum Job {
    Part {
        number: u64,
        part: usize,
        group: Arc<Mutex<Group>>,
        len: SectorCount,
    },
    Flush {
        upto: SectorCount,
    },
    Finish,
}

/// The parts of one write.
#[derive(Debug)]
pub(super) struct Group {
    extents: Vec<Option<Extent>>,
    /// Parts that have not ended.
    left: usize,
    error: Option<Error>,
    pub(super) buffer: Option<DmaBuffer>,
}

impl Group {
    pub(super) fn new(parts: usize) -> Self {
        Self {
            extents: vec![None; parts],
            left: parts,
            error: None,
            buffer: None,
        }
    }

    fn end(&mut self, part: usize, len: SectorCount, finished: Finished) {
        self.left -= 1;
        let is_copy = self.extents.len() > 1 || self.buffer.is_some();
        match finished {
            Ok((sector, buffer)) => {
                self.extents[part] = Some(Extent { sector, len });
                if !is_copy {
                    self.buffer = buffer;
                }
            }
            Err(error) if self.error.is_none() => self.error = Some(error),
            Err(_) => {}
        }
    }

    /// The end, once, when all parts have theirs.
    pub(super) fn take_end(&mut self) -> Option<Result<Written>> {
        if self.left > 0 {
            return None;
        }
        if let Some(error) = self.error.take() {
            return Some(Err(match self.buffer.take() {
                Some(buffer) => error.with_buffer(Some(buffer)),
                None => error,
            }));
        }
        let buffer = self.buffer.take()?;
        let extents = self.extents.iter().flatten().copied().collect();
        Some(Ok(Written { extents, buffer }))
    }
}

/// What ended a writer.
#[derive(Debug)]
pub(super) struct Failure {
    /// Nothing from this position on will be durable.
    pub(super) from: SectorCount,
    kind: ErrorKind,
    context: String,
}

impl Failure {
    #[cold]
    pub(super) fn error(&self) -> Error {
        Error::new(
            self.kind,
            format!(
                "what the writer was given from position {} on cannot become durable: {}; go on in another zone with a new writer",
                self.from, self.context
            ),
        )
    }
}

/// A part on its way.
struct Part {
    end: SectorCount,
    is_written: bool,
}

pub(super) struct State {
    pub(super) room: SectorCount,
    pub(super) submitted: SectorCount,
    /// Everything before is written.
    pub(super) complete: SectorCount,
    pub(super) durable: SectorCount,
    pub(super) in_flight: usize,
    pub(super) is_flushing: bool,
    pub(super) is_finishing: bool,
    pub(super) finished: Option<Result<()>>,
    pub(super) failure: Option<Failure>,
    /// Where the next write goes, if nothing appends.
    pointer: Sector,
    /// From the first that is not written on.
    parts: VecDeque<Part>,
    /// The number of the first of them.
    first: u64,
}

impl State {
    pub(super) fn new(pointer: Sector, room: SectorCount) -> Self {
        Self {
            room,
            submitted: SectorCount(0),
            complete: SectorCount(0),
            durable: SectorCount(0),
            in_flight: 0,
            is_flushing: false,
            is_finishing: false,
            finished: None,
            failure: None,
            pointer,
            parts: VecDeque::new(),
            first: 0,
        }
    }

    pub(super) fn is_writable(&self) -> Result<()> {
        match &self.failure {
            Some(failure) => Err(failure.error()),
            None if self.is_finishing => Err(Error::new(
                ErrorKind::InvalidZoneState,
                "the zone is being finished; go on in another",
            )),
            None => Ok(()),
        }
    }

    /// Takes a part up; yields its number, and where it goes if nothing appends.
    pub(super) fn submit(&mut self, len: SectorCount) -> (u64, Sector) {
        let at = self.pointer;
        self.pointer = at + len;
        self.room.0 = self.room.0.saturating_sub(len.0);
        self.submitted.0 += len.0;
        self.in_flight += 1;
        self.parts.push_back(Part {
            end: self.submitted,
            is_written: false,
        });
        (self.first + self.parts.len() as u64 - 1, at)
    }

    /// Learns how an operation has ended.
    pub(super) fn end(&mut self, job: Job, finished: Finished) {
        match job {
            Job::Part {
                number,
                part,
                group,
                len,
            } => {
                self.in_flight -= 1;
                self.part(number, len, &finished);
                let mut group = group.lock().unwrap_or_else(PoisonError::into_inner);
                group.end(part, len, finished);
            }
            Job::Flush { upto } => {
                self.is_flushing = false;
                match finished {
                    Ok(_) => self.durable = self.durable.max(upto),
                    // What a later flush says of data that this one could not write is not known.
                    Err(error) => self.fail(self.durable, &error),
                }
            }
            Job::Finish => {
                self.is_finishing = false;
                if finished.is_ok() {
                    self.room = SectorCount(0);
                }
                self.finished = Some(finished.map(drop));
            }
        }
    }

    fn part(&mut self, number: u64, len: SectorCount, finished: &Finished) {
        // Parts leave when they and all before them are written.
        let at = (number - self.first) as usize;
        match finished {
            Ok(_) => self.parts[at].is_written = true,
            Err(error) => {
                let from = SectorCount(self.parts[at].end.0 - len.0);
                self.fail(from, error);
            }
        }
        while let Some(Part {
            end,
            is_written: true,
        }) = self.parts.front()
        {
            self.complete = *end;
            self.first += 1;
            self.parts.pop_front();
        }
    }

    fn fail(&mut self, from: SectorCount, error: &Error) {
        let is_first = (self.failure.as_ref()).is_none_or(|known| from < known.from);
        if is_first {
            self.failure = Some(Failure {
                from,
                kind: error.kind(),
                context: error.to_string(),
            });
        }
    }
}

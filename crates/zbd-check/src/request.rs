//! A request, made byte by byte.

use vfio_virtio::{DmaArena, DmaBuffer, Result};

use crate::{
    Exchange,
    outcome::{Verdict, require},
    pattern::difference,
    wire::{APPEND_LEN, HEADER_LEN, STATUS_LEN, kind, status, status_name},
};

/// What lies where the device has not written: no status.
pub(crate) const UNTOUCHED: u8 = 0xa5;

/// A request that is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) kind: u32,
    pub(crate) sector: u64,
    /// What the device reads after the header.
    payload: Vec<u8>,
    /// How much it may write before its answer.
    room: usize,
    /// The length of its answer.
    answer: usize,
    /// The longest segment of data.
    segment: usize,
    /// The lengths of segments that are to be in front, if the natural ones are not wanted.
    readable_cuts: Vec<usize>,
    writable_cuts: Vec<usize>,
    /// What is in the memory that the device may write.
    fill: u8,
}

impl Request {
    pub(crate) fn new(kind: u32, sector: u64) -> Self {
        Self {
            kind,
            sector,
            payload: Vec::new(),
            room: 0,
            answer: match kind {
                kind::APPEND => APPEND_LEN,
                _ => STATUS_LEN,
            },
            segment: usize::MAX,
            readable_cuts: Vec::new(),
            writable_cuts: Vec::new(),
            fill: UNTOUCHED,
        }
    }

    /// With data for the device to read.
    pub(crate) fn sends(mut self, payload: Vec<u8>) -> Self {
        self.payload = payload;
        self
    }

    /// With room for data from the device.
    pub(crate) fn receives(mut self, len: usize) -> Self {
        self.room = len;
        self
    }

    /// With an answer of another length than is usual.
    pub(crate) fn answered_in(mut self, len: usize) -> Self {
        self.answer = len;
        self
    }

    /// With what the device reads cut into these lengths, and the rest in one segment.
    pub(crate) fn readable_cut(mut self, cuts: &[usize]) -> Self {
        self.readable_cuts = cuts.to_vec();
        self
    }

    /// With what the device writes cut into these lengths, and the rest in one segment.
    pub(crate) fn writable_cut(mut self, cuts: &[usize]) -> Self {
        self.writable_cuts = cuts.to_vec();
        self
    }

    /// With other bytes where the device may write.
    pub(crate) fn filled_with(mut self, fill: u8) -> Self {
        self.fill = fill;
        self
    }

    /// With no segment of data longer than this.
    pub(crate) fn limited_to(mut self, segment: usize) -> Self {
        self.segment = segment.max(1);
        self
    }

    /// How many sectors of data it is for.
    pub(crate) fn data_len(&self) -> usize {
        self.payload.len().max(self.room)
    }

    fn segments(&self) -> (Vec<usize>, Vec<usize>) {
        let data = |len: usize| {
            (0..len.div_ceil(self.segment.min(len.max(1))))
                .map(move |i| (len - i * self.segment).min(self.segment))
        };
        let readable = match self.readable_cuts.is_empty() {
            true => [HEADER_LEN]
                .into_iter()
                .chain(data(self.payload.len()))
                .collect(),
            false => cut(&self.readable_cuts, HEADER_LEN + self.payload.len()),
        };
        let writable = match self.writable_cuts.is_empty() {
            true => data(self.room).chain([self.answer]).collect(),
            false => cut(&self.writable_cuts, self.room + self.answer),
        };
        (readable, writable)
    }

    /// How many segments of data it has.
    pub(crate) fn data_segments(&self) -> usize {
        let (readable, writable) = self.segments();
        readable.len() + writable.len() - 2
    }

    /// The request in memory, and how many of its segments the device reads.
    pub(crate) fn place(&self, arena: &DmaArena) -> Result<(DmaBuffer, usize)> {
        let mut bytes = Vec::with_capacity(HEADER_LEN + self.payload.len());
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(self.sector.to_le_bytes());
        bytes.extend(&self.payload);
        let (readable, writable) = self.segments();
        let mut left = &bytes[..];
        let mut chain: Option<DmaBuffer> = None;
        let mut last: Vec<DmaBuffer> = Vec::new();
        for len in &readable {
            let (here, rest) = left.split_at(*len);
            let mut buffer = arena.allocate(*len)?;
            buffer.copy_from_slice(here);
            left = rest;
            last.push(buffer);
        }
        for len in &writable {
            let mut buffer = arena.allocate(*len)?;
            buffer.fill(self.fill);
            last.push(buffer);
        }
        // From the end, so that each join is short.
        for mut buffer in last.into_iter().rev() {
            if let Some(rest) = chain.take() {
                buffer.join(rest).map_err(|(error, _)| error)?;
            }
            chain = Some(buffer);
        }
        // There is a header and a status at least.
        let chain = match chain {
            Some(chain) => chain,
            None => arena.allocate(1)?,
        };
        Ok((chain, readable.len()))
    }

    /// The record of the request, not answered yet.
    pub(crate) fn record(&self) -> Exchange {
        let (readable, writable) = self.segments();
        let narrow = |lens: Vec<usize>| lens.into_iter().map(|len| len as u32).collect();
        Exchange {
            kind: self.kind,
            sector: self.sector,
            readable: narrow(readable),
            writable: narrow(writable),
            answer: Err("not answered".to_owned()),
        }
    }

    /// The answer that `chain` holds after the device has returned it.
    pub(crate) fn answer(&self, chain: &DmaBuffer, used_len: u32) -> Answer {
        let mut writable = vec![0; self.room + self.answer];
        chain.read_at(HEADER_LEN + self.payload.len(), &mut writable);
        Answer {
            writable,
            room: self.room,
            fill: self.fill,
            used_len,
        }
    }
}

fn cut(cuts: &[usize], len: usize) -> Vec<usize> {
    let mut left = len;
    let mut segments: Vec<_> = cuts
        .iter()
        .map(|cut| {
            let here = (*cut).min(left);
            left -= here;
            here
        })
        .collect();
    segments.push(left);
    segments.retain(|len| *len > 0);
    segments
}

/// What a device wrote.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// All that it may have written.
    pub(crate) writable: Vec<u8>,
    room: usize,
    fill: u8,
    pub(crate) used_len: u32,
}

impl Answer {
    pub(crate) fn data(&self) -> &[u8] {
        &self.writable[..self.room]
    }

    pub(crate) fn in_header(&self) -> &[u8] {
        &self.writable[self.room..]
    }

    pub(crate) fn status(&self) -> u8 {
        self.writable.last().copied().unwrap_or(UNTOUCHED)
    }

    pub(crate) fn is_status_written(&self) -> bool {
        self.status() != self.fill
    }

    pub(crate) fn append_sector(&self) -> u64 {
        crate::wire::number(self.in_header(), 0, 8)
    }

    /// The status as it is told.
    pub(crate) fn told(&self) -> String {
        match self.is_status_written() {
            true => format!("status {} ({})", self.status(), status_name(self.status())),
            false => "no status was written".to_owned(),
        }
    }
}

pub(crate) fn write(sector: u64, data: Vec<u8>) -> Request {
    Request::new(kind::OUT, sector).sends(data)
}

pub(crate) fn append(zone_start: u64, data: Vec<u8>) -> Request {
    Request::new(kind::APPEND, zone_start).sends(data)
}

pub(crate) fn read(sector: u64, len: usize) -> Request {
    Request::new(kind::IN, sector).receives(len)
}

impl Answer {
    /// Fails unless the status is one of `allowed`.
    pub(crate) fn expect(&self, allowed: &[u8], required: &str) -> Verdict {
        require(allowed.contains(&self.status()), required, || {
            let names: Vec<_> = allowed.iter().map(|status| status_name(*status)).collect();
            format!("{}, not {}", self.told(), names.join(" or "))
        })
    }

    /// Fails unless the request was refused, with whatever status.
    pub(crate) fn expect_refusal(&self, required: &str) -> Verdict {
        let refused = (status::IOERR..=status::ACTIVE_RESOURCE).contains(&self.status());
        require(refused, required, || self.told())
    }

    /// Fails unless the data are `expected`.
    pub(crate) fn expect_data(&self, expected: &[u8], required: &str) -> Verdict {
        let data = self.data();
        let len = data.len().min(expected.len());
        match difference(&data[..len], &expected[..len]) {
            None => Ok(()),
            Some(at) => require(false, required, || {
                format!(
                    "byte {at} of {len} read is {:#04x}, not {:#04x}",
                    data[at], expected[at]
                )
            }),
        }
    }
}

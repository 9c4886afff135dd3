//! Reads what a zone holds, up to its write pointer, and finds the records in it.

use super::{
    geometry::Geometry,
    record::{self, HEADER_LEN, Header, Kind},
};
use crate::{
    DmaBuffer, Driver, ErrorKind, Result, Sector, SectorCount, Zone, ZoneId, ZoneState, ZonedDevice,
};

/// How much is read at once.
const CHUNK_LEN: usize = 256 << 10;

/// A record whose header is undamaged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) zone: ZoneId,
    pub(super) sector: Sector,
    /// Whether the payload is undamaged too.
    pub(super) is_intact: bool,
}

/// What a zone holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// In the order in which they are stored, of one log: that of the first of them. Others can
    /// show only where a finished zone was not written since its reset.
    pub(super) records: Vec<Found>,
    /// Places that could not be read, and records that go on past the write pointer.
    pub(super) lost: usize,
    /// Which log a record is of that goes on past the write pointer.
    pub(super) torn: Option<u128>,
    /// Whether the zone was about to be finished.
    pub(super) is_sealed: bool,
    /// Whether there is anything but zeroes.
    pub(super) has_data: bool,
}

/// Reads zones into one buffer.
pub(super) struct Scanner<'a, D: Driver> {
    device: &'a ZonedDevice<D>,
    granule: usize,
    buffer: Option<DmaBuffer>,
}

impl<'a, D: Driver> Scanner<'a, D> {
    pub(super) fn new(device: &'a ZonedDevice<D>, geometry: &Geometry) -> Result<Self> {
        let granule = geometry.granule;
        let len = CHUNK_LEN.min(geometry.max_read) / granule * granule;
        let mut len = len.max(granule);
        let buffer = loop {
            match device.buffer(len) {
                Err(error) if error.kind() == ErrorKind::OutOfMemory && len > granule => {
                    len = (len / 2 / granule * granule).max(granule);
                }
                buffer => break buffer?,
            }
        };
        Ok(Self {
            device,
            granule,
            buffer: Some(buffer),
        })
    }

    /// All records of `zone`.
    pub(super) async fn contents(&mut self, zone: &Zone) -> Result<Contents> {
        self.scan(zone, usize::MAX).await
    }

    /// Which log `zone` belongs to, if it holds any record.
    pub(super) async fn identity(&mut self, zone: &Zone) -> Result<Option<u128>> {
        let contents = self.scan(zone, 1).await?;
        Ok(contents.records.first().map(|found| found.header.identity))
    }

    /// Reads until `enough` records have been found.
    async fn scan(&mut self, zone: &Zone, enough: usize) -> Result<Contents> {
        // A read-only zone does not say how much of it was written.
        let written = match zone.state {
            ZoneState::Offline => return Ok(Contents::default()),
            _ => zone.written().unwrap_or(zone.capacity).bytes(),
        };
        let mut parser = Parser {
            zone: zone.id,
            granule: self.granule,
            start: zone.start,
            granules: written / self.granule as u64,
            at: 0,
            partial: None,
            contents: Contents::default(),
        };
        while parser.at < parser.granules && parser.contents.records.len() < enough {
            let left = (parser.granules - parser.at) as usize * self.granule;
            let data = self.read(parser.sector(parser.at), left).await?;
            match data {
                Some(data) => {
                    for granule in data.chunks_exact(self.granule) {
                        let at = parser.at;
                        parser.feed(granule)?;
                        // At the end, or back where something else may begin.
                        if parser.at != at + 1 {
                            break;
                        }
                    }
                }
                None => parser.skip(),
            }
        }
        Ok(parser.contents)
    }

    /// The next bytes from `at` on, at most `left`; nothing if the first granule cannot be read.
    async fn read(&mut self, at: Sector, left: usize) -> Result<Option<Vec<u8>>> {
        let mut buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => self.device.buffer(self.granule)?,
        };
        let whole = left.min(buffer.capacity() / self.granule * self.granule);
        for len in [whole, self.granule] {
            buffer.set_len(len);
            match self.device.read_into(at, buffer).await {
                Ok(read) => {
                    let data = read.to_vec();
                    self.buffer = Some(read);
                    return Ok(Some(data));
                }
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Medium | ErrorKind::InvalidZoneState
                    ) =>
                {
                    buffer = match error.into_buffer() {
                        Some(buffer) => buffer,
                        None => self.device.buffer(self.granule)?,
                    };
                }
                Err(error) => return Err(error),
            }
        }
        self.buffer = Some(buffer);
        Ok(None)
    }
}

/// Finds records in granules that come one after the other.
struct Parser {
    zone: ZoneId,
    granule: usize,
    start: Sector,
    /// How many there are.
    granules: u64,
    /// How many have come.
    at: u64,
    partial: Option<Partial>,
    contents: Contents,
}

/// A record of which not all has come.
struct Partial {
    found: Found,
    begin: u64,
    /// Bytes of the payload that have not come.
    left: usize,
    crc: u32,
    is_readable: bool,
}

impl Parser {
    fn sector(&self, granule: u64) -> Sector {
        self.start + SectorCount(granule * self.granule as u64 / crate::SECTOR_LEN)
    }

    fn feed(&mut self, granule: &[u8]) -> Result<()> {
        let at = self.at;
        self.at += 1;
        self.contents.has_data |= granule.iter().any(|byte| *byte != 0);
        let (partial, payload) = match self.partial.take() {
            Some(partial) => (partial, granule),
            None => {
                // Without a record, the next one is looked for granule by granule. Payloads begin
                // in the middle of a granule, so even one that is a copy of a log has its headers
                // elsewhere.
                let Some(header) = Header::decode(granule)? else {
                    return Ok(());
                };
                let len = header.len as usize;
                if record::granules(len, self.granule) > self.granules - at {
                    self.contents.lost += 1;
                    self.contents.torn = Some(header.identity);
                    return Ok(());
                }
                let found = Found {
                    header,
                    zone: self.zone,
                    sector: self.sector(at),
                    is_intact: false,
                };
                let partial = Partial {
                    found,
                    begin: at,
                    left: len,
                    crc: 0,
                    is_readable: true,
                };
                (partial, &granule[HEADER_LEN..])
            }
        };
        self.go_on(partial, payload);
        Ok(())
    }

    /// Passes over a granule that cannot be read.
    fn skip(&mut self) {
        self.at += 1;
        self.contents.has_data = true;
        match self.partial.take() {
            Some(mut partial) => {
                partial.is_readable = false;
                let lost = vec![0; self.granule];
                self.go_on(partial, &lost);
            }
            None => self.contents.lost += 1,
        }
    }

    fn go_on(&mut self, mut partial: Partial, payload: &[u8]) {
        let part = &payload[..partial.left.min(payload.len())];
        partial.crc = crc32c::crc32c_append(partial.crc, part);
        partial.left -= part.len();
        if partial.left > 0 {
            self.partial = Some(partial);
            return;
        }
        let mut found = partial.found;
        found.is_intact = partial.is_readable && partial.crc == found.header.payload_crc;
        let records = &mut self.contents.records;
        let is_own = records
            .first()
            .is_none_or(|first| first.header.identity == found.header.identity);
        if is_own {
            records.push(found);
        }
        if !found.is_intact {
            // It may have been cut short by a crash, and others written where it would have gone on.
            self.at = partial.begin + 1;
        } else if is_own && found.header.kind == Kind::Seal {
            self.contents.is_sealed = true;
            self.at = self.granules;
        }
    }
}

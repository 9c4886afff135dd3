//! Carries requests out: zones say what is allowed, the store holds the data.

use crate::{
    chain::{Broken, Buffers},
    config::{Resolved, Switch},
    memory::DmaMap,
    request::Request,
    store::Store,
    wire::{SECTOR_BYTES, request, status},
    zone::{Command, Refusal, Write, Zone, ZoneTable},
};

/// What GET_ID answers, padded with zeroes (VIRTIO 1.3 §5.2.6).
const ID: &[u8; 20] = b"zbd-emu\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The header of a zone report and each of its descriptors are of this size.
const REPORT_ENTRY_BYTES: u64 = 64;

/// The append location of requests that have none to report: no sector of any device.
pub(crate) const NO_LOCATION: u64 = u64::MAX;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) status: u8,
    pub(crate) append_sector: u64,
}

impl Outcome {
    pub(crate) const fn of(status: u8) -> Self {
        Self {
            status,
            append_sector: NO_LOCATION,
        }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::of(match refusal {
            Refusal::OutOfRange => status::IOERR,
            Refusal::InvalidCommand => status::INVALID_CMD,
            Refusal::UnalignedWritePointer => status::UNALIGNED_WP,
            Refusal::OpenResource => status::OPEN_RESOURCE,
            Refusal::ActiveResource => status::ACTIVE_RESOURCE,
        })
    }
}

/// The medium: zones and data.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) zones: ZoneTable,
    store: Store,
    max_append_sectors: u32,
}

impl Disk {
    pub(crate) fn new(config: &Resolved) -> vfio_virtio::Result<Self> {
        Ok(Self {
            zones: ZoneTable::new(config.geometry),
            store: Store::new(config.store, config.geometry.sectors)?,
            max_append_sectors: config.max_append_sectors,
        })
    }

    /// Carries `request` out, except for its answer. Everything that it may write before the
    /// answer is written, with zeroes where there is nothing to say.
    #[inline]
    pub(crate) fn execute(
        &mut self,
        request: &Request<'_>,
        zoned: Switch,
        dma: &DmaMap,
    ) -> Result<Outcome, Broken> {
        // §5.2.6.2: without the feature every zone request is unsupported.
        let outcome = match (request.kind, zoned) {
            (request::ZONE_APPEND, Switch::On) => self.append(request, dma)?,
            (request::IN, _) => {
                let outcome = self.read(request, dma)?;
                if outcome.status == status::OK {
                    return Ok(outcome);
                }
                outcome
            }
            (request::OUT, _) => self.write(request, dma)?,
            (request::FLUSH, _) => Outcome::of(status::OK),
            (request::GET_ID, _) => return get_id(request.data_in, dma),
            (request::ZONE_REPORT, Switch::On) => return self.report(request, dma),
            (request::ZONE_OPEN, Switch::On) => self.command(Command::Open, request),
            (request::ZONE_CLOSE, Switch::On) => self.command(Command::Close, request),
            (request::ZONE_FINISH, Switch::On) => self.command(Command::Finish, request),
            (request::ZONE_RESET, Switch::On) => self.command(Command::Reset, request),
            (request::ZONE_RESET_ALL, Switch::On) => {
                self.zones.reset_all();
                Outcome::of(status::OK)
            }
            _ => Outcome::of(status::UNSUPP),
        };
        if request.data_in.len() != 0 {
            request.data_in.zero(dma)?;
        }
        Ok(outcome)
    }

    #[inline]
    fn append(&mut self, request: &Request<'_>, dma: &DmaMap) -> Result<Outcome, Broken> {
        if !request.has_location() {
            return Err(Broken("an append without room for its location"));
        }
        // §5.2.6.2, in the order of the text.
        if self.max_append_sectors == 0 {
            return Ok(Outcome::of(status::UNSUPP));
        }
        let Some(sectors) = whole_sectors(request.data_out) else {
            return Ok(Outcome::of(status::IOERR));
        };
        if sectors > u64::from(self.max_append_sectors) {
            return Ok(Outcome::of(status::INVALID_CMD));
        }
        match self.zones.check_append(request.sector, sectors) {
            Ok(write) => {
                self.store(write, request.data_out, dma)?;
                Ok(Outcome {
                    status: status::OK,
                    append_sector: write.sector,
                })
            }
            Err(refusal) => Ok(refusal.into()),
        }
    }

    #[inline]
    fn write(&mut self, request: &Request<'_>, dma: &DmaMap) -> Result<Outcome, Broken> {
        let Some(sectors) = whole_sectors(request.data_out) else {
            return Ok(Outcome::of(status::IOERR));
        };
        match self.zones.check_write(request.sector, sectors) {
            Ok(write) => {
                for gap in self.zones.gaps(write) {
                    self.store.zero(gap);
                }
                self.store(write, request.data_out, dma)?;
                Ok(Outcome::of(status::OK))
            }
            Err(refusal) => Ok(refusal.into()),
        }
    }

    /// Data first, state second: an unmapped address leaves the zone as it was.
    #[inline]
    fn store(&mut self, write: Write, data: Buffers<'_>, dma: &DmaMap) -> Result<(), Broken> {
        self.store.write(write.sector, data, dma)?;
        self.zones.commit(write);
        Ok(())
    }

    #[inline]
    fn read(&self, request: &Request<'_>, dma: &DmaMap) -> Result<Outcome, Broken> {
        let Some(sectors) = whole_sectors(request.data_in) else {
            return Ok(Outcome::of(status::IOERR));
        };
        if let Err(refusal) = self.zones.check_read(request.sector, sectors) {
            return Ok(refusal.into());
        }
        let split = Broken("a read shorter than itself");
        let mut left = request.data_in;
        for stretch in self.zones.stretches(request.sector, sectors) {
            let (written, rest) = left.split_at(stretch.written * SECTOR_BYTES).ok_or(split)?;
            if stretch.written != 0 {
                self.store.read(stretch.sector, written, dma)?;
            }
            left = rest;
            if stretch.unwritten != 0 {
                let (unwritten, rest) = rest
                    .split_at(stretch.unwritten * SECTOR_BYTES)
                    .ok_or(split)?;
                unwritten.zero(dma)?;
                left = rest;
            }
        }
        Ok(Outcome::of(status::OK))
    }

    fn command(&mut self, command: Command, request: &Request<'_>) -> Outcome {
        match self.zones.command(command, request.sector) {
            Ok(()) => Outcome::of(status::OK),
            Err(refusal) => refusal.into(),
        }
    }

    /// §5.2.6: a header with the number of descriptors that fit, then the descriptors. A buffer
    /// that holds the header alone gets a report of no zones, a smaller one is invalid.
    fn report(&self, request: &Request<'_>, dma: &DmaMap) -> Result<Outcome, Broken> {
        let room = request.data_in.len() / REPORT_ENTRY_BYTES;
        let first = self.zones.index_of(request.sector);
        let (Some(first), Some(room)) = (first, room.checked_sub(1)) else {
            request.data_in.zero(dma)?;
            return Ok(Outcome::of(status::INVALID_CMD));
        };
        let zones = &self.zones.zones()[first..];
        let zones = &zones[..zones.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        let mut header = [0; REPORT_ENTRY_BYTES as usize];
        header[..8].copy_from_slice(&(zones.len() as u64).to_le_bytes());
        let mut left = request.data_in;
        for entry in std::iter::once(header).chain(zones.iter().map(descriptor)) {
            let (here, rest) = left
                .split_at(REPORT_ENTRY_BYTES)
                .ok_or(Broken("a report longer than its buffer"))?;
            here.write(dma, &entry)?;
            left = rest;
        }
        left.zero(dma)?;
        Ok(Outcome::of(status::OK))
    }
}

/// `struct virtio_blk_zone_descriptor`: capacity, start, write pointer, type and state. The write
/// pointer of zones that have none is their writable end.
fn descriptor(zone: &Zone) -> [u8; REPORT_ENTRY_BYTES as usize] {
    use crate::zone::ZoneState::{Closed, Empty, ExplicitlyOpen, ImplicitlyOpen};

    let write_pointer = match zone.state {
        Empty | ImplicitlyOpen | ExplicitlyOpen | Closed => zone.written_end,
        _ => zone.writable_end,
    };
    let mut bytes = [0; REPORT_ENTRY_BYTES as usize];
    bytes[..8].copy_from_slice(&(zone.writable_end - zone.start).to_le_bytes());
    bytes[8..16].copy_from_slice(&zone.start.to_le_bytes());
    bytes[16..24].copy_from_slice(&write_pointer.to_le_bytes());
    bytes[24] = zone.kind as u8;
    bytes[25] = zone.state as u8;
    bytes
}

fn get_id(data: Buffers<'_>, dma: &DmaMap) -> Result<Outcome, Broken> {
    let len = data.len().min(ID.len() as u64);
    let (id, rest) = data
        .split_at(len)
        .ok_or(Broken("an id longer than its buffer"))?;
    id.write(dma, &ID[..len as usize])?;
    rest.zero(dma)?;
    Ok(Outcome::of(status::OK))
}

/// The length of `data` in sectors, if it is a whole number of them (§5.2.6.1).
#[inline]
fn whole_sectors(data: Buffers<'_>) -> Option<u64> {
    data.len()
        .is_multiple_of(SECTOR_BYTES)
        .then_some(data.len() / SECTOR_BYTES)
}

//! Carries requests out: zones say what is allowed, the store holds the data.

mod faulty;
pub(crate) mod limits;
mod quirky;
mod ranges;
#[cfg(test)]
mod tests;

use ranges::Erasure;
use vfio_virtio::{Error, ErrorKind};

use crate::{
    chain::{Broken, Buffers},
    config::{Quirk, Resolved, SERIAL_BYTES, SegmentLimits},
    fault::DataFaults,
    memory::DmaMap,
    request::Request,
    store::{Failed, Opened, Store, StoreIo},
    wire::{SECTOR_BYTES, feature, request, status},
    zone::{Command, Geometry, Refusal, Write, Zone, ZoneState, ZoneTable},
};

/// `struct virtio_blk_lifetime` (VIRTIO 1.3 §5.2.6): a normal number of reserved blocks, at most 20%
/// of the one kind of cells worn and at most 30% of the other. Three numbers that differ.
const LIFETIME: [u8; 6] = [1, 0, 2, 0, 3, 0];

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
    serial: [u8; SERIAL_BYTES],
    segments: SegmentLimits,
    read_only: bool,
    /// Whether it is read-only, its segments are limited, or it has quirks: what every request asks.
    restricted: bool,
    quirks: Vec<Quirk>,
    faults: Option<Box<DataFaults>>,
    /// Whether every change is durable before it is answered.
    writethrough: bool,
}

impl From<Failed> for Outcome {
    fn from(Failed: Failed) -> Self {
        Self::of(status::IOERR)
    }
}

impl Disk {
    /// The medium that `config` asks for, in `file` if that is one.
    pub(crate) fn new(config: &Resolved, file: Option<Opened>) -> vfio_virtio::Result<Self> {
        let (store, zones) = Store::new(config, file)?;
        Ok(Self {
            zones,
            store,
            max_append_sectors: config.max_append_sectors,
            serial: config.serial,
            segments: config.segments,
            read_only: config.features & feature::RO != 0,
            restricted: config.features & feature::RO != 0
                || config.segments.len_bytes.is_some()
                || config.segments.count.is_some()
                || !config.quirks.is_empty(),
            quirks: config.quirks.clone(),
            faults: DataFaults::new(&config.faults),
            writethrough: false,
        })
    }

    /// Has every change be durable before it is answered, or ends that. False where what was
    /// changed so far could not be made durable; nothing is different then.
    pub(crate) fn set_writethrough(&mut self, writethrough: bool) -> bool {
        // Other stores are no more durable after a flush than before.
        let writethrough = writethrough && self.store.file().is_some();
        if writethrough && self.flush().is_err() {
            return false;
        }
        self.writethrough = writethrough;
        true
    }

    /// Makes a zone fail for good. False where that cannot be.
    pub(crate) fn fail_zone(&mut self, zone: usize, state: ZoneState) -> vfio_virtio::Result<bool> {
        let failed = self.zones.fail(zone, state);
        // A zone that failed does not recover with the power.
        if failed && self.flush().is_err() {
            return Err(Error::new(
                ErrorKind::Io,
                format!(
                    "zone {zone} is {state:?} until the device is closed: the file could not be \
                     written ({})",
                    self.store_error().unwrap_or_default()
                ),
            ));
        }
        Ok(failed)
    }

    fn flush(&mut self) -> Result<(), Failed> {
        self.store.flush(&self.zones)
    }

    /// Flushes, and how that ended.
    fn flushed(&mut self) -> Outcome {
        match self.flush() {
            Ok(()) => Outcome::of(status::OK),
            Err(failed) => failed.into(),
        }
    }

    /// Flushes and lets go of the store, if that is one which outlives the device.
    pub(crate) fn close(&mut self) {
        self.store.close(&self.zones);
    }

    /// Lets go of the store, of which no more is left than a power cut leaves.
    pub(crate) fn cut(&mut self, seed: u64) {
        self.store.cut(&self.zones, seed);
    }

    pub(crate) fn store_io(&self) -> Option<StoreIo> {
        Some(self.store.file()?.io_kind())
    }

    pub(crate) fn store_error(&self) -> Option<&str> {
        self.store.file()?.last_error()
    }

    pub(crate) fn cached_bytes(&self) -> u64 {
        self.store.file().map_or(0, |file| file.cached_bytes())
    }

    /// Gives a medium without zones another size.
    pub(crate) fn resize(&mut self, geometry: Geometry) -> vfio_virtio::Result<()> {
        self.store
            .resize(self.zones.geometry().sectors, geometry.sectors)?;
        self.zones = ZoneTable::new(geometry);
        Ok(())
    }

    /// Carries `request` out, except for its answer. Everything that it may write before the
    /// answer is written, with zeroes where there is nothing to say. `features` are those in force:
    /// a request of a feature that is not is unsupported (§5.2.6.2 for those of zones).
    #[inline]
    pub(crate) fn execute(
        &mut self,
        request: &Request<'_>,
        features: u64,
        dma: &DmaMap,
    ) -> Result<Outcome, Broken> {
        if self.restricted && !self.quirks.is_empty() {
            return self.execute_quirkily(request, features, dma);
        }
        self.execute_rightly(request, features, dma)
    }

    #[inline]
    fn execute_rightly(
        &mut self,
        request: &Request<'_>,
        features: u64,
        dma: &DmaMap,
    ) -> Result<Outcome, Broken> {
        let mut outcome = match request.kind {
            _ if self.refuses(request, features) => Outcome::of(status::IOERR),
            request::IN => {
                let outcome = self.read(request, dma)?;
                if outcome.status == status::OK {
                    return Ok(outcome);
                }
                outcome
            }
            request::OUT => self.write(request, dma)?,
            request::GET_ID => return fill(request.data_in, &self.serial, dma),
            _ if features & feature_of(request.kind) == 0 => Outcome::of(status::UNSUPP),
            request::ZONE_APPEND => self.append(request, dma)?,
            request::FLUSH => self.flushed(),
            request::GET_LIFETIME if request.data_in.len() >= LIFETIME.len() as u64 => {
                return fill(request.data_in, &LIFETIME, dma);
            }
            request::GET_LIFETIME => Outcome::of(status::IOERR),
            request::DISCARD => self.erase(Erasure::Discard, request, dma)?,
            request::WRITE_ZEROES => self.erase(Erasure::WriteZeroes, request, dma)?,
            request::SECURE_ERASE => self.erase(Erasure::SecureErase, request, dma)?,
            request::ZONE_REPORT => return self.report(request, dma),
            request::ZONE_OPEN => self.command(Command::Open, request),
            request::ZONE_CLOSE => self.command(Command::Close, request),
            request::ZONE_FINISH => self.command(Command::Finish, request),
            request::ZONE_RESET => self.command(Command::Reset, request),
            request::ZONE_RESET_ALL => {
                self.zones.reset_all();
                Outcome::of(status::OK)
            }
            _ => Outcome::of(status::UNSUPP),
        };
        if self.writethrough && outcome.status == status::OK {
            let flushed = self.flushed();
            outcome.status = flushed.status;
        }
        if request.data_in.len() != 0 && !self.quirks.contains(&Quirk::UsedLength) {
            request.data_in.zero(dma)?;
        }
        Ok(outcome)
    }

    /// Whether the request is an I/O error whatever it asks for: it would change a medium that is
    /// read-only, or its data are cut into more or larger pieces than the device said it takes.
    ///
    /// What the device does not know, or has no feature for, is unsupported all the same.
    #[inline]
    fn refuses(&self, request: &Request<'_>, features: u64) -> bool {
        let limits = self.segments;
        if !self.restricted {
            return false;
        }
        let longest = limits.len_bytes.unwrap_or(u32::MAX) as usize;
        let most = limits.count.unwrap_or(u32::MAX) as usize;
        let mut count = 0;
        let too_long = request
            .data_out
            .parts()
            .chain(request.data_in.parts())
            .filter(|(_, len)| *len != 0)
            .inspect(|_| count += 1)
            .any(|(_, len)| len > longest);
        let changes = match request.kind {
            request::OUT => true,
            request::FLUSH | request::GET_LIFETIME | request::ZONE_REPORT => false,
            kind => features & feature_of(kind) != 0,
        };
        self.read_only && changes || too_long || count > most
    }

    #[inline]
    fn append(&mut self, request: &Request<'_>, dma: &DmaMap) -> Result<Outcome, Broken> {
        if !request.has_location() {
            // §5.2.6: an error of the driver, which is answered as long as there is a status byte.
            return Ok(Outcome::of(status::IOERR));
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
            Ok(_) if self.faults.is_some() => self.append_faultily(request, sectors, dma),
            Ok(write) => match self.store(write, request.data_out, dma)? {
                Ok(()) => Ok(Outcome {
                    status: status::OK,
                    append_sector: write.sector,
                }),
                Err(failed) => Ok(failed.into()),
            },
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
                    if let Err(failed) = self.store.zero(gap, &self.zones) {
                        return Ok(failed.into());
                    }
                }
                if self.faults.is_some() {
                    return self.write_faultily(write, request, dma);
                }
                match self.store(write, request.data_out, dma)? {
                    Ok(()) => Ok(Outcome::of(status::OK)),
                    Err(failed) => Ok(failed.into()),
                }
            }
            Err(refusal) => Ok(refusal.into()),
        }
    }

    /// Data first, state second: an unmapped address leaves the zone as it was.
    #[inline(always)]
    fn store(
        &mut self,
        write: Write,
        data: Buffers<'_>,
        dma: &DmaMap,
    ) -> Result<Result<(), Failed>, Broken> {
        let stored = self.store.write(write.sector, data, dma, &self.zones)?;
        if stored.is_ok() {
            self.zones.commit(write);
        }
        Ok(stored)
    }

    #[inline]
    fn read(&mut self, request: &Request<'_>, dma: &DmaMap) -> Result<Outcome, Broken> {
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
            if stretch.written != 0
                && let Err(failed) = self.store.read(stretch.sector, written, dma)?
            {
                return Ok(failed.into());
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

/// The feature that a request type belongs to; none for one that does not exist.
fn feature_of(kind: u32) -> u64 {
    match kind {
        request::FLUSH => feature::FLUSH,
        request::GET_LIFETIME => feature::LIFETIME,
        request::DISCARD => feature::DISCARD,
        request::WRITE_ZEROES => feature::WRITE_ZEROES,
        request::SECURE_ERASE => feature::SECURE_ERASE,
        request::ZONE_APPEND
        | request::ZONE_REPORT
        | request::ZONE_OPEN
        | request::ZONE_CLOSE
        | request::ZONE_FINISH
        | request::ZONE_RESET
        | request::ZONE_RESET_ALL => feature::ZONED,
        _ => 0,
    }
}

/// Answers with `bytes`, as many as there is room for, and zeroes after them.
fn fill(data: Buffers<'_>, bytes: &[u8], dma: &DmaMap) -> Result<Outcome, Broken> {
    let len = data.len().min(bytes.len() as u64);
    let (answer, rest) = data
        .split_at(len)
        .ok_or(Broken("an answer longer than its buffer"))?;
    answer.write(dma, &bytes[..len as usize])?;
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

//! Writes and appends of a device that was asked to do some of them wrong.

use super::{Disk, Outcome};
use crate::{
    chain::Broken,
    config::DataFaultKind,
    fault::Prospect,
    memory::DmaMap,
    request::Request,
    store::Failed,
    wire::{SECTOR_BYTES, status},
    zone::Write,
};

impl Disk {
    /// An append that the rules allow.
    #[cold]
    pub(super) fn append_faultily(
        &mut self,
        request: &Request<'_>,
        sectors: u64,
        dma: &DmaMap,
    ) -> Result<Outcome, Broken> {
        let write = match self.zones.check_append(request.sector, sectors) {
            Ok(write) => write,
            Err(refusal) => return Ok(refusal.into()),
        };
        let room = self
            .zones
            .index_of(write.sector)
            .and_then(|index| self.zones.zones().get(index))
            .map_or(0, |zone| zone.writable_end - (write.sector + sectors));
        let kind = self.fate(Prospect {
            is_append: true,
            sectors,
            at_start: write.sector == request.sector,
            room,
        });
        let landed = |append_sector| Outcome {
            status: status::OK,
            append_sector,
        };
        if kind == Some(DataFaultKind::LoseAppend) {
            return Ok(landed(write.sector));
        }
        if let Err(failed) = self.store_as(kind, write, request, dma)? {
            return Ok(failed.into());
        }
        let reported = match kind {
            Some(DataFaultKind::Misreport) => write.sector - self.zones.geometry().block_sectors,
            Some(DataFaultKind::RepeatAppend) => {
                match self.zones.check_append(request.sector, sectors) {
                    Ok(second) => match self.store(second, request.data_out, dma)? {
                        Ok(()) => second.sector,
                        Err(failed) => return Ok(failed.into()),
                    },
                    Err(refusal) => return Ok(refusal.into()),
                }
            }
            _ => write.sector,
        };
        Ok(landed(reported))
    }

    /// A write that the rules allow.
    #[cold]
    pub(super) fn write_faultily(
        &mut self,
        write: Write,
        request: &Request<'_>,
        dma: &DmaMap,
    ) -> Result<Outcome, Broken> {
        let kind = (write.sectors != 0).then(|| {
            self.fate(Prospect {
                is_append: false,
                sectors: write.sectors,
                at_start: false,
                room: 0,
            })
        });
        match self.store_as(kind.flatten(), write, request, dma)? {
            Ok(()) => Ok(Outcome::of(status::OK)),
            Err(failed) => Ok(failed.into()),
        }
    }

    fn fate(&mut self, prospect: Prospect) -> Option<DataFaultKind> {
        self.faults.as_mut()?.next(prospect)
    }

    /// Stores the data of `request`, or what a fault makes of them.
    fn store_as(
        &mut self,
        kind: Option<DataFaultKind>,
        write: Write,
        request: &Request<'_>,
        dma: &DmaMap,
    ) -> Result<Result<(), Failed>, Broken> {
        if kind == Some(DataFaultKind::LoseData) {
            request.data_out.check(dma)?;
            self.zones.commit(write);
            return Ok(Ok(()));
        }
        // What is altered must be in place before the write pointer is: a file that is brought up
        // to date in between knows then what is still arriving.
        let data = request.data_out;
        if let Err(failed) = self.store.write(write.sector, data, dma, &self.zones)? {
            return Ok(Err(failed));
        }
        let altered = match kind {
            Some(DataFaultKind::FlipBit) => self.flip_bit(write),
            Some(DataFaultKind::SwapSectors) => self.swap_sectors(write),
            _ => Ok(()),
        };
        if altered.is_ok() {
            self.zones.commit(write);
        }
        Ok(altered)
    }

    fn flip_bit(&mut self, write: Write) -> Result<(), Failed> {
        let bits = write.sectors * SECTOR_BYTES * 8;
        let bit = self.faults.as_ref().map_or(0, |faults| faults.choose(bits));
        let sector = write.sector + bit / 8 / SECTOR_BYTES;
        let mut bytes = self.store.sector(sector)?;
        bytes[(bit / 8 % SECTOR_BYTES) as usize] ^= 1 << (bit % 8);
        self.put(sector, &bytes, write)
    }

    fn swap_sectors(&mut self, write: Write) -> Result<(), Failed> {
        let (first, last) = (write.sector, write.sector + write.sectors - 1);
        let (in_first, in_last) = (self.store.sector(first)?, self.store.sector(last)?);
        self.put(first, &in_last, write)?;
        self.put(last, &in_first, write)
    }

    fn put(
        &mut self,
        sector: u64,
        bytes: &[u8; SECTOR_BYTES as usize],
        write: Write,
    ) -> Result<(), Failed> {
        let arriving = write.sector..write.sector + write.sectors;
        self.store.put_sector(sector, bytes, &arriving, &self.zones)
    }
}

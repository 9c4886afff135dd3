//! A file that outlives the device, and the volatile write cache before it.
//!
//! Writes go to the cache. What the cache holds and what the file says of zones are brought
//! together by `commit`, on FLUSH, when the cache is full, when the device is closed, and after
//! every change where the cache is in writethrough mode. Whenever it is interrupted, the file is
//! that of a device of which some unflushed changes happened and others did not:
//!
//! 1. Zones that were reset become empty by a transaction of the journal. Only then may data of
//!    their new life take the place of the old.
//! 2. Data beyond what the file says is written of a zone go to their place, and are synced. Nobody
//!    sees them yet.
//! 3. Everything that is seen at once goes through the journal: new write pointers and states, and
//!    blocks that were written before, such as all of conventional zones. A block is thus old or
//!    new, whatever its size.

mod cache;
mod cut;
mod journal;
mod layout;
mod open;

use std::{io, ops::Range};

use vfio_virtio::{Error, ErrorKind};

use self::{
    cache::{Cache, Content},
    journal::{Journal, Order, Transaction},
    layout::{Layout, RECORD_BYTES, Record},
};
use super::{Failed, Failure, Io, StoreIo};
use crate::{
    chain::Buffers,
    memory::DmaMap,
    wire::SECTOR_BYTES,
    zone::{ZoneState, ZoneTable},
};

pub(crate) use open::Opened;

/// What is read from the file at a time.
const SCRATCH_BYTES: usize = 1 << 17;
/// The largest block.
const MOST_BLOCK_BYTES: usize = 1 << 16;

/// The data of a device, in a file. What a request does here is not inlined: the path of the other
/// stores is to stay small.
#[derive(Debug)]
pub(crate) struct FileStore {
    io: Io,
    id: u64,
    layout: Layout,
    block_bytes: usize,
    cache: Cache,
    journal: Journal,
    /// What the file says of the zones.
    durable: Vec<Record>,
    scratch: Vec<u8>,
    last_error: Option<String>,
}

/// Neighbouring blocks that go to the file in one piece.
#[derive(Clone, Copy, Debug)]
struct Run {
    block: u64,
    count: usize,
    content: Content,
}

impl FileStore {
    /// Makes the file agree with `target` and the cache, less the blocks that are not to be kept,
    /// and empties the cache. After an error the cache is as it was. `arriving` is what is being
    /// written: its zones do not count it as written yet.
    fn commit(
        &mut self,
        target: &[Record],
        zones: &ZoneTable,
        arriving: &Range<u64>,
        mut keep: impl FnMut(u64) -> bool,
    ) -> io::Result<()> {
        self.commit_resets(target, zones)?;
        let block_sectors = self.block_bytes as u64 / SECTOR_BYTES;
        let zone_sectors = zones.geometry().zone_sectors;
        let (mut unseen, mut seen) = (Vec::new(), Vec::new());
        for (block, content) in self.cache.iter() {
            let sector = block * block_sectors;
            let zone = (sector / zone_sectors) as usize;
            let offset = sector % zone_sectors;
            if offset < self.durable[zone].written {
                if keep(block) {
                    join(&mut seen, block, content);
                }
            } else if offset < target[zone].written
                || (sector < arriving.end && arriving.start < sector + block_sectors)
            {
                join(&mut unseen, block, content);
            }
        }
        self.write_unseen(&unseen)?;
        let mut transaction = Transaction::new();
        for run in seen {
            self.journal_run(&mut transaction, run)?;
        }
        // After the blocks: a write pointer never comes before what lies below it.
        let mut changed = Vec::new();
        for (zone, record) in target.iter().enumerate() {
            if *record == self.durable[zone] {
                continue;
            }
            let bytes = record.encode(zone, self.id);
            if transaction.room() < bytes.len() {
                self.journal
                    .commit(&mut self.io, &mut transaction, Order::Any)?;
                transaction = Transaction::new();
            }
            transaction.fill(Layout::record_at(zone), &bytes);
            changed.push(zone);
        }
        if !transaction.is_empty() {
            self.journal
                .commit(&mut self.io, &mut transaction, Order::Any)?;
        }
        for zone in changed {
            self.durable[zone] = target[zone];
        }
        self.cache.clear();
        Ok(())
    }

    /// Step 1: zones that have begun a new life are empty.
    fn commit_resets(&mut self, target: &[Record], zones: &ZoneTable) -> io::Result<()> {
        let reset: Vec<usize> = (0..target.len())
            .filter(|zone| {
                let durable = &self.durable[*zone];
                durable.resets != target[*zone].resets && durable.written != 0
            })
            .collect();
        let most = Transaction::new().room() / (2 * RECORD_BYTES);
        for reset in reset.chunks(most) {
            let empty = |zone: usize| Record {
                written: 0,
                state: ZoneState::Empty,
                resets: target[zone].resets,
            };
            let mut transaction = Transaction::new();
            for zone in reset {
                let bytes = empty(*zone).encode(*zone, self.id);
                transaction.fill(Layout::record_at(*zone), &bytes);
            }
            self.journal
                .commit(&mut self.io, &mut transaction, Order::BeforeData)?;
            for zone in reset {
                self.durable[*zone] = empty(*zone);
            }
            for zone in reset {
                let zone = &zones.zones()[*zone];
                self.io.zero(self.place(zone.start..zone.end))?;
            }
        }
        Ok(())
    }

    /// Step 2.
    fn write_unseen(&mut self, runs: &[Run]) -> io::Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        let mut writes = Vec::new();
        for run in runs {
            let at = self.layout.data_at + run.block * self.block_bytes as u64;
            match run.content {
                Content::Slot(slot) => writes.push((at, self.cache.slots(slot, run.count))),
                Content::Zero => {
                    let end = at + (run.count * self.block_bytes) as u64;
                    self.io.zero(at..end)?;
                }
            }
        }
        self.io.write(&writes)?;
        self.io.sync()
    }

    /// Step 3 for blocks, in as many transactions as are needed.
    fn journal_run(&mut self, transaction: &mut Transaction, run: Run) -> io::Result<()> {
        let at =
            |done: usize| self.layout.data_at + (run.block + done as u64) * self.block_bytes as u64;
        let mut done = 0;
        while done < run.count {
            let fits = match run.content {
                Content::Slot(_) => transaction.room() / self.block_bytes,
                Content::Zero => transaction.room().min(1) * run.count,
            };
            let count = fits.min(run.count - done);
            if count == 0 {
                self.journal.commit(&mut self.io, transaction, Order::Any)?;
                *transaction = Transaction::new();
                continue;
            }
            match run.content {
                Content::Slot(slot) => {
                    transaction.fill(at(done), self.cache.slots(slot + done as u32, count));
                }
                Content::Zero => transaction.zero(at(done), (count * self.block_bytes) as u64),
            }
            transaction.mark_data();
            done += count;
        }
        Ok(())
    }

    /// Makes everything durable.
    #[inline(never)]
    pub(crate) fn flush(&mut self, zones: &ZoneTable) -> Result<(), Failed> {
        let target: Vec<Record> = zones.zones().iter().map(Record::of).collect();
        if self.cache.is_empty() && target == self.durable {
            return Ok(());
        }
        let outcome = self.commit(&target, zones, &(0..0), |_| true);
        self.note(outcome)
    }

    /// Stores `data` from `sector` on.
    #[inline(never)]
    pub(super) fn write(
        &mut self,
        sector: u64,
        data: Buffers<'_>,
        dma: &DmaMap,
        zones: &ZoneTable,
    ) -> Result<(), Failure> {
        // A block is not to be half new because an address is not mapped.
        data.check(dma)?;
        let mut left = data;
        let arriving = sector..sector + data.len() / SECTOR_BYTES;
        for part in self.parts(&arriving) {
            let place = self.claim(&part, zones, &arriving)?;
            let Some((here, rest)) = left.split_at(part.bytes.len() as u64) else {
                return Ok(());
            };
            here.read(dma, &mut place[part.bytes])?;
            left = rest;
        }
        Ok(())
    }

    /// Makes sectors zero.
    #[inline(never)]
    pub(crate) fn zero(&mut self, sectors: Range<u64>, zones: &ZoneTable) -> Result<(), Failed> {
        for part in self.parts(&sectors) {
            if part.bytes.len() == self.block_bytes {
                self.make_room(part.block, zones, &sectors)?;
                self.cache.zero(part.block);
            } else {
                self.claim(&part, zones, &sectors)?[part.bytes].fill(0);
            }
        }
        Ok(())
    }

    /// Fetches what is stored from `sector` on.
    #[inline(never)]
    pub(super) fn read(
        &mut self,
        sector: u64,
        data: Buffers<'_>,
        dma: &DmaMap,
    ) -> Result<(), Failure> {
        let block_bytes = self.block_bytes as u64;
        let mut at = sector * SECTOR_BYTES;
        let mut left = data;
        while left.len() != 0 {
            let block = at / block_bytes;
            let within = (at % block_bytes) as usize;
            let cached = self.cache.next(block);
            let end = match cached {
                Some(next) if next == block => (block + 1) * block_bytes,
                Some(next) => next * block_bytes,
                None => u64::MAX,
            };
            let len = (end - at).min(left.len()).min(SCRATCH_BYTES as u64);
            let Some((here, rest)) = left.split_at(len) else {
                return Ok(());
            };
            match self.cache.get(block) {
                Some(Content::Slot(slot)) => {
                    let held = self.cache.slots(slot, 1);
                    here.write(dma, &held[within..within + len as usize])?;
                }
                Some(Content::Zero) => here.zero(dma)?,
                None => {
                    let bytes = &mut self.scratch[..len as usize];
                    let outcome = self.io.read(self.layout.data_at + at, bytes);
                    here.write(dma, bytes)?;
                    self.note(outcome)?;
                }
            }
            at += len;
            left = rest;
        }
        Ok(())
    }

    /// Fetches a sector.
    pub(super) fn fetch(&mut self, sector: u64, bytes: &mut [u8]) -> Result<(), Failed> {
        let at = sector * SECTOR_BYTES;
        let block_bytes = self.block_bytes as u64;
        let within = (at % block_bytes) as usize;
        match self.cache.get(at / block_bytes) {
            Some(Content::Slot(slot)) => {
                let held = self.cache.slots(slot, 1);
                bytes.copy_from_slice(&held[within..within + bytes.len()]);
                Ok(())
            }
            Some(Content::Zero) => {
                bytes.fill(0);
                Ok(())
            }
            None => {
                let outcome = self.io.read(self.layout.data_at + at, bytes);
                self.note(outcome)
            }
        }
    }

    /// Stores a sector that is part of what is being written.
    pub(super) fn put(
        &mut self,
        sector: u64,
        bytes: &[u8],
        arriving: &Range<u64>,
        zones: &ZoneTable,
    ) -> Result<(), Failed> {
        for part in self.parts(&(sector..sector + 1)) {
            self.claim(&part, zones, arriving)?[part.bytes].copy_from_slice(bytes);
        }
        Ok(())
    }

    /// The place in the cache of the block of `part`, with what it held unless all of it is to be
    /// written.
    fn claim(
        &mut self,
        part: &Part,
        zones: &ZoneTable,
        arriving: &Range<u64>,
    ) -> Result<&mut [u8], Failed> {
        self.make_room(part.block, zones, arriving)?;
        if part.bytes.len() == self.block_bytes || self.cache.get(part.block).is_some() {
            return Ok(self.cache.claim(part.block));
        }
        let at = self.layout.data_at + part.block * self.block_bytes as u64;
        let held = &mut self.scratch[..self.block_bytes];
        let outcome = self.io.read(at, held);
        self.note(outcome)?;
        let place = self.cache.claim(part.block);
        place.copy_from_slice(&self.scratch[..self.block_bytes]);
        Ok(place)
    }

    /// Writes everything back if there is no room for `block`.
    fn make_room(
        &mut self,
        block: u64,
        zones: &ZoneTable,
        arriving: &Range<u64>,
    ) -> Result<(), Failed> {
        if !self.cache.is_full_for(block) {
            return Ok(());
        }
        let target: Vec<Record> = zones.zones().iter().map(Record::of).collect();
        let outcome = self.commit(&target, zones, arriving, |_| true);
        self.note(outcome)
    }

    /// Splits sectors into the blocks that they are parts of.
    fn parts(&self, sectors: &Range<u64>) -> impl Iterator<Item = Part> + use<> {
        let block_bytes = self.block_bytes as u64;
        let mut at = sectors.start * SECTOR_BYTES;
        let end = sectors.end * SECTOR_BYTES;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let block = at / block_bytes;
            let start = at - block * block_bytes;
            let stop = (end - block * block_bytes).min(block_bytes);
            at = (block + 1) * block_bytes;
            Some(Part {
                block,
                bytes: start as usize..stop as usize,
            })
        })
    }

    fn place(&self, sectors: Range<u64>) -> Range<u64> {
        let at = |sector| self.layout.data_at + sector * SECTOR_BYTES;
        at(sectors.start)..at(sectors.end)
    }

    /// A driver learns no more than that there was an error.
    fn note(&mut self, outcome: io::Result<()>) -> Result<(), Failed> {
        outcome.map_err(|e| {
            self.last_error = Some(e.to_string());
            Failed
        })
    }

    pub(crate) fn io_kind(&self) -> StoreIo {
        self.io.kind()
    }

    /// How much of the data is in the cache only.
    pub(crate) fn cached_bytes(&self) -> u64 {
        self.cache.len_bytes()
    }

    #[cfg(test)]
    pub(crate) fn io(&mut self) -> &mut Io {
        &mut self.io
    }

    /// Where the data lie, and how long the file is.
    #[cfg(test)]
    pub(crate) fn extent(&self) -> Range<u64> {
        self.layout.data_at..self.layout.len_bytes
    }

    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }
}

/// Some bytes of a block.
#[derive(Clone, Debug)]
struct Part {
    block: u64,
    bytes: Range<usize>,
}

/// Adds a block to the run before it, if it continues that.
fn join(runs: &mut Vec<Run>, block: u64, content: Content) {
    if let Some(last) = runs.last_mut()
        && last.block + last.count as u64 == block
    {
        let continues = match (last.content, content) {
            (Content::Zero, Content::Zero) => true,
            (Content::Slot(first), Content::Slot(slot)) => first + last.count as u32 == slot,
            _ => false,
        };
        if continues {
            last.count += 1;
            return;
        }
    }
    runs.push(Run {
        block,
        count: 1,
        content,
    });
}

/// An error that keeps a file from being used as a store.
fn refused(kind: ErrorKind, path: &std::path::Path, what: impl std::fmt::Display) -> Error {
    Error::new(kind, format!("store={}: {what}", path.display()))
}

//! The journal: changes of the file that happen as a whole or not at all.
//!
//! A transaction is a list of patches, each some bytes or zeroes and where they go. It is written
//! and synced first, then its patches are carried out in place, without a sync. Transactions lie
//! one behind the other. When one does not fit any more, the file is synced, so that all patches
//! are durable in place, and the next one takes the place of the first. At opening, the
//! transactions from the first on whose numbers follow each other are carried out again.
//!
//! So patches may be carried out twice, and long after they were made. Data that go to the file
//! without the journal, past the write pointer of a zone, must not be overwritten by a patch of an
//! earlier life of that zone: a transaction that resets zones is made the first of the journal if
//! there are data in it.

use std::io;

use super::layout::{JOURNAL_AT, JOURNAL_BYTES, Layout, TABLE_AT};
use crate::store::io::Io;

const MAGIC: u64 = u64::from_le_bytes(*b"zbd-jrnl");
/// Magic, file, place, number, length, checksum and padding.
const HEADER_BYTES: usize = 48;
const CRC_AT: usize = 40;
const PATCH_BYTES: usize = 24;
/// Transactions begin on pages, so that none is on a page that is written again.
const PAGE_BYTES: u64 = 4096;
const FILL: u64 = 0;
const ZERO: u64 = 1;

/// A transaction that is being put together.
#[derive(Debug)]
pub(super) struct Transaction {
    bytes: Vec<u8>,
    holds_data: bool,
}

impl Transaction {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; HEADER_BYTES],
            holds_data: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES
    }

    /// How many bytes one more patch may have.
    pub(super) fn room(&self) -> usize {
        (JOURNAL_BYTES as usize).saturating_sub(self.bytes.len() + PATCH_BYTES)
    }

    pub(super) fn fill(&mut self, at: u64, data: &[u8]) {
        self.head(at, data.len() as u64, FILL);
        self.bytes.extend_from_slice(data);
    }

    pub(super) fn zero(&mut self, at: u64, len: u64) {
        self.head(at, len, ZERO);
    }

    fn head(&mut self, at: u64, len: u64, what: u64) {
        for field in [at, len, what] {
            self.bytes.extend_from_slice(&field.to_le_bytes());
        }
    }

    /// Says that a patch changes data and not just the table.
    pub(super) fn mark_data(&mut self) {
        self.holds_data = true;
    }
}

/// Where the journal stands.
#[derive(Debug)]
pub(super) struct Journal {
    id: u64,
    /// Where the next transaction goes, from the start of the journal.
    next_at: u64,
    number: u64,
    holds_data: bool,
}

impl Journal {
    /// The journal of a new file, which is all zero.
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            next_at: 0,
            number: 1,
            holds_data: false,
        }
    }

    /// Carries out again what may not have been carried out.
    pub(super) fn recover(io: &mut Io, id: u64, layout: &Layout) -> io::Result<Self> {
        let mut journal = Self::new(id);
        let mut number = None;
        let mut bytes = Vec::new();
        while journal.fetch(io, &mut bytes)? {
            let found = word(&bytes, 24);
            if number.is_some_and(|number| number != found) || !is_sound(&bytes, layout) {
                break;
            }
            carry_out(io, &bytes)?;
            number = Some(found.wrapping_add(1));
            journal.next_at += (bytes.len() as u64).next_multiple_of(PAGE_BYTES);
        }
        if let Some(number) = number {
            io.sync()?;
            journal.number = number;
            journal.holds_data = true;
        }
        Ok(journal)
    }

    /// Fetches the transaction that is next. False where there is none.
    fn fetch(&self, io: &mut Io, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let room = JOURNAL_BYTES - self.next_at;
        if room < HEADER_BYTES as u64 {
            return Ok(false);
        }
        bytes.resize(HEADER_BYTES, 0);
        io.read(JOURNAL_AT + self.next_at, bytes)?;
        let len = word(bytes, 32);
        if word(bytes, 0) != MAGIC
            || word(bytes, 8) != self.id
            || word(bytes, 16) != self.next_at
            || !(HEADER_BYTES as u64..=room).contains(&len)
        {
            return Ok(false);
        }
        bytes.resize(len as usize, 0);
        io.read(JOURNAL_AT + self.next_at, bytes)?;
        Ok(word(bytes, CRC_AT) == u64::from(checksum(bytes)))
    }

    /// Makes `transaction` durable and carries it out. After an error it may or may not happen.
    pub(super) fn commit(
        &mut self,
        io: &mut Io,
        transaction: &mut Transaction,
        order: Order,
    ) -> io::Result<()> {
        let bytes = &mut transaction.bytes;
        let len = (bytes.len() as u64).next_multiple_of(PAGE_BYTES);
        let begins_anew = order == Order::BeforeData && self.holds_data;
        if begins_anew || self.next_at + len > JOURNAL_BYTES {
            io.sync()?;
            self.next_at = 0;
        }
        for (at, field) in [
            (0, MAGIC),
            (8, self.id),
            (16, self.next_at),
            (24, self.number),
            (32, bytes.len() as u64),
        ] {
            bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        let crc = u64::from(checksum(bytes));
        bytes[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        io.write(&[(JOURNAL_AT + self.next_at, bytes)])?;
        io.sync()?;
        self.holds_data = transaction.holds_data || (self.holds_data && self.next_at != 0);
        self.next_at += len;
        self.number = self.number.wrapping_add(1);
        carry_out(io, &transaction.bytes)
    }
}

/// What comes after a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Data that go to the file without the journal, where it may have had patches before.
    BeforeData,
    Any,
}

/// Of everything but itself.
fn checksum(bytes: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&bytes[..CRC_AT]);
    crc32c::crc32c_append(crc, &bytes[HEADER_BYTES..])
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// One patch: where, how long, and the bytes unless it is of zeroes.
type Patch<'b> = (u64, u64, Option<&'b [u8]>);

/// The patches of a transaction; one that does not fit into it ends them with `None`.
fn patches(bytes: &[u8]) -> impl Iterator<Item = Option<Patch<'_>>> {
    let mut rest = &bytes[HEADER_BYTES..];
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((head, after)) = rest.split_at_checked(PATCH_BYTES) else {
            rest = &[];
            return Some(None);
        };
        let (at, len) = (word(head, 0), word(head, 8));
        rest = after;
        if word(head, 16) == ZERO {
            return Some(Some((at, len, None)));
        }
        let split = usize::try_from(len)
            .ok()
            .and_then(|len| rest.split_at_checked(len));
        let Some((data, after)) = split else {
            rest = &[];
            return Some(None);
        };
        rest = after;
        Some(Some((at, len, Some(data))))
    })
}

/// Whether all patches lie inside the table and the data.
fn is_sound(bytes: &[u8], layout: &Layout) -> bool {
    patches(bytes).all(|patch| {
        patch.is_some_and(|(at, len, _)| {
            at >= TABLE_AT
                && at
                    .checked_add(len)
                    .is_some_and(|end| end <= layout.len_bytes)
        })
    })
}

fn carry_out(io: &mut Io, bytes: &[u8]) -> io::Result<()> {
    let filled: Vec<(u64, &[u8])> = patches(bytes)
        .flatten()
        .filter_map(|(at, _, data)| Some((at, data?)))
        .collect();
    io.write(&filled)?;
    for (at, len, data) in patches(bytes).flatten() {
        if data.is_none() {
            io.zero(at..at + len)?;
        }
    }
    Ok(())
}

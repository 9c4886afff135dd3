//! The parts of a virtio-blk request (VIRTIO 1.3 §5.2.6), whatever buffers they are spread over.

use crate::{
    chain::{Broken, Buffers, Chain},
    disk::Outcome,
    memory::{DmaMap, Unmapped},
    wire::request,
};

const HEADER_BYTES: usize = 16;
/// `append_sector`, a le64, between data and status.
const LOCATION_BYTES: u64 = 8;

/// A request, parsed but not yet carried out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'c> {
    pub(crate) kind: u32,
    pub(crate) sector: u64,
    /// What the device may read after the header.
    pub(crate) data_out: Buffers<'c>,
    /// What the device may write before its answer.
    pub(crate) data_in: Buffers<'c>,
    /// Where the answer goes: the status, and before it the sector of an append if there is room.
    pub(crate) answer: Buffers<'c>,
    /// The length of everything writable. All of it is written, so it is also what is reported as
    /// used (§2.7.8.2).
    pub(crate) used_len: u32,
}

impl<'c> Request<'c> {
    #[inline]
    pub(crate) fn parse(chain: &'c Chain, dma: &DmaMap) -> Result<Self, Broken> {
        let (header, data_out) = chain
            .readable()
            .split_at(HEADER_BYTES as u64)
            .ok_or(Broken("a request without a whole header"))?;
        let mut bytes = [0; HEADER_BYTES];
        header.read(dma, &mut bytes)?;
        // le32 type, le32 reserved, le64 sector.
        let header = u128::from_le_bytes(bytes);
        let (kind, sector) = (header as u32, (header >> 64) as u64);
        let writable = chain.writable();
        let used_len = u32::try_from(writable.len())
            .map_err(|_| Broken("more than 4 GiB of writable buffers"))?;
        let without_status = writable
            .len()
            .checked_sub(1)
            .ok_or(Broken("a request without a status byte"))?;
        let has_location = kind == request::ZONE_APPEND && without_status >= LOCATION_BYTES;
        let in_len = without_status - if has_location { LOCATION_BYTES } else { 0 };
        let (data_in, answer) = writable
            .split_at(in_len)
            .ok_or(Broken("a request without a status byte"))?;
        Ok(Self {
            kind,
            sector,
            data_out,
            data_in,
            answer,
            used_len,
        })
    }

    /// Whether the sector of an append can be told.
    #[inline]
    pub(crate) fn has_location(&self) -> bool {
        self.answer.len() > LOCATION_BYTES
    }

    /// Writes the answer.
    #[inline]
    pub(crate) fn answer(&self, outcome: Outcome, dma: &DmaMap) -> Result<(), Unmapped> {
        let mut bytes = [0; LOCATION_BYTES as usize + 1];
        bytes[..8].copy_from_slice(&outcome.append_sector.to_le_bytes());
        bytes[8] = outcome.status;
        if self.has_location() {
            self.answer.write(dma, &bytes)
        } else {
            self.answer.write(dma, &bytes[8..])
        }
    }
}

//! The parts of a virtio-blk request (VIRTIO 1.3 §5.2.6), whatever buffers they are spread over.

use crate::{
    chain::{Broken, Buffers, Chain},
    memory::DmaMap,
    wire::request,
};

const HEADER_BYTES: usize = 16;
/// `append_sector`, a le64, between data and status.
const LOCATION_BYTES: u64 = 8;

/// A request, parsed but not yet carried out.
#[derive(Debug)]
pub(crate) struct Request<'c> {
    pub(crate) kind: u32,
    pub(crate) sector: u64,
    /// What the device may read after the header.
    pub(crate) data_out: Buffers<'c>,
    /// What the device may write before its answer.
    pub(crate) data_in: Buffers<'c>,
    /// Where the sector of an append goes, if there is room for it.
    pub(crate) location: Option<Buffers<'c>>,
    pub(crate) status: Buffers<'c>,
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
        let short = Broken("a request without a status byte");
        let (data_in, answer) = writable.split_at(in_len).ok_or(short)?;
        let (location, status) = if has_location {
            let (location, status) = answer.split_at(LOCATION_BYTES).ok_or(short)?;
            (Some(location), status)
        } else {
            (None, answer)
        };
        Ok(Self {
            kind,
            sector,
            data_out,
            data_in,
            location,
            status,
            used_len,
        })
    }
}

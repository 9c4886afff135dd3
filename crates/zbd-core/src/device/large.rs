//! Reads and writes that exceed what one request can take.

use futures_util::future;
use vfio_virtio::DmaBuffer;

use super::{Driver, ZonedDevice};
use crate::{DeviceInfo, Error, Result, Sector, ZoneType, units::SECTOR_LEN};

/// Whether a request can take the buffer although it is longer than one segment may be.
fn fits(info: &DeviceInfo, buffer: &DmaBuffer) -> bool {
    let mut segments = buffer.segments();
    buffer.len() <= info.max_transfer as usize
        && segments.clone().count() <= info.max_segments as usize
        && segments.all(|segment| segment.len_bytes <= info.max_segment)
}

/// The length of the pieces, of whole blocks, and in sequential zones of whole granules.
fn piece_len(info: &DeviceInfo) -> usize {
    let most = info.max_transfer.min(info.max_segment);
    let granularity = info
        .zoned
        .as_ref()
        .map_or(0, |zoned| zoned.write_granularity);
    let unit = granularity.max(info.block_size);
    match most / unit {
        // What is wrong with the request is told when it is submitted.
        0 => most.max(1) as usize,
        units => (units * unit) as usize,
    }
}

/// A request and the sectors that its pieces begin at.
fn pieces(
    info: &DeviceInfo,
    at: Sector,
    buffer: DmaBuffer,
) -> (vfio_virtio::Pieces, impl Fn(usize) -> Sector + use<>) {
    let len = piece_len(info);
    let place = move |index: usize| Sector(at.0 + (index * len) as u64 / SECTOR_LEN);
    (buffer.into_pieces(len), place)
}

/// The whole buffer, when its pieces have come back; or the first error, with the buffer if all came
/// back.
fn rejoined(pieces: vfio_virtio::Pieces, failed: Option<Error>) -> Result<DmaBuffer> {
    // The piece that failed comes back with its error.
    let failed = failed.map(|error| error.with_buffer(None));
    match (failed, pieces.rejoin()) {
        (None, Ok(buffer)) => Ok(buffer),
        // What is with the device still goes back to the pool when that is done with it.
        (Some(error), whole) => Err(error.with_buffer(whole.ok())),
        (None, Err(_)) => super::owned(None),
    }
}

impl<D: Driver> ZonedDevice<D> {
    /// Whether a buffer takes more than one request.
    #[inline]
    pub(super) fn is_large(&self, buffer: &DmaBuffer) -> bool {
        buffer.len() > self.driver.accounts().plain_len() && !fits(&self.info(), buffer)
    }

    #[cold]
    pub(super) async fn read_large(&self, at: Sector, buffer: DmaBuffer) -> Result<DmaBuffer> {
        let info = self.info();
        let (mut pieces, place) = pieces(&info, at, buffer);
        let reads = pieces.by_ref().enumerate();
        let reads = reads.map(|(index, piece)| self.read_one(place(index), piece));
        let ends = future::join_all(reads.collect::<Vec<_>>()).await;
        // Dropped here, the pieces are back.
        let failed = ends.into_iter().find_map(Result::err);
        rejoined(pieces, failed)
    }

    #[cold]
    pub(super) async fn write_large(&self, at: Sector, buffer: DmaBuffer) -> Result<DmaBuffer> {
        let info = self.info();
        let zoned = info.zoned.as_ref();
        let is_ordered = zoned
            .and_then(|zoned| zoned.zone_type(zoned.zone_of(at)?))
            .is_some_and(|zone_type| zone_type != ZoneType::Conventional);
        let (mut pieces, place) = pieces(&info, at, buffer);
        let writes = pieces.by_ref().enumerate();
        let mut writes = writes.map(|(index, piece)| self.write_one(place(index), piece));
        let failed = if is_ordered {
            loop {
                match writes.next() {
                    None => break None,
                    Some(write) => match write.await {
                        Ok(_) => {}
                        Err(error) => break Some(error),
                    },
                }
            }
        } else {
            let ends = future::join_all(writes.by_ref().collect::<Vec<_>>()).await;
            ends.into_iter().find_map(Result::err)
        };
        drop(writes);
        rejoined(pieces, failed)
    }
}

//! Large buffers in pieces, each for a request of its own.

use std::{fmt, iter::FusedIterator, sync::Arc};

use super::{
    DmaBuffer,
    buffer::{Block, Keeper},
};
use crate::Iova;

/// The pieces of a buffer, one after the other: see [`DmaBuffer::into_pieces`].
pub struct Pieces {
    whole: Arc<Keeper>,
    piece_len: usize,
    /// Where the next piece begins.
    next: usize,
    len: usize,
}

impl DmaBuffer {
    /// Cuts the buffer into pieces of `piece_len` bytes, the last of which may be shorter, without
    /// a copy: for data that take more than one request.
    ///
    /// A piece is a buffer of its own, to be read and written by whoever holds it and by a device.
    /// It consists of as many segments as its part of the buffer lies in; where that is
    /// [read-only](Self::is_read_only), so is it. When all pieces have been dropped,
    /// [`Pieces::rejoin`] yields the buffer again, with what they wrote. The memory goes back to
    /// its arena with the last of the pieces and the iterator itself, so a piece that a device
    /// does not return keeps all of it.
    ///
    /// # Panics
    /// If `piece_len` is 0.
    pub fn into_pieces(self, piece_len: usize) -> Pieces {
        assert!(piece_len > 0, "pieces of no bytes have no end");
        Pieces {
            len: self.len(),
            whole: Arc::new(Keeper::Whole(self)),
            piece_len,
            next: 0,
        }
    }
}

impl Pieces {
    /// The buffer that was cut, if none of its pieces exists any more. Those that were not taken do
    /// not count.
    ///
    /// # Errors
    /// `self`, to try again later, if there are pieces still.
    pub fn rejoin(self) -> Result<DmaBuffer, Self> {
        // Each piece holds a count, and nothing else does.
        match Arc::try_unwrap(self.whole) {
            Ok(Keeper::Whole(buffer)) => Ok(buffer),
            Ok(other) => Err(Self {
                whole: Arc::new(other),
                ..self
            }),
            Err(whole) => Err(Self { whole, ..self }),
        }
    }
}

impl Iterator for Pieces {
    type Item = DmaBuffer;

    fn next(&mut self) -> Option<DmaBuffer> {
        let Keeper::Whole(whole) = &*self.whole else {
            return None;
        };
        let len = self.piece_len.min(self.len - self.next);
        // From the last segment to the first, so that each is put before what follows it.
        let parts: Vec<_> = whole.blocks(self.next, len).collect();
        self.next += len;
        let parts = parts.into_iter().rev().filter(|(_, _, len)| *len > 0);
        parts.fold(None, |rest, (block, bytes, len)| {
            let from = bytes.addr() - block.bytes.addr();
            let iova = Iova(block.iova.0 + from as u64);
            let mut part = Block::new(whole.arena(), iova, bytes, len as u32, len as u32);
            if block.is_read_only {
                part = part.read_only();
            }
            let part = DmaBuffer::over_kept(part, Arc::clone(&self.whole));
            Some(part.before(rest))
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = (self.len - self.next).div_ceil(self.piece_len);
        (left, Some(left))
    }
}

impl ExactSizeIterator for Pieces {}
impl FusedIterator for Pieces {}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pieces")
            .field("piece_len", &self.piece_len)
            .field("left", &ExactSizeIterator::len(self))
            .field("existing", &(Arc::strong_count(&self.whole) - 1))
            .finish()
    }
}

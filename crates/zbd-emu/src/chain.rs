//! The buffers of a request, in whatever format of ring they came.
//!
//! The walk from a head to its buffers is that of the ring's format (`ring::split`,
//! `ring::packed`). `virtio-queue`'s own iterator ends a malformed chain as if it were complete; a
//! device has to tell the two apart, so chains are walked here, over that crate's descriptor types.

use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;

use crate::{
    config::Switch,
    memory::{DmaMap, Unmapped},
};

const WRITE: u16 = VRING_DESC_F_WRITE as u16;
static ZEROES: [u8; 4096] = [0; 4096];

/// The driver broke the rules in a way that the device cannot answer: it needs a reset
/// (VIRTIO 1.3 §2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

impl From<Unmapped> for Broken {
    fn from(Unmapped: Unmapped) -> Self {
        Self("an address that is not mapped")
    }
}

/// One buffer of a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) len: u32,
}

/// The buffers of one request. Reused from request to request so that nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    segments: Vec<Segment>,
    /// How many of the segments the device may read; it may write the others.
    readable: usize,
    readable_bytes: u64,
    writable_bytes: u64,
}

/// What of the rules depends on negotiation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChainRules {
    pub(crate) queue_size: u16,
    pub(crate) indirect: Switch,
    /// Buffers are used in the order in which they were made available.
    pub(crate) in_order: Switch,
}

impl Chain {
    pub(crate) fn with_capacity(segments: usize) -> Self {
        Self {
            segments: Vec::with_capacity(segments),
            ..Self::default()
        }
    }

    pub(crate) fn readable(&self) -> Buffers<'_> {
        Buffers {
            segments: &self.segments[..self.readable],
            skip: 0,
            len: self.readable_bytes,
        }
    }

    pub(crate) fn writable(&self) -> Buffers<'_> {
        Buffers {
            segments: &self.segments[self.readable..],
            skip: 0,
            len: self.writable_bytes,
        }
    }

    /// Forgets the buffers of the request before.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.segments.clear();
        self.readable = 0;
        self.readable_bytes = 0;
        self.writable_bytes = 0;
    }

    /// Adds a buffer, which the device may write or else read.
    #[inline]
    pub(crate) fn push(
        &mut self,
        segment: Segment,
        access: Access,
        rules: ChainRules,
    ) -> Result<(), Broken> {
        // §2.7.5.3.1 and §2.8.17 hold indirect tables to the size of the queue as well.
        if self.segments.len() >= usize::from(rules.queue_size) {
            return Err(Broken("a chain longer than the queue"));
        }
        match access {
            Access::Write => self.writable_bytes += u64::from(segment.len),
            Access::Read => {
                // §2.7.4.2, §2.8.17: everything to be read comes before everything to be written.
                if self.readable != self.segments.len() {
                    return Err(Broken("a buffer to be read after one to be written"));
                }
                self.readable += 1;
                self.readable_bytes += u64::from(segment.len);
            }
        }
        self.segments.push(segment);
        Ok(())
    }
}

/// What the device may do with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    /// What the flags of a descriptor say, which are the same in both formats.
    #[inline]
    pub(crate) fn of(flags: u16) -> Self {
        if flags & WRITE == 0 {
            Self::Read
        } else {
            Self::Write
        }
    }
}

/// A run of bytes over several buffers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffers<'c> {
    segments: &'c [Segment],
    /// How many bytes of the first segment are not part of the run.
    skip: u32,
    len: u64,
}

impl<'c> Buffers<'c> {
    #[inline]
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Splits off the first `at` bytes, of which there must be that many.
    #[inline]
    pub(crate) fn split_at(self, at: u64) -> Option<(Self, Self)> {
        let rest_len = self.len.checked_sub(at)?;
        let mut rest = self;
        let mut left = at;
        while let Some(segment) = rest.segments.first() {
            let here = u64::from(segment.len - rest.skip);
            if left < here {
                break;
            }
            left -= here;
            rest.segments = &rest.segments[1..];
            rest.skip = 0;
        }
        // `left` is less than the length of the segment that the rest begins in.
        rest.skip += left as u32;
        rest.len = rest_len;
        Some((Self { len: at, ..self }, rest))
    }

    /// The parts that the run consists of.
    #[inline]
    pub(crate) fn parts(self) -> impl Iterator<Item = (u64, usize)> + 'c {
        let mut left = self.len;
        let mut skip = self.skip;
        self.segments.iter().map_while(move |segment| {
            if left == 0 {
                return None;
            }
            let len = u64::from(segment.len - skip).min(left);
            let part = (segment.address.wrapping_add(u64::from(skip)), len as usize);
            skip = 0;
            left -= len;
            Some(part)
        })
    }

    /// The address of a run that lies in one buffer, as most do.
    #[inline]
    fn whole(&self) -> Option<(u64, usize)> {
        let first = self.segments.first()?;
        let inside = u64::from(self.skip) + self.len <= u64::from(first.len);
        inside.then(|| {
            (
                first.address.wrapping_add(self.skip.into()),
                self.len as usize,
            )
        })
    }

    /// Copies the run to `bytes`, which is as long.
    #[inline]
    pub(crate) fn read(self, dma: &DmaMap, bytes: &mut [u8]) -> Result<(), Unmapped> {
        if let Some((address, len)) = self.whole()
            && let Ok(slice) = dma.slice(address, len)
        {
            slice.copy_to(bytes);
            return Ok(());
        }
        self.read_parts(dma, bytes)
    }

    #[inline(never)]
    fn read_parts(self, dma: &DmaMap, bytes: &mut [u8]) -> Result<(), Unmapped> {
        let mut at = 0;
        for (address, len) in self.parts() {
            dma.pieces(address, len, |piece| {
                at += piece.copy_to(&mut bytes[at..]);
            })?;
        }
        Ok(())
    }

    /// Copies `bytes` to the run, which is as long.
    #[inline]
    pub(crate) fn write(self, dma: &DmaMap, bytes: &[u8]) -> Result<(), Unmapped> {
        if let Some((address, len)) = self.whole()
            && let Ok(slice) = dma.slice(address, len)
        {
            slice.copy_from(bytes);
            return Ok(());
        }
        self.write_parts(dma, bytes)
    }

    #[inline(never)]
    fn write_parts(self, dma: &DmaMap, bytes: &[u8]) -> Result<(), Unmapped> {
        let mut at = 0;
        for (address, len) in self.parts() {
            dma.pieces(address, len, |piece| {
                piece.copy_from(&bytes[at..]);
                at += piece.len();
            })?;
        }
        Ok(())
    }

    /// Fills the run with zeroes.
    #[inline]
    pub(crate) fn zero(self, dma: &DmaMap) -> Result<(), Unmapped> {
        for (address, len) in self.parts() {
            dma.pieces(address, len, |piece| {
                let mut at = 0;
                while let Ok(rest) = piece.offset(at) {
                    if rest.is_empty() {
                        break;
                    }
                    rest.copy_from(&ZEROES);
                    at += ZEROES.len().min(rest.len());
                }
            })?;
        }
        Ok(())
    }

    /// Whether every byte of the run is mapped.
    #[inline]
    pub(crate) fn check(self, dma: &DmaMap) -> Result<(), Unmapped> {
        if let Some((address, len)) = self.whole()
            && dma.slice(address, len).is_ok()
        {
            return Ok(());
        }
        for (address, len) in self.parts() {
            dma.pieces(address, len, |_| ())?;
        }
        Ok(())
    }
}

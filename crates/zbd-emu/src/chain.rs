//! Descriptor chains: from a head to the buffers it stands for (VIRTIO 1.3 §2.7.5).
//!
//! `virtio-queue`'s own iterator ends a malformed chain as if it were complete; a device has to
//! tell the two apart, so chains are walked here, over that crate's descriptor type.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use vm_memory::{VolatileArrayRef, VolatileMemory};

use crate::{
    config::Switch,
    memory::{DmaMap, Unmapped},
};

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
static ZEROES: [u8; 4096] = [0; 4096];
const DESCRIPTOR_BYTES: usize = size_of::<Descriptor>();

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

    /// Reads the chain that begins at `head` of the table.
    #[inline]
    pub(crate) fn read(
        &mut self,
        table: &VolatileArrayRef<'_, Descriptor>,
        head: u16,
        rules: ChainRules,
        dma: &DmaMap,
    ) -> Result<(), Broken> {
        self.segments.clear();
        self.readable = 0;
        self.readable_bytes = 0;
        self.writable_bytes = 0;
        let mut index = head;
        loop {
            if usize::from(index) >= table.len() {
                return Err(Broken("a descriptor index beyond the queue"));
            }
            let descriptor = table.load(usize::from(index));
            let flags = descriptor.flags();
            if flags & INDIRECT != 0 {
                return self.read_indirect(descriptor, rules, dma);
            }
            // §2.7.5.2: a chain is at most as long as the queue; a longer one is a loop.
            if self.push(descriptor, rules)? {
                return Ok(());
            }
            index = descriptor.next();
        }
    }

    /// §2.7.5.3: a table of descriptors of its own, used as the last element of a chain.
    #[inline]
    fn read_indirect(
        &mut self,
        table: Descriptor,
        rules: ChainRules,
        dma: &DmaMap,
    ) -> Result<(), Broken> {
        if rules.indirect == Switch::Off {
            return Err(Broken("an indirect descriptor that was not negotiated"));
        }
        if table.flags() & NEXT != 0 {
            return Err(Broken("an indirect descriptor with a next one"));
        }
        let len = table.len() as usize;
        if len == 0 || !len.is_multiple_of(DESCRIPTOR_BYTES) {
            return Err(Broken(
                "an indirect table that is no whole number of descriptors",
            ));
        }
        let slice = dma.slice(table.addr().0, len)?;
        let table: VolatileArrayRef<'_, Descriptor> = slice
            .get_array_ref(0, len / DESCRIPTOR_BYTES)
            .map_err(|_| Broken("an indirect table out of bounds"))?;
        let mut index = 0;
        loop {
            if index >= table.len() {
                return Err(Broken("a descriptor index beyond the indirect table"));
            }
            let descriptor = table.load(index);
            if descriptor.flags() & INDIRECT != 0 {
                return Err(Broken("an indirect descriptor inside an indirect table"));
            }
            if self.push(descriptor, rules)? {
                return Ok(());
            }
            index = usize::from(descriptor.next());
        }
    }

    /// Adds a buffer; true when it is the last.
    #[inline]
    fn push(&mut self, descriptor: Descriptor, rules: ChainRules) -> Result<bool, Broken> {
        // §2.7.5.3.1 holds indirect tables to the size of the queue as well.
        if self.segments.len() >= usize::from(rules.queue_size) {
            return Err(Broken("a chain longer than the queue"));
        }
        let flags = descriptor.flags();
        let len = descriptor.len();
        if flags & WRITE != 0 {
            self.writable_bytes += u64::from(len);
        } else {
            // §2.7.4.2: everything to be read comes before everything to be written.
            if self.readable != self.segments.len() {
                return Err(Broken("a buffer to be read after one to be written"));
            }
            self.readable += 1;
            self.readable_bytes += u64::from(len);
        }
        self.segments.push(Segment {
            address: descriptor.addr().0,
            len,
        });
        Ok(flags & NEXT == 0)
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

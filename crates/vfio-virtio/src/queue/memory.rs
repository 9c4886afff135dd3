#![expect(
    unsafe_code,
    reason = "reads and writes requests in memory that a device reaches"
)]
//! The memory of a virtqueue and of its requests.
//!
//! One buffer of the arena holds the three parts of the ring (VIRTIO 1.3, 2.7 and 2.8) and, for each
//! slot, the small parts of a request: an indirect table of three descriptors, the head that the
//! device reads and the tail that it writes. A slot's table and head share a cache line; its tail
//! lies in the next one, so that the device's write does not take the first away.
//!
//! The rings ([`split`](super::split), [`packed`](super::packed)) and the slots point into that
//! buffer and live beside it. No reference to the memory is made. Values that the device wrote are
//! returned as they are; it is the caller who judges them.

use std::{mem::offset_of, ptr};

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

use crate::{DmaArena, DmaBuffer, Iova, Result, transport::RingAddresses};

/// The length of a request's head, which the device reads.
pub(super) const HEAD_LEN: u32 = 16;
/// The greatest length of a request's tail, which the device writes: a le64 and a status byte.
pub(super) const TAIL_LEN_MAX: u32 = 9;

pub(super) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub(super) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub(super) const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// How a ring is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// VIRTIO 1.3, 2.7.
    Split,
    /// VIRTIO 1.3, 2.8.
    Packed,
}

/// A descriptor, but for the address all of it in two words that either format fills in its way.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Descriptor {
    pub(super) address: u64,
    pub(super) len: u32,
    /// Split: le16 flags, le16 next. Packed: le16 id, le16 flags.
    pub(super) word: u32,
}

impl Descriptor {
    pub(super) const LEN: usize = size_of::<Self>();

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..].copy_from_slice(&self.word.to_le_bytes());
        bytes
    }
}

/// How descriptors of an indirect table say what they are.
pub(super) trait TableFormat {
    /// The last word of a descriptor, with the index of the one that follows it if one does.
    fn word(flags: u16, next: Option<u16>) -> u32;
}

/// Tables of split rings: descriptors name the next one (VIRTIO 1.3, 2.7.5).
pub(super) struct SplitTable;

impl TableFormat for SplitTable {
    #[inline(always)]
    fn word(flags: u16, next: Option<u16>) -> u32 {
        match next {
            Some(next) => u32::from(flags | NEXT) | u32::from(next) << 16,
            None => flags.into(),
        }
    }
}

/// Tables of packed rings: descriptors follow one another (VIRTIO 1.3, 2.8.7).
pub(super) struct PackedTable;

impl TableFormat for PackedTable {
    #[inline(always)]
    fn word(flags: u16, _: Option<u16>) -> u32 {
        u32::from(flags) << 16
    }
}

/// What a slot's request consists of besides its data.
#[repr(C, align(64))]
struct SlotLines {
    table: [Descriptor; 3],
    head: [u64; 2],
    /// The tail: the device is shown the last bytes of these nine, so that the status is always
    /// found at the same place.
    value: u64,
    status: u8,
}

/// The distance from a slot's first byte to the end of its tail.
const TAIL_END: usize = offset_of!(SlotLines, status) + 1;

const _: () = assert!(size_of::<Descriptor>() == 16);
const _: () = assert!(offset_of!(SlotLines, value) == 64);
const _: () = assert!(size_of::<SlotLines>() == 128);
const _: () = assert!(TAIL_END - offset_of!(SlotLines, value) == TAIL_LEN_MAX as usize);

/// The memory of a queue.
pub(crate) struct QueueMemory {
    format: Format,
    size: u16,
    base: *mut u8,
    base_iova: Iova,
    layout: Layout,
    /// `None` once [`take_buffer`](Self::take_buffer) has ended the queue.
    buffer: Option<DmaBuffer>,
}

// SAFETY: the raw pointer points into `buffer`, which this value owns and which may be sent; it is
// used only by methods that take `&self` or `&mut self`, never from two threads at once, because
// the type is not `Sync`.
unsafe impl Send for QueueMemory {}

/// The memory of one slot.
///
/// It is only valid together with the [`QueueMemory`] that made it, and there is one for each slot;
/// the queue that holds them all sees to both.
pub(super) struct SlotMemory(*mut SlotLines);

// SAFETY: as for `QueueMemory`, with which it goes.
unsafe impl Send for SlotMemory {}

/// What is added to an address of this process, wrapping, to make it the device's.
#[derive(Clone, Copy)]
pub(super) struct Displacement(u64);

/// Offsets inside the buffer.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub(super) driver: usize,
    pub(super) device: usize,
    slots: usize,
    pub(super) len: usize,
}

impl Layout {
    fn new(format: Format, size: usize) -> Self {
        let driver = size * Descriptor::LEN;
        let (device, end) = match format {
            Format::Split => {
                // flags, idx, ring, used_event.
                let driver_end = driver + 2 + 2 + 2 * size + 2;
                // flags, idx, ring, avail_event. Four past a multiple of eight, so that the
                // elements, which begin four bytes in, can be read with one aligned access each.
                let device = driver_end.next_multiple_of(64) + 4;
                (device, device + 2 + 2 + 8 * size + 2)
            }
            Format::Packed => {
                // Two event suppression structures, each alone in its line.
                let driver = driver.next_multiple_of(64);
                return Self {
                    driver,
                    device: driver + 64,
                    slots: driver + 128,
                    len: driver + 128 + size * size_of::<SlotLines>(),
                };
            }
        };
        let slots = end.next_multiple_of(align_of::<SlotLines>());
        Self {
            driver,
            device,
            slots,
            len: slots + size * size_of::<SlotLines>(),
        }
    }
}

impl QueueMemory {
    pub(crate) fn allocate(arena: &DmaArena, format: Format, size: u16) -> Result<Self> {
        let layout = Layout::new(format, size.into());
        let mut buffer = arena.allocate(layout.len)?;
        buffer.fill(0);
        Ok(Self {
            format,
            size,
            base: buffer.as_ptr(),
            base_iova: buffer.iova(),
            layout,
            buffer: Some(buffer),
        })
    }

    /// Makes the memory as it was when it was new. The device must not know it, and rings and slots
    /// that were made of it may not be used any more.
    pub(crate) fn clear(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            buffer.fill(0);
        }
    }

    /// What is left where this is taken out, because its owner lives on.
    pub(super) fn none() -> Self {
        Self {
            format: Format::Split,
            size: 0,
            base: ptr::null_mut(),
            base_iova: Iova(0),
            layout: Layout::new(Format::Split, 0),
            buffer: None,
        }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// The number of descriptors.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Ends the queue and yields its memory, which the device may use until its reset. Neither
    /// this nor its ring and slots may be used any more.
    pub(crate) fn take_buffer(&mut self) -> Option<DmaBuffer> {
        self.buffer.take()
    }

    pub(super) fn displacement(&self) -> Displacement {
        Displacement(self.base_iova.0.wrapping_sub(self.base.addr() as u64))
    }

    pub(crate) fn addresses(&self) -> RingAddresses {
        let iova = |offset: usize| Iova(self.base_iova.0 + offset as u64);
        RingAddresses {
            descriptors: iova(0),
            driver: iova(self.layout.driver),
            device: iova(self.layout.device),
        }
    }

    /// The address of the byte at `offset` of the memory.
    pub(super) fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.layout.len);
        // SAFETY: inside the buffer, as just checked.
        unsafe { self.base.add(offset) }
    }

    /// Yields the slots, with what never changes about their tables written. Called once.
    pub(super) fn slots(&mut self) -> Vec<SlotMemory> {
        let displacement = self.displacement();
        (0..usize::from(self.size))
            .map(|slot| {
                let lines = self.layout.slots + slot * size_of::<SlotLines>();
                assert!(lines + size_of::<SlotLines>() <= self.layout.len);
                let mut slot = SlotMemory(self.at(lines).cast());
                match self.format {
                    Format::Split => slot.prepare::<SplitTable>(displacement),
                    Format::Packed => slot.prepare::<PackedTable>(displacement),
                }
                slot
            })
            .collect()
    }
}

impl SlotMemory {
    /// Writes what never changes about the slot's table.
    fn prepare<F: TableFormat>(&mut self, displacement: Displacement) {
        let table = [
            Descriptor {
                address: self.head(displacement).0.to_le(),
                len: HEAD_LEN.to_le(),
                word: F::word(0, Some(1)).to_le(),
            },
            Descriptor {
                address: 0,
                len: 0,
                word: 0,
            },
            Descriptor {
                address: 0,
                len: 0,
                word: F::word(WRITE, None).to_le(),
            },
        ];
        // SAFETY: the pointer leads to this slot's lines for as long as this value exists (see the
        // type), aligned by `Layout`; `&mut self` makes this the only access of this process.
        unsafe { (&raw mut (*self.0).table).write_volatile(table) }
    }

    /// Writes a request into the slot's own table: its head, its data if there are any (address,
    /// length, flags) and its tail of `tail_len` bytes, whose status is set to `status`. Yields the
    /// length of the table.
    #[inline(always)]
    pub(super) fn write<F: TableFormat>(
        &mut self,
        head: [u64; 2],
        data: Option<(Iova, u32, u16)>,
        tail_len: u32,
        status: u8,
        displacement: Displacement,
    ) -> u32 {
        self.write_ends(head, tail_len, status);
        let tail = self.tail(tail_len, displacement);
        // SAFETY: the pointers lead to this slot's lines for as long as this value exists (see the
        // type). `&mut self` makes this the only access of this process, and the device does not
        // read a slot before it has been published.
        unsafe {
            let second = &raw mut (*self.0).table[1];
            let (last, count) = match data {
                Some((address, len, flags)) => {
                    (&raw mut (*second).address).write_volatile(address.0.to_le());
                    (&raw mut (*second).len).write_volatile(len.to_le());
                    (&raw mut (*second).word).write_volatile(F::word(flags, Some(2)).to_le());
                    (&raw mut (*self.0).table[2], 3)
                }
                None => {
                    (&raw mut (*second).word).write_volatile(F::word(WRITE, None).to_le());
                    (second, 2)
                }
            };
            (&raw mut (*last).address).write_volatile(tail.0.to_le());
            (&raw mut (*last).len).write_volatile(tail_len.to_le());
            count * Descriptor::LEN as u32
        }
    }

    /// Writes a request's head and presets its tail, where an earlier request's may still be: the
    /// status with `status`, and the value with one that no device means. Its chain lies elsewhere.
    #[inline(always)]
    pub(super) fn write_ends(&mut self, head: [u64; 2], tail_len: u32, status: u8) {
        // SAFETY: as in `write`.
        unsafe {
            (&raw mut (*self.0).head[0]).write_volatile(head[0].to_le());
            (&raw mut (*self.0).head[1]).write_volatile(head[1].to_le());
            if tail_len == TAIL_LEN_MAX {
                (&raw mut (*self.0).value).write_volatile(u64::MAX);
            }
            (&raw mut (*self.0).status).write_volatile(status);
        }
    }

    /// Where the device sees the slot's table.
    #[inline(always)]
    pub(super) fn table(&self, displacement: Displacement) -> Iova {
        self.iova(offset_of!(SlotLines, table), displacement)
    }

    /// Where the device sees the head.
    #[inline]
    pub(super) fn head(&self, displacement: Displacement) -> Iova {
        self.iova(offset_of!(SlotLines, head), displacement)
    }

    /// Where the device sees a tail of `len` bytes.
    #[inline(always)]
    pub(super) fn tail(&self, len: u32, displacement: Displacement) -> Iova {
        self.iova(TAIL_END - len as usize, displacement)
    }

    #[inline(always)]
    fn iova(&self, offset: usize, displacement: Displacement) -> Iova {
        let address = (self.0.addr() + offset) as u64;
        Iova(address.wrapping_add(displacement.0))
    }

    /// The status byte that ends the tail.
    #[inline(always)]
    pub(super) fn status(&self) -> u8 {
        // SAFETY: as in `write`.
        unsafe { (&raw const (*self.0).status).read_volatile() }
    }

    /// The le64 before the status byte.
    #[inline(always)]
    pub(super) fn value(&self) -> u64 {
        // SAFETY: as in `write`.
        u64::from_le(unsafe { (&raw const (*self.0).value).read_volatile() })
    }
}

/// A descriptor ring or table of `size` descriptors.
pub(super) struct Descriptors {
    first: *mut Descriptor,
    size: u16,
}

// SAFETY: as for `QueueMemory`, with which it goes.
unsafe impl Send for Descriptors {}

impl Descriptors {
    /// The descriptors at the beginning of the memory.
    pub(super) fn new(memory: &QueueMemory) -> Self {
        Self {
            first: memory.at(0).cast(),
            size: memory.size,
        }
    }

    /// Writes the descriptor at `index`.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(super) fn put(&mut self, index: u16, descriptor: Descriptor) {
        let descriptor = Descriptor {
            address: descriptor.address.to_le(),
            len: descriptor.len.to_le(),
            word: descriptor.word.to_le(),
        };
        assert!(index < self.size);
        // SAFETY: inside the memory, aligned: `Layout` gives it as many descriptors as that.
        // `&mut self` makes this the only access of this process.
        unsafe { ptr::write_volatile(self.first.add(index.into()), descriptor) }
    }
}

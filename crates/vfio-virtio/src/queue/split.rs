#![expect(
    unsafe_code,
    reason = "reads and writes rings in memory that a device reaches"
)]
//! The split ring (VIRTIO 1.3, 2.7).

use std::sync::atomic::{AtomicU16, Ordering, fence};

use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};

use super::memory::{Descriptor, Descriptors, QueueMemory, SplitTable, TableFormat as _};

/// The three parts of a split ring.
///
/// It is only valid together with the [`QueueMemory`] that it was made of.
pub(super) struct SplitRing {
    /// The elements of the rings, and the fields around them.
    available: *mut u16,
    available_flags: *mut u16,
    available_index: *mut u16,
    used: *mut u64,
    used_flags: *mut u16,
    used_index: *mut u16,
    available_event: *mut u16,
    used_event: *mut u16,
    /// One less than the size, a power of two.
    mask: usize,
    descriptors: Descriptors,
}

// SAFETY: as for `QueueMemory`, with which it goes.
unsafe impl Send for SplitRing {}

impl SplitRing {
    pub(super) fn new(memory: &QueueMemory) -> Self {
        let size = usize::from(memory.size());
        assert!(size.is_power_of_two());
        let (available, used) = (memory.layout().driver, memory.layout().device);
        Self {
            available: memory.at(available + 4).cast(),
            available_flags: memory.at(available).cast(),
            available_index: memory.at(available + 2).cast(),
            used: memory.at(used + 4).cast(),
            used_flags: memory.at(used).cast(),
            used_index: memory.at(used + 2).cast(),
            available_event: memory.at(used + 4 + 8 * size).cast(),
            used_event: memory.at(available + 4 + 2 * size).cast(),
            mask: size - 1,
            descriptors: Descriptors::new(memory),
        }
    }

    /// Writes the descriptor at `index` of the table.
    #[inline]
    pub(super) fn put(
        &mut self,
        index: u16,
        address: crate::Iova,
        len: u32,
        flags: u16,
        next: Option<u16>,
    ) {
        let descriptor = Descriptor {
            address: address.0,
            len,
            word: SplitTable::word(flags, next),
        };
        self.descriptors.put(index, descriptor);
    }

    /// Puts `head` into the available ring at `index`, which wraps.
    #[inline(always)]
    pub(super) fn set_available(&mut self, index: u16, head: u16) {
        let at = usize::from(index) & self.mask;
        // SAFETY: the index is masked, so the element lies in the ring.
        unsafe { self.available.add(at).write_volatile(head.to_le()) }
    }

    /// Makes the elements of the available ring below `index` visible to the device.
    #[inline]
    pub(super) fn publish(&mut self, index: u16) {
        // Release: whoever sees the index sees the elements and the requests that they name.
        self.atomic(self.available_index)
            .store(index.to_le(), Ordering::Release);
    }

    /// Whether the device wants to be told that the available index went from `old` to `new`.
    /// The caller has run a full fence since it published.
    #[inline]
    pub(super) fn wants_notification(&self, event_idx: bool, old: u16, new: u16) -> bool {
        if event_idx {
            passed(self.read(self.available_event), old, new)
        } else {
            self.read(self.used_flags) & VRING_USED_F_NO_NOTIFY as u16 == 0
        }
    }

    /// The index up to which the device has used requests.
    #[inline]
    pub(super) fn used_index(&self) -> u16 {
        // Acquire: what the device wrote before the index is seen after it.
        u16::from_le(self.atomic(self.used_index).load(Ordering::Acquire))
    }

    /// The used element at `index`, which wraps: a descriptor id and a length.
    #[inline(always)]
    pub(super) fn used_element(&self, index: u16) -> (u32, u32) {
        let at = usize::from(index) & self.mask;
        // SAFETY: the index is masked, so the element lies in the ring; `Layout` aligns it.
        let element = u64::from_le(unsafe { self.used.add(at).read_volatile() });
        (element as u32, (element >> 32) as u32)
    }

    /// Asks for an interrupt when the device uses more than the `used` requests so far. True if it
    /// has not yet: only then will the interrupt come.
    pub(super) fn arm(&mut self, event_idx: bool, used: u16) -> bool {
        if event_idx {
            self.write(self.used_event, used);
        } else {
            self.write(self.available_flags, 0);
        }
        // The wish must be visible before the index is read; the device does the reverse.
        fence(Ordering::SeqCst);
        self.used_index() == used
    }

    /// Asks for no interrupts; `used` requests have been used.
    #[inline]
    pub(super) fn disarm(&mut self, event_idx: bool, used: u16) {
        if event_idx {
            // At the index just left behind, which is 65,535 completions away: with EVENT_IDX that
            // is the only way to ask for none (VIRTIO 1.3, 2.7.10).
            self.write(self.used_event, used.wrapping_sub(1));
        } else {
            self.write(self.available_flags, VRING_AVAIL_F_NO_INTERRUPT as u16);
        }
    }

    #[inline]
    fn read(&self, field: *mut u16) -> u16 {
        u16::from_le(self.atomic(field).load(Ordering::Relaxed))
    }

    #[inline]
    fn write(&self, field: *mut u16, value: u16) {
        self.atomic(field).store(value.to_le(), Ordering::Relaxed);
    }

    #[inline]
    fn atomic(&self, field: *mut u16) -> &AtomicU16 {
        // SAFETY: all callers pass a field of this ring, which `Layout` placed at an even offset
        // inside the page-aligned buffer. An atomic may be changed by others at any time.
        unsafe { AtomicU16::from_ptr(field) }
    }
}

/// Whether `event` lies in the range from `old` to before `new`, wrapping (VIRTIO 1.3, 2.7.10.1).
#[inline]
pub(super) fn passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

//! The device's side of a virtqueue (VIRTIO 1.3 §2.7 and §2.8).
//!
//! Built on `vm-memory`'s volatile accesses. `virtio-queue`'s `Queue` would look up an address and
//! publish the used index for each request, and does not know `VIRTQ_AVAIL_F_NO_INTERRUPT` or
//! packed rings; here the three parts of a ring are looked up once and what was used is published
//! once a batch.
//!
//! Both formats have the same shape: the device looks whether requests wait, takes them one by one,
//! puts what was used in place, and publishes. With IN_ORDER one used element stands for all
//! requests between two publications.

mod packed;
mod split;

use std::sync::atomic::{AtomicU16, Ordering};

use vm_memory::{VolatileMemory, VolatileSlice};

use crate::{
    chain::{Broken, Chain, ChainRules},
    config::Switch,
    memory::DmaMap,
};
use packed::Packed;
use split::Split;

/// The length of a descriptor in either format.
const DESCRIPTOR_BYTES: usize = 16;

/// The memory of an indirect table, which the last descriptor of a chain points to (§2.7.5.3 and
/// §2.8.7).
#[inline]
fn indirect_table(
    address: u64,
    len_bytes: u32,
    has_next: bool,
    rules: ChainRules,
    dma: &DmaMap,
) -> Result<VolatileSlice<'_>, Broken> {
    if rules.indirect == Switch::Off {
        return Err(Broken("an indirect descriptor that was not negotiated"));
    }
    if has_next {
        return Err(Broken("an indirect descriptor with a next one"));
    }
    let len = len_bytes as usize;
    if len == 0 || !len.is_multiple_of(DESCRIPTOR_BYTES) {
        return Err(Broken(
            "an indirect table that is no whole number of descriptors",
        ));
    }
    Ok(dma.slice(address, len)?)
}

/// Where the driver put the parts of a ring, and how it may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// A power of two in a split ring.
    pub(crate) size: u16,
    pub(crate) desc: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    pub(crate) packed: Switch,
    pub(crate) indirect: Switch,
    pub(crate) event_idx: Switch,
    pub(crate) in_order: Switch,
}

impl Layout {
    fn rules(&self) -> ChainRules {
        ChainRules {
            queue_size: self.size,
            indirect: self.indirect,
            in_order: self.in_order,
        }
    }
}

/// A ring in use.
#[derive(Debug)]
pub(crate) enum Ring {
    Split(Split),
    Packed(Packed),
}

/// The memory of a ring, looked up: descriptors, what the driver writes besides, and what the
/// device writes besides.
pub(crate) struct RingMemory<'m> {
    desc: VolatileSlice<'m>,
    driver: VolatileSlice<'m>,
    device: VolatileSlice<'m>,
}

/// A request that was taken: what the ring needs to know to say that it was used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// What names the buffer: the head of its chain, or the buffer id.
    pub(crate) id: u16,
    /// How many places of the ring the request takes.
    slots: u16,
}

/// What is said of a request that was used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) id: u32,
    pub(crate) len: u32,
}

/// The requests that one used element will stand for (IN_ORDER).
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    requests: u16,
    slots: u64,
    last: Used,
}

impl Batch {
    fn add(&mut self, taken: Taken, used: Used) {
        self.requests = self.requests.wrapping_add(1);
        self.slots += u64::from(taken.slots);
        self.last = used;
    }
}

const OUT_OF_BOUNDS: Broken = Broken("a ring out of bounds or misaligned");

impl Ring {
    pub(crate) fn new(layout: Layout) -> Self {
        match layout.packed {
            Switch::On => Self::Packed(Packed::new(layout)),
            Switch::Off => Self::Split(Split::new(layout)),
        }
    }

    /// Looks the ring's memory up; each of its parts must lie in one mapping.
    #[inline]
    pub(crate) fn memory<'m>(&self, dma: &'m DmaMap) -> Result<RingMemory<'m>, Broken> {
        match self {
            Self::Split(ring) => ring.memory(dma),
            Self::Packed(ring) => ring.memory(dma),
        }
    }

    /// Whether requests wait to be taken.
    #[inline]
    pub(crate) fn look(&mut self, memory: &RingMemory<'_>) -> Result<bool, Broken> {
        match self {
            Self::Split(ring) => ring.look(memory),
            Self::Packed(ring) => ring.look(memory),
        }
    }

    /// Checks what a notification said of how far the driver has got, after a look (NOTIFICATION_DATA).
    pub(crate) fn check_notice(&self, data: u16) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.check_notice(data),
            Self::Packed(ring) => ring.check_notice(data),
        }
    }

    /// Takes the next request, if there is one, and reads its buffers into `chain`. A split ring
    /// yields those that the last look saw.
    #[inline]
    pub(crate) fn take(
        &mut self,
        memory: &RingMemory<'_>,
        chain: &mut Chain,
        dma: &DmaMap,
    ) -> Result<Option<Taken>, Broken> {
        match self {
            Self::Split(ring) => ring.take(memory, chain, dma),
            Self::Packed(ring) => ring.take(memory, chain, dma),
        }
    }

    /// Puts a used element in place. The driver sees it once it is published.
    #[inline]
    pub(crate) fn put(
        &mut self,
        memory: &RingMemory<'_>,
        taken: Taken,
        used: Used,
    ) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.put(memory, taken, used),
            Self::Packed(ring) => ring.put(memory, taken, used),
        }
    }

    /// Ends a batch of IN_ORDER: later requests get an element of their own.
    pub(crate) fn end_batch(&mut self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.end_batch(memory),
            Self::Packed(ring) => ring.end_batch(memory),
        }
    }

    /// Lets the place of the next used element jump, as no device should.
    pub(crate) fn jump(&mut self, by: u16) {
        match self {
            Self::Split(ring) => ring.jump(by),
            Self::Packed(ring) => ring.jump(by),
        }
    }

    /// Shows the driver what was put in place.
    #[inline]
    pub(crate) fn publish(&mut self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.publish(memory),
            Self::Packed(ring) => ring.publish(memory),
        }
    }

    /// Whether the driver wants an interrupt for what was published since the last call.
    #[inline]
    pub(crate) fn wants_interrupt(&mut self, memory: &RingMemory<'_>) -> Result<bool, Broken> {
        match self {
            Self::Split(ring) => ring.wants_interrupt(memory),
            Self::Packed(ring) => ring.wants_interrupt(memory),
        }
    }

    /// Asks the driver for a notification of the next request. The caller must look for requests
    /// once more afterwards.
    pub(crate) fn ask_for_kick(&self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.ask_for_kick(memory),
            Self::Packed(ring) => ring.ask_for_kick(memory),
        }
    }

    /// Tells the driver that notifications are of no use for now.
    #[inline]
    pub(crate) fn decline_kicks(&self, memory: &RingMemory<'_>) -> Result<(), Broken> {
        match self {
            Self::Split(ring) => ring.decline_kicks(memory),
            Self::Packed(ring) => ring.decline_kicks(memory),
        }
    }
}

#[inline]
fn load(slice: &VolatileSlice<'_>, offset: usize, order: Ordering) -> Result<u16, Broken> {
    let value = slice
        .get_atomic_ref::<AtomicU16>(offset)
        .map_err(|_| OUT_OF_BOUNDS)?
        .load(order);
    Ok(u16::from_le(value))
}

#[inline]
fn store(slice: &VolatileSlice<'_>, offset: usize, value: u16) -> Result<(), Broken> {
    slice
        .get_atomic_ref::<AtomicU16>(offset)
        .map_err(|_| OUT_OF_BOUNDS)?
        .store(value.to_le(), Ordering::Relaxed);
    Ok(())
}

//! A ring as its device sees it, split or packed (VIRTIO 1.3, 2.7 and 2.8).
//!
//! Reading believes nothing either: the device itself may have written over the ring.

use crate::memory::Mapped;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// More descriptors than any driver here puts into a chain.
const MOST_DESCRIPTORS: usize = 80;

/// A piece of memory of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) iova: u64,
    pub(crate) len: u32,
}

/// A request that was made available.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    pub(crate) id: u16,
    /// How many descriptors of the ring it takes.
    pub(crate) descriptors: u16,
    pub(crate) readable: Vec<Piece>,
    pub(crate) writable: Vec<Piece>,
}

impl Chain {
    fn push(&mut self, [iova, rest]: [u64; 2], flags: u16) -> Option<()> {
        let piece = Piece {
            iova,
            len: rest as u32,
        };
        if self.readable.len() + self.writable.len() >= MOST_DESCRIPTORS {
            return None;
        }
        match flags & WRITE {
            0 => self.readable.push(piece),
            _ => self.writable.push(piece),
        }
        Some(())
    }
}

/// A queue as the driver has set it up, and how far the device has got.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    pub(crate) is_packed: bool,
    pub(crate) size: u16,
    pub(crate) descriptors: u64,
    pub(crate) driver: u64,
    pub(crate) device: u64,
    available: u16,
    available_wrap: bool,
    pub(crate) used: u16,
    pub(crate) used_wrap: bool,
    /// What was made available and has not been returned.
    pub(crate) pending: Vec<Chain>,
    /// The ids of what was returned last.
    pub(crate) returned: Vec<u16>,
}

impl Ring {
    pub(crate) fn new(is_packed: bool, size: u16, [descriptors, driver, device]: [u64; 3]) -> Self {
        Self {
            is_packed,
            size,
            descriptors,
            driver,
            device,
            available: 0,
            available_wrap: true,
            used: 0,
            used_wrap: true,
            pending: Vec::new(),
            returned: Vec::new(),
        }
    }

    /// Takes what the driver has made available. `None` if that makes no sense.
    pub(crate) fn fetch(&mut self, memory: &Mapped) -> Option<()> {
        match self.is_packed {
            true => self.fetch_packed(memory),
            false => self.fetch_split(memory),
        }
    }

    fn fetch_split(&mut self, memory: &Mapped) -> Option<()> {
        let to = memory.u16(self.driver.wrapping_add(2))?;
        if to.wrapping_sub(self.available) > self.size {
            return None;
        }
        while self.available != to {
            let slot = u64::from(self.available % self.size);
            let head = memory.u16(self.driver.wrapping_add(4 + 2 * slot))?;
            let mut chain = Chain {
                id: head,
                descriptors: 1,
                ..Chain::default()
            };
            self.available = self.available.wrapping_add(1);
            split_chain(memory, self.descriptors, self.size, head, &mut chain)?;
            self.pending.push(chain);
        }
        Some(())
    }

    fn fetch_packed(&mut self, memory: &Mapped) -> Option<()> {
        for _ in 0..self.size {
            let Some(chain) = self.packed_chain(memory)? else {
                return Some(());
            };
            self.pending.push(chain);
        }
        Some(())
    }

    fn packed_chain(&mut self, memory: &Mapped) -> Option<Option<Chain>> {
        let (mut at, mut wrap) = (self.available, self.available_wrap);
        let mut chain = Chain::default();
        loop {
            let descriptor = descriptor(memory, self.descriptors, at)?;
            let flags = (descriptor[1] >> 48) as u16;
            let is_available = (flags & AVAIL != 0) == wrap && (flags & USED != 0) != wrap;
            if !is_available {
                // Later descriptors of a chain must be available with the first.
                return match chain.descriptors {
                    0 => Some(None),
                    _ => None,
                };
            }
            chain.descriptors += 1;
            chain.id = (descriptor[1] >> 32) as u16;
            (at, wrap) = advance(at, wrap, 1, self.size);
            if flags & INDIRECT != 0 {
                let count = descriptor[1] as u32 / 16;
                for i in 0..count {
                    let entry = descriptor_at(memory, descriptor[0], i.into())?;
                    chain.push(entry, (entry[1] >> 48) as u16)?;
                }
            } else {
                chain.push(descriptor, flags)?;
            }
            if flags & NEXT == 0 {
                (self.available, self.available_wrap) = (at, wrap);
                return Some(Some(chain));
            }
        }
    }

    /// Returns `id`, which took `descriptors` of the ring.
    pub(crate) fn put_used(&mut self, memory: &Mapped, id: u32, len: u32, descriptors: u16) {
        let _ = match self.is_packed {
            true => self.put_used_packed(memory, id as u16, len, descriptors, WRITE),
            false => {
                self.put_used_element(memory, id, len);
                memory.publish_u16(self.device.wrapping_add(2), self.used)
            }
        };
    }

    /// Writes an element of a split ring without publishing it.
    pub(crate) fn put_used_element(&mut self, memory: &Mapped, id: u32, len: u32) {
        let element = u64::from(id) | u64::from(len) << 32;
        let slot = u64::from(self.used % self.size);
        let _ = memory.publish_u64(self.device.wrapping_add(4 + 8 * slot), element);
        self.used = self.used.wrapping_add(1);
    }

    fn put_used_packed(
        &mut self,
        memory: &Mapped,
        id: u16,
        len: u32,
        descriptors: u16,
        flags: u16,
    ) -> Option<()> {
        let bits = if self.used_wrap { AVAIL | USED } else { 0 };
        let at = self.descriptors.wrapping_add(16 * u64::from(self.used) + 8);
        let half = u64::from(len) | u64::from(id) << 32 | u64::from(flags | bits) << 48;
        (self.used, self.used_wrap) =
            advance(self.used, self.used_wrap, descriptors.max(1), self.size);
        memory.publish_u64(at, half)
    }

    /// Writes the second half of the descriptor that is used next, as it comes.
    pub(crate) fn put_raw(&mut self, memory: &Mapped, half: u64) {
        let at = self.descriptors.wrapping_add(16 * u64::from(self.used) + 8);
        let _ = memory.publish_u64(at, half);
    }

    /// Lets the next used element stand for the first `count` pending requests: what it writes is
    /// the last of them only.
    pub(crate) fn put_batch(&mut self, memory: &Mapped, id: u32, len: u32, batch: &[Chain]) {
        if self.is_packed {
            let descriptors = batch.iter().map(|chain| chain.descriptors).sum();
            let _ = self.put_used_packed(memory, id as u16, len, descriptors, WRITE);
        } else {
            self.put_used_element(memory, id, len);
            self.used = self.used.wrapping_add(batch.len() as u16 - 1);
            let _ = memory.publish_u16(self.device.wrapping_add(2), self.used);
        }
    }
}

fn advance(at: u16, wrap: bool, count: u16, size: u16) -> (u16, bool) {
    let next = u32::from(at) + u32::from(count);
    let laps = next / u32::from(size);
    ((next % u32::from(size)) as u16, wrap ^ (laps % 2 == 1))
}

fn descriptor(memory: &Mapped, table: u64, index: u16) -> Option<[u64; 2]> {
    descriptor_at(memory, table, index.into())
}

fn descriptor_at(memory: &Mapped, table: u64, index: u64) -> Option<[u64; 2]> {
    let bytes: [u8; 16] = memory.read(table.checked_add(16 * index)?)?;
    let number = u128::from_le_bytes(bytes);
    Some([number as u64, (number >> 64) as u64])
}

fn split_chain(memory: &Mapped, table: u64, size: u16, head: u16, chain: &mut Chain) -> Option<()> {
    let mut at = head;
    loop {
        if at >= size {
            return None;
        }
        let entry = descriptor(memory, table, at)?;
        let (flags, next) = ((entry[1] >> 32) as u16, (entry[1] >> 48) as u16);
        if flags & INDIRECT != 0 {
            let count = (entry[1] as u32 / 16).min(u16::MAX.into()) as u16;
            if at != head || flags & NEXT != 0 || count > MOST_DESCRIPTORS as u16 {
                return None;
            }
            return indirect_chain(memory, entry[0], count, chain);
        }
        chain.push(entry, flags)?;
        if flags & NEXT == 0 {
            return Some(());
        }
        at = next;
    }
}

fn indirect_chain(memory: &Mapped, table: u64, count: u16, chain: &mut Chain) -> Option<()> {
    let mut at = 0;
    loop {
        if at >= count {
            return None;
        }
        let entry = descriptor(memory, table, at)?;
        let (flags, next) = ((entry[1] >> 32) as u16, (entry[1] >> 48) as u16);
        chain.push(entry, flags)?;
        if flags & NEXT == 0 {
            return Some(());
        }
        at = next;
    }
}

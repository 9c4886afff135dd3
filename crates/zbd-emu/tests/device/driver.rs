//! A driver of a few lines, written against the specification and not against the driver crate.

use std::{collections::VecDeque, sync::Arc};

use vfio_virtio::{Bar, Doorbell, EventFd, Iova, PciFunction, Width};
use zbd_emu::{Control, EmulatedConfig, EmulatedFunction, Stepper};

use crate::arena::Arena;

pub(crate) const BASE: u64 = 0x2_0000_0000;
const ARENA_BYTES: usize = 8 << 20;
const RING_BYTES: usize = 0x4_0000;
const AVAIL: usize = 0x1_0000;
const USED: usize = 0x2_0000;
/// Where a ring lies that is too large for its usual place.
const LARGE_RING: usize = 0x60_0000;
/// Where buffers begin.
pub(crate) const DATA: usize = 0x20_0000;

pub(crate) const ZONED: u64 = 1 << 17;
pub(crate) const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const ACCESS_PLATFORM: u64 = 1 << 33;
pub(crate) const PACKED: u64 = 1 << 34;
pub(crate) const IN_ORDER: u64 = 1 << 35;
pub(crate) const NOTIFICATION_DATA: u64 = 1 << 38;
pub(crate) const NOTIF_CONFIG_DATA: u64 = 1 << 39;
pub(crate) const RING_RESET: u64 = 1 << 40;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const TABLE: u16 = 4;

pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
pub(crate) const FLUSH: u32 = 4;
pub(crate) const GET_ID: u32 = 8;
pub(crate) const GET_LIFETIME: u32 = 10;
pub(crate) const DISCARD: u32 = 11;
pub(crate) const WRITE_ZEROES: u32 = 13;
pub(crate) const SECURE_ERASE: u32 = 14;
pub(crate) const APPEND: u32 = 15;
pub(crate) const REPORT: u32 = 16;
pub(crate) const OPEN: u32 = 18;
pub(crate) const CLOSE: u32 = 20;
pub(crate) const FINISH: u32 = 22;
pub(crate) const RESET: u32 = 24;
pub(crate) const RESET_ALL: u32 = 26;

/// A descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Desc {
    pub(crate) address: u64,
    pub(crate) len: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

impl Desc {
    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.flags.to_le_bytes());
        bytes[14..].copy_from_slice(&self.next.to_le_bytes());
        bytes
    }

    /// In the format of packed rings, with `next` as the buffer id.
    pub(crate) fn packed_bytes(self) -> [u8; 16] {
        let mut bytes = self.bytes();
        bytes[12..14].copy_from_slice(&self.next.to_le_bytes());
        bytes[14..].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u8,
    /// Everything that the device could write, status included.
    pub(crate) bytes: Vec<u8>,
    pub(crate) used_len: u32,
}

impl Indices {
    /// Removes what the used element of `id` stands for: with order everything up to it.
    fn retire(&mut self, id: u32, in_order: bool) -> Vec<(u16, u16)> {
        let Some(at) = self
            .outstanding
            .iter()
            .position(|(other, _)| u32::from(*other) == id)
        else {
            return Vec::new();
        };
        let first = if in_order { 0 } else { at };
        self.outstanding.drain(first..=at).collect()
    }
}

impl Answer {
    /// `append_sector` of the answer to an append.
    pub(crate) fn sector(&self) -> u64 {
        let at = self.bytes.len() - 9;
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }
}

/// A queue on the driver's side.
#[derive(Clone, Debug)]
pub(crate) struct Indices {
    pub(crate) size: u16,
    /// Indices that run freely in a split ring, places in a packed one.
    pub(crate) avail: u16,
    pub(crate) used: u16,
    /// The wrap counters of a packed ring at these places.
    pub(crate) avail_wrap: bool,
    pub(crate) used_wrap: bool,
    /// The next descriptor of a split ring.
    next_desc: u16,
    next_id: u16,
    /// What was submitted and is not used yet, by id, with its number of descriptors.
    pub(crate) outstanding: VecDeque<(u16, u16)>,
}

/// How the buffers of a request are described.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// By as many descriptors.
    Direct,
    /// By a table at this offset of the arena.
    Indirect(usize),
}

/// A device with a driver on it.
pub(crate) struct Rig {
    pub(crate) function: EmulatedFunction,
    pub(crate) stepper: Option<Stepper>,
    pub(crate) control: Control,
    pub(crate) bar: Arc<dyn Bar>,
    pub(crate) arena: Arena,
    pub(crate) doorbells: Vec<Box<dyn Doorbell>>,
    pub(crate) events: Vec<EventFd>,
    pub(crate) queues: Vec<Indices>,
    pub(crate) features: u64,
    /// How `request` describes its buffers.
    pub(crate) shape: Shape,
}

pub(crate) fn config(options: &str) -> EmulatedConfig {
    options.parse().unwrap()
}

impl Rig {
    /// A stepped device on which nothing has been negotiated yet.
    pub(crate) fn bare(options: &str) -> Self {
        let (function, stepper) = EmulatedFunction::stepped(&config(options)).unwrap();
        Self::around(function, Some(stepper))
    }

    fn around(function: EmulatedFunction, stepper: Option<Stepper>) -> Self {
        let arena = Arena::new(ARENA_BYTES);
        function.map_dma(Iova(BASE), arena.memory()).unwrap();
        let events: Vec<_> = (0..function.msix_vectors())
            .map(|_| EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap())
            .collect();
        if !events.is_empty() {
            function.enable_msix(&events).unwrap();
        }
        Self {
            control: function.control(),
            bar: function.open_bar(4).unwrap(),
            function,
            stepper,
            arena,
            doorbells: Vec::new(),
            events,
            queues: Vec::new(),
            features: 0,
            shape: Shape::Direct,
        }
    }

    /// A stepped device, ready for requests, with every feature that it offers.
    pub(crate) fn ready(options: &str) -> Self {
        let mut rig = Self::bare(options);
        rig.start(u64::MAX);
        rig
    }

    /// A device with its own thread, ready for requests.
    pub(crate) fn threaded(options: &str) -> Self {
        let function = EmulatedFunction::new(&config(options)).unwrap();
        let mut rig = Self::around(function, None);
        rig.start(u64::MAX);
        rig
    }

    pub(crate) fn read(&self, offset: u64, width: Width) -> u32 {
        self.bar.read(offset, width).unwrap()
    }

    pub(crate) fn write(&self, offset: u64, width: Width, value: u32) {
        self.bar.write(offset, width, value).unwrap();
    }

    pub(crate) fn status(&self) -> u8 {
        self.read(0x14, Width::Byte) as u8
    }

    pub(crate) fn set_status(&self, status: u8) {
        self.write(0x14, Width::Byte, status.into());
    }

    pub(crate) fn offered(&self) -> u64 {
        let half = |select| {
            self.write(0, Width::Long, select);
            u64::from(self.read(4, Width::Long))
        };
        half(0) | half(1) << 32
    }

    /// Accepts `features` and reports whether the device kept FEATURES_OK.
    pub(crate) fn negotiate(&mut self, features: u64) -> bool {
        self.set_status(0);
        assert_eq!(self.status(), 0);
        self.set_status(1);
        self.set_status(3);
        for select in [0, 1] {
            self.write(8, Width::Long, select);
            self.write(12, Width::Long, (features >> (32 * select)) as u32);
        }
        self.set_status(3 | 8);
        self.features = features;
        self.status() & 8 != 0
    }

    /// Negotiates what of `wanted` is offered, sets all queues up and starts the device.
    pub(crate) fn start(&mut self, wanted: u64) {
        let features = self.offered() & wanted;
        assert!(self.negotiate(features));
        self.write(0x10, Width::Word, 0);
        let vector = if self.events.is_empty() { 0xffff } else { 0 };
        assert_eq!(self.read(0x10, Width::Word), vector);
        let queues = self.read(0x12, Width::Word) as u16;
        self.queues.clear();
        self.doorbells.clear();
        for queue in 0..queues {
            self.enable(queue);
            let offset = 0x3000 + 4 * u64::from(queue);
            let width = match self.features & NOTIFICATION_DATA {
                0 => Width::Word,
                _ => Width::Long,
            };
            self.doorbells
                .push(Arc::clone(&self.bar).doorbell(offset, width).unwrap());
        }
        self.set_status(3 | 8 | 4);
    }

    /// Sets a queue up in fresh memory.
    pub(crate) fn enable(&mut self, queue: u16) {
        self.write(0x16, Width::Word, queue.into());
        let size = self.read(0x18, Width::Word) as u16;
        let rings = usize::from(queue) * RING_BYTES;
        let parts = if size <= 4096 {
            self.arena.write(rings, &vec![0; RING_BYTES]);
            [rings, rings + AVAIL, rings + USED]
        } else {
            assert!(queue == 0 && self.is_packed());
            self.arena
                .write(LARGE_RING, &vec![0; 16 * usize::from(size)]);
            self.arena.write(rings, &vec![0; RING_BYTES]);
            [LARGE_RING, rings + AVAIL, rings + USED]
        };
        assert_eq!(self.read(0x1e, Width::Word), u32::from(queue));
        self.write(0x1a, Width::Word, u32::from(queue) + 1);
        for (register, part) in [0x20, 0x28, 0x30].into_iter().zip(parts) {
            let address = BASE + part as u64;
            self.write(register, Width::Long, address as u32);
            self.write(register + 4, Width::Long, (address >> 32) as u32);
        }
        self.write(0x1c, Width::Word, 1);
        assert_eq!(self.read(0x1c, Width::Word), 1);
        let indices = Indices {
            size,
            avail: 0,
            used: 0,
            avail_wrap: true,
            used_wrap: true,
            next_desc: 0,
            next_id: 0,
            outstanding: VecDeque::new(),
        };
        match self.queues.get_mut(usize::from(queue)) {
            Some(slot) => *slot = indices,
            None => self.queues.push(indices),
        }
    }

    pub(crate) fn set_desc(&self, queue: u16, index: u16, desc: Desc) {
        let at = usize::from(queue) * RING_BYTES + 16 * usize::from(index);
        self.arena.write(at, &desc.bytes());
    }

    /// Makes the chain at `head` available, without saying so.
    pub(crate) fn offer(&mut self, queue: u16, head: u16) {
        let indices = &mut self.queues[usize::from(queue)];
        let ring = usize::from(queue) * RING_BYTES + AVAIL;
        let slot = usize::from(indices.avail % indices.size);
        self.arena.store(ring + 4 + 2 * slot, head);
        indices.avail = indices.avail.wrapping_add(1);
        self.arena.store(ring + 2, indices.avail);
    }

    pub(crate) fn set_avail_index(&self, queue: u16, index: u16) {
        self.arena
            .store(usize::from(queue) * RING_BYTES + AVAIL + 2, index);
    }

    pub(crate) fn set_avail_flags(&self, queue: u16, flags: u16) {
        self.arena
            .store(usize::from(queue) * RING_BYTES + AVAIL, flags);
    }

    pub(crate) fn set_used_event(&self, queue: u16, event: u16) {
        let size = usize::from(self.queues[usize::from(queue)].size);
        let at = usize::from(queue) * RING_BYTES + AVAIL + 4 + 2 * size;
        self.arena.store(at, event);
    }

    pub(crate) fn avail_event(&self, queue: u16) -> u16 {
        let size = usize::from(self.queues[usize::from(queue)].size);
        self.arena
            .load(usize::from(queue) * RING_BYTES + USED + 4 + 8 * size)
    }

    pub(crate) fn used_flags(&self, queue: u16) -> u16 {
        self.arena.load(usize::from(queue) * RING_BYTES + USED)
    }

    pub(crate) fn used_index(&self, queue: u16) -> u16 {
        self.arena.load(usize::from(queue) * RING_BYTES + USED + 2)
    }

    /// What a notification of `queue` says.
    pub(crate) fn notification(&self, queue: u16) -> u32 {
        let indices = &self.queues[usize::from(queue)];
        let low = match self.features & NOTIF_CONFIG_DATA {
            0 => u32::from(queue),
            _ => {
                self.write(0x16, Width::Word, queue.into());
                self.read(0x38, Width::Word)
            }
        };
        let wrap = self.is_packed() && indices.avail_wrap;
        match self.features & NOTIFICATION_DATA {
            0 => low,
            _ => low | u32::from(indices.avail) << 16 | u32::from(wrap) << 31,
        }
    }

    pub(crate) fn kick(&self, queue: u16) {
        self.doorbells[usize::from(queue)].ring(self.notification(queue));
    }

    /// The next used element, id and length.
    pub(crate) fn take_used(&mut self, queue: u16) -> Option<(u32, u32)> {
        if self.is_packed() {
            return self.take_used_packed(queue);
        }
        let ready = self.used_index(queue);
        let in_order = self.features & IN_ORDER != 0;
        let indices = &mut self.queues[usize::from(queue)];
        if ready == indices.used {
            return None;
        }
        let slot = usize::from(indices.used % indices.size);
        let at = usize::from(queue) * RING_BYTES + USED + 4 + 8 * slot;
        let bytes = self.arena.read(at, 8);
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let (id, len) = (word(0), word(4));
        let batch = indices.retire(id, in_order).len() as u16;
        indices.used = indices.used.wrapping_add(batch.max(1));
        Some((id, len))
    }

    fn take_used_packed(&mut self, queue: u16) -> Option<(u32, u32)> {
        let in_order = self.features & IN_ORDER != 0;
        let indices = &mut self.queues[usize::from(queue)];
        let ring = match indices.size {
            0..=4096 => usize::from(queue) * RING_BYTES,
            _ => LARGE_RING,
        };
        let at = ring + 16 * usize::from(indices.used);
        let flags = self.arena.load(at + 14);
        let expected = if indices.used_wrap { 0x8080 } else { 0 };
        if flags & 0x8080 != expected || indices.outstanding.is_empty() {
            return None;
        }
        let bytes = self.arena.read(at + 8, 6);
        let len = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        let id = u16::from_le_bytes(bytes[4..].try_into().unwrap());
        assert_eq!(flags & WRITE != 0, len != 0);
        let retired = indices.retire(id.into(), in_order);
        assert!(!retired.is_empty(), "{id} is not in flight");
        let slots: u32 = retired.iter().map(|(_, slots)| u32::from(*slots)).sum();
        let used = u32::from(indices.used) + slots;
        indices.used = (used % u32::from(indices.size)) as u16;
        indices.used_wrap ^= used >= u32::from(indices.size);
        Some((id.into(), len))
    }

    pub(crate) fn is_packed(&self) -> bool {
        self.features & PACKED != 0
    }

    /// Makes a request available whose buffers are given as offset, length and WRITE or 0, in
    /// whatever format was negotiated. Its id.
    pub(crate) fn submit(&mut self, queue: u16, parts: &[(usize, u32, u16)], shape: Shape) -> u16 {
        let packed = self.is_packed();
        let descs: Vec<Desc> = parts
            .iter()
            .enumerate()
            .map(|(i, (offset, len, flags))| {
                let more = i + 1 < parts.len();
                // In an indirect table of a packed ring only WRITE means anything.
                let next = more && !(packed && shape != Shape::Direct);
                Desc {
                    address: BASE + *offset as u64,
                    len: *len,
                    flags: flags | if next { NEXT } else { 0 },
                    next: i as u16 + 1,
                }
            })
            .collect();
        let descs = match shape {
            Shape::Direct => descs,
            Shape::Indirect(at) => {
                for (i, desc) in descs.iter().enumerate() {
                    let bytes = match packed {
                        true => desc.packed_bytes(),
                        false => desc.bytes(),
                    };
                    self.arena.write(at + 16 * i, &bytes);
                }
                vec![Desc {
                    address: BASE + at as u64,
                    len: 16 * descs.len() as u32,
                    flags: TABLE,
                    next: 0,
                }]
            }
        };
        if packed {
            return self.submit_packed(queue, &descs);
        }
        let indices = &mut self.queues[usize::from(queue)];
        let (size, head) = (indices.size, indices.next_desc);
        indices.next_desc = (head + descs.len() as u16) % size;
        indices.outstanding.push_back((head, descs.len() as u16));
        for (i, desc) in descs.into_iter().enumerate() {
            let index = (head + i as u16) % size;
            let next = (index + 1) % size;
            self.set_desc(queue, index, Desc { next, ..desc });
        }
        self.offer(queue, head);
        head
    }

    /// Puts a chain into a packed ring, the flags of its first descriptor last.
    pub(crate) fn submit_packed(&mut self, queue: u16, descs: &[Desc]) -> u16 {
        let indices = &mut self.queues[usize::from(queue)];
        let ring = match indices.size {
            0..=4096 => usize::from(queue) * RING_BYTES,
            _ => LARGE_RING,
        };
        let id = indices.next_id;
        // Ids of no particular range: they are the driver's own.
        indices.next_id = id.wrapping_add(0x1235);
        indices.outstanding.push_back((id, descs.len() as u16));
        let mut first = None;
        for desc in descs {
            let at = ring + 16 * usize::from(indices.avail);
            let lap = if indices.avail_wrap { 0x80 } else { 0x8000 };
            let bytes = Desc { next: id, ..*desc }.packed_bytes();
            self.arena.write(at, &bytes[..14]);
            if first.is_none() {
                first = Some((at + 14, desc.flags | lap));
            } else {
                self.arena.store(at + 14, desc.flags | lap);
            }
            indices.avail += 1;
            if indices.avail == indices.size {
                indices.avail = 0;
                indices.avail_wrap = !indices.avail_wrap;
            }
        }
        let (at, flags) = first.unwrap();
        self.arena.store(at, flags);
        id
    }

    /// The device event suppression structure of a packed ring: flags, place and wrap counter.
    pub(crate) fn device_event(&self, queue: u16) -> (u16, u16, bool) {
        let at = usize::from(queue) * RING_BYTES + USED;
        let desc = self.arena.load(at);
        (self.arena.load(at + 2), desc & 0x7fff, desc >> 15 != 0)
    }

    /// Writes the driver event suppression structure of a packed ring.
    pub(crate) fn set_driver_event(&self, queue: u16, flags: u16, place: u16, wrap: bool) {
        let at = usize::from(queue) * RING_BYTES + AVAIL;
        self.arena.store(at, place | u16::from(wrap) << 15);
        self.arena.store(at + 2, flags);
    }

    pub(crate) fn step(&mut self) {
        if let Some(stepper) = &mut self.stepper {
            stepper.run_until_idle();
        }
    }

    /// Writes a header at `offset` of the arena.
    pub(crate) fn put_header(&self, offset: usize, kind: u32, sector: u64) {
        let mut header = [0; 16];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..].copy_from_slice(&sector.to_le_bytes());
        self.arena.write(offset, &header);
    }

    /// Lays a request out from descriptor `first` on, each part in a buffer of its own.
    pub(crate) fn lay_out(&self, queue: u16, first: u16, data: usize, out: u32, writable: &[u32]) {
        let mut parts = vec![(0, 16, 0)];
        if out > 0 {
            parts.push((16, out, 0));
        }
        let mut at = 16 + out as usize;
        for len in writable {
            parts.push((at, *len, WRITE));
            at += *len as usize;
        }
        let last = parts.len() - 1;
        for (i, (offset, len, flags)) in parts.into_iter().enumerate() {
            let index = first + i as u16;
            self.set_desc(
                queue,
                index,
                Desc {
                    address: BASE + (data + offset) as u64,
                    len,
                    flags: flags | if i < last { NEXT } else { 0 },
                    next: index + 1,
                },
            );
        }
    }

    /// One request on queue 0 from beginning to end.
    pub(crate) fn request(&mut self, kind: u32, sector: u64, out: &[u8], data_in: u32) -> Answer {
        self.put_header(DATA, kind, sector);
        self.arena.write(DATA + 16, out);
        let writable: Vec<u32> = match (kind, data_in) {
            (APPEND, 0) => vec![9],
            (_, 0) => vec![1],
            _ => vec![data_in, 1],
        };
        let total: u32 = writable.iter().sum();
        let answer = DATA + 16 + out.len();
        self.arena.write(answer, &vec![0xaa; total as usize]);
        let mut parts = vec![(DATA, 16, 0)];
        if !out.is_empty() {
            parts.push((DATA + 16, out.len() as u32, 0));
        }
        let mut at = answer;
        for len in writable {
            parts.push((at, len, WRITE));
            at += len as usize;
        }
        let id = self.submit(0, &parts, self.shape);
        self.kick(0);
        self.step();
        let (used, used_len) = self.wait_used(0);
        assert_eq!(used, u32::from(id));
        let bytes = self.arena.read(answer, total as usize);
        Answer {
            status: bytes[bytes.len() - 1],
            bytes,
            used_len,
        }
    }

    /// The next used element, waited for where the device has a thread.
    pub(crate) fn wait_used(&mut self, queue: u16) -> (u32, u32) {
        let mut patience = 10_000;
        loop {
            if let Some(used) = self.take_used(queue) {
                return used;
            }
            patience -= 1;
            assert!(patience > 0, "no answer: {:?}", self.control.broken());
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
    }

    /// The status of a request without data.
    pub(crate) fn command(&mut self, kind: u32, sector: u64) -> u8 {
        self.request(kind, sector, &[], 0).status
    }

    /// Whether interrupt vector `vector` came since the last call.
    pub(crate) fn interrupted(&self, vector: usize) -> bool {
        self.events[vector].read().is_ok()
    }

    /// Offers a request as it lies at descriptor 0 and checks that the device gives up.
    pub(crate) fn breaks_with(&mut self, head: u16) -> &'static str {
        self.offer(0, head);
        self.kick(0);
        self.step();
        assert_eq!(self.status() & 64, 64);
        assert!(self.interrupted(0));
        assert_eq!(self.used_index(0), 0);
        self.control.broken().unwrap()
    }
}

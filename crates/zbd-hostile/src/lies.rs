//! What the device does next.

use crate::{answer::Flaw, configuration::Lies, device::Device, ring::Ring};

/// So much of reporting is done for a driver that asks for one report after the other.
const MOST_EFFORT: u64 = 64;
/// So many times a device whose script has ended is asked to do something before it fails.
const MOST_STEPS_AFTER_THE_END: u64 = 8;

impl Device {
    /// Does the next thing, with one of its rings.
    pub(crate) fn step(&mut self) {
        if self.is_gone {
            return;
        }
        if self.script.is_empty() && self.lies != Lies::Nowhere {
            self.effort += MOST_EFFORT / MOST_STEPS_AFTER_THE_END;
        }
        if self.effort > MOST_EFFORT {
            self.fail();
            return;
        }
        for index in 0..self.rings.len() {
            // Taken out for the step, so that the ring and the device can be used together.
            if let Some(mut ring) = self.rings[index].take() {
                let makes_sense = ring.fetch(&self.memory).is_some();
                assert!(
                    makes_sense || !self.is_faithful,
                    "the driver's ring makes no sense: {ring:?}"
                );
                self.use_ring(&mut ring);
                self.rings[index] = Some(ring);
            }
        }
    }

    fn use_ring(&mut self, ring: &mut Ring) {
        if ring.returned.len() > 32 {
            ring.returned.drain(..16);
        }
        match self.lies {
            Lies::Nowhere => {
                while !ring.pending.is_empty() {
                    self.return_one(ring, 0, self.flaw, |len| len);
                }
            }
            _ => match self.script.u8() {
                0..96 => self.return_all(ring),
                96..128 => self.return_one(ring, 0, Flaw::None, |len| len),
                128..152 => {
                    let index = self.script.below(ring.pending.len());
                    self.return_one(ring, index, Flaw::None, |len| len);
                }
                152..160 => {}
                160..180 => {
                    let flaw = self.some_flaw();
                    let index = self.script.below(ring.pending.len());
                    self.return_one(ring, index, flaw, |len| len);
                }
                180.. => self.lie(ring),
            },
        }
    }

    fn some_flaw(&self) -> Flaw {
        match self.script.below(8) {
            0 => Flaw::Status(self.script.u8() % 8),
            1 => Flaw::Status(self.script.u8()),
            2 => Flaw::NoStatus,
            3 => Flaw::Value(self.script.number(0)),
            4 => Flaw::Value(self.script.u8().into()),
            5 => Flaw::NoValue,
            6 => Flaw::NoData,
            _ => Flaw::Report,
        }
    }

    fn return_all(&mut self, ring: &mut Ring) {
        while !ring.pending.is_empty() {
            self.return_one(ring, 0, Flaw::None, |len| len);
        }
    }

    /// Returns the pending request at `index` with an answer, and the length that `len` makes of the
    /// true one.
    fn return_one(
        &mut self,
        ring: &mut Ring,
        index: usize,
        flaw: Flaw,
        len: impl FnOnce(u32) -> u32,
    ) {
        if index >= ring.pending.len() {
            return;
        }
        let chain = ring.pending[index].clone();
        let written = len(self.answer_chain(&chain, flaw));
        let id = chain.id.into();
        ring.returned.push(chain.id);
        if !self.keeps_order {
            ring.pending.remove(index);
            ring.put_used(&self.memory, id, written, chain.descriptors);
            return;
        }
        // In order, those before it have been returned with it. An index of a split ring says how
        // many that are, and says it wrongly here.
        let batch: Vec<_> = ring.pending.drain(..=index).collect();
        match ring.is_packed {
            true => ring.put_batch(&self.memory, id, written, &batch),
            false => ring.put_used(&self.memory, id, written, chain.descriptors),
        }
    }

    fn lie(&mut self, ring: &mut Ring) {
        let script = self.script.clone();
        let index = script.below(ring.pending.len());
        match script.below(18) {
            // An id out of range, one that is free, one that is in flight and not answered.
            0 => {
                let id = script.number(ring.size.into()) as u32;
                self.return_raw(ring, id, script.u8().into(), 1);
            }
            1 => {
                let id = script.below(usize::from(ring.size)) as u32;
                self.return_raw(ring, id, script.u8().into(), 1);
            }
            // One that has been returned before.
            2 => {
                let again = script.below(ring.returned.len());
                if let Some(id) = ring.returned.iter().rev().nth(again).copied() {
                    let count = script.below(4) as u16;
                    self.return_raw(ring, id.into(), script.u8().into(), count);
                }
            }
            // A length that is not the true one.
            3 => self.return_one(ring, index, Flaw::None, |len| {
                script.number(len.into()) as u32
            }),
            4 => self.return_one(ring, index, Flaw::None, |len| len.wrapping_add(1)),
            // The same one twice.
            5 => {
                if let Some(id) = ring.pending.get(index).map(|chain| chain.id) {
                    self.return_one(ring, index, Flaw::None, |len| len);
                    self.return_raw(ring, id.into(), 1, 1);
                }
            }
            // An index that jumps, or a descriptor of a packed ring that is anything.
            6 => {
                self.is_faithful = false;
                if ring.is_packed {
                    ring.put_raw(&self.memory, script.u64());
                } else {
                    ring.used = script.number(ring.used.into()) as u16;
                    let _ = self
                        .memory
                        .publish_u16(ring.device.wrapping_add(2), ring.used);
                }
            }
            7 => self.return_batch(ring),
            8 => {
                let flaw = self.some_flaw();
                self.return_batch_with(ring, flaw);
            }
            // The lap of a packed ring that it is not, or elements that are not published.
            9 => {
                self.is_faithful = false;
                if ring.is_packed {
                    ring.used_wrap = !ring.used_wrap;
                } else {
                    ring.put_used_element(&self.memory, script.u8().into(), 1);
                }
            }
            // Whatever it has been asked for, all of it with something wrong.
            10 => {
                while !ring.pending.is_empty() {
                    let flaw = self.some_flaw();
                    self.return_one(ring, 0, flaw, |len| len);
                }
            }
            11 => self.scribble(ring),
            12 => self.fail(),
            13 => self.is_gone = self.lies == Lies::Everywhere,
            // When it wants to be notified.
            14 => {
                let at = match ring.is_packed {
                    true => ring.device,
                    false if script.once_in(2) => ring.device,
                    false => ring.device.wrapping_add(4 + 8 * u64::from(ring.size)),
                };
                let _ = self.memory.write(at, &script.u16().to_le_bytes());
                if ring.is_packed {
                    let _ = self
                        .memory
                        .write(at.wrapping_add(2), &script.u16().to_le_bytes());
                }
            }
            15 => self.interrupt(),
            16 => {
                if self.lies == Lies::Everywhere {
                    self.change_configuration();
                    self.interrupt();
                }
            }
            // An answer that is true, without saying so.
            _ => {
                if index < ring.pending.len() {
                    let chain = ring.pending[index].clone();
                    self.answer_chain(&chain, Flaw::None);
                }
            }
        }
    }

    /// Returns what may or may not be in flight. The device does not touch it any more, so that what
    /// the driver finds there is what was answered before.
    fn return_raw(&mut self, ring: &mut Ring, id: u32, len: u32, descriptors: u16) {
        let returned = ring
            .pending
            .iter()
            .position(|chain| u32::from(chain.id) == id);
        match returned {
            Some(last) if self.keeps_order => drop(ring.pending.drain(..=last)),
            Some(index) => drop(ring.pending.remove(index)),
            None => {}
        }
        // In a packed ring, that may be where the driver has put a descriptor that it has not shown
        // yet; in a split one, what it has shown may end and be overwritten before the device has
        // looked at it.
        self.is_faithful = false;
        ring.put_used(&self.memory, id, len, descriptors);
    }

    fn return_batch(&mut self, ring: &mut Ring) {
        self.return_batch_with(ring, Flaw::None);
    }

    /// Returns some requests with one used element, as a device that keeps the order may, and others
    /// may not. Some are not answered if there is a flaw.
    fn return_batch_with(&mut self, ring: &mut Ring, flaw: Flaw) {
        let most = ring.pending.len();
        let count = self.script.below(most) + 1;
        if count > most {
            return;
        }
        if !self.keeps_order {
            // The driver will find old elements behind the one that is written.
            self.is_faithful = false;
        }
        let batch: Vec<_> = ring.pending.drain(..count).collect();
        let mut written = 0;
        let is_sound = flaw == Flaw::None;
        for chain in &batch {
            if is_sound || self.script.once_in(2) {
                written = self.answer_chain(chain, flaw);
            }
        }
        let id = batch.last().map_or(0, |chain| chain.id);
        ring.put_batch(&self.memory, id.into(), written, &batch);
        ring.returned.extend(batch.iter().map(|chain| chain.id));
    }

    /// Writes where it was not asked to.
    fn scribble(&mut self, ring: &Ring) {
        self.is_faithful = false;
        let Some((start, len)) = self.memory.first() else {
            return;
        };
        for _ in 0..=self.script.below(8) {
            let at = match self.script.below(6) {
                // The start of the arena, where the rings mostly are, or anywhere.
                0 => start + u64::from(self.script.u16()) % len,
                1 => start + u64::from(self.script.u32()) % len,
                2 => ring.descriptors.wrapping_add(self.script.u8().into()),
                3 => ring.driver.wrapping_add(self.script.u8().into()),
                4 => ring.device.wrapping_add(self.script.u8().into()),
                _ => ring
                    .descriptors
                    .wrapping_add((self.script.u16() % 0x2000).into()),
            };
            let _ = self.memory.write(at, &self.script.u64().to_le_bytes());
        }
    }
}

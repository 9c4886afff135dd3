//! The end of requests that the device will not return, and a queue's new life after a reset.

use std::{mem, sync::Arc};

use super::{FREE, NO_SLOT, QueueMemory, Virtqueue};
use crate::{DmaBuffer, Result};

/// A request that a reset has ended. Whether the device carried it out is not known.
#[derive(Debug)]
pub struct Ended<C> {
    /// What the request was pushed with.
    pub context: C,
    /// The data buffer.
    pub buffer: Option<DmaBuffer>,
}

impl<C: Copy + Default> Virtqueue<C> {
    /// Ends the requests that the device will not return, and yields their contexts without their
    /// memory: that stays with the device until its reset. Nothing can be pushed from then on
    /// until the queue is [renewed](Self::renew).
    pub fn abandon(&mut self) -> Vec<C> {
        let in_flight = self.slots.iter().filter(|slot| slot.position != FREE);
        let contexts = in_flight.map(|slot| slot.context).collect();
        self.leave();
        contexts
    }

    /// The contexts of the requests in flight.
    pub fn contexts_mut(&mut self) -> impl Iterator<Item = &mut C> {
        self.slots
            .iter_mut()
            .filter(|slot| slot.position != FREE)
            .map(|slot| &mut slot.context)
    }

    /// Whether the device, or this queue of it, has been reset since it was set up: then nothing
    /// more comes back, besides what had been returned before.
    pub fn is_stale(&self) -> bool {
        self.core.life(self.index) != self.life
    }

    /// After a reset, ends the requests that the device has not returned and takes up the queue's
    /// new life. Their buffers come back: a device that has been reset uses no memory. What the
    /// device had returned before is lost unless it was [popped](Self::pop) first.
    ///
    /// Does nothing if the queue is not [stale](Self::is_stale).
    ///
    /// The result says whether the device could be set up again. If not, the queue has ended.
    pub fn renew(&mut self) -> (Vec<Ended<C>>, Result<()>) {
        if !self.is_stale() {
            return (Vec::new(), Ok(()));
        }
        let in_flight = self.slots.iter_mut().filter(|slot| slot.position != FREE);
        let ended = in_flight
            .map(|slot| Ended {
                context: slot.context,
                buffer: slot.buffer.take(),
            })
            .collect();
        let (life, setup) = self.core.new_life(self.index);
        let (memory, notification) = match setup {
            Ok(setup) => setup,
            Err(error) => {
                self.life = life;
                self.leave();
                return (ended, Err(error));
            }
        };
        let core = Arc::clone(&self.core);
        let interrupt = self.interrupt.take();
        let doorbells = self.doorbells;
        let fresh = Self::new(core, memory, self.index, notification, interrupt);
        let mut old = mem::replace(self, fresh);
        self.life = life;
        self.doorbells = doorbells;
        // The device knows none of this any more.
        let memory = mem::replace(&mut old.memory, QueueMemory::none());
        self.core.keep(self.index, memory);
        old.wide.take_tables().for_each(drop);
        (ended, Ok(()))
    }
}

impl<C> Virtqueue<C> {
    /// Nothing more is taken from the ring, because nothing counts as pushed; nothing more is put
    /// into it; and what the device has not been shown, it will not be.
    pub(super) fn end(&mut self) {
        self.free = NO_SLOT;
        self.wide.end();
        self.returned = 0;
        self.published = 0;
        self.pushed = 0;
        self.popped = 0;
    }

    /// Leaves the requests that the device will not return to it, with their memory, until its
    /// reset. Nothing can be pushed from then on.
    pub(super) fn leave(&mut self) {
        self.end();
        for slot in &mut self.slots {
            slot.position = FREE;
            if let Some(buffer) = slot.buffer.take() {
                self.core.abandon(Box::new(buffer));
            }
        }
    }
}

impl<C> Drop for Virtqueue<C> {
    fn drop(&mut self) {
        // The rings stay known to the device until its reset even when nothing is in flight, and
        // so do tables.
        let rings = self.memory.take_buffer();
        if rings.is_some() {
            self.core.retire(self.index);
        }
        self.core.abandon(Box::new(rings));
        for table in self.wide.take_tables() {
            self.core.abandon(Box::new(table));
        }
        self.leave();
    }
}

//! What the parts of a running device share, and its life from reset to reset.

use std::{
    any::Any,
    iter, mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::watch::{Notices, Watch};
use crate::{
    DmaArena, Error, ErrorKind, Features, HostMemory, PciFunction, Result, Width,
    queue::{Format, QueueMemory},
    transport::{Notification, Transport, status},
};

/// What the device, its handle and its queues share; the last of them to go resets the device.
pub(crate) struct Core {
    pub(super) transport: Transport,
    pub(super) function: Arc<dyn PciFunction>,
    pub(super) arena: DmaArena,
    pub(super) features: Features,
    pub(super) notices: Arc<Notices>,
    /// The vector that announces changes of the configuration.
    pub(super) config_vector: OnceLock<Option<u16>>,
    /// The thread that waits for events, if there are any to wait for.
    pub(super) watch: OnceLock<Watch>,
    /// The queues. Whoever sets up or resets a queue or the device holds this lock.
    queues: Mutex<Vec<QueueLife>>,
    /// What was written into the configuration, by offset. Changed with `queues` locked.
    written: Mutex<Vec<(u64, u8)>>,
    /// Memory of others that was mapped for the device while it was open.
    registered: Mutex<Vec<DmaArena>>,
    /// Memory that the device may still use though its owner has gone. Freed by a reset only.
    abandoned: Mutex<Vec<Box<dyn Any + Send>>>,
}

/// A queue, from reset to reset.
struct QueueLife {
    size: u16,
    vector: Option<u16>,
    /// How often it has been set up.
    number: u32,
    /// What was set up and is still to be taken up by the queue's owner.
    next: Option<Result<Setup, (ErrorKind, String)>>,
    /// Memory for the next life, so that a device can be recovered when all other memory is in use:
    /// then above all may it have to be.
    spare: Option<QueueMemory>,
    /// Whether it has no owner any more.
    is_retired: bool,
}

impl QueueLife {
    /// After a reset: what was set up before and never taken up serves the next life.
    fn reclaim(&mut self) {
        if let Some(Ok((memory, _))) = self.next.take() {
            self.spare.get_or_insert(memory);
        }
    }
}

/// The memory of a queue that the device knows, and the way to notify it.
pub(crate) type Setup = (QueueMemory, Notification);

impl Core {
    pub(super) fn new(
        transport: Transport,
        function: Arc<dyn PciFunction>,
        arena: DmaArena,
        features: Features,
    ) -> Self {
        Self {
            transport,
            function,
            arena,
            features,
            notices: Arc::default(),
            config_vector: OnceLock::new(),
            watch: OnceLock::new(),
            queues: Mutex::default(),
            written: Mutex::default(),
            registered: Mutex::default(),
            abandoned: Mutex::default(),
        }
    }

    /// Keeps `memory` until the device has been reset.
    pub(crate) fn abandon(&self, memory: Box<dyn Any + Send>) {
        lock(&self.abandoned).push(memory);
    }

    #[inline]
    pub(crate) fn arena(&self) -> &DmaArena {
        &self.arena
    }

    /// Maps `memory` for the device, for as long as it is open.
    pub(super) fn register(&self, memory: HostMemory) -> Result<DmaArena> {
        // Held until it is in the list, for two must not be given the same place.
        let mut registered = lock(&self.registered);
        let mapped: Vec<_> = iter::once(&self.arena).chain(&*registered).collect();
        let arena = DmaArena::register(&*self.function, memory, &mapped)?;
        registered.push(arena.clone());
        Ok(arena)
    }

    pub(crate) fn features(&self) -> Features {
        self.features
    }

    pub(crate) fn format(&self) -> Format {
        match self.features.contains(Features::RING_PACKED) {
            true => Format::Packed,
            false => Format::Split,
        }
    }

    /// How often queue `index` has been set up.
    pub(crate) fn life(&self, index: u16) -> u32 {
        let queues = self.queues();
        queues.get(usize::from(index)).map_or(0, |q| q.number)
    }

    /// Queue `index` has no owner any more: it is not set up again.
    pub(crate) fn retire(&self, index: u16) {
        if let Some(queue) = self.queues().get_mut(usize::from(index)) {
            queue.is_retired = true;
        }
    }

    /// Keeps memory of queue `index` that the device does not know any more for its next life.
    pub(crate) fn keep(&self, index: u16, memory: QueueMemory) {
        if let Some(queue) = self.queues().get_mut(usize::from(index)) {
            queue.spare.get_or_insert(memory);
        }
    }

    /// What queue `index` was set up with after a reset, and the number of that life.
    pub(crate) fn new_life(&self, index: u16) -> (u32, Result<Setup>) {
        let mut queues = self.queues();
        let Some(queue) = queues.get_mut(usize::from(index)) else {
            return (0, Err(Error::new(ErrorKind::NotFound, "no such queue")));
        };
        let setup = match queue.next.take() {
            Some(Ok(setup)) => Ok(setup),
            Some(Err((kind, why))) => Err(Error::new(kind, why)),
            None => Err(Error::new(
                ErrorKind::DeviceGone,
                format!("queue {index} has not been set up again"),
            )),
        };
        (queue.number, setup)
    }

    /// Sets up the next queue for the first time.
    pub(super) fn add_queue(&self, size: u16, vector: Option<u16>) -> Result<Setup> {
        let mut queues = self.queues();
        let allocate = || QueueMemory::allocate(&self.arena, self.format(), size);
        let (memory, spare) = (allocate()?, allocate()?);
        let setup = self.set_up(queues.len() as u16, memory, vector)?;
        queues.push(QueueLife {
            size,
            vector,
            number: 0,
            next: None,
            spare: Some(spare),
            is_retired: false,
        });
        Ok(setup)
    }

    pub(super) fn num_set_up(&self) -> u16 {
        self.queues().len() as u16
    }

    /// Writes a byte of the configuration, now and after each reset.
    pub(super) fn write_config_u8(&self, offset: u64, value: u8) -> Result<()> {
        let _no_reset = self.queues();
        self.put_config_u8(offset, value)?;
        let mut written = lock(&self.written);
        written.retain(|(known, _)| *known != offset);
        written.push((offset, value));
        Ok(())
    }

    fn put_config_u8(&self, offset: u64, value: u8) -> Result<()> {
        let value = u32::from(value);
        self.transport.write_config(offset, Width::Byte, value)?;
        let is = self.transport.read_config(offset, Width::Byte)?;
        if is == value {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Protocol,
            format!(
                "{}: byte {offset:#x} of the configuration was set to {value} and is {is}",
                self.function.name()
            ),
        ))
    }

    fn set_up(&self, index: u16, memory: QueueMemory, vector: Option<u16>) -> Result<Setup> {
        let (size, rings) = (memory.size(), memory.addresses());
        match self
            .transport
            .enable_queue(index, size, &rings, vector, self.features)
        {
            Ok(notification) => Ok((memory, notification)),
            Err(error) => {
                // It failed half-way: the device may know the memory.
                self.abandon(Box::new(memory));
                Err(error)
            }
        }
    }

    /// Accepts `features` of the offered ones.
    pub(super) fn settle(
        transport: &Transport,
        name: &str,
        offered: Features,
        features: Features,
    ) -> Result<()> {
        transport.set_driver_features(features)?;
        transport.add_status(status::FEATURES_OK)?;
        if transport.status()? & status::FEATURES_OK == 0 {
            transport.add_status(status::FAILED)?;
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{name}: the device refused the features {features:?} of the offered {offered:?}"
                ),
            ));
        }
        Ok(())
    }

    /// Begins operation of what has been set up.
    pub(super) fn go(&self) -> Result<()> {
        let vector = self.config_vector.get().copied().flatten();
        self.transport.set_config_vector(vector)?;
        self.transport.add_status(status::DRIVER_OK)
    }

    /// Resets the device and sets it up again as it was. The owners of the queues take their part
    /// up in [`Virtqueue::renew`](crate::Virtqueue::renew).
    pub(super) fn recover(&self) -> Result<()> {
        let mut queues = self.queues();
        self.transport.reset()?;
        // The device has confirmed that it has stopped: it uses none of this any more.
        lock(&self.abandoned).clear();
        queues.iter_mut().for_each(QueueLife::reclaim);
        let outcome = self.set_up_again(&mut queues);
        if let Err(error) = &outcome {
            for queue in queues.iter_mut() {
                if let Some(Ok((memory, _))) = queue.next.take() {
                    self.abandon(Box::new(memory));
                }
                queue.next = Some(Err((error.kind(), error.to_string())));
            }
            if self.transport.reset().is_ok() {
                lock(&self.abandoned).clear();
            }
        }
        for queue in queues.iter_mut() {
            queue.number += 1;
        }
        drop(queues);
        self.notices.raise();
        outcome
    }

    fn set_up_again(&self, queues: &mut [QueueLife]) -> Result<()> {
        let name = self.function.name();
        self.transport.add_status(status::ACKNOWLEDGE)?;
        self.transport.add_status(status::DRIVER)?;
        let offered = self.transport.device_features()?;
        if !offered.contains(self.features) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{name}: after its reset the device no longer offers {:?}; close and reopen it",
                    self.features - offered
                ),
            ));
        }
        Self::settle(&self.transport, &name, offered, self.features)?;
        for (offset, value) in &*lock(&self.written) {
            self.put_config_u8(*offset, *value)?;
        }
        for (queue, index) in queues.iter_mut().zip(0..) {
            if !queue.is_retired {
                let memory = self.memory_for(queue)?;
                queue.next = Some(Ok(self.set_up(index, memory, queue.vector)?));
            }
        }
        self.go()
    }

    /// Memory for the next life of a queue.
    fn memory_for(&self, queue: &mut QueueLife) -> Result<QueueMemory> {
        match queue.spare.take() {
            Some(mut memory) => {
                memory.clear();
                Ok(memory)
            }
            None => QueueMemory::allocate(&self.arena, self.format(), queue.size),
        }
    }

    /// Resets queue `index` alone and sets it up again.
    pub(super) fn recover_queue(&self, index: u16) -> Result<()> {
        if !self.features.contains(Features::RING_RESET) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the device cannot reset its queues one by one (no RING_RESET); reset the device",
            ));
        }
        let mut queues = self.queues();
        let queue = queues
            .get_mut(usize::from(index))
            .filter(|queue| !queue.is_retired)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("there is no queue {index}")))?;
        self.transport.reset_queue(index)?;
        queue.reclaim();
        let setup = self
            .memory_for(queue)
            .and_then(|memory| self.set_up(index, memory, queue.vector));
        queue.number += 1;
        let outcome = match &setup {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::new(error.kind(), error.to_string())),
        };
        queue.next = Some(setup.map_err(|error| (error.kind(), error.to_string())));
        drop(queues);
        self.notices.raise();
        outcome
    }

    fn queues(&self) -> MutexGuard<'_, Vec<QueueLife>> {
        lock(&self.queues)
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        drop(self.watch.take());
        // The order matters: only a device that has confirmed its reset has stopped using memory,
        // so the mappings and what is abandoned may go only after that.
        let registered = mem::take(&mut *lock(&self.registered));
        let stopped = self.transport.reset().and_then(|()| {
            iter::once(&self.arena)
                .chain(&registered)
                .try_for_each(|arena| self.function.unmap_dma(arena.iova()))
        });
        if let Err(error) = stopped {
            tracing::error!(
                device = self.function.name(),
                error = &error as &dyn std::error::Error,
                "the device could not be stopped; its memory is not freed before the process ends"
            );
            mem::forget(mem::take(&mut *lock(&self.abandoned)));
            mem::forget(mem::take(&mut *lock(&self.queues)));
            mem::forget(self.arena.clone());
            mem::forget(registered);
            mem::forget(Arc::clone(&self.function));
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the lock protects is changed by single assignments: a panic leaves it consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The crate `virtio-driver`, whose only door that needs no hardware is vhost-user. That is used to
//! set it up; afterwards it drives the same emulated device as the other layers do.

use std::sync::RwLock;

use virtio_driver::{VhostUser, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags};

use crate::{
    Driver, LEN, Operation,
    peer_backend::Serving,
    peer_device::{self, Device},
    peer_memory::{self, Data},
    rings::{Format, Rings},
};

pub(crate) struct Layer {
    queue: VirtioBlkQueue<'static, u64>,
    device: Device,
    operation: Operation,
    doorbells: u64,
    data: Data,
    /// Owns the memory of the queue.
    _transport: RwLock<Box<VirtioBlkTransport>>,
}

/// It never uses INDIRECT.
pub(crate) fn open(operation: Operation, rings: Rings) -> Layer {
    let serving = Serving::new(rings.format);
    let mut features = VirtioFeatureFlags::VERSION_1 | VirtioFeatureFlags::RING_EVENT_IDX;
    if rings.format == Format::Packed {
        features |= VirtioFeatureFlags::RING_PACKED;
    }
    let transport = VhostUser::new(serving.path(), features.bits()).expect("the backend answers");
    let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
    let (queue, memory) = peer_memory::steered(|| {
        VirtioBlkQueue::setup_queues(&mut *transport, 1, rings.size())
            .expect("the queue is set up")
            .remove(0)
    });
    let data = Data::new(LEN);
    let device = peer_device::start(rings, serving.learnt(), |function| {
        peer_memory::share_queue(function, &memory);
        data.share(function);
    });
    Layer {
        queue,
        device,
        operation,
        doorbells: 0,
        data,
        _transport: RwLock::new(transport),
    }
}

impl Driver for Layer {
    fn submit(&mut self, first: u64, batch: u64) {
        for i in first..first + batch {
            let offset = i * LEN as u64;
            let data = self.data.bytes();
            let queued = match self.operation {
                Operation::Read => self.queue.read(offset, data, i),
                _ => self.queue.write(offset, data, i),
            };
            if queued.is_err() {
                return;
            }
        }
        if self.queue.avail_notif_needed() {
            self.device.doorbell.ring(0);
            self.doorbells += 1;
        }
    }

    fn submit_one_by_one(&mut self, first: u64, batch: u64) {
        for i in first..first + batch {
            self.submit(i, 1);
        }
    }

    fn doorbells(&self) -> u64 {
        self.doorbells
    }

    fn step(&mut self) {
        self.device.bell.pass_on();
        self.device.stepper.run_until_idle();
    }

    fn reap(&mut self) -> u64 {
        self.queue
            .completions()
            .take_while(|done| done.ret == 0)
            .count() as u64
    }
}

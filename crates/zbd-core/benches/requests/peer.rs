//! The crate `virtio-driver`, whose only door that needs no hardware is vhost-user.

use std::sync::{Arc, RwLock};

use virtio_driver::{
    QueueNotifier, VhostUser, VirtioBlkQueue, VirtioBlkTransport, VirtioFeatureFlags,
};

use crate::{Driver, LEN, Operation, peer_backend::Backend};

const QUEUE_SIZE: u16 = 256;

pub(crate) struct Layer {
    queue: VirtioBlkQueue<'static, u64>,
    notifier: Box<dyn QueueNotifier>,
    operation: Operation,
    buffer: Box<[u8; LEN]>,
    backend: Backend,
    /// Owns the memory of the queue.
    _transport: Arc<RwLock<Box<VirtioBlkTransport>>>,
}

pub(crate) fn open(operation: Operation) -> Layer {
    let serving = Backend::serve();
    let features = VirtioFeatureFlags::VERSION_1
        | VirtioFeatureFlags::RING_EVENT_IDX
        | VirtioFeatureFlags::RING_INDIRECT_DESC;
    let transport = VhostUser::new(serving.path(), features.bits()).expect("the backend answers");
    let mut transport: Box<VirtioBlkTransport> = Box::new(transport);
    let queue = VirtioBlkQueue::setup_queues(&mut *transport, 1, QUEUE_SIZE)
        .expect("the queue is set up")
        .remove(0);
    let notifier = transport.get_submission_notifier(0);
    Layer {
        queue,
        notifier,
        operation,
        buffer: Box::new([0; LEN]),
        backend: serving.finish(QUEUE_SIZE),
        _transport: Arc::new(RwLock::new(transport)),
    }
}

impl Driver for Layer {
    fn submit(&mut self, first: u64, batch: u64) {
        for i in first..first + batch {
            let offset = i * LEN as u64;
            let data = &mut self.buffer[..];
            let queued = match self.operation {
                Operation::Read => self.queue.read(offset, data, i),
                _ => self.queue.write(offset, data, i),
            };
            if queued.is_err() {
                return;
            }
        }
        if self.queue.avail_notif_needed() {
            self.notifier.notify().expect("an eventfd can be written");
        }
    }

    fn step(&mut self) {
        self.backend.step();
    }

    fn reap(&mut self) -> u64 {
        self.queue
            .completions()
            .take_while(|done| done.ret == 0)
            .count() as u64
    }
}

//! The ring and the virtio-blk layer: what the budget of 80 instructions is about.

use std::{mem, sync::Arc};

use vfio_virtio::{Data, DmaBuffer, Features, Negotiation, QueueOptions, RunningDevice};
use zbd_core::{
    Sector,
    virtio::{BlkQueue, RequestType, Status},
};
use zbd_emu::{EmulatedFunction, Stepper};

use crate::{
    Driver, LEN,
    quiet::{Bell, QuietFunction},
    rings::Rings,
};

/// `TYPE` is the request type, known when compiling, as it is where a request is made.
pub(crate) struct Layer<const TYPE: u32> {
    queue: BlkQueue<u64>,
    buffers: Vec<Option<DmaBuffer>>,
    stepper: Stepper,
    bell: Arc<Bell>,
    _device: RunningDevice,
}

pub(crate) fn open<const TYPE: u32>(rings: Rings) -> Layer<TYPE> {
    let config = rings
        .device()
        .parse()
        .expect("the device string is well-formed");
    let (function, stepper) = EmulatedFunction::stepped(&config).expect("the device starts");
    let (function, bell) = QuietFunction::new(function);
    let negotiation = Negotiation::begin(Arc::new(function), 2).expect("it is a block device");
    let offered: Features = negotiation.offered();
    let mut device = negotiation
        .accept(offered, 8 << 20)
        .expect("its features are accepted");
    device
        .add_queue(QueueOptions::default())
        .expect("it has a queue");
    let (device, rings) = device.start().expect("it starts");
    let queue = rings
        .into_iter()
        .map(BlkQueue::new)
        .next()
        .expect("one was added");
    let buffers = (0..queue.slots())
        .map(|_| Some(device.arena().allocate(LEN).expect("there is room")))
        .collect();
    Layer {
        queue,
        buffers,
        stepper,
        bell,
        _device: device,
    }
}

impl<const TYPE: u32> Driver for Layer<TYPE> {
    fn submit(&mut self, first: u64, batch: u64) {
        for (buffer, i) in self.buffers[..batch as usize].iter_mut().zip(first..) {
            let Some(buffer) = buffer.take() else {
                return;
            };
            let (at, data) = match RequestType(TYPE) {
                RequestType::IN => (Sector(i * 8), Data::FromDevice(buffer)),
                RequestType::OUT => (Sector(i * 8), Data::ToDevice(buffer)),
                _ => (Sector(0), Data::ToDevice(buffer)),
            };
            if self.queue.push(RequestType(TYPE), at, data, i).is_err() {
                return;
            }
        }
        self.queue.commit();
    }

    fn submit_one_by_one(&mut self, first: u64, batch: u64) {
        for (buffer, i) in self.buffers[..batch as usize].iter_mut().zip(first..) {
            let data = Data::ToDevice(buffer.take().expect("the last batch has been reaped"));
            let at = Sector(if TYPE == RequestType::OUT.0 { i * 8 } else { 0 });
            let pushed = self.queue.push(RequestType(TYPE), at, data, i);
            assert!(pushed.is_ok(), "there is room for a batch");
            self.queue.commit();
        }
    }

    fn doorbells(&self) -> u64 {
        self.queue.doorbells()
    }

    fn step(&mut self) {
        self.bell.pass_on();
        self.stepper.run_until_idle();
    }

    fn reap(&mut self) -> u64 {
        let mut reaped = 0;
        for place in &mut self.buffers {
            let Ok(Some(done)) = self.queue.pop() else {
                break;
            };
            reaped += u64::from(done.status == Status::OK);
            mem::forget(mem::replace(place, done.buffer));
        }
        reaped
    }
}

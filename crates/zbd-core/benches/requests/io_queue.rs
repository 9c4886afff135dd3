//! `IoQueue`, the whole of it.

use std::{mem, sync::Arc, thread};

use vfio_virtio::DmaBuffer;
use zbd_core::{Backend, IoQueue, OpenOptions, Request, Sector, ZoneId, virtio::RequestType};
use zbd_emu::{EmulatedFunction, Stepper};

use crate::{
    Driver, LEN,
    quiet::{Bell, QuietFunction},
    rings::Rings,
};

/// `TYPE` is the request type, known when compiling, as it is where a request is made.
pub(crate) struct Layer<const TYPE: u32> {
    queue: IoQueue,
    buffers: Vec<Option<DmaBuffer>>,
    stepper: Stepper,
    bell: Arc<Bell>,
}

/// A queue of a device that is stepped, and the doorbell to be passed on to it.
pub(crate) fn open_queue(rings: Rings) -> (IoQueue, Stepper, Arc<Bell>) {
    let config = rings
        .device()
        .parse()
        .expect("the device string is well-formed");
    let (function, mut stepper) = EmulatedFunction::stepped(&config).expect("the device starts");
    let (function, bell) = QuietFunction::new(function);
    // Opening waits for a zone report, so the device must be stepped meanwhile.
    let opening = thread::spawn(move || {
        let options = OpenOptions::default();
        options.open_function(Arc::new(function), Backend::Emulated, "emu:".to_owned())
    });
    while !opening.is_finished() {
        bell.pass_on();
        stepper.run_until_idle();
        thread::yield_now();
    }
    let queues = opening
        .join()
        .expect("opening does not panic")
        .expect("the device opens");
    let queue = queues.into_iter().next().expect("it has a queue");
    (queue, stepper, bell)
}

pub(crate) fn open<const TYPE: u32>(rings: Rings) -> Layer<TYPE> {
    let (queue, stepper, bell) = open_queue(rings);
    let buffers = (0..queue.depth())
        .map(|_| Some(queue.buffer(LEN).expect("there is room")))
        .collect();
    Layer {
        queue,
        buffers,
        stepper,
        bell,
    }
}

impl<const TYPE: u32> Driver for Layer<TYPE> {
    fn submit(&mut self, first: u64, batch: u64) {
        for (buffer, i) in self.buffers[..batch as usize].iter_mut().zip(first..) {
            let Some(buffer) = buffer.take() else {
                return;
            };
            let at = Sector(i * 8);
            let zone = ZoneId(0);
            let request = match RequestType(TYPE) {
                RequestType::IN => Request::Read { at, buffer },
                RequestType::OUT => Request::Write { at, buffer },
                _ => Request::Append { zone, buffer },
            };
            if self.queue.submit(request, i).is_err() {
                return;
            }
        }
        self.queue.commit();
    }

    fn submit_one_by_one(&mut self, first: u64, batch: u64) {
        for (buffer, i) in self.buffers[..batch as usize].iter_mut().zip(first..) {
            let buffer = buffer.take().expect("the last batch has been reaped");
            let (at, zone) = (Sector(i * 8), ZoneId(0));
            let request = match RequestType(TYPE) {
                RequestType::OUT => Request::Write { at, buffer },
                _ => Request::Append { zone, buffer },
            };
            let submitted = self.queue.submit(request, i);
            assert!(submitted.is_ok(), "there is room for a batch");
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
            let Some(done) = self.queue.poll() else {
                break;
            };
            reaped += u64::from(done.result.is_ok());
            mem::forget(mem::replace(place, done.buffer));
        }
        reaped
    }
}

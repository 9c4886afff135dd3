//! `ZonedDevice` on the thread that owns its queue: futures, each in a task of its own, each woken
//! when its request has ended.

use std::{future::Future, mem, sync::Arc, task::Poll};

use vfio_virtio::DmaBuffer;
use zbd_core::{Local, Result, Sector, ZoneId, ZonedDevice};
use zbd_emu::Stepper;

use crate::{Driver, LEN, Operation, Use, executor::Executor, io_queue, quiet::Bell, rings::Rings};

/// The device, for as long as the program runs: its futures borrow it.
pub(crate) type Device = &'static ZonedDevice<Local>;

/// `make` makes the future of a request, and `end` takes the buffer out of what it comes to.
struct Layer<F: Future, M, E> {
    device: Device,
    executor: Executor<F>,
    make: M,
    end: E,
    buffers: Vec<Option<DmaBuffer>>,
    stepper: Stepper,
    bell: Arc<Bell>,
}

/// Opens the device and has `what` use it for requests of one kind.
pub(crate) fn with(rings: Rings, operation: Operation, what: impl Use) {
    let (queue, stepper, bell) = io_queue::open_queue(rings);
    let device = ZonedDevice::from_queue(queue).expect("the queue is new");
    let device: Device = Box::leak(Box::new(device));
    let parts = (device, stepper, bell);
    match operation {
        Operation::Append => {
            let append = |_, buffer| device.append(ZoneId(0), buffer);
            what.use_it(layer(parts, append, |done| Ok(done?.buffer)));
        }
        Operation::Write => {
            let write = |i: u64, buffer| device.write(Sector(i * 8), buffer);
            what.use_it(layer(parts, write, |done| done));
        }
        Operation::Read => {
            let read = |i: u64, buffer| device.read_into(Sector(i * 8), buffer);
            what.use_it(layer(parts, read, |done| done));
        }
    }
}

fn layer<F, M, E>(
    (device, stepper, bell): (Device, Stepper, Arc<Bell>),
    make: M,
    end: E,
) -> Layer<F, M, E>
where
    F: Future,
    M: FnMut(u64, DmaBuffer) -> F,
    E: FnMut(F::Output) -> Result<DmaBuffer>,
{
    let depth = usize::from(device.info().queue_depth);
    Layer {
        executor: Executor::new(depth),
        make,
        end,
        buffers: (0..depth)
            .map(|_| Some(device.buffer(LEN).expect("there is room")))
            .collect(),
        device,
        stepper,
        bell,
    }
}

impl<F, M, E> Driver for Layer<F, M, E>
where
    F: Future,
    M: FnMut(u64, DmaBuffer) -> F,
    E: FnMut(F::Output) -> Result<DmaBuffer>,
{
    fn submit(&mut self, first: u64, batch: u64) {
        let buffers = self.buffers[..batch as usize].iter_mut().enumerate();
        for ((number, buffer), i) in buffers.zip(first..) {
            let Some(buffer) = buffer.take() else {
                return;
            };
            let future = (self.make)(i, buffer);
            if let Poll::Ready(done) = self.executor.spawn(number, future) {
                // It has failed, which the number of those that end will show.
                drop(done);
                return;
            }
        }
        // The executor has nothing else to do.
        self.device.drive();
    }

    fn submit_one_by_one(&mut self, first: u64, batch: u64) {
        for (number, i) in (0..batch as usize).zip(first..) {
            let buffer = self.buffers[number].take();
            let future = (self.make)(i, buffer.expect("the last batch has been reaped"));
            let polled = self.executor.spawn(number, future);
            assert!(polled.is_pending(), "the device has not been stepped");
            self.device.drive();
        }
    }

    fn doorbells(&self) -> u64 {
        self.device.doorbells()
    }

    fn step(&mut self) {
        self.bell.pass_on();
        self.stepper.run_until_idle();
    }

    fn reap(&mut self) -> u64 {
        self.device.drive();
        let (end, mut places) = (&mut self.end, self.buffers.iter_mut());
        let mut reaped = 0;
        self.executor.run(|done| {
            if let (Ok(buffer), Some(place)) = (end(done), places.next()) {
                reaped += 1;
                mem::forget(place.replace(buffer));
            }
        });
        reaped
    }
}

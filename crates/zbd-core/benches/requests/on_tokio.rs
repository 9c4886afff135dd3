//! The same device under tokio's local runtime: tasks, each with one request after the other, on the
//! device that is stepped when the runtime has nothing else to do.

use std::{
    cell::{Cell, RefCell},
    os::unix::process::parent_id,
    rc::Rc,
    sync::Arc,
};

use tokio::runtime::Builder;
use zbd_core::{DmaBuffer, ZoneId, ZonedDevice};
use zbd_emu::Stepper;

use crate::{LEN, allocations, io_queue, quiet::Bell, rings::Rings, zoned_device::Device};

thread_local! {
    /// What is behind the device of this thread.
    static BEHIND: RefCell<Option<(Stepper, Arc<Bell>)>> = const { RefCell::new(None) };
}

/// Lets the driver show the device what there is, the device do it, and the driver take it.
fn park() {
    zbd_core::on_thread_park();
    let stepped = BEHIND.with_borrow_mut(|behind| {
        behind.as_mut().map(|(stepper, bell)| {
            bell.pass_on();
            stepper.run_until_idle();
        })
    });
    if stepped.is_some() {
        zbd_core::on_thread_park();
    }
}

/// What is counted between the last task's beginning and the first one's end.
#[derive(Default)]
struct Marks {
    ready: Cell<u64>,
    begun: Cell<(u64, u64)>,
    ended: Cell<Option<(u64, u64)>>,
}

/// See `Counted`.
fn mark() {
    let _ = parent_id();
}

impl Marks {
    /// Making tasks allocates, and so do the first turns of the runtime.
    const WARM_UP: u64 = 8;

    fn begin(&self, device: Device, tasks: u64) {
        self.ready.set(self.ready.get() + 1);
        if self.ready.get() == tasks {
            self.begun.set((allocations::count(), device.doorbells()));
            mark();
        }
    }

    fn end(&self, device: Device) {
        if self.ended.get().is_none() {
            mark();
            self.ended
                .set(Some((allocations::count(), device.doorbells())));
        }
    }
}

/// `count` appends of `depth` tasks in all.
async fn appends(device: Device, buffers: Vec<DmaBuffer>, count: u64) {
    let depth = buffers.len() as u64;
    let marks = Rc::new(Marks::default());
    let task = |mut buffer| {
        let marks = Rc::clone(&marks);
        tokio::task::spawn_local(async move {
            for turn in 0..Marks::WARM_UP + count / depth {
                if turn == Marks::WARM_UP {
                    marks.begin(device, depth);
                }
                let done = device.append(ZoneId(0), buffer).await;
                buffer = done.expect("the device appends").buffer;
            }
            marks.end(device);
        })
    };
    let tasks: Vec<_> = buffers.into_iter().map(task).collect();
    for task in tasks {
        task.await.expect("tasks do not panic");
    }
    let (begun, ended) = (marks.begun.get(), marks.ended.get().unwrap_or_default());
    println!(
        "allocations {} doorbells {}",
        (ended.0 - begun.0) as f64 / count as f64,
        (ended.1 - begun.1) as f64 / count as f64
    );
}

/// Prints what requests allocate, and how often they notify the device.
pub(crate) fn run(rings: Rings, depth: u64, count: u64) -> Result<(), String> {
    let (queue, stepper, bell) = io_queue::open_queue(rings);
    let device = ZonedDevice::from_queue(queue).map_err(|e| e.to_string())?;
    let device: Device = Box::leak(Box::new(device));
    BEHIND.set(Some((stepper, bell)));
    let buffers: Result<Vec<_>, _> = (0..depth).map(|_| device.buffer(LEN)).collect();
    let buffers = buffers.map_err(|e| e.to_string())?;
    let runtime = Builder::new_current_thread()
        .on_thread_park(park)
        .build_local(Default::default())
        .map_err(|e| e.to_string())?;
    runtime.block_on(appends(device, buffers, count));
    Ok(())
}

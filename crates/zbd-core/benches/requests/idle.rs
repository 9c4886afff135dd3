//! Devices that are open and have nothing to do.

use std::{
    fs,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Builder, sync::Notify};
use zbd_core::{IoQueue, ZonedDevice, on_thread_park, on_thread_park_with_io};

const TIME: Duration = Duration::from_secs(1);

/// The processor time of all threads of this process.
fn cpu_time() -> Result<Duration, String> {
    let tasks = fs::read_dir("/proc/self/task").map_err(|e| e.to_string())?;
    let stats = tasks.filter_map(|task| {
        // One that has just ended has none.
        let stat = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    });
    Ok(Duration::from_nanos(stats.sum()))
}

/// Prints what part of a processor this process takes while `idle` does nothing.
fn measure(door: &str, idle: impl FnOnce()) -> Result<(), String> {
    // What opening has begun may end meanwhile.
    thread::sleep(TIME / 10);
    let (begun, before) = (Instant::now(), cpu_time()?);
    idle();
    let part = (cpu_time()? - before).as_secs_f64() / begun.elapsed().as_secs_f64();
    println!("{door} {}", part * 100.0);
    Ok(())
}

fn wait_in_tokio(with_io: bool) -> Result<(), String> {
    let mut builder = Builder::new_current_thread();
    match with_io {
        false => builder.on_thread_park(on_thread_park),
        true => builder.enable_io().on_thread_park(on_thread_park_with_io),
    };
    let runtime = builder.build().map_err(|e| e.to_string())?;
    let device = ZonedDevice::open_local("emu:store=null").map_err(|e| e.to_string())?;
    let flushed = runtime.block_on(device.flush());
    flushed.map_err(|e| e.to_string())?;
    let notify = Arc::new(Notify::new());
    let door = if with_io { "local-io" } else { "local" };
    measure(door, || {
        let later = Arc::clone(&notify);
        let notifying = thread::spawn(move || {
            thread::sleep(TIME);
            later.notify_one();
        });
        runtime.block_on(notify.notified());
        // It has nothing left to do.
        let _ = notifying.join();
    })
}

/// Prints, for each door, per cent of a processor.
pub(crate) fn run() -> Result<(), String> {
    let device = ZonedDevice::open("emu:store=null").map_err(|e| e.to_string())?;
    measure("lanes", || thread::sleep(TIME))?;
    drop(device);
    wait_in_tokio(false)?;
    wait_in_tokio(true)?;
    let mut queue = IoQueue::open("emu:store=null").map_err(|e| e.to_string())?;
    measure("io-queue", || {
        let begun = Instant::now();
        while begun.elapsed() < TIME && queue.poll().is_none() {
            let left = TIME.saturating_sub(begun.elapsed());
            if queue.idle(left).is_err() {
                // It would show as a processor that is fully used.
                std::hint::spin_loop();
            }
        }
    })
}

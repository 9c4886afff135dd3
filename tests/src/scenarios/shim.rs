//! The shim's panel: later scenarios count and stall by it, so it has to work.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

use super::Context;

pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn counters_show_what_reached_the_file(context: &mut Context) -> Result<()> {
    let disk = context.kernel_disk("unmerged")?;
    let panel = context.panel("unmerged")?;
    let before = panel.counters()?;
    for index in 0..10 {
        disk.write(index * 8, &[1; 4096])?;
    }
    disk.read(0, 8192)?;
    let after = panel.counters()?;
    for (name, expected) in [
        ("writes", 10),
        ("write_bytes", 40_960),
        ("reads", 1),
        ("read_bytes", 8192),
        ("refused_writes", 0),
    ] {
        let counted = after[name] - before[name];
        ensure!(counted == expected, "{counted} {name}, not {expected}");
    }
    Ok(())
}

pub(super) fn held_disk_answers_once_released(context: &mut Context) -> Result<()> {
    const HELD: Duration = Duration::from_millis(300);
    let disk = context.kernel_disk("main")?;
    let panel = context.panel("main")?;
    let start = Instant::now();
    let held = panel.hold()?;
    thread::scope(|scope| {
        let reader = scope.spawn(|| disk.read(0, 4096));
        thread::sleep(HELD);
        ensure!(!reader.is_finished(), "the disk answered while it was held");
        drop(held);
        reader
            .join()
            .map_err(|_| anyhow!("the reader panicked"))??;
        Ok(())
    })?;
    ensure!(start.elapsed() >= HELD);
    let _slow = panel.delay(100_000)?;
    let start = Instant::now();
    disk.read(0, 4096)?;
    ensure!(
        start.elapsed() >= Duration::from_millis(100),
        "no delay: {:?}",
        start.elapsed()
    );
    Ok(())
}

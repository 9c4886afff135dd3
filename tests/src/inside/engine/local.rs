//! The thread-per-core form: one thread that drives the device when it has nothing else to do.

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::{Builder, LocalRuntime};
use tokio::task::JoinSet;
use zbd_core::{WaitPolicy, ZonedDevice, on_thread_park_with_io};

use super::{PATIENCE, TASKS, all_are_there, append_all, ensure_sane, requests, sequential};

pub(super) fn runtime() -> Result<LocalRuntime> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().on_thread_park(on_thread_park_with_io);
    Ok(builder.build_local(Default::default())?)
}

pub(super) fn exercise(spec: &str, wait: WaitPolicy) -> Result<()> {
    let queue = super::open(spec, 1, wait)?.pop().context("no queue")?;
    let device = ZonedDevice::from_queue(queue)?;
    ensure!(device.info().wait == wait, "{:?}", device.info());
    ensure_sane(&device.info())?;
    runtime()?.block_on(async move {
        device.reset_all().await?;
        let zones = sequential(&device).await?;
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            tasks.spawn_local(append_all(device.clone(), task, zones[..3].to_vec()));
        }
        all_are_there(&device, tasks, &zones[..3])
            .await
            .context("appends")?;
        // With deadlines it sleeps otherwise.
        for timeout in [None, Some(PATIENCE)] {
            requests::exercise(&device.with_timeout(timeout), &zones).await?;
        }
        Ok(())
    })
}

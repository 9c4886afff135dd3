//! Zones are given back, so that a long run does not use them up.

use std::time::{Duration, Instant};

use slatedb::config::{FlushOptions, FlushType};
use slatedb_wal::{engine, workload};
use zbd_core::ZoneState;

use crate::rig::{Result, Rig, end};

/// Six zones of 1 MiB.
const SMALL: &str = "emu:zones=6,zone-size=1m";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zones_are_reset_once_their_rows_are_in_tables() -> Result<()> {
    let rig = Rig::new(SMALL)?;
    let wal = rig.wal()?;
    let db = rig.builder(&wal, engine::settings()).build().await?;
    let value = vec![7; 3000];
    for number in 0..600 {
        db.put(workload::key(number), &value)
            .await?
            .await_durable()
            .await?;
    }
    let first = wal.log().ok_or("not open")?.first_id();
    let flush_type = FlushType::MemTable;
    db.flush_with_options(FlushOptions { flush_type }).await?;
    let begun = Instant::now();
    loop {
        let zones = rig.device.report(wal.zones()).await?;
        let used = zones.iter().filter(|zone| zone.state != ZoneState::Empty);
        // The last record stays, and the mark of the trim.
        if used.count() <= 2 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{zones:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(wal.log().ok_or("not open")?.first_id() > first);
    end(&db).await?;
    let db = rig.open().await?;
    for number in 0..600 {
        assert!(db.get(workload::key(number)).await?.is_some(), "{number}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_times_what_the_zones_hold_is_put() -> Result<()> {
    let rig = Rig::new(SMALL)?;
    let wal = rig.wal()?;
    let mut settings = engine::settings();
    // The zones are full within a second.
    if let Some(compactor) = &mut settings.compactor_options {
        compactor.poll_interval = Duration::from_millis(100);
        compactor.checkpoint_lifetime = Duration::from_millis(500);
    }
    let db = rig.builder(&wal, settings).build().await?;
    let mut last = 0;
    // 24 MiB of rows.
    let value = vec![9; 14_000];
    let mut handles = Vec::new();
    for number in 0..1800 {
        handles.push(db.put(workload::key(number % 500), &value).await?);
        if handles.len() == 64 {
            for handle in handles.drain(..) {
                handle.await_durable().await?;
                last += 1;
            }
        }
    }
    for handle in handles {
        handle.await_durable().await?;
        last += 1;
    }
    assert_eq!(last, 1800);
    let log = wal.log().ok_or("not open")?;
    let held = log
        .records(..)
        .iter()
        .map(|record| record.len_bytes)
        .sum::<usize>();
    assert!(held < 6 << 20, "{held}");
    end(&db).await?;
    let db = rig.open().await?;
    assert_eq!(
        db.get(workload::key(499)).await?.as_deref(),
        Some(&value[..])
    );
    Ok(())
}

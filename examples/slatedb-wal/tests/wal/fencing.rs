//! Of two databases the newer one writes, and has all that the older one acknowledged.

use std::sync::Arc;
use std::time::Duration;

use slatedb::object_store::memory::InMemory;
use slatedb::{CloseReason, ErrorKind};
use slatedb_wal::{engine, workload};
use zbd_core::{ZoneId, ZoneLog, log::LogOptions};

use crate::rig::{Result, Rig, end};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_database_fails_and_the_newer_has_all_that_it_acknowledged() -> Result<()> {
    let rig = Rig::new("emu:")?;
    let mut total = 0;
    for round in 0..8_u64 {
        let wal = rig.wal()?;
        let older = rig.builder(&wal, engine::settings()).build().await?;
        let (told, mut acknowledged) = tokio::sync::watch::channel(total);
        let writer = tokio::spawn({
            let older = older.clone();
            async move {
                let tell = |number| {
                    let _ = told.send(number + 1);
                };
                let error = workload::put(&older, total, None, 16, tell).await;
                (error, *told.borrow())
            }
        });
        acknowledged
            .wait_for(|&number| number > total + 10 * round)
            .await?;
        // Through the same handle and through another one.
        let wal = if round % 2 == 0 { wal } else { rig.wal()? };
        let newer = rig.builder(&wal, engine::settings()).build().await?;
        let (error, acknowledged) = writer.await?;
        let error = error.expect_err("there is a newer database");
        let kind = error.kind();
        assert_eq!(kind, ErrorKind::Closed(CloseReason::Fenced), "{error}");
        assert!(older.put(b"x", b"").await.is_err());
        let found = workload::found(&newer).await?;
        assert!(
            found >= acknowledged,
            "{acknowledged} acknowledged, {found} found"
        );
        assert!(
            found <= acknowledged + 16,
            "{acknowledged} acknowledged, {found} found"
        );
        // The newer one goes on.
        workload::put(&newer, found, Some(20), 8, |_| {}).await?;
        total = found + 20;
        assert_eq!(workload::found(&newer).await?, total);
        end(&newer).await?;
    }
    let db = rig.open().await?;
    assert_eq!(workload::found(&db).await?, total);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_of_another_database_is_refused_and_stays_as_it_is() -> Result<()> {
    let rig = Rig::new("emu:")?;
    for _ in 0..2 {
        let db = rig.open().await?;
        db.put(b"key", b"value").await?.await_durable().await?;
        end(&db).await?;
    }
    let stranger = Rig {
        device: rig.device.clone(),
        store: Arc::new(InMemory::new()),
    };
    let error = stranger.open().await.err().ok_or("opened")?;
    assert!(error.to_string().contains("another's"), "{error}");
    let db = rig.open().await?;
    assert_eq!(db.get(b"key").await?.as_deref(), Some(&b"value"[..]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_that_has_lost_records_is_refused() -> Result<()> {
    let rig = Rig::new("emu:")?;
    let db = rig.open().await?;
    db.put(b"key", b"value").await?.await_durable().await?;
    // The manifest learns how long the log is.
    db.flush_with_options(slatedb::config::FlushOptions {
        flush_type: slatedb::config::FlushType::MemTable,
    })
    .await?;
    db.close().await?;
    rig.device.reset_all().await?;
    let error = rig.open().await.err().ok_or("opened")?;
    assert!(error.to_string().contains("knows of records"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_of_something_else_is_refused() -> Result<()> {
    let rig = Rig::new("emu:")?;
    let zones = rig.wal()?.zones();
    let (log, _) = ZoneLog::open(&rig.device, &LogOptions::new(zones)).await?;
    for _ in 0..3 {
        log.append_durable(b"not SlateDB's").await?;
    }
    drop(log);
    let opened = tokio::time::timeout(Duration::from_secs(30), rig.open()).await?;
    let error = opened.err().ok_or("opened")?;
    assert!(error.to_string().contains("none of SlateDB's"), "{error}");
    let written = rig.device.report(..).await?;
    assert!(
        written
            .iter()
            .any(|zone| zone.id >= ZoneId(0) && zone.written().is_some())
    );
    Ok(())
}

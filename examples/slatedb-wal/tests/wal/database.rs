//! What is put comes back.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use slatedb::config::{DbReaderOptions, FlushOptions, FlushType};
use slatedb::wal::{WalFileRange, WalReader as _};
use slatedb::{DbReader, DbReaderMode, WriteBatch};
use slatedb_wal::{engine, workload};

use crate::rig::{Result, Rig, end};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_puts_are_there_when_the_database_is_opened_again() -> Result<()> {
    let rig = Rig::new("emu:")?;
    let mut count = 0;
    for _ in 0..4 {
        let db = rig.open().await?;
        assert_eq!(workload::found(&db).await?, count);
        let mut acknowledged = count;
        workload::put(&db, count, Some(150), 16, |number| {
            assert_eq!(number, acknowledged);
            acknowledged += 1;
        })
        .await?;
        assert_eq!(acknowledged, count + 150);
        count = acknowledged;
        end(&db).await?;
    }
    let db = rig.open().await?;
    assert_eq!(workload::found(&db).await?, count);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_every_kind_and_length_are_replayed() -> Result<()> {
    let rig = Rig::new("emu:")?;
    let db = rig.open().await?;
    db.put(b"kept", b"first").await?;
    db.put(b"kept", b"second").await?;
    db.put(b"gone", b"value").await?;
    db.delete(b"gone").await?;
    // Longer than any record, and still one batch.
    let len = rig.device.info().zoned()?.max_append.0 as usize * 512;
    let mut batch = WriteBatch::new();
    for part in 0..5_u8 {
        batch.put([b'b', part], vec![part; len / 2 + 17]);
    }
    batch.delete(b"never was");
    db.write(batch).await?.await_durable().await?;
    db.put(b"after", b"the batch")
        .await?
        .await_durable()
        .await?;
    end(&db).await?;

    let db = rig.open().await?;
    assert_eq!(db.get(b"kept").await?.as_deref(), Some(&b"second"[..]));
    assert_eq!(db.get(b"gone").await?, None);
    for part in 0..5_u8 {
        let value = db.get([b'b', part]).await?;
        assert_eq!(value.as_deref(), Some(&vec![part; len / 2 + 17][..]));
    }
    assert_eq!(db.get(b"after").await?.as_deref(), Some(&b"the batch"[..]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_files_are_numbered_as_slatedb_demands() -> Result<()> {
    let rig = Rig::new("emu:")?;
    let wal = rig.wal()?;
    let db = rig.builder(&wal, engine::settings()).build().await?;
    let flush = || {
        db.flush_with_options(FlushOptions {
            flush_type: FlushType::Wal,
        })
    };
    flush().await?;
    for number in 0..50 {
        db.put(workload::key(number), workload::value(number))
            .await?;
        if number % 3 == 0 {
            flush().await?;
        }
    }
    flush().await?;
    let last = wal.last_wal_file_id(0).await?;
    let mut files = wal.iterator(WalFileRange::from(1..last + 1)).await?;
    let (mut id, mut seq, mut rows) = (0, 0, 0);
    while let Some(file) = files.next().await? {
        assert!(file.last_consumed_wal_file_id > id);
        id = file.last_consumed_wal_file_id;
        for row in file.rows {
            assert!(row.seq > seq, "rows come in their order");
            seq = row.seq;
            rows += 1;
        }
    }
    assert_eq!((id, rows), (last, 50));
    // Without an end it waits for more.
    let range = WalFileRange(Bound::Excluded(last), Bound::Unbounded);
    let mut files = wal.iterator(range).await?;
    let short = Duration::from_millis(50);
    assert!(tokio::time::timeout(short, files.next()).await.is_err());
    db.put(b"one", b"more").await?;
    let file = files.next().await?.ok_or("it ended")?;
    assert_eq!(
        (file.last_consumed_wal_file_id, file.rows.len()),
        (last + 1, 1)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_sees_what_is_in_no_table_yet() -> Result<()> {
    let rig = Rig::new("emu:")?;
    let wal = rig.wal()?;
    let db = rig.builder(&wal, engine::settings()).build().await?;
    db.put(b"key", b"value").await?.await_durable().await?;
    let reader = DbReader::builder("db", Arc::clone(&rig.store))
        .with_reader_mode(DbReaderMode::FollowLatest)
        .with_options(DbReaderOptions {
            manifest_poll_interval: Duration::from_secs(60),
            ..DbReaderOptions::default()
        })
        .with_wal_reader(Arc::new(wal))
        .build()
        .await?;
    assert_eq!(reader.get(b"key").await?.as_deref(), Some(&b"value"[..]));
    reader.close().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_after_a_device_error_are_not_acknowledged() -> Result<()> {
    let rig = Rig::new("emu:")?;
    let wal = rig.wal()?;
    let db = rig.builder(&wal, engine::settings()).build().await?;
    db.put(b"before", b"").await?.await_durable().await?;
    // Somebody else finishes the zones: nothing can be appended any more.
    for zone in rig.device.report(wal.zones()).await? {
        rig.device.zone(zone.id).finish().await?;
    }
    let put = db.put(b"after", b"").await?;
    let error = put.await_durable().await.expect_err("nothing was written");
    assert!(error.to_string().contains("unavailable"), "{error}");
    assert!(db.put(b"later", b"").await.is_err());
    Ok(())
}

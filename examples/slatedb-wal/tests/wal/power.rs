//! The power is cut while a database is written to, again and again.
//!
//! What loses power is the device. Tables and manifests are in an object store, which has its own
//! notion of durable and is in memory here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use slatedb::Db;
use slatedb::config::{FlushOptions, FlushType, Settings};
use slatedb::object_store::memory::InMemory;
use slatedb_wal::{ZoneWal, engine, workload};
use zbd_core::{Backend, OpenOptions, ZonedDevice};
use zbd_emu::{Control, EmulatedConfig, EmulatedFunction};

use crate::rig::{Result, Rig};

/// How many puts are on their way at the most.
const WINDOW: usize = 24;

/// How many cuts a database goes through, before its manifests take longer than its log.
const CUTS_EACH: u64 = 50;

/// All that is acknowledged is there after each cut, and nothing that was not put.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousand_power_cuts_lose_nothing_that_was_acknowledged() -> Result<()> {
    let cuts = 1000;
    let begun = Instant::now();
    let mut tally = Tally::default();
    for first in (0..cuts).step_by(CUTS_EACH as usize) {
        let seeds = first..(first + CUTS_EACH).min(cuts);
        cut_and_compare(seeds, &mut tally).await?;
    }
    println!("{cuts} cuts in {:?}: {tally:?}", begun.elapsed());
    // Or the cuts came when nothing was going on.
    assert!(tally.acknowledged > 10 * cuts, "{tally:?}");
    assert!(tally.survived > cuts / 100, "{tally:?}");
    assert!(tally.trimmed > cuts, "{tally:?}");
    Ok(())
}

/// What has been seen, so that the test cannot pass for want of anything to see.
#[derive(Debug, Default)]
struct Tally {
    acknowledged: u64,
    /// Cuts that something survived which was not acknowledged.
    survived: u64,
    /// Records that were trimmed.
    trimmed: u64,
}

async fn cut_and_compare(seeds: std::ops::Range<u64>, tally: &mut Tally) -> Result<()> {
    // Where there is a directory in memory, a sync takes no time there.
    let directory = match std::fs::metadata("/dev/shm") {
        Ok(_) => tempfile::tempdir_in("/dev/shm")?,
        Err(_) => tempfile::tempdir()?,
    };
    let spec = format!(
        "store={}/disk,zones=10,zone-size=64k,block-size=512,max-append=16k",
        directory.path().display()
    );
    let store = Arc::new(InMemory::new());
    let (mut acknowledged, mut put, mut trimmed) = (0, 0, 0);
    for seed in seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        let (device, control) = open(&spec)?;
        let rig = Rig {
            device,
            store: store.clone(),
        };
        let wal = rig.wal()?;
        let db = rig.builder(&wal, settings()).build().await?;
        let found = workload::found(&db).await?;
        assert!(
            (acknowledged..=put).contains(&found),
            "cut {}: {found} found, {acknowledged} acknowledged, {put} put",
            seed - 1
        );
        tally.survived += u64::from(found > acknowledged);
        // Half of the cuts come while tables are written and zones given back, or soon after.
        let collects = random.bool() || used(&wal) > 200 << 10;
        let so_far = Arc::new(AtomicU64::new(found));
        let writer = tokio::spawn({
            let (db, so_far) = (db.clone(), Arc::clone(&so_far));
            async move {
                let tell = |number| so_far.store(number + 1, Ordering::SeqCst);
                workload::put(&db, found, None, WINDOW, tell).await
            }
        });
        let collector = tokio::spawn({
            let (db, wal, store) = (db.clone(), wal.clone(), Arc::clone(&rig.store));
            async move {
                if collects {
                    collect(&db, &wal, &store).await;
                }
            }
        });
        let target = found + random.u64(0..60);
        while so_far.load(Ordering::SeqCst) < target && !writer.is_finished() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        control.power_cut(seed);
        // Whoever sleeps would hear nothing of that for a second.
        control.request_release();
        assert!(
            writer.await?.is_err(),
            "cut {seed}: puts go on without power"
        );
        collector.await?;
        acknowledged = so_far.load(Ordering::SeqCst);
        put = acknowledged + WINDOW as u64;
        tally.acknowledged += acknowledged - found;
        trimmed = wal.log().map_or(0, |log| log.first_id().0 - 1);
        // It has failed; this ends its tasks.
        let _ = db.close().await;
    }
    tally.trimmed += trimmed;
    Ok(())
}

/// A device whose power can be cut.
fn open(spec: &str) -> Result<(ZonedDevice, Control)> {
    let config: EmulatedConfig = spec.parse()?;
    let function = EmulatedFunction::new(&config)?;
    let control = function.control();
    let options = OpenOptions {
        memory_len: 2 << 20,
        ..OpenOptions::default()
    };
    let name = "the disk".to_owned();
    let queues = options.open_function(Arc::new(function), Backend::Emulated, name)?;
    Ok((ZonedDevice::from_queues(queues)?, control))
}

fn settings() -> Settings {
    Settings {
        // Compactions and their checkpoints would hold zones for longer than a cut takes to come.
        compactor_options: None,
        l0_max_ssts: 1000,
        ..engine::settings()
    }
}

/// How much of the log is in use.
fn used(wal: &ZoneWal) -> usize {
    let records = wal.log().map(|log| log.records(..)).unwrap_or_default();
    records.iter().map(|record| record.len_bytes + 512).sum()
}

/// Has tables made of all there is, and the zones given back that were needed for it.
async fn collect(db: &Db, wal: &ZoneWal, store: &Arc<dyn slatedb::object_store::ObjectStore>) {
    let flush_type = FlushType::MemTable;
    // Both fail without power.
    if db
        .flush_with_options(FlushOptions { flush_type })
        .await
        .is_ok()
    {
        let collector = engine::collector(&"db".into(), store, wal);
        collector.build().run_gc_once().await;
    }
}

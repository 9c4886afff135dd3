//! Opening what the commands work on.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use slatedb::Db;
use slatedb::object_store::ObjectStore;
use slatedb::object_store::local::LocalFileSystem;
use slatedb_wal::{ZoneWal, ZoneWalOptions, engine};
use zbd_core::ZonedDevice;

use crate::DatabaseArgs;

/// How large a memtable becomes. Small, so that even short runs write tables and reset zones.
const MEMTABLE: usize = 256 << 10;

/// The store in `directory`, which is made if need be.
///
/// `fsync` decides if what has been put is on the disk. The store's default is that it is not, so
/// that a power cut can take what SlateDB believes to be durable.
pub(crate) fn store(directory: &Path, fsync: bool) -> Result<Arc<dyn ObjectStore>> {
    std::fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
    let store = LocalFileSystem::new_with_prefix(directory)
        .with_context(|| format!("{}", directory.display()))?;
    Ok(Arc::new(store.with_fsync(fsync)))
}

pub(crate) fn device(name: &str) -> Result<ZonedDevice> {
    ZonedDevice::open(name).with_context(|| name.to_owned())
}

/// The database of the commands that check.
pub(crate) async fn database(args: &DatabaseArgs) -> Result<Db> {
    let store = store(&args.tables, true)?;
    let mut settings = engine::settings();
    settings.l0_sst_size_bytes = MEMTABLE;
    // Few tables may wait for a compaction, and small ones are many.
    if let Some(compactor) = &mut settings.compactor_options {
        compactor.poll_interval = Duration::from_millis(50);
    }
    let wal = ZoneWal::new(device(&args.device)?, ZoneWalOptions::default())?;
    let builder = engine::builder(&"db".into(), &store, &wal, settings);
    builder.build().await.context("cannot open the database")
}

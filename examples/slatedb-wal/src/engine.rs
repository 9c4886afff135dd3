//! A database whose log is on zones.

use std::sync::Arc;
use std::time::Duration;

use slatedb::config::{
    CompactorOptions, GarbageCollectorDirectoryOptions, GarbageCollectorOptions, Settings,
};
use slatedb::object_store::ObjectStore;
use slatedb::object_store::path::Path;
use slatedb::{Db, DbBuilder, GarbageCollectorBuilder};

use crate::ZoneWal;

/// How often zones are given back. SlateDB's default, once a minute, is meant for objects that cost
/// money by the month; zones are few.
const COLLECT_EVERY: Duration = Duration::from_millis(500);

/// How long a compaction's checkpoint lasts. It refers to the log as it was then, and zones are
/// given back from the oldest on, so all that is put meanwhile has to fit into them. SlateDB's
/// default is ten minutes. Scans that take longer than this may find their tables gone.
const CHECKPOINT_LIFETIME: Duration = Duration::from_secs(30);

/// SlateDB's default settings, but for the interval of flushes, because this log flushes by itself,
/// and for what would keep its zones for long.
pub fn settings() -> Settings {
    Settings {
        flush_interval: None,
        compactor_options: Some(CompactorOptions {
            checkpoint_lifetime: CHECKPOINT_LIFETIME,
            ..CompactorOptions::default()
        }),
        garbage_collector_options: None,
        ..Settings::default()
    }
}

/// How a database at `path` of `store` is built that has its log in `wal` and gives its zones back.
pub fn builder(
    path: &Path,
    store: &Arc<dyn ObjectStore>,
    wal: &ZoneWal,
    settings: Settings,
) -> DbBuilder<Path> {
    Db::builder(path.clone(), Arc::clone(store))
        .with_settings(settings)
        .with_wal_writer(Box::new(wal.clone()))
        .with_gc_builder(collector(path, store, wal))
}

/// The garbage collector of that database.
pub fn collector(
    path: &Path,
    store: &Arc<dyn ObjectStore>,
    wal: &ZoneWal,
) -> GarbageCollectorBuilder<Path> {
    GarbageCollectorBuilder::new(path.clone(), Arc::clone(store))
        .with_wal_gc(Arc::new(wal.clone()))
        .with_options(GarbageCollectorOptions {
            wal_options: Some(GarbageCollectorDirectoryOptions {
                interval: Some(COLLECT_EVERY),
                min_age: Duration::ZERO,
                dry_run: false,
            }),
            // Fences are records of the log and go with the others.
            wal_fence_options: None,
            ..GarbageCollectorOptions::default()
        })
}

//! What the tests work on.

use std::error::Error;
use std::sync::Arc;

use slatedb::config::{CloseOptions, Settings};
use slatedb::object_store::ObjectStore;
use slatedb::object_store::memory::InMemory;
use slatedb::object_store::path::Path;
use slatedb::{Db, DbBuilder};
use slatedb_wal::{ZoneWal, ZoneWalOptions, engine};
use zbd_core::ZonedDevice;

pub(crate) type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// A device and the tables of one database.
pub(crate) struct Rig {
    pub(crate) device: ZonedDevice,
    pub(crate) store: Arc<dyn ObjectStore>,
}

impl Rig {
    /// Empty.
    pub(crate) fn new(device: &str) -> Result<Self> {
        Ok(Self {
            device: ZonedDevice::open(device)?,
            store: Arc::new(InMemory::new()),
        })
    }

    pub(crate) fn wal(&self) -> Result<ZoneWal> {
        Ok(ZoneWal::new(
            self.device.clone(),
            ZoneWalOptions::default(),
        )?)
    }

    pub(crate) fn builder(&self, wal: &ZoneWal, settings: Settings) -> DbBuilder<Path> {
        engine::builder(&"db".into(), &self.store, wal, settings)
    }

    /// The database, whose memtable is not flushed by itself.
    pub(crate) async fn open(&self) -> Result<Db> {
        Ok(self
            .builder(&self.wal()?, engine::settings())
            .build()
            .await?)
    }
}

/// Ends a database so that all that it held is in the log, and nowhere else.
pub(crate) async fn end(db: &Db) -> Result<()> {
    let options = CloseOptions::default().with_flush_type(None);
    Ok(db.close_with_options(options).await?)
}

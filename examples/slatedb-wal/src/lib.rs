//! SlateDB's write-ahead log on the zones of a zoned block device.
//!
//! [SlateDB](slatedb) is an LSM tree on an object store. Its log is a trait, and this is one of it
//! on a [`ZoneLog`](zbd_core::ZoneLog): a put is durable after one zone append and one flush, not
//! after an object has been put. Tables and manifests stay in the object store.
//!
//! | SlateDB | here |
//! |---|---|
//! | log file | a record of the log; several in a row if a batch does not fit into one |
//! | its id | the record's |
//! | write batches | rows in a record; those that come while the device is busy share one |
//! | flushed | the log's watermark is past it: it and all before it are durable |
//! | fencing | the log is opened anew, which fences its handles, and the epoch is a record |
//! | replay | the log's recovery, then its records from the manifest's point on |
//! | garbage collection | the log is trimmed, and zones without records are reset |
//! | "flush the memtable" | said when a quarter of the zones has been written since the last time |
//!
//! [`engine::builder`] puts a database together:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use slatedb::object_store::{ObjectStore, memory::InMemory};
//! use slatedb_wal::{ZoneWal, ZoneWalOptions, engine};
//! use zbd_core::ZonedDevice;
//!
//! let device = ZonedDevice::open("emu:")?;
//! let wal = ZoneWal::new(device, ZoneWalOptions::default())?;
//! let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
//! let db = engine::builder(&"db".into(), &store, &wal, engine::settings()).build().await?;
//! db.put(b"key", b"value").await?.await_durable().await?;
//! # Ok(()) }
//! ```

pub mod engine;
mod error;
mod part;
mod pending;
mod progress;
mod reader;
mod rows;
mod usage;
mod wal;
pub mod workload;
mod writer;

pub use wal::{ZoneWal, ZoneWalOptions};

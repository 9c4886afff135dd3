//! Which handle is the writer of a log.
//!
//! Devices belong to one process, so this process decides. A log is known by its identity; opening it
//! raises the fence of the handle before, then waits for the requests of that handle to end, and only
//! then reads the zones. A handle looks at its fence after each flush and before it tells anybody
//! that something is durable. If it saw no fence then, all of that was on the device before the zones
//! were read for the next handle, which therefore has it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use super::engine::Engine;
use crate::{Error, ErrorKind};

/// Told to a handle that it is no longer the writer.
#[derive(Debug, Default)]
pub(super) struct Fence(AtomicBool);

impl Fence {
    pub(super) fn raise(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_raised(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The error of a fenced handle.
#[cold]
pub(super) fn fenced() -> Error {
    Error::new(
        ErrorKind::Fenced,
        "the log has been opened anew, so this handle is no longer its writer; use the new one",
    )
}

/// What the process knows of a log that it has opened.
#[derive(Default)]
pub(super) struct Claims {
    /// One handle is opened at a time.
    pub(super) opening: tokio::sync::Mutex<()>,
    writer: Mutex<Writer>,
}

#[derive(Default)]
struct Writer {
    engine: Weak<Engine>,
    /// The last epoch that was taken, even if nothing of it has reached the device yet.
    epoch: u64,
}

/// A few words for each log that was ever opened; they stay, because its requests may outlast its
/// handles.
static LOGS: Mutex<BTreeMap<u128, Arc<Claims>>> = Mutex::new(BTreeMap::new());

impl Claims {
    pub(super) fn of(identity: u128) -> Arc<Self> {
        let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(logs.entry(identity).or_default())
    }

    /// The handle before, if it is still there.
    pub(super) fn writer(&self) -> Option<Arc<Engine>> {
        self.lock().engine.upgrade()
    }

    /// An epoch that is greater than `found` and than all that were taken before.
    pub(super) fn take_epoch(&self, found: u64) -> Option<u64> {
        let mut writer = self.lock();
        let epoch = writer.epoch.max(found).checked_add(1)?;
        writer.epoch = epoch;
        Some(epoch)
    }

    pub(super) fn set_writer(&self, engine: &Arc<Engine>) {
        self.lock().engine = Arc::downgrade(engine);
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

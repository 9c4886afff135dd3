//! Which handle is the writer of a log.
//!
//! Devices belong to one process, so this process decides. A log is known by its identity; opening it
//! raises the fence of the handle before, then waits for the requests of that handle to end, and only
//! then reads the zones. A handle looks at its fence after each flush and before it tells anybody
//! that something is durable. If it saw no fence then, all of that was on the device before the zones
//! were read for the next handle, which therefore has it.
//!
//! A fence can be raised from any thread, but operations on a device that is driven by one thread can
//! be polled by that one only. Where whoever opens a log cannot poll those of the handle before, it
//! waits until those who can have done so.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{engine::Engine, state::State};
use crate::{DeviceInfo, Driver, Error, ErrorKind, ZoneId, ZonedDevice, writer::flight::Hub};

/// Tells a handle that it is no longer the writer, and others what it still has on its way.
pub(super) struct Fence {
    is_raised: AtomicBool,
    hub: Arc<Hub>,
    state: Arc<Mutex<State>>,
    /// What tells the device from others.
    device: Arc<DeviceInfo>,
    zones: Range<ZoneId>,
}

impl Fence {
    pub(super) fn new(
        hub: &Arc<Hub>,
        state: &Arc<Mutex<State>>,
        device: &Arc<DeviceInfo>,
        zones: &Range<ZoneId>,
    ) -> Self {
        Self {
            is_raised: AtomicBool::new(false),
            hub: Arc::clone(hub),
            state: Arc::clone(state),
            device: Arc::clone(device),
            zones: zones.clone(),
        }
    }

    /// Whether the handle is on this open device, or on another one that stores the same.
    pub(super) fn is_on<D: Driver>(&self, device: &ZonedDevice<D>) -> bool {
        Arc::ptr_eq(&self.device, device.opened())
    }

    /// Waits until all that saw no fence has been submitted.
    pub(super) fn settle(&self) {
        drop(self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until nothing is on its way any more. Others have to poll that.
    pub(super) async fn emptied(&self) {
        self.settle();
        self.hub.emptied().await;
    }

    pub(super) fn raise(&self) {
        self.is_raised.store(true, Ordering::SeqCst);
        self.hub.wake_waiting();
    }

    pub(super) fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::SeqCst)
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
    fence: Weak<Fence>,
    /// The last epoch that was taken, even if nothing of it has reached the device yet.
    epoch: u64,
}

/// A few words for each log that was ever opened; they stay, because its requests may outlast its
/// handles.
static LOGS: Mutex<BTreeMap<u128, Arc<Claims>>> = Mutex::new(BTreeMap::new());

/// A device, and the lock of those who open logs on it.
type Opening = (Weak<DeviceInfo>, Arc<tokio::sync::Mutex<()>>);

/// The lock under which logs are looked for, made and opened on a device: what becomes a writer there,
/// and whether there is a log at all, does not change under the hands of whoever has it.
pub(super) fn opening_on<D: Driver>(device: &ZonedDevice<D>) -> Arc<tokio::sync::Mutex<()>> {
    static DEVICES: Mutex<Vec<Opening>> = Mutex::new(Vec::new());
    let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
    devices.retain(|(known, _)| known.strong_count() > 0);
    let opened = device.opened();
    let known = devices
        .iter()
        .find(|(known, _)| known.as_ptr() == Arc::as_ptr(opened));
    if let Some((_, lock)) = known {
        return Arc::clone(lock);
    }
    let lock = Arc::default();
    devices.push((Arc::downgrade(opened), Arc::clone(&lock)));
    lock
}

/// A handle that may still write to `zones`, and its log.
pub(super) fn writer_of<D: Driver>(
    device: &ZonedDevice<D>,
    zones: &Range<ZoneId>,
) -> Option<(u128, Arc<Fence>)> {
    let logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
    let fences: Vec<_> = logs
        .iter()
        .filter_map(|(identity, claims)| Some((*identity, claims.lock().fence.upgrade()?)))
        .collect();
    // What may be the last of a handle is not dropped under the lock.
    drop(logs);
    fences.into_iter().find(|(_, fence)| {
        let overlaps = fence.zones.start < zones.end && zones.start < fence.zones.end;
        let may_write = !fence.is_raised() || fence.hub.on_way() > 0;
        overlaps && fence.is_on(device) && may_write
    })
}

impl Claims {
    pub(super) fn of(identity: u128) -> Arc<Self> {
        let mut logs = LOGS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(logs.entry(identity).or_default())
    }

    /// Lets the handle before, if it is still there, be the writer no more.
    pub(super) fn fence_off(&self) -> Option<Arc<Fence>> {
        let fence = self.lock().fence.upgrade()?;
        fence.raise();
        Some(fence)
    }

    /// An epoch that is greater than `found` and than all that were taken before.
    pub(super) fn take_epoch(&self, found: u64) -> Option<u64> {
        let mut writer = self.lock();
        let epoch = writer.epoch.max(found).checked_add(1)?;
        writer.epoch = epoch;
        Some(epoch)
    }

    pub(super) fn set_writer(&self, fence: &Arc<Fence>) {
        self.lock().fence = Arc::downgrade(fence);
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The last handles of logs that one can poll, by the identities of their logs.
pub struct Writers<D: Driver>(Mutex<BTreeMap<u128, Weak<Engine<D>>>>);

impl<D: Driver> Writers<D> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The last handle of a log, if it is still there.
    pub(super) fn get(&self, identity: u128) -> Option<Arc<Engine<D>>> {
        self.lock().get(&identity)?.upgrade()
    }

    /// Those on a device.
    pub(super) fn on(&self, device: &ZonedDevice<D>) -> Vec<Arc<Engine<D>>> {
        let all: Vec<_> = self.lock().values().filter_map(Weak::upgrade).collect();
        all.into_iter()
            .filter(|engine| engine.fence.is_on(device))
            .collect()
    }

    pub(super) fn set(&self, identity: u128, engine: &Arc<Engine<D>>) {
        let mut writers = self.lock();
        writers.retain(|_, engine| engine.strong_count() > 0);
        writers.insert(identity, Arc::downgrade(engine));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u128, Weak<Engine<D>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

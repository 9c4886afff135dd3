//! The device under test, which is closed and opened again now and then.

use std::sync::Arc;

use zbd_core::{Backend, DeviceSpec, EmulatedConfig, Error, OpenOptions, WaitPolicy, ZonedDevice};
use zbd_emu::{EmulatedFunction, StoreKind};

/// The ring memory of one descriptor at the most, requests included.
const RING_LEN: usize = 256;
/// What buffers are made of: what is in flight beyond that waits.
const BUFFERS_LEN: usize = 32 << 20;

/// What it takes to open the device again.
pub(super) struct Medium {
    spec: DeviceSpec,
    options: OpenOptions,
    /// A device in memory, which would forget everything.
    kept: Option<Arc<EmulatedFunction>>,
}

impl Medium {
    pub(super) fn new(spec: DeviceSpec, queues: u16) -> Result<Self, Error> {
        let (ring, kept) = match &spec {
            DeviceSpec::Emulated(config) => (usize::from(config.queue_size), kept(config)?),
            _ => (1024, None),
        };
        let rings = usize::from(queues) * (ring * RING_LEN + (64 << 10));
        Ok(Self {
            options: OpenOptions {
                queues,
                // Lanes that spin would take the processor from the tasks.
                wait: WaitPolicy::Adaptive,
                memory_len: BUFFERS_LEN + rings,
                ..OpenOptions::default()
            },
            spec,
            kept,
        })
    }

    /// Opens the device, for the first time or after it was closed.
    pub(super) fn open(&self) -> Result<ZonedDevice, Error> {
        let queues = match &self.kept {
            Some(function) => self.options.open_function(
                Arc::<EmulatedFunction>::clone(function),
                Backend::Emulated,
                self.spec.to_string(),
            ),
            None => self.options.open(&self.spec),
        }?;
        ZonedDevice::from_queues(queues)
    }
}

fn kept(config: &EmulatedConfig) -> Result<Option<Arc<EmulatedFunction>>, Error> {
    match config.store {
        StoreKind::Memory => Ok(Some(Arc::new(EmulatedFunction::new(config)?))),
        StoreKind::Null | StoreKind::File(_) => Ok(None),
    }
}

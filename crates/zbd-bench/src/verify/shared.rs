//! What all tasks of a run have in common.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use zbd_core::{Error, ErrorKind, ZonedDevice};

use super::{
    finding::{Finding, Findings, Kind},
    ledger::ZoneLedger,
    settings::Settings,
};
use crate::{failure::chain, job::stop::Stop};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) appends: u64,
    pub(crate) writes: u64,
    pub(crate) bytes_written: u64,
    /// Records and bytes that were read back and compared, every time they were.
    pub(crate) records_verified: u64,
    pub(crate) bytes_verified: u64,
    pub(crate) opens: u64,
    pub(crate) closes: u64,
    pub(crate) finishes: u64,
    pub(crate) resets: u64,
    pub(crate) flushes: u64,
    pub(crate) reopens: u64,
    /// Zones whose report was compared.
    pub(crate) zones_reported: u64,
}

pub(super) struct Shared {
    pub(super) settings: Settings,
    device: RefCell<Option<ZonedDevice>>,
    pub(super) ledgers: RefCell<Vec<ZoneLedger>>,
    pub(super) findings: RefCell<Findings>,
    pub(super) counts: RefCell<Counts>,
    pub(super) round: Cell<u32>,
    pub(super) stop: Stop,
    /// When to begin nothing more.
    deadline: Option<Instant>,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        device: ZonedDevice,
        ledgers: Vec<ZoneLedger>,
        stop: Stop,
    ) -> Self {
        Self {
            deadline: settings.duration.map(|time| Instant::now() + time),
            settings,
            device: RefCell::new(Some(device)),
            ledgers: RefCell::new(ledgers),
            findings: RefCell::default(),
            counts: RefCell::default(),
            round: Cell::new(0),
            stop,
        }
    }

    /// The device, unless it is being opened again.
    pub(super) fn device(&self) -> Result<ZonedDevice, Error> {
        let device = self.device.borrow();
        let device = device
            .as_ref()
            .ok_or_else(|| Error::new(ErrorKind::DeviceGone, "the device is closed"))?;
        Ok(device.with_timeout(Some(PATIENCE)))
    }

    pub(super) fn close(&self) {
        let device = self.device.take();
        drop(device);
    }

    pub(super) fn reopened(&self, device: ZonedDevice) {
        self.device.replace(Some(device));
    }

    /// Whether nothing more is to be written.
    pub(super) fn is_over(&self) -> bool {
        self.is_ended()
            || self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether everything is to end at once.
    pub(super) fn is_ended(&self) -> bool {
        self.stop.is_set()
    }

    pub(super) fn has_failed(&self) -> bool {
        !self.findings.borrow().is_empty()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.counts.borrow_mut());
    }

    pub(super) fn find(&self, finding: Finding) {
        self.findings.borrow_mut().add(finding);
    }

    /// Takes note of a request that should not have failed.
    pub(super) fn failed(&self, what: &str, zone: Option<u32>, error: &Error) {
        self.find(Finding {
            kind: Kind::RequestFailed,
            zone,
            sector: None,
            text: format!("cannot {what}: {}", chain(error)),
            evidence: None,
        });
    }
}

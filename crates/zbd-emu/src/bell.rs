//! Notifications on their way from the driver to whoever runs the device.

use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use vfio_virtio::{Error, ErrorKind, EventFd, Result, Width};
use vmm_sys_util::{
    epoll::{ControlOperation, Epoll, EpollEvent, EventSet},
    eventfd::EFD_NONBLOCK,
};

use std::os::fd::AsRawFd;

use crate::{device::notif_config_data, wire::feature};

/// Notifications are 32 bits wide and say how far the driver has got.
const WITH_DATA: u8 = 1;
/// Notifications name a queue by its `queue_notif_config_data`.
const BY_CONFIG_DATA: u8 = 2;

/// Counts the notifications of each queue and wakes the device where it sleeps.
///
/// A lost wake-up is ruled out by one order of steps: the driver counts, then looks whether the
/// device sleeps; the device says that it sleeps, then looks at the counts. All four are
/// sequentially consistent, so at least one of the two sees the other.
pub(crate) struct Bell {
    kicks: Box<[AtomicU64]>,
    /// What the last notification of each queue said.
    last: Box<[AtomicU32]>,
    style: AtomicU8,
    asleep: AtomicBool,
    event: EventFd,
    epoll: Epoll,
}

impl Bell {
    pub(crate) fn new(queues: u16) -> Result<Self> {
        let failed = |e| {
            Error::new(
                ErrorKind::Io,
                "cannot create the emulated device's doorbell",
            )
            .with_source(e)
        };
        let event = EventFd::new(EFD_NONBLOCK).map_err(failed)?;
        let epoll = Epoll::new().map_err(failed)?;
        epoll
            .ctl(
                ControlOperation::Add,
                event.as_raw_fd(),
                EpollEvent::new(EventSet::IN, 0),
            )
            .map_err(failed)?;
        Ok(Self {
            kicks: (0..queues).map(|_| AtomicU64::new(0)).collect(),
            last: (0..queues).map(|_| AtomicU32::new(0)).collect(),
            style: AtomicU8::new(0),
            asleep: AtomicBool::new(false),
            event,
            epoll,
        })
    }

    /// How often `queue` was notified.
    #[inline]
    pub(crate) fn kicks(&self, queue: usize) -> u64 {
        self.kicks[queue].load(Ordering::SeqCst)
    }

    pub(crate) fn total_kicks(&self) -> u64 {
        self.kicks
            .iter()
            .map(|kicks| kicks.load(Ordering::Relaxed))
            .sum()
    }

    /// What the last notification of `queue` that was heard said.
    pub(crate) fn last(&self, queue: usize) -> u32 {
        self.last
            .get(queue)
            .map_or(0, |last| last.load(Ordering::Relaxed))
    }

    /// Forgets what notifications said of `queues`, one bit each.
    pub(crate) fn forget(&self, queues: u64) {
        for (index, last) in self.last.iter().enumerate() {
            if queues >> index & 1 != 0 {
                last.store(0, Ordering::Relaxed);
            }
        }
    }

    /// Makes notifications count that are as `features` have them.
    pub(crate) fn expect(&self, features: u64) {
        let mut style = 0;
        if features & feature::NOTIFICATION_DATA != 0 {
            style |= WITH_DATA;
        }
        if features & feature::NOTIF_CONFIG_DATA != 0 {
            style |= BY_CONFIG_DATA;
        }
        self.style.store(style, Ordering::Relaxed);
    }

    /// A write of `value` to the notification address of `queue`, which notifies the device if it
    /// is what was negotiated (§4.1.5.2): the queue's index or what its register says, alone or
    /// below how far the driver has got. Anything else is not heard.
    #[inline]
    pub(crate) fn ring(&self, queue: u16, width: Width, value: u32) {
        let style = self.style.load(Ordering::Relaxed);
        let expected = match style & BY_CONFIG_DATA {
            0 => queue,
            _ => notif_config_data(queue),
        };
        let (value, heard) = match style & WITH_DATA {
            0 => (value & 0xffff, Width::Word),
            _ => (value, Width::Long),
        };
        if value as u16 == expected
            && width == heard
            && let Some(last) = self.last.get(usize::from(queue))
        {
            last.store(value, Ordering::Relaxed);
            self.kick(queue);
        }
    }

    /// Counts a notification of `queue`.
    #[inline]
    fn kick(&self, queue: u16) {
        if let Some(kicks) = self.kicks.get(usize::from(queue)) {
            // Sequentially consistent, hence also a release: what the driver wrote before, and what
            // the notification said, is seen by the device that sees the count.
            kicks.fetch_add(1, Ordering::SeqCst);
            self.wake();
        }
    }

    /// Wakes the device if it sleeps.
    #[inline]
    pub(crate) fn wake(&self) {
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            // It fails only where the counter is full, and then the device wakes all the same.
            drop(self.event.write(1));
        }
    }

    /// Says that the device is about to sleep. It must look at everything once more before it does.
    pub(crate) fn prepare_to_sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
    }

    pub(crate) fn stay_awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Sleeps until something wakes the device or `limit` has passed, a limit in whole
    /// milliseconds.
    pub(crate) fn sleep(&self, limit: Option<Duration>) {
        let timeout = limit.map_or(-1, |limit| {
            i32::try_from(limit.as_millis()).unwrap_or(i32::MAX)
        });
        let mut events = [EpollEvent::default()];
        // An interrupted wait is as good as a wake-up: the caller looks at everything anew.
        drop(self.epoll.wait(timeout, &mut events));
        drop(self.event.read());
        self.stay_awake();
    }
}

//! The device behind its registers: status, features, queues and the medium.

mod blk_config;
mod common_config;
mod poll;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use vfio_virtio::EventFd;

pub(crate) use blk_config::len_bytes as blk_config_bytes;
pub(crate) use common_config::{COMMON_CONFIG_BYTES, notif_config_data};
pub(crate) use poll::Look;

use crate::{
    chain::Chain,
    config::{Quirk, Resolved, Switch, ZoneModel},
    disk::Disk,
    fault::Faults,
    interrupts::{Interrupts, NO_VECTOR},
    memory::DmaMap,
    pci::ConfigSpace,
    ring::{Layout, Ring, Taken},
    store::Opened,
    wire::{device_status, feature},
};

/// All state of the device. Whoever holds its lock is the device: its thread, a stepper, or for
/// the length of one register access the driver.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) config: Resolved,
    pub(crate) pci: ConfigSpace,
    pub(crate) interrupts: Interrupts,
    pub(crate) dma: DmaMap,
    pub(crate) disk: Disk,
    pub(crate) faults: Faults,
    /// The function was given up or pulled out: it reads as all ones.
    pub(crate) gone: bool,
    /// Requests are taken but not completed, as by a back end that stalls.
    on_hold: bool,
    /// How long a reset takes, and when the present one ends.
    pub(crate) reset_takes: Duration,
    reset_due: Option<Instant>,
    /// Who is told that the function is wanted back, and of errors of the bus.
    pub(crate) on_release_request: Option<EventFd>,
    pub(crate) on_bus_error: Option<EventFd>,
    /// Counts the changes of the device configuration.
    generation: u8,
    status: u8,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    /// The `writeback` field of the configuration.
    writeback: bool,
    queues: Vec<Queue>,
    /// The queues that were reset, of which there are at most 64.
    renewed: u64,
    chain: Chain,
    /// Requests carried out but held back until their time has come, in that order.
    held: VecDeque<Held>,
    /// As many as there are descriptors: a driver that has more in flight hands some out twice.
    most_held: usize,
    pub(crate) requests: u64,
    pub(crate) batches: u64,
    /// Why the device asks for a reset.
    pub(crate) broken: Option<&'static str>,
}

/// The registers of a queue, and the ring when it is enabled.
#[derive(Debug)]
struct Queue {
    size: u16,
    vector: u16,
    desc: u64,
    driver: u64,
    device: u64,
    ring: Option<Ring>,
    /// Whether the driver was asked for a notification: until one comes nobody need look.
    armed: bool,
    /// The count of notifications when the ring was last looked at.
    kicks_seen: u64,
}

/// A request that waits for its time.
#[derive(Clone, Copy, Debug)]
struct Held {
    queue: u16,
    taken: Taken,
    used_len: u32,
    due: Instant,
}

impl Queue {
    fn new(max_size: u16) -> Self {
        Self {
            size: max_size,
            vector: NO_VECTOR,
            desc: 0,
            driver: 0,
            device: 0,
            ring: None,
            armed: true,
            kicks_seen: 0,
        }
    }
}

impl Device {
    /// The device that `config` stands for, its data in `file` if that is where they go.
    pub(crate) fn new(config: Resolved, file: Option<Opened>) -> vfio_virtio::Result<Self> {
        let queues = usize::from(config.queues);
        let most_held = queues * usize::from(config.queue_size);
        let reserved = match config.latency.is_zero() {
            true => 0,
            false => most_held,
        };
        Ok(Self {
            pci: ConfigSpace::new(&config),
            interrupts: Interrupts::new(config.vectors),
            dma: DmaMap::default(),
            disk: Disk::new(&config, file)?,
            faults: Faults::default(),
            gone: false,
            on_hold: false,
            reset_takes: Duration::ZERO,
            reset_due: None,
            on_release_request: None,
            on_bus_error: None,
            generation: 0,
            status: 0,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            writeback: true,
            queues: (0..queues).map(|_| Queue::new(config.queue_size)).collect(),
            renewed: 0,
            chain: Chain::with_capacity(usize::from(config.queue_size)),
            held: VecDeque::with_capacity(reserved),
            most_held,
            requests: 0,
            batches: 0,
            broken: None,
            config,
        })
    }

    /// Whether the device can work with what the driver accepted (§2.2.2, §6).
    fn acceptable(&self) -> bool {
        let accepted = self.driver_features;
        let mut required = feature::VERSION_1 | feature::ACCESS_PLATFORM;
        let is_optional = self.config.quirks.contains(&Quirk::ZonedOptional);
        if self.config.model == ZoneModel::HostManaged && !is_optional {
            required |= feature::ZONED;
        }
        accepted & !self.config.features == 0 && accepted & required == required
    }

    /// The features in force: none until they are settled.
    pub(crate) fn features(&self) -> u64 {
        match self.status & device_status::FEATURES_OK {
            0 => 0,
            _ => self.driver_features,
        }
    }

    fn negotiated(&self, feature: u64) -> Switch {
        if self.features() & feature != 0 {
            Switch::On
        } else {
            Switch::Off
        }
    }

    /// A write to the device status (§2.1, §3.1.1).
    fn set_status(&mut self, value: u8) {
        if value == 0 {
            return self.begin_reset();
        }
        // The driver never clears a bit but by reset, and the reset bit is not its own.
        let mut added = value & !self.status & !device_status::NEEDS_RESET;
        if added & device_status::FEATURES_OK != 0 {
            // §5.2.5.2: without FLUSH the cache must begin as writethrough.
            let writeback = self.driver_features & feature::FLUSH != 0;
            if !self.acceptable() || !self.set_writeback(writeback) {
                added &= !device_status::FEATURES_OK;
            }
        }
        // Nothing runs on features that were not settled.
        if (self.status | added) & device_status::FEATURES_OK == 0 {
            added &= !device_status::DRIVER_OK;
        }
        self.status |= added;
    }

    /// Changes the mode of the cache. False where what it holds could not be made durable.
    fn set_writeback(&mut self, writeback: bool) -> bool {
        let changed = self.disk.set_writethrough(!writeback);
        if changed {
            self.writeback = writeback;
        }
        changed
    }

    /// A reset that takes its time: until then the device goes on as before.
    fn begin_reset(&mut self) {
        if self.reset_takes.is_zero() || self.status == 0 {
            return self.reset();
        }
        self.reset_due = Some(Instant::now() + self.reset_takes);
    }

    /// Ends a reset whose time has come.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.reset_due.is_some_and(|due| due <= Instant::now()) {
            self.reset();
        }
    }

    /// Stops completing requests, or goes on.
    pub(crate) fn set_hold(&mut self, on_hold: bool) {
        self.on_hold = on_hold;
        if on_hold {
            self.held.reserve(self.most_held - self.held.len());
        }
    }

    /// Changes the size of the medium (§5.2.6.2).
    pub(crate) fn resize(&mut self, sectors: u64) -> vfio_virtio::Result<()> {
        let geometry = self.config.resized(sectors)?;
        self.disk.resize(geometry)?;
        self.config.geometry = geometry;
        self.generation = self.generation.wrapping_add(1);
        if self.status & device_status::DRIVER_OK != 0 {
            self.interrupts.config();
        }
        Ok(())
    }

    /// Asks for a reset because a test wants it to.
    pub(crate) fn ask_for_reset(&mut self) {
        self.break_down("a reset that was asked for");
    }

    /// Forgets everything that negotiation and queue set-up established. The medium stays, and so
    /// do mappings and MSI-X, which belong to the function.
    fn reset(&mut self) {
        self.reset_due = None;
        self.status = 0;
        self.device_feature_select = 0;
        self.driver_feature_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        self.writeback = true;
        self.broken = None;
        self.held.clear();
        self.interrupts.reset();
        for index in 0..self.queues.len() {
            self.renew_queue(index);
        }
    }

    /// Stops until the next reset (§2.1.2).
    fn break_down(&mut self, reason: &'static str) {
        self.broken = Some(reason);
        self.status |= device_status::NEEDS_RESET;
        self.held.clear();
        if self.status & device_status::DRIVER_OK != 0 {
            self.interrupts.config();
        }
    }

    /// Ends everything: the driver has given the function up, or it was pulled out.
    pub(crate) fn remove(&mut self) {
        self.reset();
        self.disk.close();
        self.gone = true;
        self.dma.clear();
        self.interrupts.deliver_to(None);
    }

    /// Ends everything at once, as if the power failed.
    pub(crate) fn power_cut(&mut self, seed: u64) {
        self.disk.cut(seed);
        self.remove();
    }

    fn enable_queue(&mut self, index: usize) {
        let packed = self.negotiated(feature::RING_PACKED);
        let indirect = self.negotiated(feature::INDIRECT_DESC);
        let event_idx = self.negotiated(feature::EVENT_IDX);
        let in_order = self.negotiated(feature::IN_ORDER);
        let queue = &mut self.queues[index];
        // §2.7: the size of a split ring is a power of two. A driver that left the largest size of
        // a device for packed rings as it found it sees that its queue is not enabled.
        let fits = packed == Switch::On || queue.size.is_power_of_two();
        if queue.ring.is_none() && fits {
            queue.ring = Some(Ring::new(Layout {
                size: queue.size,
                desc: queue.desc,
                driver: queue.driver,
                device: queue.device,
                packed,
                indirect,
                event_idx,
                in_order,
            }));
        }
    }

    /// Takes one queue back (§2.6.1): its requests in flight are never completed.
    fn reset_queue(&mut self, index: usize) {
        self.renew_queue(index);
        self.held.retain(|held| usize::from(held.queue) != index);
    }

    fn renew_queue(&mut self, index: usize) {
        self.queues[index] = Queue {
            kicks_seen: self.queues[index].kicks_seen,
            ..Queue::new(self.config.queue_size)
        };
        self.renewed |= 1 << index;
    }

    /// The queues that were reset since the last call, one bit each: what notifications said of
    /// them holds no longer.
    pub(crate) fn take_renewed(&mut self) -> u64 {
        std::mem::take(&mut self.renewed)
    }

    /// Whether requests may be looked at at all.
    fn is_running(&self) -> bool {
        self.status & (device_status::DRIVER_OK | device_status::NEEDS_RESET)
            == device_status::DRIVER_OK
            && self.pci.is_bus_master()
            && !self.gone
    }
}

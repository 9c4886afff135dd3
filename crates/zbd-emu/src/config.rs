//! What kind of device to be: every property that a device string can set.

mod display;
mod fault;
mod offer;
mod parse;
mod quirk;
mod resolve;
#[cfg(test)]
mod tests;

use std::{path::PathBuf, time::Duration};

pub use fault::{DataFault, DataFaultKind, Recurrence};
pub use quirk::Quirk;
pub(crate) use resolve::{Resolved, SERIAL_BYTES, SegmentLimits};

/// The zoned model that the device presents (VIRTIO 1.3 §5.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneModel {
    /// Sequential zones accept writes at their write pointer only.
    HostManaged,
    /// Sequential zones accept any write and prefer sequential ones.
    HostAware,
    /// An ordinary disk; the ZONED feature is not offered.
    None,
}

/// Where data goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Memory of this process, allocated as it is written.
    Memory,
    /// Nowhere: zones keep their state, writes are dropped, reads are zeroes.
    Null,
    /// A file, behind a volatile write cache: what was flushed outlives the process and the power.
    ///
    /// The file is created where there is none, in a directory that exists. One that exists says
    /// itself what it is: model, sizes, capacity, conventional zones, limits, largest append, block
    /// size and serial come from it where they are not given, and what is given otherwise is
    /// refused. So is a file that another device holds, of whatever process, and one that is
    /// damaged, cut short or not such a file at all.
    ///
    /// The path is valid Unicode, contains a `/` and no comma; one that does not begin with `/` is
    /// relative to the working directory.
    File(PathBuf),
}

/// The format of the virtqueues (VIRTIO 1.3 §2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFormat {
    /// Split rings.
    Split,
    /// Packed rings are offered; a driver may still use split ones.
    Packed,
}

/// Whether something is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

/// The properties of an emulated device.
///
/// [`Default`] is a host-managed device of 64 zones of 16 MiB in memory. What the medium is, is
/// optional: a file knows it already. The option part of a device string parses into one:
///
/// ```
/// use zbd_emu::EmulatedConfig;
///
/// let config: EmulatedConfig = "zones=16,zone-size=8m,zone-cap=6m,max-open=4".parse()?;
/// assert_eq!(config.zones, Some(16));
/// assert_eq!(config.zone_capacity_bytes, Some(6 << 20));
/// assert_eq!(config.model, None);
///
/// let durable: EmulatedConfig = "store=./disk.zbd,cache=16m".parse()?;
/// assert_eq!(durable.to_string(), "store=./disk.zbd,cache=16m");
/// # Ok::<_, vfio_virtio::Error>(())
/// ```
///
/// The keys: `zones`, `size`, `zone-size`, `zone-cap`, `conventional`, `max-open`, `max-active`,
/// `max-append`, `block-size`, `model=hm|ha|none`, `queues`, `queue-size`, `ring=split|packed`,
/// `vectors`, `serial`, `size-max`, `seg-max`, `store=mem|null|PATH`, `cache`, `latency`,
/// `fault=KIND@N+KIND@every:N` ([`DataFaultKind`] has the kinds), `quirks=NAME+NAME` ([`Quirk`] has
/// the names), and with `on` or `off`: `indirect`, `event-idx`, `in-order`, `notification-data`,
/// `notif-config-data`,
/// `order-platform`, `flush`, `discard`, `write-zeroes`, `secure-erase`, `lifetime`, `readonly`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmulatedConfig {
    /// The zoned model; host-managed where not given.
    pub model: Option<ZoneModel>,
    /// The number of zones, conventional ones included; 64 where not given.
    /// [`size_bytes`](Self::size_bytes) overrides it.
    pub zones: Option<u32>,
    /// The size of the whole device. Where it is no multiple of the zone size, the last zone is
    /// short.
    pub size_bytes: Option<u64>,
    /// The distance from one zone's start to the next; it need not be a power of two. 16 MiB where
    /// not given.
    pub zone_size_bytes: Option<u64>,
    /// How much of a sequential zone can be written; all of it where not given.
    pub zone_capacity_bytes: Option<u64>,
    /// How many zones, from the first on, are conventional; none where not given.
    pub conventional_zones: Option<u32>,
    /// How many zones may be open, 0 for any number. 32 where not given, no more than may be
    /// active; host-aware devices have no limit.
    pub max_open_zones: Option<u32>,
    /// How many zones may be active, 0 for any number. 48 where not given, no fewer than may be
    /// open; host-aware devices have no limit.
    pub max_active_zones: Option<u32>,
    /// The largest append; 0 for a device that does not support it. 512 KiB where not given.
    pub max_append_bytes: Option<u64>,
    /// The block size and write granularity; 4096 where not given.
    pub block_size_bytes: Option<u32>,
    /// The number of request queues.
    pub queues: u16,
    /// The largest size of each queue, 4 to 32768. A power of two, unless packed rings are offered.
    /// A driver that uses split rings then has to write a power of two itself: a split queue of
    /// another size is not enabled.
    pub queue_size: u16,
    /// The format of the queues.
    pub ring: RingFormat,
    /// Whether indirect descriptors are offered.
    pub indirect: Switch,
    /// Whether event index suppression is offered.
    pub event_idx: Switch,
    /// Whether use in order is offered. Where it is negotiated, one used element stands for all
    /// requests that the device completes at a time.
    pub in_order: Switch,
    /// Whether 32-bit notifications are offered, which say how far the driver has got.
    pub notification_data: Switch,
    /// Whether the device offers to choose what a notification of a queue says in place of the
    /// queue's index. It chooses 0x40 and more.
    pub notif_config_data: Switch,
    /// Whether ORDER_PLATFORM is offered. The device behaves the same with and without it.
    pub order_platform: Switch,
    /// The number of MSI-X vectors, 0 for a function without MSI-X. One for each queue and one more
    /// where not given.
    pub vectors: Option<u16>,
    /// What GET_ID answers: at most 20 characters of ASCII, no comma and no space. `zbd-emu` where
    /// not given.
    pub serial: Option<String>,
    /// Whether the device offers FLUSH, and with it CONFIG_WCE.
    pub flush: Switch,
    /// Whether DISCARD is offered. Where not given, it is by devices that are not host-managed: a
    /// driver must not accept it from those that are (VIRTIO 1.3 §5.2.5.1).
    pub discard: Option<Switch>,
    /// Whether WRITE_ZEROES is offered. In a sequential zone it is a write of zeroes: it begins at
    /// the write pointer and moves it.
    pub write_zeroes: Switch,
    /// Whether SECURE_ERASE is offered. Where not given, it is by devices that are not zoned.
    pub secure_erase: Option<Switch>,
    /// Whether LIFETIME is offered.
    pub lifetime: Switch,
    /// Whether the device is read-only: everything that would change data or zones is an I/O error.
    pub readonly: Switch,
    /// The largest length of a data segment, which is not limited where not given.
    pub size_max: Option<u32>,
    /// The largest number of data segments of a request. As many as the queue has descriptors, less
    /// header and status, where not given; a request that exceeds a number that was given is an I/O
    /// error.
    pub seg_max: Option<u32>,
    /// Where data goes.
    pub store: StoreKind,
    /// How much data the write cache of a file holds before it is written back by itself; 64 MiB
    /// where not given. Other stores have no cache.
    pub cache_bytes: Option<u64>,
    /// The least time between taking a request and completing it.
    pub latency: Duration,
    /// What is done wrong with data, for those who want to see whether that is noticed. A device
    /// that keeps no data has nothing to do wrong.
    pub faults: Vec<DataFault>,
    /// In which ways the device deviates from the specification, for those who want to see whether
    /// that is noticed.
    pub quirks: Vec<Quirk>,
}

impl Default for EmulatedConfig {
    fn default() -> Self {
        Self {
            model: None,
            zones: None,
            size_bytes: None,
            zone_size_bytes: None,
            zone_capacity_bytes: None,
            conventional_zones: None,
            max_open_zones: None,
            max_active_zones: None,
            max_append_bytes: None,
            block_size_bytes: None,
            queues: 2,
            queue_size: 256,
            ring: RingFormat::Split,
            indirect: Switch::On,
            event_idx: Switch::On,
            in_order: Switch::Off,
            notification_data: Switch::Off,
            notif_config_data: Switch::Off,
            order_platform: Switch::Off,
            vectors: None,
            serial: None,
            flush: Switch::On,
            discard: None,
            write_zeroes: Switch::On,
            secure_erase: None,
            lifetime: Switch::On,
            readonly: Switch::Off,
            size_max: None,
            seg_max: None,
            store: StoreKind::Memory,
            cache_bytes: None,
            latency: Duration::ZERO,
            faults: Vec::new(),
            quirks: Vec::new(),
        }
    }
}

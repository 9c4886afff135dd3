//! What is known of an open device.

use vfio_virtio::{DmaBuffer, PageSize};

use crate::{
    Error, ErrorKind, Result, Sector, SectorCount, WaitMethod, WaitPolicy, Zone, ZoneId, ZoneModel,
    ZoneState, ZoneType, virtio::ZoneGrid,
};

/// What does the work behind an open device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// A virtio-blk function driven through the kernel's VFIO.
    Vfio,
    /// The software virtio-blk function of this process.
    Emulated,
    /// A block device of Linux, driven by its own driver there.
    Kernel,
}

impl Backend {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vfio => "virtio-blk over VFIO",
            Self::Emulated => "virtio-blk emulated in this process",
            Self::Kernel => "Linux block device through io_uring",
        }
    }
}

/// Who chooses where an append goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AppendSupport {
    /// The device.
    Native,
    /// This library: each append is a write at the write pointer, one at a time in each zone, and
    /// says where that was. Appends to one zone gain nothing by being many in flight, and whoever
    /// else writes to the zone must do it through the same open device.
    Emulated,
    /// Nobody: the device knows no append.
    None,
}

impl AppendSupport {
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "by the device",
            Self::Emulated => "emulated, one write at a time in each zone",
            Self::None => "no",
        }
    }
}

/// What is known of an open device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The device string that opens it.
    pub name: String,
    /// What does the work.
    pub backend: Backend,
    /// The device's size.
    pub capacity: SectorCount,
    /// The unit in which the device is read and written, in bytes.
    pub block_size: u32,
    /// The unit that the medium writes as a whole, in bytes.
    pub physical_block_size: u32,
    /// The greatest length of a read or a write in bytes.
    pub max_transfer: u32,
    /// How many segments the data of one request can consist of (seg_max).
    pub max_segments: u32,
    /// The greatest length of one segment in bytes (size_max).
    pub max_segment: u32,
    /// Whether the device refuses writes.
    pub read_only: bool,
    /// Whether completed writes need a flush to be durable: always, or in the cache's writeback
    /// mode where [`cache_switchable`](Self::cache_switchable).
    pub volatile_cache: bool,
    /// Whether the cache can be switched between writeback and writethrough mode.
    pub cache_switchable: bool,
    /// The limits of [`Request::Discard`](crate::Request::Discard); `None` if the device does not
    /// take it. Host-managed devices never do: their zones are reset instead.
    pub discard: Option<RangeLimits>,
    /// The limits of [`Request::WriteZeroes`](crate::Request::WriteZeroes); `None` if the device
    /// does not take it.
    pub write_zeroes: Option<ZeroesLimits>,
    /// The limits of [`Request::SecureErase`](crate::Request::SecureErase); `None` if the device
    /// does not take it.
    pub secure_erase: Option<RangeLimits>,
    /// Whether the device tells how worn it is.
    pub lifetime: bool,
    /// How many queues the device has.
    pub max_queues: u16,
    /// How many queues were opened.
    pub queues: u16,
    /// How many requests each queue has in flight at the most.
    pub queue_depth: u16,
    /// How queues are waited for.
    pub wait: WaitPolicy,
    /// Whether the device interrupts when it is waited for. If not, it is looked at again and again.
    pub interrupts: bool,
    /// What a thread sleeps in; `None` if it never does.
    pub wait_method: Option<WaitMethod>,
    /// The negotiated features, by name.
    pub features: Vec<&'static str>,
    /// The size of the DMA memory in bytes.
    pub memory_len: usize,
    /// The pages that the DMA memory consists of.
    pub memory_pages: PageSize,
    /// The zones; `None` for a device without zones.
    pub zoned: Option<ZonedInfo>,
}

/// What a device allows of requests that name a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RangeLimits {
    /// The greatest length of a range.
    pub max_sectors: SectorCount,
    /// How many ranges the device would take in one request. Requests here have one.
    pub max_ranges: u32,
    /// What the start and the length of a range are multiples of; a range that reaches to the end
    /// of the device may be shorter.
    pub alignment: SectorCount,
}

/// What a device allows of requests that set a range to zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZeroesLimits {
    /// The greatest length of a range.
    pub max_sectors: SectorCount,
    /// How many ranges the device would take in one request. Requests here have one.
    pub max_ranges: u32,
    /// Whether the device said, when it was opened, that [`Unmap::Allow`](crate::Unmap::Allow) may
    /// give space back.
    pub may_unmap: bool,
}

/// What is known of the zones of an open device.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ZonedInfo {
    /// How the device treats its zones.
    pub model: ZoneModel,
    /// The size of a zone; the last one may be shorter.
    pub zone_size: SectorCount,
    /// The number of zones.
    pub zone_count: u32,
    /// How many zones can be open at once; `None` for any number.
    pub max_open: Option<u32>,
    /// How many zones can be active at once; `None` for any number.
    pub max_active: Option<u32>,
    /// The greatest length of an append, no more than that of any transfer; 0 if the device knows
    /// no append.
    ///
    /// Where the append is [emulated](AppendSupport::Emulated), the greatest write that the kernel
    /// sends to the device as one command.
    pub max_append: SectorCount,
    /// Who chooses where an append goes.
    pub append: AppendSupport,
    /// The unit of which all writes to sequential zones are multiples, in bytes: what the device
    /// states, in whole blocks.
    pub write_granularity: u32,
    /// One less than the write granularity if that is a power of two; else all ones, which says
    /// nothing.
    pub(crate) granularity_mask: u32,
    pub(crate) grid: ZoneGrid,
    pub(crate) shapes: Box<[ZoneShape]>,
}

/// What does not change about a zone, and what it began as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZoneShape {
    pub(crate) capacity: SectorCount,
    pub(crate) zone_type: ZoneType,
    /// The state when the device was opened.
    pub(crate) opened_as: ZoneState,
}

impl DeviceInfo {
    /// The zones.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the device has none.
    pub fn zoned(&self) -> Result<&ZonedInfo> {
        self.zoned.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} is not a zoned device: it can be read and written, but has no zones to append to or to manage",
                    self.name
                ),
            )
        })
    }
}

impl ZonedInfo {
    /// Whether `len` bytes are a multiple of the write granularity. A division costs as much as the
    /// rest of what is checked, and granularities are powers of two.
    #[inline]
    pub(crate) fn is_granular(&self, len: u32) -> bool {
        len & self.granularity_mask == 0 || len.is_multiple_of(self.write_granularity)
    }

    /// The first sector of `zone`, whether it exists or not.
    pub fn start(&self, zone: ZoneId) -> Sector {
        self.grid.start(zone)
    }

    /// How much of `zone` can be written; `None` if it does not exist.
    pub fn capacity(&self, zone: ZoneId) -> Option<SectorCount> {
        self.shapes.get(zone.0 as usize).map(|shape| shape.capacity)
    }

    /// The first sector after the part of `zone` that can be written; `None` if it does not exist.
    pub(crate) fn capacity_end(&self, zone: ZoneId) -> Option<Sector> {
        Some(self.start(zone) + self.capacity(zone)?)
    }

    /// The type of `zone`; `None` if it does not exist.
    pub fn zone_type(&self, zone: ZoneId) -> Option<ZoneType> {
        self.shapes
            .get(zone.0 as usize)
            .map(|shape| shape.zone_type)
    }

    /// The zone that contains `sector`; `None` past the end of the device.
    pub fn zone_of(&self, sector: Sector) -> Option<ZoneId> {
        let id = u32::try_from(sector.0 / self.zone_size.0).ok()?;
        (sector < self.grid.end).then_some(ZoneId(id))
    }

    /// The length in bytes of a buffer for a report of `zones` zones.
    pub const fn report_len(zones: u32) -> usize {
        crate::virtio::report_len(zones)
    }

    /// Reads the completed buffer of a [`Request::Report`](crate::Request::Report) that began with
    /// zone `first`.
    ///
    /// # Errors
    /// [`ErrorKind::Protocol`] if the report contradicts itself or the device's configuration.
    pub fn parse_report(&self, first: ZoneId, report: &DmaBuffer) -> Result<Vec<Zone>> {
        self.grid.parse(first, report)
    }
}

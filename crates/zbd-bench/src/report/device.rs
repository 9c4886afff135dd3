//! What is known of a device.

use serde::Serialize;
use zbd_core::{
    AppendSupport, DeviceInfo, Lifetime, RangeLimits, SectorCount, WriteCache, ZeroesLimits,
    ZoneId, ZoneType, ZonedInfo,
};

use super::{SCHEMA, figures, print, print_json, table};
use crate::{cli::PlainFormat, failure::Failure};

/// A device as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceRecord {
    name: String,
    backend: &'static str,
    capacity_bytes: u64,
    block_size: u32,
    physical_block_size: u32,
    max_transfer_bytes: u32,
    max_segments: u32,
    max_segment_bytes: u32,
    read_only: bool,
    volatile_cache: bool,
    cache_switchable: bool,
    discard: Option<RangeRecord>,
    write_zeroes: Option<ZeroesRecord>,
    secure_erase: Option<RangeRecord>,
    max_queues: u16,
    queues: u16,
    queue_depth: u16,
    wait: String,
    interrupts: bool,
    wait_method: Option<String>,
    features: Vec<&'static str>,
    memory_bytes: usize,
    memory_pages: String,
    zoned: Option<ZonedRecord>,
}

#[derive(Debug, Serialize)]
struct RangeRecord {
    max_bytes: u64,
    max_ranges: u32,
    alignment_bytes: u64,
}

#[derive(Debug, Serialize)]
struct ZeroesRecord {
    max_bytes: u64,
    max_ranges: u32,
    may_unmap: bool,
}

/// What a device has answered. It may answer differently later.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    id: Option<String>,
    write_cache: String,
    lifetime: Option<LifetimeRecord>,
}

#[derive(Debug, Serialize)]
struct LifetimeRecord {
    reserved_blocks_consumed: String,
    wear_slc: String,
    wear_mlc: String,
}

#[derive(Debug, Serialize)]
struct ZonedRecord {
    model: String,
    zones: u32,
    conventional_zones: u32,
    zone_size_bytes: u64,
    /// Of sequential zones, the least and the greatest; those of conventional ones if there are
    /// no others.
    zone_capacity_bytes: Range,
    max_open_zones: Option<u32>,
    max_active_zones: Option<u32>,
    max_append_bytes: u64,
    append: &'static str,
    write_granularity: u32,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Range {
    min: u64,
    max: u64,
}

#[derive(Serialize)]
struct Info<'a> {
    schema: &'static str,
    device: DeviceRecord,
    told: &'a Told,
}

impl Told {
    pub(crate) fn new(
        id: Option<String>,
        write_cache: WriteCache,
        lifetime: Option<Lifetime>,
    ) -> Self {
        Self {
            id,
            write_cache: write_cache.to_string(),
            lifetime: lifetime.map(|lifetime| LifetimeRecord {
                reserved_blocks_consumed: lifetime.pre_eol.to_string(),
                wear_slc: lifetime.type_a.to_string(),
                wear_mlc: lifetime.type_b.to_string(),
            }),
        }
    }
}

impl From<RangeLimits> for RangeRecord {
    fn from(limits: RangeLimits) -> Self {
        Self {
            max_bytes: limits.max_sectors.bytes(),
            max_ranges: limits.max_ranges,
            alignment_bytes: limits.alignment.bytes(),
        }
    }
}

impl From<ZeroesLimits> for ZeroesRecord {
    fn from(limits: ZeroesLimits) -> Self {
        Self {
            max_bytes: limits.max_sectors.bytes(),
            max_ranges: limits.max_ranges,
            may_unmap: limits.may_unmap,
        }
    }
}

impl From<&DeviceInfo> for DeviceRecord {
    fn from(info: &DeviceInfo) -> Self {
        Self {
            name: info.name.clone(),
            backend: info.backend.name(),
            capacity_bytes: info.capacity.bytes(),
            block_size: info.block_size,
            physical_block_size: info.physical_block_size,
            max_transfer_bytes: info.max_transfer,
            max_segments: info.max_segments,
            max_segment_bytes: info.max_segment,
            read_only: info.read_only,
            volatile_cache: info.volatile_cache,
            cache_switchable: info.cache_switchable,
            discard: info.discard.map(RangeRecord::from),
            write_zeroes: info.write_zeroes.map(ZeroesRecord::from),
            secure_erase: info.secure_erase.map(RangeRecord::from),
            max_queues: info.max_queues,
            queues: info.queues,
            queue_depth: info.queue_depth,
            wait: info.wait.to_string(),
            interrupts: info.interrupts,
            wait_method: info.wait_method.map(|method| method.to_string()),
            features: info.features.clone(),
            memory_bytes: info.memory_len,
            memory_pages: info.memory_pages.to_string(),
            zoned: info.zoned.as_ref().map(ZonedRecord::from),
        }
    }
}

impl From<&ZonedInfo> for ZonedRecord {
    fn from(zoned: &ZonedInfo) -> Self {
        let ids = || (0..zoned.zone_count).map(ZoneId);
        let conventional = |zone| zoned.zone_type(zone) == Some(ZoneType::Conventional);
        let conventional_zones = ids().filter(|zone| conventional(*zone)).count() as u32;
        let only_conventional = conventional_zones == zoned.zone_count;
        let capacities = || {
            ids()
                .filter(|zone| only_conventional || !conventional(*zone))
                .filter_map(|zone| zoned.capacity(zone).map(SectorCount::bytes))
        };
        Self {
            model: zoned.model.to_string(),
            zones: zoned.zone_count,
            conventional_zones,
            zone_size_bytes: zoned.zone_size.bytes(),
            zone_capacity_bytes: Range {
                min: capacities().min().unwrap_or_default(),
                max: capacities().max().unwrap_or_default(),
            },
            max_open_zones: zoned.max_open,
            max_active_zones: zoned.max_active,
            max_append_bytes: zoned.max_append.bytes(),
            append: match zoned.append {
                AppendSupport::Native => "native",
                AppendSupport::Emulated => "emulated",
                _ => "none",
            },
            write_granularity: zoned.write_granularity,
        }
    }
}

/// Prints what is known of a device.
pub(crate) fn info(info: &DeviceInfo, told: &Told, format: PlainFormat) -> Result<(), Failure> {
    let device = DeviceRecord::from(info);
    match format {
        PlainFormat::Json => print_json(&Info {
            schema: SCHEMA,
            device,
            told,
        }),
        PlainFormat::Text => print(&text(&device, told)),
    }
}

fn text(device: &DeviceRecord, told: &Told) -> String {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    row("device", device.name.clone());
    row("back end", device.backend.to_owned());
    row(
        "ID",
        match told.id.as_deref() {
            None | Some("") => "none".to_owned(),
            Some(id) => id.to_owned(),
        },
    );
    row("capacity", figures::bytes(device.capacity_bytes));
    row(
        "block size",
        format!(
            "{}, physical {}",
            figures::bytes(device.block_size.into()),
            figures::bytes(device.physical_block_size.into())
        ),
    );
    // The greatest that the field can say is no limit at all.
    let unlimited = device.max_transfer_bytes > u32::MAX - device.block_size;
    row(
        "greatest transfer",
        match unlimited {
            true => "no limit".to_owned(),
            false => figures::bytes(device.max_transfer_bytes.into()),
        },
    );
    row(
        "data segments",
        match device.max_segment_bytes {
            u32::MAX => format!("{} at the most", figures::count(device.max_segments.into())),
            n => format!(
                "{} at the most, of {} each",
                figures::count(device.max_segments.into()),
                figures::bytes(n.into())
            ),
        },
    );
    row(
        "writable",
        if device.read_only { "no" } else { "yes" }.to_owned(),
    );
    let cache = match (device.volatile_cache, device.cache_switchable) {
        (false, _) => "none; completed writes are durable".to_owned(),
        (true, false) => "volatile; completed writes need a flush to be durable".to_owned(),
        (true, true) => format!("{}; can be switched", told.write_cache),
    };
    row("write cache", cache);
    row("discard", range(device.discard.as_ref()));
    row(
        "write zeroes",
        match &device.write_zeroes {
            None => "no".to_owned(),
            Some(limits) if limits.may_unmap => {
                format!("{}, may give space back", at_once(limits.max_bytes))
            }
            Some(limits) => at_once(limits.max_bytes),
        },
    );
    row("secure erase", range(device.secure_erase.as_ref()));
    if let Some(lifetime) = &told.lifetime {
        row(
            "reserved blocks used",
            lifetime.reserved_blocks_consumed.clone(),
        );
        row(
            "lifetime used",
            format!("SLC {}, MLC {}", lifetime.wear_slc, lifetime.wear_mlc),
        );
    }
    match &device.zoned {
        None => row("zones", "none".to_owned()),
        Some(zoned) => zoned.rows(&mut row),
    }
    row("queues", device.max_queues.to_string());
    row("queue depth", device.queue_depth.to_string());
    let signal = match device.interrupts {
        true => "the device interrupts",
        false => "without interrupts",
    };
    row(
        "waiting",
        match &device.wait_method {
            None => format!("{}, {signal}", device.wait),
            Some(method) => format!("{}, {signal}, sleeps in {method}", device.wait),
        },
    );
    row("memory pages", device.memory_pages.clone());
    row("features", device.features.join(" "));
    table(2, rows)
}

fn range(limits: Option<&RangeRecord>) -> String {
    match limits {
        None => "no".to_owned(),
        Some(limits) => format!(
            "{}, in units of {}",
            at_once(limits.max_bytes),
            figures::bytes(limits.alignment_bytes)
        ),
    }
}

/// The greatest that the field can say is no limit at all.
fn at_once(max_bytes: u64) -> String {
    if max_bytes >= SectorCount(u32::MAX.into()).bytes() {
        "any length".to_owned()
    } else {
        format!("{} at once", figures::bytes(max_bytes))
    }
}

impl ZonedRecord {
    fn rows(&self, row: &mut impl FnMut(&str, String)) {
        let limit = |n: Option<u32>| n.map_or_else(|| "no limit".to_owned(), |n| n.to_string());
        row(
            "zones",
            format!(
                "{}, {} ({} of them conventional)",
                figures::count(self.zones.into()),
                self.model,
                self.conventional_zones
            ),
        );
        row("zone size", figures::bytes(self.zone_size_bytes));
        let Range { min, max } = self.zone_capacity_bytes;
        row(
            "zone capacity",
            match min == max {
                true => figures::bytes(max),
                false => format!("{} to {}", figures::bytes(min), figures::bytes(max)),
            },
        );
        row("open zones", limit(self.max_open_zones));
        row("active zones", limit(self.max_active_zones));
        row(
            "greatest append",
            match self.max_append_bytes {
                0 => "the device knows no append".to_owned(),
                n => figures::bytes(n),
            },
        );
        if self.append == "emulated" {
            row("append", AppendSupport::Emulated.name().to_owned());
        }
        row(
            "write granularity",
            figures::bytes(self.write_granularity.into()),
        );
    }
}

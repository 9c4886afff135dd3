//! Opens a virtio-blk function: negotiation, configuration, queues, and what zones there are.

use std::{sync::Arc, time::Duration, time::Instant};

use vfio_virtio::{
    ConfiguredDevice, Data, DmaArena, DmaBuffer, Negotiation, PciFunction, QueueOptions,
    RunningDevice,
};

use super::{
    BlkQueue, RequestType, Status, ZoneGrid,
    config::{self, BlkConfig},
    negotiate, report_len, zones_per_report,
};
use crate::{
    AppendSupport, Backend, DeviceInfo, Error, ErrorKind, OpenOptions, Result, WaitPolicy, Zone,
    ZoneId, ZonedInfo, info::ZoneShape, io_queue::Tag, wait,
};

/// The virtio device ID of a block device (VIRTIO 1.3, 5.2.1).
const BLOCK_DEVICE: u16 = 2;
/// How many zones are asked for at once while opening: a report of 256 KiB.
const REPORT_ZONES: u32 = 4095;
/// How long the reports may take while opening, all of them: a device may report as few zones at a
/// time as it likes.
const REPORT_TIME: Duration = Duration::from_secs(30);

/// A device that has been opened.
pub(crate) struct Opened {
    pub(crate) info: DeviceInfo,
    pub(crate) device: RunningDevice,
    pub(crate) queues: Vec<BlkQueue<Tag>>,
}

pub(crate) fn open(
    function: Arc<dyn PciFunction>,
    backend: Backend,
    name: String,
    options: &OpenOptions,
) -> Result<Opened> {
    let negotiation = Negotiation::begin(function, BLOCK_DEVICE)?;
    let wanted =
        negotiate::wanted(&negotiation)? | options.rings.accepted(&name, negotiation.offered())?;
    let mut configured = negotiation.accept(wanted, options.memory_len)?;
    let features = configured.features();
    let config = BlkConfig::read(&configured)?;
    let max_queues = config.num_queues.min(configured.num_queues()?);
    if !(1..=max_queues).contains(&options.queues) {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "{name}: {} queues were asked for, the device has {max_queues}",
                options.queues
            ),
        ));
    }
    let interrupts = enable_interrupts(&mut configured, options)?;
    for _ in 0..options.queues {
        let mut queue = QueueOptions::default();
        queue.size = options.queue_size;
        configured.add_queue(queue)?;
    }
    let (device, rings) = configured.start()?;
    let mut queues: Vec<_> = rings.into_iter().map(BlkQueue::new).collect();
    let zoned = match (config.zoned, queues.first_mut()) {
        (Some(zoned), Some(queue)) => {
            let grid = ZoneGrid {
                zone_size: zoned.zone_size,
                zone_count: zoned.zone_count,
                end: config.end(),
            };
            Some(ZonedInfo {
                model: zoned.model,
                zone_size: zoned.zone_size,
                zone_count: zoned.zone_count,
                max_open: (zoned.max_open > 0).then_some(zoned.max_open),
                max_active: (zoned.max_active > 0).then_some(zoned.max_active),
                max_append: zoned.max_append,
                append: match zoned.max_append.0 {
                    0 => AppendSupport::None,
                    _ => AppendSupport::Native,
                },
                write_granularity: zoned.write_granularity,
                granularity_mask: match zoned.write_granularity.is_power_of_two() {
                    true => zoned.write_granularity - 1,
                    false => u32::MAX,
                },
                grid,
                shapes: shapes(queue, &device, &grid, config.max_segment)?,
            })
        }
        _ => None,
    };
    let info = DeviceInfo {
        name,
        backend,
        capacity: config.capacity,
        block_size: config.block_size,
        physical_block_size: config.physical_block_size,
        max_transfer: config.max_transfer,
        max_segments: config.max_segments,
        max_segment: config.max_segment,
        read_only: features.contains(config::RO),
        volatile_cache: features.contains(config::FLUSH),
        cache_switchable: features.contains(config::CONFIG_WCE),
        discard: config.discard,
        write_zeroes: config.write_zeroes,
        secure_erase: config.secure_erase,
        lifetime: features.contains(config::LIFETIME),
        max_queues,
        queues: options.queues,
        wait: options.wait,
        interrupts,
        wait_method: wait::method(options.wait),
        queue_depth: queues.first().map_or(0, BlkQueue::slots),
        features: config::names(features).collect(),
        memory_len: device.arena().len_bytes(),
        memory_pages: device.arena().memory().page_size(),
        zoned,
    };
    Ok(Opened {
        info,
        device,
        queues,
    })
}

/// Prepares interrupts of queues that are waited for by them. True if queues have some: a device
/// without can be waited for adaptively all the same, by looking at it again and again.
fn enable_interrupts(configured: &mut ConfiguredDevice, options: &OpenOptions) -> Result<bool> {
    if options.wait != WaitPolicy::Poll {
        match configured.enable_interrupts(options.queues) {
            Ok(()) => return Ok(true),
            Err(error)
                if error.kind() == vfio_virtio::ErrorKind::Unsupported
                    && options.wait == WaitPolicy::Adaptive =>
            {
                tracing::info!(%error, "waiting for the device means to look at it again and again");
            }
            Err(error) => return Err(error.into()),
        }
    }
    configured.enable_interrupts(0)?;
    Ok(false)
}

/// Asks for all zones and keeps what does not change of them.
fn shapes(
    queue: &mut BlkQueue<Tag>,
    device: &RunningDevice,
    grid: &ZoneGrid,
    max_segment: u32,
) -> Result<Box<[ZoneShape]>> {
    let mut shapes = Vec::new();
    let zones = zones_per_report(grid.zone_count, max_segment);
    let mut buffer = report_buffer(device.arena(), zones)?;
    let deadline = Instant::now() + REPORT_TIME;
    while (shapes.len() as u32) < grid.zone_count {
        let first = ZoneId(shapes.len() as u32);
        let zones;
        (zones, buffer) = report(queue, device, grid, (first, deadline), buffer)?;
        if zones.is_empty() {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "the device has {} zones but reports none from zone {first} on",
                    grid.zone_count
                ),
            ));
        }
        shapes.extend(zones.iter().map(|zone| ZoneShape {
            capacity: zone.capacity,
            zone_type: zone.zone_type,
            opened_as: zone.state,
        }));
    }
    Ok(shapes.into())
}

fn report_buffer(arena: &DmaArena, zones: u32) -> Result<DmaBuffer> {
    Ok(arena.allocate(report_len(zones.min(REPORT_ZONES)))?)
}

/// One report, waited for. Only while opening is there nothing else to do meanwhile.
fn report(
    queue: &mut BlkQueue<Tag>,
    device: &RunningDevice,
    grid: &ZoneGrid,
    (first, deadline): (ZoneId, Instant),
    mut buffer: DmaBuffer,
) -> Result<(Vec<Zone>, DmaBuffer)> {
    // What the device leaves unwritten must not look like a report.
    buffer.fill(0);
    let data = Data::FromDevice(buffer);
    queue
        .push(
            RequestType::ZONE_REPORT,
            grid.start(first),
            data,
            Tag::default(),
        )
        .map_err(|rejected| rejected.error)?;
    queue.commit();
    let done = loop {
        if Instant::now() > deadline {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("the device has not reported all zones after {REPORT_TIME:?}"),
            ));
        }
        if let Some(done) = queue.pop()? {
            break done;
        }
        device.check_alive()?;
        std::thread::sleep(Duration::from_micros(20));
    };
    if let Some((kind, what)) = done.status.error() {
        return Err(Error::new(kind, format!("cannot report zones: {what}")));
    }
    debug_assert_eq!(done.status, Status::OK);
    match done.buffer {
        Some(buffer) => Ok((grid.parse(first, &buffer)?, buffer)),
        None => Err(Error::new(
            ErrorKind::Protocol,
            "the report came back without its buffer",
        )),
    }
}

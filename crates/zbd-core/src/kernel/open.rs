//! Opens a block device of the kernel and learns what there is to know of it.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use rustix::{fs::OFlags, io::Errno};
use vfio_virtio::DmaArena;

use super::{
    device::{Device, new_event},
    ioctl::{self, RawZone},
    lane::Lane,
    ring::Ring,
    sysfs::Directory,
    turns::Turn,
    worker::Jobs,
};
use crate::{
    AppendSupport, Backend, DeviceInfo, Error, ErrorKind, OpenOptions, RangeLimits, Result,
    SECTOR_LEN, Sector, SectorCount, WaitPolicy, ZeroesLimits, ZoneId, ZoneModel, ZoneType,
    ZonedInfo, info::ZoneShape, virtio::ZoneGrid, wait,
};

/// How many requests each queue has in flight at the most, unless the options say otherwise.
const DEPTH: u16 = 128;
/// The most that io_uring allows.
const MOST_DEPTH: u16 = 1 << 15;
/// The greatest transfer that the kernel takes in one call.
const MOST_TRANSFER: u32 = i32::MAX.cast_unsigned() & !0xfff;
/// How many segments the kernel takes in one call (UIO_MAXIOV).
const MOST_SEGMENTS: u32 = 1024;
/// The pages that memory consists of at the worst, each of which is a segment for the device.
const PAGE: u64 = 4096;

pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Arc<Device>> {
    let name = path.display().to_string();
    let depth = depth(&name, options)?;
    let directory = directory(path)?;
    let (file, read_only) = file(path, &directory)?;
    let file = Arc::new(file);
    let arena = DmaArena::detached(options.memory_len)?;
    let mut lanes = Vec::new();
    let mut is_registered = true;
    for _ in 0..options.queues {
        let ring = Ring::new(Arc::clone(&file), depth, &arena)?;
        is_registered &= ring.is_registered();
        let event = new_event().map_err(|error| {
            Error::new(ErrorKind::Io, "cannot create an event").with_source(error)
        })?;
        lanes.push(Lane::new(ring, depth, event));
    }
    let zones = zones(&name, &directory, &file)?;
    let mut info = describe(name, &directory, &zones)?;
    info.read_only = read_only;
    // Rings are not the device's: there may be more of them than it has queues.
    info.max_queues = directory.hardware_queues().max(options.queues);
    info.queues = options.queues;
    info.queue_depth = depth;
    info.wait = options.wait;
    info.interrupts = options.wait != WaitPolicy::Poll;
    info.wait_method = wait::method(options.wait);
    info.memory_len = arena.len_bytes();
    info.memory_pages = arena.memory().page_size();
    info.features = vec!["io_uring", "O_DIRECT"];
    info.features.push(match is_registered {
        true => "registered-buffers",
        false => "unregistered-buffers",
    });
    // Kernels before 6.0 do not tell, and want whole blocks.
    let alignment = directory.number_or("dma_alignment", info.block_size - 1)?;
    let turns = zones.iter().zip(0..).map(|(zone, id)| {
        let turn = Turn::new(ZoneId(id), zone.end(), zone.pointer());
        Mutex::new(turn)
    });
    Ok(Arc::new(Device {
        info: Arc::new(info),
        alignment: alignment as usize,
        arena,
        directory,
        lanes: lanes.into(),
        turns: turns.collect(),
        jobs: Jobs::default(),
        gone: OnceLock::new(),
        minder: Mutex::new(None),
        file,
    }))
}

fn depth(name: &str, options: &OpenOptions) -> Result<u16> {
    let invalid = |what| {
        Err(Error::new(
            ErrorKind::InvalidRequest,
            format!("{name}: {what}"),
        ))
    };
    match (options.queues, options.queue_size.unwrap_or(DEPTH)) {
        (0, _) => invalid("a device is opened with one queue at least".to_owned()),
        (_, depth) if !(1..=MOST_DEPTH).contains(&depth) => invalid(format!(
            "a queue of {depth} was asked for; io_uring has 1 to {MOST_DEPTH}"
        )),
        (_, depth) => Ok(depth),
    }
}

/// The directory in sysfs of the block device at `path`.
fn directory(path: &Path) -> Result<Directory> {
    let at = path.display();
    let found = fs::metadata(path).map_err(|error| cannot_open(path, error))?;
    let what = found.file_type();
    if what.is_file() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!(
                "{at} is a file, not a block device; to use a file as a device, open emu:store={at}"
            ),
        ));
    }
    if !what.is_block_device() {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("{at} is not a block device"),
        ));
    }
    let number = found.rdev();
    Directory::of(rustix::fs::major(number), rustix::fs::minor(number))
}

/// Opens the device for exclusive use; only for reading if it cannot be written, which the second
/// value says.
fn file(path: &Path, directory: &Directory) -> Result<(File, bool)> {
    let flags = (OFlags::DIRECT | OFlags::EXCL).bits().cast_signed();
    let open = |writable| {
        File::options()
            .read(true)
            .write(writable)
            .custom_flags(flags)
            .open(path)
    };
    let read_only = directory.is_read_only();
    let opened = match open(!read_only) {
        // Some drivers say so only now.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::ROFS) => {
            open(false).map(|file| (file, true))
        }
        opened => opened.map(|file| (file, read_only)),
    };
    opened.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::BUSY) => {
            let holders = match &directory.holders()[..] {
                [] => String::new(),
                names => format!(" (it is part of {})", names.join(", ")),
            };
            Error::new(
                ErrorKind::Busy,
                format!(
                    "{} is in use{holders}: unmount its file systems and partitions, and close or stop what has it open",
                    path.display()
                ),
            )
            .with_source(error)
        }
        _ => cannot_open(path, error),
    })
}

fn cannot_open(path: &Path, error: io::Error) -> Error {
    let at = path.display();
    let (kind, what) = match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR) => (ErrorKind::NotFound, "there is no such device".into()),
        Some(Errno::ACCESS | Errno::PERM) => (
            ErrorKind::PermissionDenied,
            "this user may not open it for reading and writing: use root, or a group that may, such as disk".to_owned(),
        ),
        Some(Errno::NXIO | Errno::NODEV | Errno::NOMEDIUM) => {
            (ErrorKind::NotFound, "there is no device behind it".into())
        }
        Some(Errno::INVAL) => (
            ErrorKind::Unsupported,
            "it cannot be opened past the page cache (O_DIRECT)".into(),
        ),
        _ => (ErrorKind::Io, "it cannot be opened".into()),
    };
    Error::new(kind, format!("{at}: {what}")).with_source(error)
}

/// All zones; none of a device without.
fn zones(name: &str, directory: &Directory, file: &File) -> Result<Vec<RawZone>> {
    if directory.zone_model()? == ZoneModel::None {
        return Ok(Vec::new());
    }
    if directory.is_partition() {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{name} is a partition of a zoned disk; open the whole disk"),
        ));
    }
    ioctl::report(file.as_fd(), Sector(0), usize::MAX).map_err(|error| {
        Error::new(
            ErrorKind::Io,
            format!("{name}: it does not report its zones"),
        )
        .with_source(error)
    })
}

fn describe(name: String, directory: &Directory, zones: &[RawZone]) -> Result<DeviceInfo> {
    let block_size: u32 = directory.number("logical_block_size")?;
    if !block_size.is_power_of_two() || u64::from(block_size) < SECTOR_LEN {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("{name}: its blocks of {block_size} bytes are none that this library can use"),
        ));
    }
    let capacity = SectorCount(directory.sectors());
    let zoned = zoned(&name, directory, zones, capacity, block_size)?;
    let blocks = |bytes: u64| {
        SectorCount(bytes / u64::from(block_size) * u64::from(block_size) / SECTOR_LEN)
    };
    let discard = blocks(directory.number_or("discard_max_bytes", 0)?);
    let zeroes = blocks(directory.number_or("write_zeroes_max_bytes", 0)?);
    let takes_discard = !matches!(&zoned, Some(zoned) if zoned.model == ZoneModel::HostManaged);
    Ok(DeviceInfo {
        name,
        backend: Backend::Kernel,
        capacity,
        block_size,
        physical_block_size: directory.number_or("physical_block_size", block_size)?,
        max_transfer: MOST_TRANSFER / block_size * block_size,
        max_segments: MOST_SEGMENTS,
        max_segment: u32::MAX,
        read_only: false,
        volatile_cache: directory.has_volatile_cache(),
        cache_switchable: false,
        discard: (takes_discard && discard.0 > 0).then_some(RangeLimits {
            max_sectors: discard,
            max_ranges: 1,
            alignment: SectorCount(u64::from(block_size) / SECTOR_LEN),
        }),
        write_zeroes: (zeroes.0 > 0).then_some(ZeroesLimits {
            max_sectors: zeroes,
            max_ranges: 1,
            may_unmap: discard.0 > 0,
        }),
        secure_erase: None,
        lifetime: false,
        max_queues: 0,
        queues: 0,
        queue_depth: 0,
        wait: WaitPolicy::Poll,
        interrupts: false,
        wait_method: None,
        features: Vec::new(),
        memory_len: 0,
        memory_pages: vfio_virtio::PageSize::Base,
        zoned,
    })
}

fn zoned(
    name: &str,
    directory: &Directory,
    zones: &[RawZone],
    capacity: SectorCount,
    block_size: u32,
) -> Result<Option<ZonedInfo>> {
    let model = directory.zone_model()?;
    if model == ZoneModel::None {
        return Ok(None);
    }
    let broken = |what: String| {
        Error::new(
            ErrorKind::Protocol,
            format!("{name}: what the kernel says of its zones is inconsistent: {what}"),
        )
    };
    let zone_size = SectorCount(directory.number("chunk_sectors")?);
    let block = u64::from(block_size) / SECTOR_LEN;
    if zone_size.0 == 0 || !zone_size.0.is_multiple_of(block) {
        return Err(broken(format!("a zone has {zone_size} sectors")));
    }
    let zone_count = u32::try_from(capacity.0.div_ceil(zone_size.0)).map_err(|_| {
        broken(format!(
            "{capacity} sectors are too many zones of {zone_size}"
        ))
    })?;
    let grid = ZoneGrid {
        zone_size,
        zone_count,
        end: Sector(capacity.0),
    };
    if zones.len() != zone_count as usize {
        return Err(broken(format!(
            "{} zones are reported, {zone_count} of {zone_size} sectors have room",
            zones.len()
        )));
    }
    let shapes = zones.iter().zip(0..).map(|(zone, id)| {
        let id = ZoneId(id);
        let zone_type = match zone.zone_type {
            1 => Some(ZoneType::Conventional),
            2 => Some(ZoneType::SequentialRequired),
            3 => Some(ZoneType::SequentialPreferred),
            _ => None,
        };
        match zone_type.zip(zone.state()) {
            Some((zone_type, opened_as))
                if zone.start == grid.start(id).0 && zone.capacity <= grid.size(id).0 =>
            {
                Ok(ZoneShape {
                    capacity: SectorCount(zone.capacity),
                    zone_type,
                    opened_as,
                })
            }
            _ => Err(broken(format!("zone {id} is {zone:?}"))),
        }
    });
    let shapes: Box<[_]> = shapes.collect::<Result<_>>()?;
    let limit = |name| {
        let n: u32 = directory.number_or(name, 0)?;
        Ok::<_, Error>((n > 0).then_some(n))
    };
    let write_granularity = directory
        .number_or("zone_write_granularity", block_size)?
        .max(block_size);
    Ok(Some(ZonedInfo {
        model,
        zone_size,
        zone_count,
        max_open: limit("max_open_zones")?,
        max_active: limit("max_active_zones")?,
        max_append: max_append(directory, write_granularity)?,
        append: AppendSupport::Emulated,
        write_granularity,
        granularity_mask: match write_granularity.is_power_of_two() {
            true => write_granularity - 1,
            false => u32::MAX,
        },
        grid,
        shapes,
    }))
}

/// The greatest write that the kernel sends to the device as one command, wherever its pages lie;
/// and no more than the kernel's own greatest append.
fn max_append(directory: &Directory, granularity: u32) -> Result<SectorCount> {
    let kib: u64 = directory.number("max_sectors_kb")?;
    let segments: u64 = directory.number("max_segments")?;
    let append = match directory.number_or("zone_append_max_bytes", 0)? {
        0 => u64::MAX,
        limit => limit,
    };
    let bytes = (kib * 1024).min(segments.saturating_mul(PAGE)).min(append);
    let granularity = u64::from(granularity);
    // A device whose limits leave nothing at all would not work with Linux either.
    let bytes = (bytes / granularity).max(1) * granularity;
    Ok(SectorCount(bytes / SECTOR_LEN))
}

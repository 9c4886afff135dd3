//! Opening and making files.

use std::{
    collections::hash_map::RandomState,
    fs::{File, OpenOptions},
    hash::{BuildHasher, Hasher},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use vfio_virtio::{Error, ErrorKind, Result};

use super::{
    FileStore, MOST_BLOCK_BYTES, SCRATCH_BYTES,
    cache::Cache,
    journal::Journal,
    layout::{
        HEADER_BYTES, Header, Layout, Medium, NoHeader, RECORD_BYTES, Record, Stage, TABLE_AT,
    },
    refused,
};
use crate::{
    EmulatedConfig,
    config::{Resolved, StoreKind},
    store::io::Io,
    zone::ZoneTable,
};

/// How long a lock is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// What the table is read and written in pieces of, a multiple of a record.
const TABLE_PIECE_BYTES: usize = 1 << 20;

/// A file that this device holds, and what it says of itself.
#[derive(Debug)]
pub(crate) struct Opened {
    path: PathBuf,
    io: Io,
    header: Header,
}

impl Opened {
    /// The file that `config` wants, if it wants one, and the configuration that results from both.
    /// The file is made if there is none.
    pub(crate) fn settle(config: &EmulatedConfig) -> Result<(Resolved, Option<Self>)> {
        let StoreKind::File(path) = &config.store else {
            return Ok((Resolved::new(config)?, None));
        };
        let existing = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(cannot_open(path, e)),
        };
        if let Some(file) = existing
            && let Some(opened) = Self::existing(path, file)?
        {
            let known = opened.header.medium.complete(config, path)?;
            return Ok((Resolved::new(&known)?, Some(opened)));
        }
        // Nothing is made of a configuration that does not hold together.
        let resolved = Resolved::new(config)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(|e| cannot_open(path, e))?;
        let opened = Self::make(path, file, &resolved)?;
        Ok((resolved, Some(opened)))
    }

    /// The file as it is. None if it was never ready.
    fn existing(path: &Path, file: File) -> Result<Option<Self>> {
        lock(path, &file)?;
        let len = length(path, &file)?;
        if len == 0 {
            return Ok(None);
        }
        let mut io = Io::new(file);
        let mut page = [0; HEADER_BYTES];
        if len < HEADER_BYTES as u64 {
            return Err(foreign(path));
        }
        io.read(0, &mut page).map_err(|e| cannot_read(path, e))?;
        let header = Header::decode(&page).map_err(|no_header| match no_header {
            NoHeader::Foreign => foreign(path),
            NoHeader::Version(version) => refused(
                ErrorKind::InvalidInput,
                path,
                format!(
                    "the file is of version {version}, and this program knows only 1: use the \
                     program that made it"
                ),
            ),
            NoHeader::Damaged => damaged(path, "its header does not match its checksum"),
        })?;
        if header.stage == Stage::Making {
            return Ok(None);
        }
        Ok(Some(Self {
            path: path.to_owned(),
            io,
            header,
        }))
    }

    /// Makes a file that holds nothing.
    fn make(path: &Path, file: File, config: &Resolved) -> Result<Self> {
        lock(path, &file)?;
        let len = length(path, &file)?;
        let cannot_make = |e| {
            refused(
                ErrorKind::Io,
                path,
                "cannot make the file: is there room, and does the file system allow files so large?",
            )
            .with_source(e)
        };
        let header = Header {
            stage: Stage::Making,
            // As good a source of random numbers as the standard library has.
            id: RandomState::new().build_hasher().finish(),
            medium: Medium::of(config),
        };
        let layout = Layout::of(&header.medium);
        let mut io = Io::new(file);
        if len != 0 && Self::is_ready(&mut io) {
            return Err(refused(
                ErrorKind::Busy,
                path,
                "another process has just made the file: open it again",
            ));
        }
        let make = |io: &mut Io| -> io::Result<()> {
            io.file().set_len(0)?;
            io.write(&[(0, &header.encode())])?;
            io.sync()?;
            io.file().set_len(layout.len_bytes)?;
            let zones = ZoneTable::new(config.geometry);
            let mut table = Vec::with_capacity(TABLE_PIECE_BYTES);
            let mut at = TABLE_AT;
            for (index, zone) in zones.zones().iter().enumerate() {
                table.extend(Record::of(zone).encode(index, header.id));
                if table.len() == TABLE_PIECE_BYTES || index + 1 == zones.zones().len() {
                    io.write(&[(at, &table)])?;
                    at += table.len() as u64;
                    table.clear();
                }
            }
            io.sync()?;
            let ready = Header {
                stage: Stage::Ready,
                ..header.clone()
            };
            io.write(&[(0, &ready.encode())])?;
            // The length is not a thing of data alone.
            io.file().sync_all()
        };
        make(&mut io).map_err(cannot_make)?;
        if let Some(directory) = path.parent() {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(cannot_make)?;
        }
        Ok(Self {
            path: path.to_owned(),
            io,
            header,
        })
    }

    fn is_ready(io: &mut Io) -> bool {
        let mut page = [0; HEADER_BYTES];
        let read = io.read(0, &mut page);
        // What is no header was refused before.
        read.is_err() || Header::decode(&page).is_ok_and(|header| header.stage == Stage::Ready)
    }

    /// Brings the file into order and learns the state of its zones.
    pub(crate) fn load(self, config: &Resolved) -> Result<(FileStore, ZoneTable)> {
        let Self {
            path,
            mut io,
            header,
        } = self;
        let layout = Layout::of(&header.medium);
        let len = length(&path, io.file())?;
        if len != layout.len_bytes {
            return Err(damaged(
                &path,
                format!("it has {len} bytes and should have {}", layout.len_bytes),
            ));
        }
        let journal =
            Journal::recover(&mut io, header.id, &layout).map_err(|e| cannot_read(&path, e))?;
        let mut zones = ZoneTable::new(config.geometry);
        let mut durable = Vec::with_capacity(zones.zones().len());
        let mut piece = vec![0; TABLE_PIECE_BYTES];
        let mut at = TABLE_AT;
        while durable.len() < zones.zones().len() {
            let rest = (zones.zones().len() - durable.len()) * RECORD_BYTES;
            let piece = &mut piece[..rest.min(TABLE_PIECE_BYTES)];
            io.read(at, piece).map_err(|e| cannot_read(&path, e))?;
            at += piece.len() as u64;
            for bytes in piece.chunks(RECORD_BYTES) {
                let index = durable.len();
                let record = Record::decode(bytes, &zones.zones()[index], index, header.id)
                    .ok_or_else(|| {
                        damaged(&path, format!("what it says of zone {index} is void"))
                    })?;
                zones.restore(index, record.written, record.state);
                durable.push(record);
            }
        }
        let block_bytes = config.block_size_bytes as usize;
        let cache = Cache::new(config.cache_bytes, block_bytes).map_err(|e| {
            refused(
                ErrorKind::OutOfMemory,
                &path,
                format!(
                    "cannot reserve {} bytes: give a smaller cache",
                    config.cache_bytes
                ),
            )
            .with_source(e)
        })?;
        let store = FileStore {
            io,
            id: header.id,
            layout,
            block_bytes,
            cache,
            journal,
            durable,
            scratch: vec![0; SCRATCH_BYTES.max(MOST_BLOCK_BYTES)],
            last_error: None,
        };
        Ok((store, zones))
    }
}

impl Medium {
    /// `config` with all that it leaves open said by the file, unless it says something else.
    fn complete(&self, config: &EmulatedConfig, path: &Path) -> Result<EmulatedConfig> {
        let sector_bytes = crate::wire::SECTOR_BYTES;
        let zones = self.sectors.div_ceil(self.zone_sectors);
        let serial = String::from_utf8_lossy(&self.serial);
        let serial = serial.trim_end_matches('\0');
        let known = EmulatedConfig {
            model: Some(self.model),
            zones: None,
            size_bytes: Some(self.sectors * sector_bytes),
            zone_size_bytes: Some(self.zone_sectors * sector_bytes),
            zone_capacity_bytes: Some(self.capacity_sectors * sector_bytes),
            conventional_zones: Some(self.conventional_zones),
            max_open_zones: Some(self.max_open),
            max_active_zones: Some(self.max_active),
            max_append_bytes: Some(u64::from(self.max_append_sectors) * sector_bytes),
            block_size_bytes: Some(self.block_bytes),
            serial: Some(serial.to_owned()),
            ..config.clone()
        };
        let differs = |key: &str, asked: String, found: String| {
            Err(refused(
                ErrorKind::InvalidInput,
                path,
                format!(
                    "the file was made with {key}={found}, not {asked}: leave {key} out, or give \
                     another path"
                ),
            ))
        };
        if let Some(asked) = config.zones
            && config.size_bytes.is_none()
            && u64::from(asked) != zones
        {
            return differs("zones", asked.to_string(), zones.to_string());
        }
        for (key, asked, found) in [
            ("size", config.size_bytes, known.size_bytes),
            ("zone-size", config.zone_size_bytes, known.zone_size_bytes),
            (
                "zone-cap",
                config.zone_capacity_bytes,
                known.zone_capacity_bytes,
            ),
            (
                "conventional",
                config.conventional_zones.map(u64::from),
                known.conventional_zones.map(u64::from),
            ),
            (
                "max-open",
                config.max_open_zones.map(u64::from),
                known.max_open_zones.map(u64::from),
            ),
            (
                "max-active",
                config.max_active_zones.map(u64::from),
                known.max_active_zones.map(u64::from),
            ),
            (
                "max-append",
                config.max_append_bytes,
                known.max_append_bytes,
            ),
            (
                "block-size",
                config.block_size_bytes.map(u64::from),
                known.block_size_bytes.map(u64::from),
            ),
        ] {
            if let (Some(asked), Some(found)) = (asked, found)
                && asked != found
            {
                return differs(key, asked.to_string(), found.to_string());
            }
        }
        if let Some(asked) = config.model.filter(|asked| *asked != self.model) {
            return differs("model", asked.key().to_owned(), self.model.key().to_owned());
        }
        if let Some(asked) = config.serial.as_ref().filter(|asked| *asked != serial) {
            return differs("serial", asked.clone(), serial.to_owned());
        }
        Ok(known)
    }
}

/// Holds the file for this device alone, until it is closed.
///
/// A process that is killed may leave requests to its io_uring behind, which the kernel carries out
/// after its end. The lock is held for as long, which is right, and is waited for a little.
fn lock(path: &Path, file: &File) -> Result<()> {
    let begin = Instant::now();
    let mut locked = flock(file, FlockOperation::NonBlockingLockExclusive);
    while locked == Err(Errno::WOULDBLOCK) && begin.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(1));
        locked = flock(file, FlockOperation::NonBlockingLockExclusive);
    }
    match locked {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(refused(
            ErrorKind::Busy,
            path,
            "another device has the file open: close that, or give another path",
        )),
        Err(e) => Err(refused(
            ErrorKind::Unsupported,
            path,
            "the file cannot be locked: give a path on a file system with locks",
        )
        .with_source(io::Error::from(e))),
    }
}

fn length(path: &Path, file: &File) -> Result<u64> {
    let metadata = file.metadata().map_err(|e| cannot_read(path, e))?;
    if !metadata.is_file() {
        return Err(refused(
            ErrorKind::InvalidInput,
            path,
            "it is no ordinary file: give a path of one, or of none yet",
        ));
    }
    Ok(metadata.len())
}

fn cannot_open(path: &Path, e: io::Error) -> Error {
    let (kind, what) = match e.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::NotFound,
            "there is no such directory: make it, or give another path",
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            "the file may not be read and written: change its permissions, or give another path",
        ),
        io::ErrorKind::IsADirectory => (
            ErrorKind::InvalidInput,
            "it is a directory: give the path of a file",
        ),
        _ => (ErrorKind::Io, "the file cannot be opened"),
    };
    refused(kind, path, what).with_source(e)
}

fn cannot_read(path: &Path, e: io::Error) -> Error {
    refused(
        ErrorKind::Io,
        path,
        "the file cannot be read or brought into order",
    )
    .with_source(e)
}

fn foreign(path: &Path) -> Error {
    refused(
        ErrorKind::InvalidInput,
        path,
        "the file is no store of an emulated device: give a path where there is none yet",
    )
}

fn damaged(path: &Path, how: impl std::fmt::Display) -> Error {
    refused(
        ErrorKind::InvalidInput,
        path,
        format!("the file is damaged, {how}: restore it from a copy, or remove it"),
    )
}

//! A disk as Linux's own driver shows it: sysfs, the zone ioctls, direct reads and writes.
#![expect(unsafe_code, reason = "zone ioctls")]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

/// Zones asked for in one report.
const BATCH: usize = 64;
/// Alignment of buffers; direct I/O asks for no more.
const PAGE: usize = 4096;

/// State of a zone, `enum blk_zone_cond`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Has no write pointer.
    Conventional,
    /// Nothing written.
    Empty,
    /// Opened by a write.
    ImplicitlyOpen,
    /// Opened by command.
    ExplicitlyOpen,
    /// Written in part and not open.
    Closed,
    /// Can only be read.
    ReadOnly,
    /// Nothing more fits, or finished.
    Full,
    /// Can be neither read nor written.
    Offline,
}

/// A zone; all in sectors of 512 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Zone {
    /// Where it starts.
    pub start: u64,
    /// Its size.
    pub size: u64,
    /// What can be written of it.
    pub capacity: u64,
    /// Where the next write must go.
    pub pointer: u64,
    /// Its state.
    pub state: State,
}

impl Zone {
    /// Sectors written since it was last empty.
    #[must_use]
    pub fn written(&self) -> u64 {
        match self.state {
            State::Full => self.capacity,
            _ => self.pointer - self.start,
        }
    }
}

/// A zone command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Open explicitly.
    Open,
    /// Close.
    Close,
    /// Make full.
    Finish,
    /// Make empty.
    Reset,
}

/// The kernel's disk.
#[derive(Debug)]
pub struct KernelDisk {
    name: String,
    file: File,
}

impl KernelDisk {
    /// Opens a disk by its name, such as `vda`.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(name: &str) -> Result<Self> {
        let flags = OFlags::DIRECT.bits() as i32;
        let path = Path::new("/dev").join(name);
        let file = File::options()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(&path);
        Ok(Self {
            name: name.into(),
            file: file.with_context(|| format!("{}", path.display()))?,
        })
    }

    /// Its path under `/dev`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// A value from its directory in sysfs, such as `queue/zoned` or `serial`.
    ///
    /// # Errors
    /// If there is no such value.
    pub fn attribute(&self, name: &str) -> Result<String> {
        let path = Path::new("/sys/block").join(&self.name).join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
        Ok(text.trim().into())
    }

    /// A number from its directory in sysfs.
    ///
    /// # Errors
    /// If there is no such value, or it is no number.
    pub fn number(&self, name: &str) -> Result<u64> {
        let text = self.attribute(name)?;
        text.parse().with_context(|| format!("{name} is `{text}`"))
    }

    /// All its zones.
    ///
    /// # Errors
    /// If it reports none.
    pub fn report(&self) -> Result<Vec<Zone>> {
        let mut zones: Vec<Zone> = Vec::new();
        loop {
            let sector = zones.last().map_or(0, |last| last.start + last.size);
            let mut report = Report {
                sector,
                count: BATCH as u32,
                flags: 0,
                zones: [Descriptor::default(); BATCH],
            };
            // SAFETY: the request's argument is a report followed by as many descriptors as it asks
            // for, which is what `Report` is.
            let request = unsafe { Updater::<REPORT, Report>::new(&mut report) };
            // SAFETY: as above.
            unsafe { ioctl(&self.file, request) }.context("BLKREPORTZONE")?;
            let reported = report.zones.iter().take(report.count as usize);
            let before = zones.len();
            for zone in reported {
                zones.push(zone.interpret()?);
            }
            if zones.len() == before {
                return Ok(zones);
            }
        }
    }

    /// Sends a zone command for the zones in a range of sectors.
    ///
    /// # Errors
    /// The kernel's.
    pub fn command(&self, command: Command, sector: u64, sectors: u64) -> Result<(), Errno> {
        let range = Range { sector, sectors };
        match command {
            Command::Open => self.send::<OPEN>(range),
            Command::Close => self.send::<CLOSE>(range),
            Command::Finish => self.send::<FINISH>(range),
            Command::Reset => self.send::<RESET>(range),
        }
    }

    /// Resets all zones that can be reset.
    ///
    /// # Errors
    /// The kernel's.
    pub fn reset_all(&self) -> Result<()> {
        Ok(self.command(Command::Reset, 0, self.number("size")?)?)
    }

    fn send<const OPCODE: Opcode>(&self, range: Range) -> Result<(), Errno> {
        // SAFETY: the four requests that this is used for take a range.
        let request = unsafe { Setter::<OPCODE, Range>::new(range) };
        // SAFETY: as above.
        unsafe { ioctl(&self.file, request) }
    }

    /// Writes past the page cache.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, sector: u64, data: &[u8]) -> std::io::Result<()> {
        let mut buffer = Aligned::new(data.len());
        buffer.bytes().copy_from_slice(data);
        self.file.write_all_at(buffer.bytes(), sector * 512)
    }

    /// Reads past the page cache.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&self, sector: u64, len: usize) -> std::io::Result<Vec<u8>> {
        let mut buffer = Aligned::new(len);
        self.file.read_exact_at(buffer.bytes(), sector * 512)?;
        Ok(buffer.bytes().to_vec())
    }
}

/// A buffer that direct I/O accepts.
struct Aligned {
    memory: Vec<u8>,
    from: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let memory = vec![0; len + PAGE];
        let from = memory.as_ptr().align_offset(PAGE);
        Self { memory, from, len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.from..self.from + self.len]
    }
}

const REPORT: Opcode = opcode::read_write::<ReportHeader>(0x12, 130);
const RESET: Opcode = opcode::write::<Range>(0x12, 131);
const OPEN: Opcode = opcode::write::<Range>(0x12, 134);
const CLOSE: Opcode = opcode::write::<Range>(0x12, 135);
const FINISH: Opcode = opcode::write::<Range>(0x12, 136);

/// `struct blk_zone_range`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    sector: u64,
    sectors: u64,
}

/// `struct blk_zone_report` without zones, which is what its request's number is made from.
type ReportHeader = [u64; 2];

/// `struct blk_zone_report`.
#[repr(C)]
struct Report {
    sector: u64,
    count: u32,
    flags: u32,
    zones: [Descriptor; BATCH],
}

/// `struct blk_zone`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Descriptor {
    start: u64,
    size: u64,
    pointer: u64,
    kind: u8,
    condition: u8,
    flags: [u8; 2],
    reserved: [u8; 4],
    capacity: u64,
    reserved_too: [u8; 24],
}

const _: () = assert!(size_of::<Descriptor>() == 64);

impl Descriptor {
    fn interpret(&self) -> Result<Zone> {
        let state = match self.condition {
            0 => State::Conventional,
            1 => State::Empty,
            2 => State::ImplicitlyOpen,
            3 => State::ExplicitlyOpen,
            4 => State::Closed,
            13 => State::ReadOnly,
            14 => State::Full,
            15 => State::Offline,
            other => bail!("zone at sector {}: unknown condition {other}", self.start),
        };
        let Self {
            start,
            size,
            capacity,
            pointer,
            ..
        } = *self;
        Ok(Zone {
            start,
            size,
            capacity,
            pointer,
            state,
        })
    }
}

//! A disk in the hands of the driver under test, and what that driver says of it held against what
//! Linux's own says.

use std::future::Future;

use anyhow::{Context as _, Result, ensure};
use zbd_core::{Driver, Sector, Zone, ZoneId, ZoneState, ZonedDevice, sysfs};

use super::function::Function;
use super::kernel_view::{self, KernelDisk, State};
use super::record::{self, Placed};

/// How much is read at once.
const CHUNK: u64 = 256 << 10;
const SECTOR: u64 = 512;

/// A function that vfio-pci has, taken with the library's own means.
#[derive(Debug)]
pub struct Claim {
    /// The function.
    pub function: Function,
    address: sysfs::PciAddress,
}

impl Claim {
    /// Hands the function to vfio-pci.
    ///
    /// # Errors
    /// The library's.
    pub fn take(function: Function) -> Result<Self> {
        let address = function.address().parse()?;
        sysfs::bind(address, None)?;
        Ok(Self { function, address })
    }

    /// The device string that opens it; with the consent that this takes where no IOMMU confines it.
    #[must_use]
    pub fn spec(&self) -> String {
        let consent = match self.function.is_unconfined() {
            true => ",noiommu=allow",
            false => "",
        };
        format!("pci:{}{consent}", self.address)
    }

    /// Its PCI address.
    #[must_use]
    pub fn address(&self) -> sysfs::PciAddress {
        self.address
    }

    /// Hands it back to the kernel's driver, and waits for that driver's disk.
    ///
    /// # Errors
    /// The library's, or if no disk comes of it.
    pub fn give_back(self) -> Result<KernelDisk> {
        let driver = sysfs::unbind(self.address)?;
        ensure!(driver.as_deref() == Some("virtio-pci"), "{driver:?} got it");
        KernelDisk::open(&self.function.block_device()?)
    }
}

/// Runs a future, and the tasks that it spawns on two threads.
///
/// # Errors
/// The future's.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?;
    runtime.block_on(future)
}

/// Reads `zone` up to its write pointer through the driver, and takes it for records.
///
/// # Errors
/// If it cannot be read, or anything in it is not an intact record.
pub async fn records<D: Driver>(device: &ZonedDevice<D>, zone: &Zone) -> Result<Vec<Placed>> {
    let left = zone.written().context("a zone without a write pointer")?;
    let mut data = Vec::new();
    while (data.len() as u64) < left.bytes() {
        let at = Sector(zone.start.0 + data.len() as u64 / SECTOR);
        let len = CHUNK.min(left.bytes() - data.len() as u64);
        data.extend(device.read(at, usize::try_from(len)?).await?.to_vec());
    }
    record::parse_all(zone.start.0, &data).with_context(|| format!("zone {}", zone.id))
}

/// The records in all of `zones`, as Linux's driver reads them.
///
/// # Errors
/// As [`records`].
pub fn records_seen_by_linux(disk: &KernelDisk, zones: &[ZoneId]) -> Result<Vec<Placed>> {
    let report = disk.report()?;
    let mut found = Vec::new();
    for id in zones {
        let zone = report.get(id.0 as usize).context("no such zone")?;
        let data = disk.read(zone.start, usize::try_from(zone.written() * SECTOR)?)?;
        found.extend(record::parse_all(zone.start, &data)?);
    }
    Ok(found)
}

/// Passes if both drivers report the same zones.
///
/// # Errors
/// Names a zone that differs.
pub fn ensure_same_zones(ours: &[Zone], linux: &[kernel_view::Zone]) -> Result<()> {
    ensure!(
        ours.len() == linux.len(),
        "{} zones, and {} for Linux",
        ours.len(),
        linux.len()
    );
    for (ours, linux) in ours.iter().zip(linux) {
        let shape = (ours.start.0, ours.size.0, ours.capacity.0);
        let pointer = ours.write_pointer.map_or(linux.pointer, |sector| sector.0);
        ensure!(
            shape == (linux.start, linux.size, linux.capacity)
                && linux_state(ours.state) == linux.state
                && pointer == linux.pointer,
            "{ours:?}, and {linux:?} for Linux"
        );
    }
    Ok(())
}

fn linux_state(state: ZoneState) -> State {
    match state {
        ZoneState::NotWritePointer => State::Conventional,
        ZoneState::Empty => State::Empty,
        ZoneState::ImplicitlyOpen => State::ImplicitlyOpen,
        ZoneState::ExplicitlyOpen => State::ExplicitlyOpen,
        ZoneState::Closed => State::Closed,
        ZoneState::ReadOnly => State::ReadOnly,
        ZoneState::Full => State::Full,
        ZoneState::Offline => State::Offline,
    }
}

//! A PCI function that the kernel's VFIO gives to this process.
//!
//! Three layers, each of which keeps the one below alive, so that what depends on a claim can
//! never outlive it:
//!
//! 1. [`Claim`](claim::Claim): the container, the group and the device's descriptor, with all
//!    memory mapped for DMA. Closing it makes the kernel stop the device and end its mappings;
//!    only then is the memory freed.
//! 2. [`VfioBar`](bar::VfioBar) and its windows: registers mapped into this process.
//! 3. [`VfioFunction`] and doorbells: what a driver holds.

mod bar;
mod calls;
mod claim;
mod device;
mod dma;
mod iommu;
mod msix;
mod no_iommu;
mod options;
mod ordering;
mod physical;
mod refusal;
mod window;

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use bar::VfioBar;
use claim::Claim;
pub use options::{NoIommu, VfioOptions};

use crate::{
    Bar, Error, ErrorKind, EventFd, HostMemory, Iova, Notice, PciFunction, Result, Translation,
    sysfs::PciAddress,
};

const COMMAND: u16 = 0x04;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_INTX_DISABLE: u16 = 1 << 10;

const BARS: usize = 6;

/// A PCI function bound to vfio-pci, claimed by this process and confined by the IOMMU, unless
/// [`NoIommu::Allow`] says that it need not be.
///
/// Dropping it stops the function's DMA. The claim ends when the last open BAR is gone, too.
pub struct VfioFunction {
    address: PciAddress,
    claim: Arc<Claim>,
    /// The BARs that are open, so that each is mapped once.
    bars: Mutex<[Weak<VfioBar>; BARS]>,
    msix_enabled: Mutex<bool>,
}

impl VfioFunction {
    /// Claims the function at `address`, which an IOMMU must confine.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(address: PciAddress) -> Result<Self> {
        Self::open_with(address, VfioOptions::default())
    }

    /// Claims the function at `address`.
    ///
    /// # Errors
    /// Each with its cause and remedy:
    /// - [`ErrorKind::NotFound`]: there is no such function.
    /// - [`ErrorKind::Busy`]: another driver has it, or another process has claimed it.
    /// - [`ErrorKind::GroupNotViable`]: its group contains functions that other drivers have.
    /// - [`ErrorKind::PermissionDenied`]: the group's file belongs to someone else.
    /// - [`ErrorKind::Unsupported`]: no IOMMU, and that is not allowed; no VFIO, or not the kind of
    ///   IOMMU that is needed.
    pub fn open_with(address: PciAddress, options: VfioOptions) -> Result<Self> {
        let function = Self {
            address,
            claim: Arc::new(Claim::open(address, options.no_iommu)?),
            bars: Mutex::default(),
            msix_enabled: Mutex::new(false),
        };
        // Nobody listens to the function's INTx line, which it may share with others.
        function.change_command(
            COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_INTX_DISABLE,
            0,
        )?;
        Ok(function)
    }

    fn change_command(&self, set: u16, clear: u16) -> Result<()> {
        let mut command = [0; 2];
        self.claim.read_config(COMMAND, &mut command)?;
        let command = u16::from_le_bytes(command) & !clear | set;
        self.claim.write_config(COMMAND, &command.to_le_bytes())
    }
}

impl Drop for VfioFunction {
    fn drop(&mut self) {
        if let Err(e) = self.change_command(0, COMMAND_BUS_MASTER) {
            // The kernel stops the function's DMA itself when the claim ends.
            tracing::warn!("cannot stop the DMA of {}: {e}", self.address);
        }
    }
}

impl PciFunction for VfioFunction {
    fn name(&self) -> String {
        self.address.to_string()
    }

    fn read_config(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.claim.read_config(offset, data)
    }

    fn write_config(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.claim.write_config(offset, data)
    }

    fn open_bar(&self, index: u8) -> Result<Arc<dyn Bar>> {
        let mut bars = self.bars.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = bars.get_mut(usize::from(index)).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                format!("there is no BAR {index}; PCI functions have BARs 0 to 5"),
            )
        })?;
        if let Some(bar) = slot.upgrade() {
            return Ok(bar);
        }
        let bar = Arc::new(VfioBar::open(&self.claim, index)?);
        *slot = Arc::downgrade(&bar);
        Ok(bar)
    }

    fn translation(&self) -> Translation {
        match self.claim.container() {
            Some(_) => Translation::Iommu,
            None => Translation::Physical,
        }
    }

    fn iova_ranges(&self) -> Result<Vec<RangeInclusive<u64>>> {
        match self.claim.container() {
            Some(container) => iommu::iova_ranges(container),
            None => Ok(vec![0..=u64::MAX]),
        }
    }

    fn map_dma(&self, iova: Iova, memory: Arc<HostMemory>) -> Result<()> {
        match self.claim.container() {
            Some(container) => self.claim.mappings().map(container, iova, memory),
            None => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "no IOMMU translates the addresses of {}: memory is pinned, not mapped",
                    self.address
                ),
            )),
        }
    }

    fn unmap_dma(&self, iova: Iova) -> Result<()> {
        match self.claim.container() {
            Some(container) => self.claim.mappings().unmap(container, iova),
            None => self.claim.mappings().unpin(iova),
        }
    }

    fn pin_dma(&self, memory: Arc<HostMemory>) -> Result<Vec<Iova>> {
        match self.claim.container() {
            None => self.claim.mappings().pin(memory),
            Some(_) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the addresses of {} are translated", self.address),
            )),
        }
    }

    fn msix_vectors(&self) -> u16 {
        self.claim.msix_vectors()
    }

    fn enable_msix(&self, events: &[EventFd]) -> Result<()> {
        let vectors = self.claim.msix_vectors();
        if events.len() > usize::from(vectors) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "{} has {vectors} interrupt vectors, not {}",
                    self.address,
                    events.len()
                ),
            ));
        }
        let mut enabled = self.msix_enabled();
        // The kernel only enlarges or shrinks a set of vectors that is switched off.
        if *enabled {
            self.claim.disable_msix()?;
            *enabled = false;
        }
        if !events.is_empty() {
            self.claim.enable_msix(events)?;
            *enabled = true;
        }
        Ok(())
    }

    fn disable_msix(&self) -> Result<()> {
        self.enable_msix(&[])
    }

    fn notify(&self, notice: Notice, event: Option<&EventFd>) -> Result<bool> {
        self.claim.notify(notice, event)
    }
}

impl VfioFunction {
    fn msix_enabled(&self) -> std::sync::MutexGuard<'_, bool> {
        self.msix_enabled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for VfioFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VfioFunction")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

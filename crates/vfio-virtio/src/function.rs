//! The seam: a PCI function as a driver sees it.
//!
//! Everything above is safe code that reaches hardware only through these traits. They are
//! implemented by the kernel's VFIO and by software devices; a driver cannot tell which it has.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use crate::{Error, ErrorKind, EventFd, HostMemory, Result};

/// An address in the device's view of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Iova(pub u64);

impl fmt::LowerHex for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

/// How addresses that the function uses become addresses of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Translation {
    /// An IOMMU translates and confines: the function reaches mapped memory and nothing else.
    Iommu,
    /// A software device looks addresses up in what was mapped: confined without an IOMMU.
    Software,
    /// Nothing translates: addresses are physical, and nothing confines the function to what it
    /// was given (no-IOMMU mode). Memory is given with [`PciFunction::pin_dma`].
    Physical,
}

/// A PCI function that a driver has claimed.
///
/// Dropping it gives the function up. What was mapped for DMA stays mapped until then, so a driver
/// that cannot stop its device can keep the function, and with it the memory, alive.
pub trait PciFunction: Send + Sync + 'static {
    /// The name under which people know the function, such as `0000:00:01.0`.
    fn name(&self) -> String;

    /// Reads configuration space from `offset` on.
    ///
    /// # Errors
    /// When the range is not in the configuration space or cannot be read.
    fn read_config(&self, offset: u16, data: &mut [u8]) -> Result<()>;

    /// Writes configuration space from `offset` on.
    ///
    /// # Errors
    /// As [`read_config`](Self::read_config).
    fn write_config(&self, offset: u16, data: &[u8]) -> Result<()>;

    /// Opens the base address register `index` (0 to 5), which must be a memory BAR.
    ///
    /// # Errors
    /// When there is no such BAR or it cannot be mapped.
    fn open_bar(&self, index: u8) -> Result<Arc<dyn Bar>>;

    /// How the function's addresses are translated.
    fn translation(&self) -> Translation;

    /// The ranges of addresses that may be mapped, in ascending order.
    ///
    /// # Errors
    /// When the platform does not tell.
    fn iova_ranges(&self) -> Result<Vec<RangeInclusive<u64>>>;

    /// Lets the function read and write `memory` from `iova` on.
    ///
    /// The function keeps `memory` alive for as long as it is mapped.
    ///
    /// # Errors
    /// When the range is taken, outside [`iova_ranges`](Self::iova_ranges), or cannot be locked.
    fn map_dma(&self, iova: Iova, memory: Arc<HostMemory>) -> Result<()>;

    /// Ends the mapping that begins at `iova`. The function must not be using it any more.
    ///
    /// # Errors
    /// When nothing is mapped there or the platform refuses.
    fn unmap_dma(&self, iova: Iova) -> Result<()>;

    /// Locks `memory` and yields the physical address of each of its pages, in the unit of
    /// [`HostMemory::page_size`]. Only where [`translation`](Self::translation) is
    /// [`Translation::Physical`]; there it takes the place of [`map_dma`](Self::map_dma), and
    /// [`unmap_dma`](Self::unmap_dma) of the first address ends it.
    ///
    /// The function keeps `memory` alive until then.
    ///
    /// # Errors
    /// When the function's addresses are translated, or the memory cannot be locked.
    fn pin_dma(&self, memory: Arc<HostMemory>) -> Result<Vec<Iova>> {
        drop(memory);
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("the addresses of {} are translated", self.name()),
        ))
    }

    /// The number of MSI-X vectors, 0 where there is no MSI-X.
    fn msix_vectors(&self) -> u16;

    /// Delivers vector `i` to `events[i]`, replacing what was delivered before.
    ///
    /// # Errors
    /// When there are more events than vectors or the platform refuses.
    fn enable_msix(&self, events: &[EventFd]) -> Result<()>;

    /// Ends the delivery of interrupts.
    ///
    /// # Errors
    /// When the platform refuses.
    fn disable_msix(&self) -> Result<()>;

    /// Delivers `notice` to `event`, replacing what was delivered before; `None` ends it. Returns
    /// false where the platform has no such notice.
    ///
    /// # Errors
    /// When the platform refuses.
    fn notify(&self, notice: Notice, event: Option<&EventFd>) -> Result<bool> {
        let _ = (notice, event);
        Ok(false)
    }
}

/// What the platform tells the owner of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Notice {
    /// The function is wanted back: it is being unplugged, or bound to another driver. Whoever
    /// asks waits until it is given up.
    ReleaseRequest,
    /// The bus reports an error of the function that cannot be corrected.
    BusError,
}

/// The registers behind one base address register.
///
/// Accesses are little-endian, naturally aligned, and happen exactly once each, in program order.
/// A function that has gone reads as all ones.
pub trait Bar: Send + Sync {
    /// The size of the register space in bytes.
    fn len_bytes(&self) -> u64;

    /// Reads a register of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// When the register is outside the BAR, misaligned, or cannot be read.
    fn read(&self, offset: u64, width: Width) -> Result<u32>;

    /// Writes a register of 1, 2 or 4 bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn write(&self, offset: u64, width: Width, value: u32) -> Result<()>;

    /// A handle that writes the register of `width` at `offset` with as little work as possible.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    fn doorbell(self: Arc<Self>, offset: u64, width: Width) -> Result<Box<dyn Doorbell>>;
}

/// The width of a register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Long = 4,
}

/// A register that tells the device of new work.
///
/// Writes to DMA memory made before [`ring`](Self::ring) are visible to the device before it sees
/// the ring.
pub trait Doorbell: Send + Sync {
    /// Writes as much of `value` to the register as that holds.
    fn ring(&self, value: u32);
}

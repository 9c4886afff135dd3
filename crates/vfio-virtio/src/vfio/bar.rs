//! The registers of a claimed function.
#![expect(unsafe_code, reason = "accesses mapped registers")]

use std::sync::Arc;

use memmap2::MmapRaw;

use super::{
    claim::Claim,
    msix,
    ordering::{after_register_read, before_register_write},
    window::{self, Area},
};
use crate::{Bar, Doorbell, Error, ErrorKind, Result, Width};

const BAR_0: u16 = 0x10;
const BAR_IO_SPACE: u8 = 1;

/// A memory BAR: mapped where the kernel allows it, read and written by the kernel elsewhere.
pub(super) struct VfioBar {
    windows: Vec<Arc<Window>>,
    index: u8,
    len_bytes: u64,
    claim: Arc<Claim>,
}

/// A mapped part of a BAR.
struct Window {
    area: Area,
    map: MmapRaw,
    /// Comes last: the map is gone before the device is closed.
    _claim: Arc<Claim>,
}

impl VfioBar {
    pub(super) fn open(claim: &Arc<Claim>, index: u8) -> Result<Self> {
        let mut register = [0; 1];
        claim.read_config(BAR_0 + 4 * u16::from(index), &mut register)?;
        let len_bytes = claim.region_size(index.into());
        if len_bytes == 0 || register[0] & BAR_IO_SPACE != 0 {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("BAR {index} is not a memory BAR"),
            ));
        }
        let table = msix::table(|at, data| claim.read_config(at, data))?;
        let table = table
            .filter(|(bar, _)| *bar == index)
            .map(|(_, table)| table);
        let windows = window::areas(
            len_bytes,
            claim.mappable(index.into()),
            table,
            rustix::param::page_size() as u64,
        )
        .into_iter()
        .filter_map(|area| match claim.map_region(index.into(), area) {
            Ok(map) => Some(Arc::new(Window {
                area,
                map,
                _claim: Arc::clone(claim),
            })),
            Err(e) => {
                tracing::warn!("cannot map {area:x?} of BAR {index}, accesses will be slow: {e}");
                None
            }
        })
        .collect();
        Ok(Self {
            windows,
            index,
            len_bytes,
            claim: Arc::clone(claim),
        })
    }

    /// The window in which a register lies, and its place there; none if it is not mapped.
    fn locate(&self, offset: u64, width: Width) -> Result<Option<(&Arc<Window>, usize)>> {
        let len = width as u64;
        let end = offset.checked_add(len).filter(|end| *end <= self.len_bytes);
        let Some(end) = end.filter(|_| offset.is_multiple_of(len)) else {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!(
                    "a register of {len} bytes at {offset:#x} is misaligned or outside BAR {} of \
                     {} bytes",
                    self.index, self.len_bytes
                ),
            ));
        };
        Ok(self
            .windows
            .iter()
            .find(|w| w.area.start <= offset && end <= w.area.end)
            // Cannot truncate: the window is mapped.
            .map(|w| (w, (offset - w.area.start) as usize)))
    }
}

impl Bar for VfioBar {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read(&self, offset: u64, width: Width) -> Result<u32> {
        let value = match self.locate(offset, width)? {
            Some((window, at)) => window.read(at, width),
            None => {
                let mut data = [0; 4];
                let bytes = &mut data[..width as usize];
                self.claim.read_region(self.index.into(), offset, bytes)?;
                u32::from_le_bytes(data)
            }
        };
        after_register_read();
        Ok(value)
    }

    fn write(&self, offset: u64, width: Width, value: u32) -> Result<()> {
        before_register_write();
        match self.locate(offset, width)? {
            Some((window, at)) => window.write(at, width, value),
            None => {
                let bytes = &value.to_le_bytes()[..width as usize];
                self.claim.write_region(self.index.into(), offset, bytes)?;
            }
        }
        Ok(())
    }

    fn doorbell(self: Arc<Self>, offset: u64, width: Width) -> Result<Box<dyn Doorbell>> {
        Ok(match self.locate(offset, width)? {
            Some((window, at)) => Box::new(MappedDoorbell {
                window: Arc::clone(window),
                at,
                width,
            }),
            None => Box::new(KernelDoorbell {
                bar: self,
                offset,
                width,
            }),
        })
    }
}

impl Window {
    /// Reads the register at `at`, which `locate` has found.
    fn read(&self, at: usize, width: Width) -> u32 {
        let register = self.map.as_ptr().wrapping_add(at);
        match width {
            // SAFETY: `locate` has checked that the register lies in the window, which is mapped
            // for as long as `self` lives; no reference to its bytes is ever made.
            Width::Byte => unsafe { register.read_volatile() }.into(),
            // SAFETY: as above; `locate` has checked the alignment, and windows begin at pages.
            Width::Word => u16::from_le(unsafe { register.cast::<u16>().read_volatile() }).into(),
            // SAFETY: as above.
            Width::Long => u32::from_le(unsafe { register.cast::<u32>().read_volatile() }),
        }
    }

    /// Writes the register at `at`, which `locate` has found.
    #[inline]
    fn write(&self, at: usize, width: Width, value: u32) {
        let register = self.map.as_mut_ptr().wrapping_add(at);
        match width {
            // SAFETY: `locate` has checked that the register lies in the window, which is mapped
            // for as long as `self` lives; no reference to its bytes is ever made.
            Width::Byte => unsafe { register.write_volatile(value as u8) },
            Width::Word => {
                let value = (value as u16).to_le();
                // SAFETY: as above; `locate` has checked the alignment, and windows begin at pages.
                unsafe { register.cast::<u16>().write_volatile(value) }
            }
            // SAFETY: as above.
            Width::Long => unsafe { register.cast::<u32>().write_volatile(value.to_le()) },
        }
    }
}

/// Rings with one store.
struct MappedDoorbell {
    window: Arc<Window>,
    /// Found by `locate`.
    at: usize,
    width: Width,
}

impl Doorbell for MappedDoorbell {
    #[inline]
    fn ring(&self, value: u32) {
        before_register_write();
        self.window.write(self.at, self.width, value);
    }
}

/// Rings with a system call.
struct KernelDoorbell {
    bar: Arc<VfioBar>,
    offset: u64,
    width: Width,
}

impl Doorbell for KernelDoorbell {
    fn ring(&self, value: u32) {
        before_register_write();
        let bar = &self.bar;
        let bytes = &value.to_le_bytes()[..self.width as usize];
        // A function that has gone hears nothing, just as through a mapping; the driver finds out
        // from its status.
        drop(bar.claim.write_region(bar.index.into(), self.offset, bytes));
    }
}

//! The PCI configuration space and the layout of the BARs (VIRTIO 1.3 §4.1).

use vfio_virtio::{Error, ErrorKind, Result, Width};

use crate::{
    config::Resolved,
    device::{COMMON_CONFIG_BYTES, blk_config_bytes},
};

const SPACE_BYTES: usize = 256;

/// The BAR with the virtio structures, 64 bits wide. Not the first one: a driver has to read the
/// capabilities to find it.
pub(crate) const REGISTER_BAR: u8 = 4;
const MSIX_BAR: u8 = 1;

pub(crate) const COMMON_OFFSET: u64 = 0x0000;
pub(crate) const ISR_OFFSET: u64 = 0x1000;
pub(crate) const DEVICE_OFFSET: u64 = 0x2000;
pub(crate) const NOTIFY_OFFSET: u64 = 0x3000;
pub(crate) const REGISTER_BAR_BYTES: u64 = 0x4000;
/// The distance between the notification addresses of two queues (§4.1.4.4).
pub(crate) const NOTIFY_MULTIPLIER: u64 = 4;
const MSIX_BAR_BYTES: u64 = 0x1000;
const MSIX_PENDING_OFFSET: u32 = 0x800;

// Offsets in the header (PCI Local Bus 3.0 §6.1).
const COMMAND: usize = 0x04;
const BAR_1: usize = 0x14;
const BAR_4: usize = 0x20;
const BAR_5: usize = 0x24;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;

const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_NO_INTX: u16 = 1 << 10;

// Where the capabilities lie, one after the other.
const MSIX_CAP: usize = 0x40;
const COMMON_CAP: usize = 0x4c;
const NOTIFY_CAP: usize = 0x5c;
const ISR_CAP: usize = 0x70;
const DEVICE_CAP: usize = 0x80;
const ACCESS_CAP: usize = 0x90;
/// `pci_cfg_data` of the access capability (§4.1.4.9).
const ACCESS_DATA: usize = ACCESS_CAP + 16;

const CAP_ID_VENDOR: u8 = 0x09;
const CAP_ID_MSIX: u8 = 0x11;
const MSIX_ENABLE: u16 = 1 << 15;

/// `cfg_type` of a virtio capability (§4.1.4).
#[derive(Clone, Copy)]
enum Structure {
    Common = 1,
    Notify = 2,
    Isr = 3,
    Device = 4,
    Access = 5,
}

/// An access to a BAR that a driver makes through configuration space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) bar: u8,
    pub(crate) offset: u64,
    pub(crate) width: Width,
}

/// The 256 bytes and which of their bits can be written.
#[derive(Debug)]
pub(crate) struct ConfigSpace {
    bytes: [u8; SPACE_BYTES],
    writable: [u8; SPACE_BYTES],
}

impl ConfigSpace {
    pub(crate) fn new(config: &Resolved) -> Self {
        let mut space = Self {
            bytes: [0; SPACE_BYTES],
            writable: [0; SPACE_BYTES],
        };
        // Vendor and device: virtio, block (§4.1.2).
        space.put(0x00, &0x1af4u16.to_le_bytes());
        space.put(0x02, &0x1042u16.to_le_bytes());
        // Handed over as by firmware and a kernel: decoding memory and mastering the bus.
        space.put(
            COMMAND,
            &(COMMAND_MEMORY | COMMAND_BUS_MASTER).to_le_bytes(),
        );
        space.allow(
            COMMAND,
            &(COMMAND_MEMORY | COMMAND_BUS_MASTER | COMMAND_NO_INTX).to_le_bytes(),
        );
        // Status: there is a list of capabilities.
        space.put(0x06, &(1u16 << 4).to_le_bytes());
        // Revision 1 (§4.1.2.1: non-transitional), class 01 80 00, other mass storage.
        space.put(0x08, &[0x01, 0x00, 0x80, 0x01]);
        space.put(0x2c, &0x1af4u16.to_le_bytes());
        space.put(0x2e, &0x1100u16.to_le_bytes());
        space.put(CAPABILITIES, &[MSIX_CAP as u8]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        // A write of all ones reads back as the size, because the bits below it stay as they are.
        space.put(BAR_1, &0xfebd_0000u32.to_le_bytes());
        space.allow(BAR_1, &(!(MSIX_BAR_BYTES as u32 - 1)).to_le_bytes());
        // 64 bits, prefetchable.
        space.put(BAR_4, &0x0000_000cu32.to_le_bytes());
        space.allow(BAR_4, &(!(REGISTER_BAR_BYTES as u32 - 1)).to_le_bytes());
        space.put(BAR_5, &0x0000_0008u32.to_le_bytes());
        space.allow(BAR_5, &[0xff; 4]);

        match config.vectors.checked_sub(1) {
            None => space.put(CAPABILITIES, &[COMMON_CAP as u8]),
            Some(last) => {
                space.put(MSIX_CAP, &[CAP_ID_MSIX, COMMON_CAP as u8]);
                space.put(MSIX_CAP + 2, &last.to_le_bytes());
                space.put(MSIX_CAP + 4, &u32::from(MSIX_BAR).to_le_bytes());
                let pending = MSIX_PENDING_OFFSET | u32::from(MSIX_BAR);
                space.put(MSIX_CAP + 8, &pending.to_le_bytes());
            }
        }

        let notify_len = NOTIFY_MULTIPLIER * u64::from(config.queues);
        let common = (COMMON_OFFSET, COMMON_CONFIG_BYTES);
        space.structure(COMMON_CAP, NOTIFY_CAP, Structure::Common, common);
        space.structure(
            NOTIFY_CAP,
            ISR_CAP,
            Structure::Notify,
            (NOTIFY_OFFSET, notify_len),
        );
        space.put(NOTIFY_CAP + 16, &(NOTIFY_MULTIPLIER as u32).to_le_bytes());
        space.structure(ISR_CAP, DEVICE_CAP, Structure::Isr, (ISR_OFFSET, 1));
        let device = (DEVICE_OFFSET, blk_config_bytes(config));
        space.structure(DEVICE_CAP, ACCESS_CAP, Structure::Device, device);
        space.structure(ACCESS_CAP, 0, Structure::Access, (0, 0));
        // The driver says which BAR, offset and length it means.
        space.put(ACCESS_CAP + 4, &[0]);
        space.allow(ACCESS_CAP + 4, &[0xff]);
        space.allow(ACCESS_CAP + 8, &[0xff; 8]);
        space
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, offset: usize, bits: &[u8]) {
        self.writable[offset..offset + bits.len()].copy_from_slice(bits);
    }

    /// `struct virtio_pci_cap` (§4.1.4).
    fn structure(&mut self, at: usize, next: usize, kind: Structure, (offset, len): (u64, u64)) {
        let cap_len = match kind {
            Structure::Notify | Structure::Access => 20,
            Structure::Common | Structure::Isr | Structure::Device => 16,
        };
        self.put(
            at,
            &[CAP_ID_VENDOR, next as u8, cap_len, kind as u8, REGISTER_BAR],
        );
        self.put(at + 8, &(offset as u32).to_le_bytes());
        self.put(at + 12, &(len as u32).to_le_bytes());
    }

    fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.bytes[offset], self.bytes[offset + 1]])
    }

    fn long(&self, offset: usize) -> u32 {
        u32::from(self.word(offset)) | u32::from(self.word(offset + 2)) << 16
    }

    pub(crate) fn is_bus_master(&self) -> bool {
        self.word(COMMAND) & COMMAND_BUS_MASTER != 0
    }

    pub(crate) fn decodes_memory(&self) -> bool {
        self.word(COMMAND) & COMMAND_MEMORY != 0
    }

    /// Shows whether MSI-X is enabled, which is not done through configuration space.
    pub(crate) fn show_msix(&mut self, enabled: bool) {
        let size = self.word(MSIX_CAP + 2) & !MSIX_ENABLE;
        let control = if enabled { size | MSIX_ENABLE } else { size };
        self.put(MSIX_CAP + 2, &control.to_le_bytes());
    }

    fn range(offset: u16, len: usize) -> Result<std::ops::Range<usize>> {
        let start = usize::from(offset);
        let end = start + len;
        if end > SPACE_BYTES {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                format!("{len} bytes at {offset:#x} are not in the configuration space of 256"),
            ));
        }
        Ok(start..end)
    }

    pub(crate) fn read(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        data.copy_from_slice(&self.bytes[Self::range(offset, data.len())?]);
        Ok(())
    }

    pub(crate) fn write(&mut self, offset: u16, data: &[u8]) -> Result<()> {
        for (at, value) in Self::range(offset, data.len())?.zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | value & mask;
        }
        Ok(())
    }

    /// The access to a BAR that an access to configuration space stands for, if it is one to
    /// `pci_cfg_data` with the length and alignment that §4.1.4.9.1 demands. Any other read of
    /// these bytes has no effect.
    pub(crate) fn window(&self, offset: u16, len: usize) -> Option<Window> {
        let width = match self.long(ACCESS_CAP + 12) {
            1 => Width::Byte,
            2 => Width::Word,
            4 => Width::Long,
            _ => return None,
        };
        let target = u64::from(self.long(ACCESS_CAP + 8));
        let matches = usize::from(offset) == ACCESS_DATA
            && len == width as usize
            && target.is_multiple_of(len as u64);
        matches.then_some(Window {
            bar: self.bytes[ACCESS_CAP + 4],
            offset: target,
            width,
        })
    }
}

//! Finds the virtio structures of a PCI function (VIRTIO 1.3, 4.1.4).

use std::sync::Arc;

use crate::{Bar, Error, ErrorKind, PciFunction, Result, Width};

const VENDOR_ID: u16 = 0x00;
const DEVICE_ID: u16 = 0x02;
const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u16 = 1 << 4;
const CAPABILITIES_POINTER: u16 = 0x34;
const FIRST_CAPABILITY: u8 = 0x40;
const CAPABILITY_VENDOR: u8 = 0x09;
/// A capability takes at least 4 of the 192 bytes that there are; more steps are a loop.
const MOST_CAPABILITIES: usize = 48;

const VIRTIO_VENDOR: u16 = 0x1af4;
/// Modern devices have this plus their virtio device ID.
const MODERN_BASE: u16 = 0x1040;

const CFG_COMMON: u8 = 1;
const CFG_NOTIFY: u8 = 2;
const CFG_DEVICE: u8 = 4;

/// The length of `struct virtio_pci_cap`.
const CAP_LEN: u8 = 16;
/// The length of `struct virtio_pci_notify_cap`.
const NOTIFY_CAP_LEN: u8 = 20;

/// A piece of a BAR, known to lie inside it.
#[derive(Clone)]
pub(crate) struct Region {
    bar: Arc<dyn Bar>,
    offset: u64,
    len: u64,
}

impl Region {
    fn new(bar: Arc<dyn Bar>, offset: u64, len: u64) -> Result<Self> {
        if offset
            .checked_add(len)
            .is_none_or(|end| end > bar.len_bytes())
        {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "a virtio structure of {len} bytes at {offset:#x} exceeds its BAR of {} bytes",
                    bar.len_bytes()
                ),
            ));
        }
        Ok(Self { bar, offset, len })
    }

    pub(crate) fn len_bytes(&self) -> u64 {
        self.len
    }

    pub(crate) fn read(&self, offset: u64, width: Width) -> Result<u32> {
        self.bar.read(self.locate(offset, width)?, width)
    }

    pub(crate) fn write(&self, offset: u64, width: Width, value: u32) -> Result<()> {
        self.bar.write(self.locate(offset, width)?, width, value)
    }

    pub(crate) fn doorbell(&self, offset: u64, width: Width) -> Result<Box<dyn crate::Doorbell>> {
        Arc::clone(&self.bar).doorbell(self.locate(offset, width)?, width)
    }

    fn locate(&self, offset: u64, width: Width) -> Result<u64> {
        if offset
            .checked_add(width as u64)
            .is_none_or(|end| end > self.len)
        {
            return Err(Error::new(
                ErrorKind::Protocol,
                format!(
                    "the device's structure of {} bytes ends before offset {offset:#x}",
                    self.len
                ),
            ));
        }
        Ok(self.offset + offset)
    }
}

/// The virtio structures of a function.
pub(crate) struct Structures {
    pub(crate) common: Region,
    pub(crate) notify: Region,
    pub(crate) notify_off_multiplier: u32,
    /// Missing where the device type has no configuration.
    pub(crate) device: Option<Region>,
}

impl Structures {
    /// Checks that `function` is a virtio device of type `virtio_id` and finds its structures.
    pub(crate) fn find(function: &dyn PciFunction, virtio_id: u16) -> Result<Self> {
        let name = function.name();
        let vendor = read_u16(function, VENDOR_ID)?;
        let device = read_u16(function, DEVICE_ID)?;
        let modern = MODERN_BASE + virtio_id;
        if vendor != VIRTIO_VENDOR
            || (device != modern && Some(device) != transitional_id(virtio_id))
        {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "{name} is PCI device {vendor:04x}:{device:04x}, not {VIRTIO_VENDOR:04x}:{modern:04x}"
                ),
            ));
        }
        let mut found = Found::default();
        for capability in capabilities(function)? {
            found.read(function, capability)?;
        }
        let missing = |what: &str| {
            let cause = if device == modern {
                Error::new(
                    ErrorKind::Protocol,
                    format!("{name} has no virtio {what} structure that can be reached"),
                )
            } else {
                Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{name} is a legacy-only virtio device; offer a modern one (QEMU: disable-modern=off)"
                    ),
                )
            };
            move || cause
        };
        let (notify, notify_off_multiplier) = found.notify.ok_or_else(missing("notification"))?;
        Ok(Self {
            common: found.common.ok_or_else(missing("common configuration"))?,
            notify,
            notify_off_multiplier,
            device: found.device,
        })
    }
}

/// The PCI device ID under which a transitional device of the type goes (VIRTIO 1.3, 4.1.2.1).
fn transitional_id(virtio_id: u16) -> Option<u16> {
    Some(match virtio_id {
        1 => 0x1000,
        2 => 0x1001,
        5 => 0x1002,
        3 => 0x1003,
        8 => 0x1004,
        4 => 0x1005,
        9 => 0x1009,
        _ => return None,
    })
}

#[derive(Default)]
struct Found {
    common: Option<Region>,
    notify: Option<(Region, u32)>,
    device: Option<Region>,
}

impl Found {
    /// Takes note of the capability at `at` if it is the first of its kind that can be used.
    fn read(&mut self, function: &dyn PciFunction, at: u8) -> Result<()> {
        let mut cap = [0; CAP_LEN as usize];
        if at > u8::MAX - CAP_LEN + 1 {
            return Ok(());
        }
        function.read_config(at.into(), &mut cap)?;
        let [_, _, cap_len, cfg_type, bar, ..] = cap;
        let wanted = match cfg_type {
            CFG_COMMON => self.common.is_none(),
            CFG_NOTIFY => self.notify.is_none() && cap_len >= NOTIFY_CAP_LEN,
            CFG_DEVICE => self.device.is_none(),
            // With MSI-X or polling the interrupt status register is never read.
            _ => false,
        };
        // "Reserved for future use": a driver MUST ignore capabilities with other BARs.
        if !wanted || bar > 5 || cap_len < CAP_LEN {
            return Ok(());
        }
        let long = |i: usize| u32::from_le_bytes([cap[i], cap[i + 1], cap[i + 2], cap[i + 3]]);
        let region = Region::new(function.open_bar(bar)?, long(8).into(), long(12).into())?;
        match cfg_type {
            CFG_COMMON => self.common = Some(region),
            CFG_DEVICE => self.device = Some(region),
            _ => {
                let mut multiplier = [0; 4];
                function.read_config(u16::from(at) + u16::from(CAP_LEN), &mut multiplier)?;
                self.notify = Some((region, u32::from_le_bytes(multiplier)));
            }
        }
        Ok(())
    }
}

/// The offsets of the vendor-specific capabilities.
fn capabilities(function: &dyn PciFunction) -> Result<Vec<u8>> {
    let mut vendor = Vec::new();
    if read_u16(function, STATUS)? & STATUS_CAPABILITIES == 0 {
        return Ok(vendor);
    }
    let mut at = read_u16(function, CAPABILITIES_POINTER)? as u8 & !3;
    for _ in 0..MOST_CAPABILITIES {
        if at < FIRST_CAPABILITY {
            return Ok(vendor);
        }
        let [id, next] = read_u16(function, at.into())?.to_le_bytes();
        if id == CAPABILITY_VENDOR {
            vendor.push(at);
        }
        at = next & !3;
    }
    Err(Error::new(
        ErrorKind::Protocol,
        format!("the capability list of {} has no end", function.name()),
    ))
}

fn read_u16(function: &dyn PciFunction, offset: u16) -> Result<u16> {
    let mut word = [0; 2];
    function.read_config(offset, &mut word)?;
    Ok(u16::from_le_bytes(word))
}

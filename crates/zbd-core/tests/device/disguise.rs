//! The software device with another configuration than its own: fields and features that it would
//! never have, as devices do that are written by others.

use std::{
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use vfio_virtio::{
    Bar, Doorbell, EventFd, HostMemory, Iova, PciFunction, Result, Translation, Width,
};
use zbd_core::{Backend, IoQueue};
use zbd_emu::EmulatedFunction;

use crate::rig::{Device, Rig, open_options};

const DEVICE_FEATURE_SELECT: u64 = 0x00;
const DEVICE_FEATURE: u64 = 0x04;
const DRIVER_FEATURE_SELECT: u64 = 0x08;
const DRIVER_FEATURE: u64 = 0x0c;
const DEVICE_STATUS: u64 = 0x14;
const FEATURES_OK: u32 = 8;
/// `cfg_type` of the device configuration (VIRTIO 1.3, 4.1.4).
const DEVICE_CFG: u8 = 4;
/// The length of a configuration that has all fields.
const CONFIG_LEN: u32 = 0x60;

/// What is different from the device itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disguise {
    /// Offered besides what the device offers.
    pub(crate) offers: &'static [u32],
    /// Not offered though the device does.
    pub(crate) hides: &'static [u32],
    /// Bytes of the device configuration that cannot be written either.
    pub(crate) fields: Vec<(u64, Vec<u8>)>,
    /// The same, until the features are settled.
    pub(crate) early: Vec<(u64, Vec<u8>)>,
    /// The length of the device configuration, if it does not have all fields.
    pub(crate) len: Option<u32>,
}

impl Disguise {
    pub(crate) fn offering(offers: &'static [u32]) -> Self {
        Self {
            offers,
            ..Self::default()
        }
    }

    pub(crate) fn hiding(mut self, hides: &'static [u32]) -> Self {
        self.hides = hides;
        self
    }

    pub(crate) fn le32(mut self, offset: u64, value: u32) -> Self {
        self.fields.push((offset, value.to_le_bytes().to_vec()));
        self
    }

    pub(crate) fn byte(mut self, offset: u64, value: u8) -> Self {
        self.fields.push((offset, vec![value]));
        self
    }

    pub(crate) fn early_byte(mut self, offset: u64, value: u8) -> Self {
        self.early.push((offset, vec![value]));
        self
    }

    pub(crate) fn ending_at(mut self, len: u32) -> Self {
        self.len = Some(len);
        self
    }

    /// Opens a device in this disguise, whose own options are `options`.
    pub(crate) fn open(self, options: &str) -> zbd_core::Result<Rig> {
        let device = Device::threaded(options);
        let function = Arc::new(Disguised::new(Arc::clone(&device.function), self));
        let open =
            |function| open_options().open_function(function, Backend::Emulated, "emu:".to_owned());
        let queue: IoQueue = open(function)?.pop().unwrap();
        Ok(Rig { queue, device })
    }

    /// Why a device in this disguise is not opened.
    pub(crate) fn refused(self, options: &str) -> zbd_core::Error {
        self.open(options).err().unwrap()
    }

    pub(crate) fn rig(self, options: &str) -> Rig {
        self.open(options).unwrap()
    }
}

fn bits(numbers: &[u32]) -> u64 {
    numbers.iter().fold(0, |bits, number| bits | 1 << number)
}

struct Disguised {
    function: Arc<EmulatedFunction>,
    disguise: Arc<Disguise>,
    /// Where the capability of the device configuration is, and in its BAR the configuration.
    capability: u64,
    config: u64,
    /// Whether the driver has set FEATURES_OK.
    settled: Arc<AtomicBool>,
}

impl Disguised {
    fn new(function: Arc<EmulatedFunction>, disguise: Disguise) -> Self {
        let read = |at: u8| {
            let mut bytes = [0; 12];
            function.read_config(at.into(), &mut bytes).unwrap();
            bytes
        };
        let mut at = read(0x34)[0];
        let cap = loop {
            let cap = read(at);
            if cap[0] == 9 && cap[3] == DEVICE_CFG {
                break cap;
            }
            at = cap[1];
            assert_ne!(at, 0, "the device has a configuration");
        };
        Self {
            capability: at.into(),
            config: u32::from_le_bytes([cap[8], cap[9], cap[10], cap[11]]).into(),
            function,
            disguise: Arc::new(disguise),
            settled: Arc::default(),
        }
    }
}

impl PciFunction for Disguised {
    fn name(&self) -> String {
        self.function.name()
    }

    fn read_config(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        self.function.read_config(offset, data)?;
        let len = self.disguise.len.unwrap_or(CONFIG_LEN).to_le_bytes();
        put(data, offset.into(), self.capability + 12, &len);
        Ok(())
    }

    fn write_config(&self, offset: u16, data: &[u8]) -> Result<()> {
        self.function.write_config(offset, data)
    }

    fn open_bar(&self, index: u8) -> Result<Arc<dyn Bar>> {
        Ok(Arc::new(DisguisedBar {
            bar: self.function.open_bar(index)?,
            disguise: Arc::clone(&self.disguise),
            config: self.config,
            device_select: AtomicU32::new(0),
            driver_select: AtomicU32::new(0),
            settled: Arc::clone(&self.settled),
        }))
    }

    fn translation(&self) -> Translation {
        self.function.translation()
    }

    fn iova_ranges(&self) -> Result<Vec<RangeInclusive<u64>>> {
        self.function.iova_ranges()
    }

    fn map_dma(&self, iova: Iova, memory: Arc<HostMemory>) -> Result<()> {
        self.function.map_dma(iova, memory)
    }

    fn unmap_dma(&self, iova: Iova) -> Result<()> {
        self.function.unmap_dma(iova)
    }

    fn msix_vectors(&self) -> u16 {
        self.function.msix_vectors()
    }

    fn enable_msix(&self, events: &[EventFd]) -> Result<()> {
        self.function.enable_msix(events)
    }

    fn disable_msix(&self) -> Result<()> {
        self.function.disable_msix()
    }
}

struct DisguisedBar {
    bar: Arc<dyn Bar>,
    disguise: Arc<Disguise>,
    config: u64,
    device_select: AtomicU32,
    driver_select: AtomicU32,
    settled: Arc<AtomicBool>,
}

/// Copies what of `bytes`, which lie at `at`, falls into `data`, which lies at `offset`.
fn put(data: &mut [u8], offset: u64, at: u64, bytes: &[u8]) {
    for (byte, at) in bytes.iter().zip(at..) {
        let place = at.checked_sub(offset).map(|index| index as usize);
        if let Some(target) = place.and_then(|index| data.get_mut(index)) {
            *target = *byte;
        }
    }
}

impl DisguisedBar {
    fn half(bits: u64, select: &AtomicU32) -> u32 {
        (bits >> (32 * (select.load(Ordering::Relaxed) & 1))) as u32
    }
}

impl Bar for DisguisedBar {
    fn len_bytes(&self) -> u64 {
        self.bar.len_bytes()
    }

    fn read(&self, offset: u64, width: Width) -> Result<u32> {
        let value = match self.bar.read(offset, width) {
            // Fields that the device itself does not have.
            Err(_) if offset >= self.config && offset < self.config + u64::from(CONFIG_LEN) => 0,
            read => read?,
        };
        if offset == DEVICE_FEATURE {
            let offers = Self::half(bits(self.disguise.offers), &self.device_select);
            let hides = Self::half(bits(self.disguise.hides), &self.device_select);
            return Ok((value | offers) & !hides);
        }
        let mut bytes = value.to_le_bytes();
        let early = match self.settled.load(Ordering::Relaxed) {
            true => &[][..],
            false => &self.disguise.early,
        };
        for (field, value) in self.disguise.fields.iter().chain(early) {
            put(
                &mut bytes[..width as usize],
                offset,
                self.config + field,
                value,
            );
        }
        Ok(u32::from_le_bytes(bytes))
    }

    fn write(&self, offset: u64, width: Width, value: u32) -> Result<()> {
        let mut value = value;
        match offset {
            DEVICE_STATUS => self
                .settled
                .store(value & FEATURES_OK != 0, Ordering::Relaxed),
            DEVICE_FEATURE_SELECT => self.device_select.store(value, Ordering::Relaxed),
            DRIVER_FEATURE_SELECT => self.driver_select.store(value, Ordering::Relaxed),
            DRIVER_FEATURE => {
                let hidden = Self::half(bits(self.disguise.hides), &self.driver_select);
                assert_eq!(value & hidden, 0, "accepted without being offered");
                // What the device itself offers is taken from what it says.
                self.bar.write(
                    DEVICE_FEATURE_SELECT,
                    Width::Long,
                    self.driver_select.load(Ordering::Relaxed),
                )?;
                value &= self.bar.read(DEVICE_FEATURE, Width::Long)?;
            }
            _ => {}
        }
        self.bar.write(offset, width, value)
    }

    fn doorbell(self: Arc<Self>, offset: u64, width: Width) -> Result<Box<dyn Doorbell>> {
        Arc::clone(&self.bar).doorbell(offset, width)
    }
}

//! The hostile device at the seam: a PCI function whose every answer comes from a script.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use vfio_virtio::{
    Bar, Doorbell, Error, ErrorKind, EventFd, HostMemory, Iova, Notice, PciFunction, Result,
    Translation, Width,
};

use crate::{
    Script,
    answer::{Answer, Flaw},
    configuration::{BAR, BAR_LEN, Lies},
    device::Device,
};

/// A virtio-blk function that lies as its script has it.
///
/// It does something whenever its driver notifies it or reads its status, and when it is told to
/// [`step`](Observer::step), on the thread that does so: with one thread, everything that happens
/// is decided by the script.
pub struct HostileFunction {
    device: Shared,
    vectors: u16,
    has_notices: bool,
}

type Shared = Arc<Mutex<Device>>;

/// Lets a test see what the device did, and lets the device do more.
#[derive(Clone)]
pub struct Observer(Shared);

fn lock(device: &Shared) -> MutexGuard<'_, Device> {
    // A panic is a finding by itself; what unwinds from it must not hide it.
    device.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HostileFunction {
    /// A device that lies about `lies` as `script` has it.
    pub fn new(script: &Script, lies: Lies) -> Self {
        let everywhere = lies == Lies::Everywhere;
        Self {
            // Rarely: a thread that waits for interrupts takes longer to start than all the rest.
            vectors: if everywhere && script.once_in(32) {
                script.pick([3, 1, 2])
            } else {
                0
            },
            has_notices: everywhere && script.once_in(64),
            device: Arc::new(Mutex::new(Device::new(script.clone(), lies))),
        }
    }

    /// An eye on the device.
    pub fn observer(&self) -> Observer {
        Observer(Arc::clone(&self.device))
    }
}

impl Observer {
    /// Lets the device do the next thing.
    pub fn step(&self) {
        lock(&self.0).step();
    }

    /// What the device last answered to a request whose data begin at `iova`, or whose head has
    /// `number` in its second word. `None` if it did not answer such a request, or if that is not
    /// known because the device has written over memory at random.
    pub fn answer(&self, key: Key) -> Known<Answer> {
        lock(&self.0).answer(key)
    }

    /// Forgets what it answered to `key`: a new request is about to be made.
    pub fn forget(&self, key: Key) {
        lock(&self.0).forget(key);
    }

    /// Changes a byte of the device configuration.
    ///
    /// # Panics
    /// If there is no such byte.
    pub fn set_field(&self, at: usize, byte: u8) {
        lock(&self.0).fields[at] = byte;
    }

    /// Puts `flaw` into all answers of a device that otherwise does not lie.
    pub fn set_flaw(&self, flaw: Flaw) {
        lock(&self.0).flaw = flaw;
    }

    /// Whether a reset may fail from now on. It never does at other times, because memory that a
    /// device does not let go of is lost to the process.
    pub fn set_merciless(&self, merciless: bool) {
        lock(&self.0).merciless = merciless;
    }

    /// Whether the driver has given all memory back: nothing is mapped, and nothing that was is
    /// still there.
    pub fn has_all_memory_gone(&self) -> bool {
        let device = lock(&self.0);
        device.memory.is_empty() && !device.memory.lingers()
    }
}

/// What tells a request apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// The device's address of its first data segment.
    Data(u64),
    /// The second word of its head.
    Head(u64),
}

/// Something that can be known or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It is this, or it does not exist.
    Yes(Option<T>),
    /// The device has done things after which nobody knows.
    No,
}

fn invalid(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, what)
}

impl PciFunction for HostileFunction {
    fn name(&self) -> String {
        "hostile".to_owned()
    }

    fn read_config(&self, offset: u16, data: &mut [u8]) -> Result<()> {
        let device = lock(&self.device);
        let start = usize::from(offset);
        let range = start..start + data.len();
        let bytes = device
            .pci
            .get(range)
            .ok_or_else(|| invalid("no such byte"))?;
        data.copy_from_slice(bytes);
        Ok(())
    }

    fn write_config(&self, _: u16, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn open_bar(&self, index: u8) -> Result<Arc<dyn Bar>> {
        let device = lock(&self.device);
        let len = match index {
            BAR => BAR_LEN,
            _ => device.script.pick([0, 1, 64, 0x1000]),
        };
        if len == 0 {
            return Err(invalid("no such BAR"));
        }
        Ok(Arc::new(HostileBar {
            device: Arc::clone(&self.device),
            index,
            len,
        }))
    }

    fn translation(&self) -> Translation {
        Translation::Iommu
    }

    fn iova_ranges(&self) -> Result<Vec<RangeInclusive<u64>>> {
        Ok(vec![0..=0xfedf_ffff, 0xfef0_0000..=0x7f_ffff_ffff])
    }

    fn map_dma(&self, iova: Iova, memory: Arc<HostMemory>) -> Result<()> {
        lock(&self.device).memory.map(iova, memory)
    }

    fn unmap_dma(&self, iova: Iova) -> Result<()> {
        lock(&self.device).memory.unmap(iova)
    }

    fn msix_vectors(&self) -> u16 {
        self.vectors
    }

    fn enable_msix(&self, events: &[EventFd]) -> Result<()> {
        if events.len() > usize::from(self.vectors) {
            return Err(invalid("not so many vectors"));
        }
        lock(&self.device).set_interrupts(events)
    }

    fn disable_msix(&self) -> Result<()> {
        lock(&self.device).set_interrupts(&[])
    }

    fn notify(&self, notice: Notice, event: Option<&EventFd>) -> Result<bool> {
        if self.has_notices {
            lock(&self.device).set_notice(notice, event)?;
        }
        Ok(self.has_notices)
    }
}

/// A BAR of the device; all but one have nothing but bytes of the script.
struct HostileBar {
    device: Shared,
    index: u8,
    len: u64,
}

impl HostileBar {
    fn check(&self, offset: u64, width: Width) -> Result<()> {
        let is_inside = offset
            .checked_add(width as u64)
            .is_some_and(|end| end <= self.len);
        if !is_inside || !offset.is_multiple_of(width as u64) {
            return Err(invalid("no such register"));
        }
        Ok(())
    }
}

impl Bar for HostileBar {
    fn len_bytes(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, width: Width) -> Result<u32> {
        self.check(offset, width)?;
        let mut device = lock(&self.device);
        let value = device.read_bar(self.index, offset, width);
        Ok(match width {
            Width::Byte => value & 0xff,
            Width::Word => value & 0xffff,
            Width::Long => value,
        })
    }

    fn write(&self, offset: u64, width: Width, value: u32) -> Result<()> {
        self.check(offset, width)?;
        lock(&self.device).write_bar(self.index, offset, width, value);
        Ok(())
    }

    fn doorbell(self: Arc<Self>, offset: u64, width: Width) -> Result<Box<dyn Doorbell>> {
        self.check(offset, width)?;
        Ok(Box::new(HostileDoorbell(Arc::clone(&self.device))))
    }
}

struct HostileDoorbell(Shared);

impl Doorbell for HostileDoorbell {
    fn ring(&self, _: u32) {
        lock(&self.0).step();
    }
}

//! Device strings: how people name a device.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use vfio_virtio::{NoIommu, PciFunction, VfioFunction, VfioOptions, sysfs::PciAddress};
use zbd_emu::{EmulatedConfig, EmulatedFunction};

use crate::{
    Backend, DeviceInfo, Error, ErrorKind, IoQueue, Result, RingOptions, WaitPolicy,
    io_queue::VirtioQueue, kernel::KernelQueue, virtio,
};

/// What a device string names.
///
/// - `emu:` and `emu:key=value,…`: a software device of this process; see
///   [`EmulatedConfig`] for the keys.
/// - `pci:0000:00:01.0`: a virtio-blk function that is bound to vfio-pci; see [`PciSpec`] for what
///   can follow.
/// - `/dev/…`: a block device of the kernel, zoned or not, driven through io_uring.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// A software device.
    Emulated(Box<EmulatedConfig>),
    /// A PCI function.
    Pci(PciSpec),
    /// A block device of the kernel.
    Kernel(PathBuf),
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(spec: &str) -> Result<Self> {
        let invalid = |what: String| Error::new(ErrorKind::InvalidSpec, what);
        if let Some(options) = spec.strip_prefix("emu:") {
            let config = options
                .parse()
                .map_err(|e: vfio_virtio::Error| invalid(format!("{spec:?}: {e}")))?;
            Ok(Self::Emulated(Box::new(config)))
        } else if let Some(function) = spec.strip_prefix("pci:") {
            let function = function
                .parse()
                .map_err(|e: Error| invalid(format!("{spec:?}: {e}")))?;
            Ok(Self::Pci(function))
        } else if spec.starts_with('/') {
            Ok(Self::Kernel(spec.into()))
        } else {
            Err(invalid(format!(
                "{spec:?} names no device: use emu:, pci:0000:00:01.0 or /dev/…"
            )))
        }
    }
}

/// A PCI function and how it is driven: its address, then `,key=value` as often as needed.
///
/// - `noiommu=allow`: without an IOMMU, use the kernel's no-IOMMU mode. See [`NoIommu::Allow`] for
///   what is at stake.
/// - `ring=split|packed`, `indirect=`, `event-idx=`, `in-order=`, `notification-data=`,
///   `notif-config-data=`, `order-platform=on|off`: see [`RingOptions`]. What is not said is used
///   where the device offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PciSpec {
    /// Where the function is.
    pub address: PciAddress,
    /// Whether it may be driven without an IOMMU.
    pub no_iommu: NoIommu,
    /// Which ring features are used.
    pub rings: RingOptions,
}

impl From<PciAddress> for PciSpec {
    /// The function with the default of all else.
    fn from(address: PciAddress) -> Self {
        Self {
            address,
            no_iommu: NoIommu::default(),
            rings: RingOptions::default(),
        }
    }
}

impl FromStr for PciSpec {
    type Err = Error;

    fn from_str(spec: &str) -> Result<Self> {
        let mut parts = spec.split(',');
        let address: PciAddress = parts.next().unwrap_or_default().parse()?;
        let mut function = Self::from(address);
        for part in parts {
            let invalid = |what| {
                Err(Error::new(
                    ErrorKind::InvalidSpec,
                    format!("{part:?}: {what}"),
                ))
            };
            let Some((key, value)) = part.split_once('=') else {
                return invalid("it is not key=value");
            };
            match (key, value) {
                ("noiommu", "allow") => function.no_iommu = NoIommu::Allow,
                ("noiommu", "refuse") => function.no_iommu = NoIommu::Refuse,
                ("noiommu", _) => return invalid("it is allow or refuse"),
                _ if function.rings.set(key, value)? => {}
                _ => {
                    return invalid(
                        "a PCI function has noiommu, ring, indirect, event-idx, in-order, notification-data, notif-config-data and order-platform",
                    );
                }
            }
        }
        Ok(function)
    }
}

impl fmt::Display for PciSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let no_iommu = match self.no_iommu {
            NoIommu::Allow => ",noiommu=allow",
            NoIommu::Refuse => "",
        };
        write!(f, "{}{no_iommu}{}", self.address, self.rings)
    }
}

/// How a device is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// How many queues to open.
    pub queues: u16,
    /// The number of descriptors of each queue, with split rings a power of two; the device's
    /// greatest if `None`. For a block device of the kernel, how many requests each queue has in
    /// flight at the most; 128 if `None`.
    pub queue_size: Option<u16>,
    /// Which ring features are used; what a device string says comes first. Block devices of the
    /// kernel have no rings.
    pub rings: RingOptions,
    /// How queues are waited for, and by that, whether the device is to interrupt.
    pub wait: WaitPolicy,
    /// The size of the DMA memory in bytes, from which all buffers come.
    pub memory_len: usize,
}

impl Default for OpenOptions {
    /// One queue of the greatest size, waited for adaptively, with all that the device offers, and 64
    /// MiB of DMA memory.
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: None,
            rings: RingOptions::default(),
            wait: WaitPolicy::default(),
            memory_len: 64 << 20,
        }
    }
}

impl OpenOptions {
    /// Opens the device that `spec` names.
    ///
    /// # Errors
    /// - [`ErrorKind::NotFound`], [`ErrorKind::PermissionDenied`], [`ErrorKind::Busy`],
    ///   [`ErrorKind::GroupNotViable`]: it cannot be claimed.
    /// - [`ErrorKind::Unsupported`]: it is nothing that this crate can drive, or its hypervisor
    ///   must be configured otherwise.
    /// - [`ErrorKind::InvalidRequest`]: it does not have what the options ask for.
    /// - [`ErrorKind::OutOfMemory`]: the DMA memory cannot be had or locked.
    /// - [`ErrorKind::Protocol`]: it does not behave as a virtio-blk device.
    pub fn open(&self, spec: &DeviceSpec) -> Result<Vec<IoQueue>> {
        match spec {
            DeviceSpec::Emulated(config) => {
                let function = EmulatedFunction::new(config)?;
                self.open_function(Arc::new(function), Backend::Emulated, spec.to_string())
            }
            DeviceSpec::Pci(pci) => {
                let options = VfioOptions::default().no_iommu(pci.no_iommu);
                let function = VfioFunction::open_with(pci.address, options)?;
                let name = format!("pci:{}", pci.address);
                let mut options = self.clone();
                options.rings = self.rings.overridden_by(&pci.rings);
                options.open_function(Arc::new(function), Backend::Vfio, name)
            }
            DeviceSpec::Kernel(path) => {
                let queues = KernelQueue::open(path, self)?;
                Ok(queues.into_iter().map(IoQueue::from).collect())
            }
        }
    }

    /// Opens a virtio-blk function that the caller has claimed, such as a software device that is
    /// driven by a test. `name` stands for it in messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_function(
        &self,
        function: Arc<dyn PciFunction>,
        backend: Backend,
        name: String,
    ) -> Result<Vec<IoQueue>> {
        let opened = virtio::open(function, backend, name, self)?;
        let info: Arc<DeviceInfo> = Arc::new(opened.info);
        let device = Arc::new(opened.device);
        Ok(opened
            .queues
            .into_iter()
            .map(|queue| VirtioQueue::new(queue, Arc::clone(&info), Arc::clone(&device)).into())
            .collect())
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emulated(config) => write!(f, "emu:{config}"),
            Self::Pci(function) => write!(f, "pci:{function}"),
            Self::Kernel(path) => write!(f, "{}", path.display()),
        }
    }
}

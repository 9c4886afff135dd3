//! Device strings: how people name a device.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc};

use vfio_virtio::{PciFunction, VfioFunction, sysfs::PciAddress};
use zbd_emu::{EmulatedConfig, EmulatedFunction};

use crate::{Backend, DeviceInfo, Error, ErrorKind, IoQueue, Result, virtio};

/// What a device string names.
///
/// - `emu:` and `emu:key=value,…`: a software device of this process; see
///   [`EmulatedConfig`] for the keys.
/// - `pci:0000:00:01.0`: a virtio-blk function that is bound to vfio-pci.
/// - `/dev/…`: a block device of the kernel. It can be named but not opened yet.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// A software device.
    Emulated(Box<EmulatedConfig>),
    /// A PCI function.
    Pci(PciAddress),
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
        } else if let Some(address) = spec.strip_prefix("pci:") {
            let address = address
                .parse()
                .map_err(|e: vfio_virtio::Error| invalid(format!("{spec:?}: {e}")))?;
            Ok(Self::Pci(address))
        } else if spec.starts_with('/') {
            Ok(Self::Kernel(spec.into()))
        } else {
            Err(invalid(format!(
                "{spec:?} names no device: use emu:, pci:0000:00:01.0 or /dev/…"
            )))
        }
    }
}

/// How a device is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// How many queues to open.
    pub queues: u16,
    /// The number of descriptors of each queue, a power of two; the device's greatest if `None`.
    pub queue_size: Option<u16>,
    /// The size of the DMA memory in bytes, from which all buffers come.
    pub memory_len: usize,
}

impl Default for OpenOptions {
    /// One queue of the greatest size, and 64 MiB of DMA memory.
    fn default() -> Self {
        Self {
            queues: 1,
            queue_size: None,
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
            DeviceSpec::Pci(address) => {
                let function = VfioFunction::open(*address)?;
                self.open_function(Arc::new(function), Backend::Vfio, spec.to_string())
            }
            DeviceSpec::Kernel(path) => Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{}: kernel block devices cannot be opened yet; bind the virtio-blk function to vfio-pci (zbd-bench bind) and open it as pci:…",
                    path.display()
                ),
            )),
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
            .map(|queue| IoQueue::new(queue, Arc::clone(&info), Arc::clone(&device)))
            .collect())
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Emulated(config) => write!(f, "emu:{config}"),
            Self::Pci(address) => write!(f, "pci:{address}"),
            Self::Kernel(path) => write!(f, "{}", path.display()),
        }
    }
}

//! The same disk through two drivers: its function goes back and forth between them.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use zbd_core::{
    DeviceSpec,
    sysfs::{self, PciAddress},
};

use crate::failure::{During, Failure};

/// How long the kernel may take until a disk is there that it has got back.
const APPEARS: Duration = Duration::from_secs(10);

/// Functions that are handed over before each turn, and in the end go back to where they were.
#[derive(Debug)]
pub(crate) struct Rebinding {
    /// Each function, and whether vfio-pci had it at first.
    functions: Vec<(PciAddress, bool)>,
}

impl Rebinding {
    /// Of all functions among the devices.
    pub(crate) fn new(devices: &[DeviceSpec]) -> Result<Self, Failure> {
        let known = sysfs::functions().map_err(refused)?;
        let mut functions = Vec::new();
        for device in devices {
            if let DeviceSpec::Pci(spec) = device {
                let found = known
                    .iter()
                    .find(|function| function.address == spec.address);
                let driver = found.and_then(|function| function.driver.as_deref());
                functions.push((spec.address, driver == Some("vfio-pci")));
            }
        }
        if functions.is_empty() {
            return Err(Failure::usage(
                "--rebind: there is no pci: device to be handed back and forth",
            ));
        }
        Ok(Self { functions })
    }

    /// Gives this device what it needs: vfio-pci has the function, or else the kernel has all.
    pub(crate) fn turn(&self, device: &DeviceSpec) -> Result<(), Failure> {
        match device {
            DeviceSpec::Pci(spec) => sysfs::bind(spec.address, None).map(drop).map_err(refused),
            DeviceSpec::Kernel(path) => {
                for (address, _) in &self.functions {
                    sysfs::unbind(*address).map_err(refused)?;
                }
                wait_for(path)
            }
            _ => Ok(()),
        }
    }

    fn restore(&self) -> Result<(), Failure> {
        for (address, had) in &self.functions {
            match had {
                true => sysfs::bind(*address, None).map(drop).map_err(refused)?,
                false => sysfs::unbind(*address).map(drop).map_err(refused)?,
            }
        }
        Ok(())
    }
}

impl Drop for Rebinding {
    fn drop(&mut self) {
        if let Err(failure) = self.restore() {
            crate::report::complain(&failure);
        }
    }
}

fn wait_for(path: &Path) -> Result<(), Failure> {
    let begun = Instant::now();
    while !path.exists() {
        if begun.elapsed() > APPEARS {
            return Err(Failure::device(format!(
                "{} is not there though its function was given back to the kernel; is that its name?",
                path.display()
            )));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn refused(error: impl Into<zbd_core::Error>) -> Failure {
    Failure::from_device(During::Opening, &error.into())
}

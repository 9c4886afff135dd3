//! `zbd-bench bind` and `zbd-bench unbind`

use zbd_core::sysfs;

use crate::{
    cli::{BindArgs, UnbindArgs},
    failure::{During, Failure},
    report::print,
};

/// Hands a function to vfio-pci.
pub(crate) fn bind(args: &BindArgs) -> Result<(), Failure> {
    let address = args.address;
    let binding = sysfs::bind(address, args.owner.as_ref()).map_err(refused)?;
    let mut text = match &binding.replaced {
        Some(driver) => format!("{address}: bound to vfio-pci, taken from {driver}\n"),
        None => format!("{address}: bound to vfio-pci\n"),
    };
    if let Some(file) = &binding.group_file {
        text += &format!("whoever may open {} may use it\n", file.display());
    }
    for other in binding.group.iter().flat_map(|group| group.obstacles()) {
        let driver = other.driver.as_deref().unwrap_or("another driver");
        text += &format!(
            "but {} shares its group and is bound to {driver}; it must be bound to vfio-pci, too\n",
            other.address
        );
    }
    text += &format!("open it as pci:{address}, give it back with zbd-bench unbind {address}\n");
    print(&text)
}

/// Hands a function back to the kernel's own driver.
pub(crate) fn unbind(args: &UnbindArgs) -> Result<(), Failure> {
    let address = args.address;
    print(&match sysfs::unbind(address).map_err(refused)? {
        Some(driver) => format!("{address}: bound to {driver}\n"),
        None => format!("{address}: bound to no driver; the kernel has none for it\n"),
    })
}

fn refused(error: impl Into<zbd_core::Error>) -> Failure {
    Failure::from_device(During::Opening, &error.into())
}

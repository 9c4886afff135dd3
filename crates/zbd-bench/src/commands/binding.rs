//! `zbd-bench bind` and `zbd-bench unbind`

use zbd_core::sysfs::{self, Confinement};

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
    let group = binding.group.as_ref();
    let consent = if group.is_some_and(|group| group.confinement == Confinement::None) {
        text += "no IOMMU confines it: it can read and write all memory of this machine, and only \
                 root may open it\n";
        ",noiommu=allow"
    } else {
        ""
    };
    text += &format!(
        "open it as pci:{address}{consent}, give it back with zbd-bench unbind {address}\n"
    );
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

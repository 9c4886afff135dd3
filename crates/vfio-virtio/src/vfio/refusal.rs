//! Why a function cannot be claimed, and what to do about it.

use std::io;

use rustix::io::Errno;
use vfio_ioctls::VfioError;

use super::options::NoIommu;
use crate::{
    Error, ErrorKind, Result,
    sysfs::{Confinement, IommuGroup, PciAddress, Sysfs, is_busy, is_vfio, no_iommu},
};

/// Refuses what sysfs shows to be hopeless; otherwise tells the group to claim.
pub(super) fn check(sysfs: &Sysfs, address: PciAddress, allowed: NoIommu) -> Result<IommuGroup> {
    sysfs.existing_function_dir(address)?;
    let group = sysfs.iommu_group(address);
    // Without an IOMMU a function has a group only while vfio-pci has it.
    if group.is_none() && !(allowed == NoIommu::Allow && sysfs.allows_no_iommu()) {
        return Err(no_iommu(address));
    }
    match sysfs.driver(address) {
        Some(driver) if is_vfio(&driver) => {}
        Some(driver) => {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("{address} is bound to {driver}; run `zbd-bench bind {address}`"),
            ));
        }
        None => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{address} is not bound to vfio-pci; run `zbd-bench bind {address}`"),
            ));
        }
    }
    let group = group.ok_or_else(|| no_iommu(address))?;
    if group.confinement == Confinement::None && allowed == NoIommu::Refuse {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "no IOMMU confines {address}: it could read and write all memory of this machine; \
                 enable an IOMMU and bind it again, or take the risk and open it as \
                 pci:{address},noiommu=allow"
            ),
        ));
    }
    Ok(group)
}

/// Says what `error` means for the claim on `address`.
pub(super) fn explain(
    sysfs: &Sysfs,
    address: PciAddress,
    group: &IommuGroup,
    error: VfioError,
) -> Error {
    let os_error = os_error(&error);
    let file = sysfs.group_file(group);
    let file = file.display();
    let io_kind = os_error.as_ref().map(io::Error::kind);
    let errno = os_error.as_ref().and_then(Errno::from_io_error);
    let (kind, text) = match &error {
        VfioError::OpenContainer(_) if io_kind == Some(io::ErrorKind::PermissionDenied) => (
            ErrorKind::PermissionDenied,
            "cannot open /dev/vfio/vfio; let everybody (`chmod 666 /dev/vfio/vfio`)".to_owned(),
        ),
        VfioError::OpenContainer(_) => (
            ErrorKind::Unsupported,
            "cannot open /dev/vfio/vfio; load VFIO (`modprobe vfio-pci`), and in a container pass \
             /dev/vfio on to it"
                .to_owned(),
        ),
        VfioError::OpenGroup(..) if io_kind == Some(io::ErrorKind::PermissionDenied) => (
            ErrorKind::PermissionDenied,
            format!("cannot open {file}; run `zbd-bench bind {address} --owner USER` as root"),
        ),
        VfioError::OpenGroup(e, _) if is_busy(e) => (
            ErrorKind::Busy,
            format!(
                "{address} is already claimed by {}; end it first",
                sysfs.group_holder(group)
            ),
        ),
        VfioError::OpenGroup(..) => (
            ErrorKind::Unsupported,
            format!("cannot open {file}; in a container pass /dev/vfio on to it"),
        ),
        VfioError::GroupViable => (ErrorKind::GroupNotViable, not_viable(address, group)),
        VfioError::VfioExtension | VfioError::VfioApiVersion => (
            ErrorKind::Unsupported,
            "the kernel's VFIO lacks the type 1 (v2) IOMMU interface; load it \
             (`modprobe vfio_iommu_type1`)"
                .to_owned(),
        ),
        VfioError::ContainerSetIOMMU(_) if errno == Some(Errno::PERM) => (
            ErrorKind::Unsupported,
            "the IOMMU cannot confine interrupts; enable interrupt remapping (QEMU: \
             intel-iommu,intremap=on), or trust the device with \
             vfio_iommu_type1.allow_unsafe_interrupts=1"
                .to_owned(),
        ),
        VfioError::ContainerSetIOMMU(_) | VfioError::GroupSetContainer => (
            ErrorKind::Io,
            format!(
                "the IOMMU does not take group {} over; dmesg says why",
                group.id
            ),
        ),
        VfioError::GroupGetDeviceFD(_) if errno == Some(Errno::BUSY) => (
            ErrorKind::Busy,
            format!("{address} is in use; end what uses it first"),
        ),
        _ => (
            ErrorKind::Io,
            format!("vfio-pci does not give {address} out; dmesg says why"),
        ),
    };
    let refusal = Error::new(kind, text);
    match (os_error, error) {
        (Some(e), _) => refusal.with_source(e),
        // They say no more than the refusal does.
        (None, VfioError::GroupViable | VfioError::VfioExtension) => refusal,
        (None, error) => refusal.with_source(error),
    }
}

/// What the operating system said.
fn os_error(error: &VfioError) -> Option<io::Error> {
    let code = match error {
        VfioError::OpenContainer(e) | VfioError::OpenGroup(e, _) => e.raw_os_error()?,
        VfioError::ContainerSetIOMMU(e)
        | VfioError::GroupGetDeviceFD(e)
        | VfioError::VfioDeviceGetInfo(e)
        | VfioError::VfioDeviceGetRegionInfo(e) => e.errno(),
        _ => return None,
    };
    Some(io::Error::from_raw_os_error(code))
}

fn not_viable(address: PciAddress, group: &IommuGroup) -> String {
    let obstacles: Vec<_> = group.obstacles().map(ToString::to_string).collect();
    let id = group.id;
    if obstacles.is_empty() {
        return format!(
            "{address} is in group {id}, which is not wholly bound to vfio-pci; look into \
             /sys/kernel/iommu_groups/{id}/devices"
        );
    }
    format!(
        "{address} shares isolation group {id} with {}; bind them to vfio-pci, too, or move the \
         device to another slot",
        obstacles.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> PciAddress {
        "00:01.0".parse().unwrap()
    }

    fn explained(error: VfioError) -> Error {
        let tree = tempfile::tempdir().unwrap();
        let sysfs = Sysfs::at(tree.path());
        explain(
            &sysfs,
            address(),
            &IommuGroup {
                id: 13,
                confinement: Confinement::Iommu,
                others: vec![],
            },
            error,
        )
    }

    #[test]
    fn without_an_iommu_only_consent_opens() {
        use std::{fs, os::unix::fs::symlink};
        let tree = tempfile::tempdir().unwrap();
        let sysfs = Sysfs::at(tree.path());
        let function = sysfs.function_dir(address());
        fs::create_dir_all(&function).unwrap();
        symlink("../../drivers/vfio-pci", function.join("driver")).unwrap();
        let refused = |allowed| {
            let error = check(&sysfs, address(), allowed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            error.to_string()
        };
        // The kernel has not been told.
        assert!(refused(NoIommu::Allow).contains("enable_unsafe_noiommu_mode=1"));

        let group = tree.path().join("13");
        fs::create_dir_all(group.join("devices")).unwrap();
        fs::write(group.join("name"), "vfio-noiommu\n").unwrap();
        symlink(&group, function.join("iommu_group")).unwrap();
        let text = refused(NoIommu::Refuse);
        for part in ["all memory", "pci:0000:00:01.0,noiommu=allow"] {
            assert!(text.contains(part), "{text}");
        }
        let group = check(&sysfs, address(), NoIommu::Allow).unwrap();
        assert_eq!(group.confinement, Confinement::None);
    }

    #[test]
    fn a_group_without_permission_names_its_file_and_the_remedy() {
        let denied = io::Error::from_raw_os_error(Errno::ACCESS.raw_os_error());
        let error = explained(VfioError::OpenGroup(denied, "13".into()));
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let text = error.to_string();
        assert!(text.contains("dev/vfio/13"), "{text}");
        assert!(text.contains("bind 0000:00:01.0 --owner"), "{text}");
    }

    #[test]
    fn a_claimed_group_is_busy() {
        let busy = io::Error::from_raw_os_error(Errno::BUSY.raw_os_error());
        let error = explained(VfioError::OpenGroup(busy, "13".into()));
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(
            error
                .to_string()
                .contains("already claimed by another process")
        );
    }

    #[test]
    fn no_text_repeats_its_source() {
        let io = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        for error in [
            VfioError::OpenContainer(io(Errno::NOENT)),
            VfioError::OpenGroup(io(Errno::NOENT), "13".into()),
            VfioError::GroupViable,
            VfioError::GroupGetDeviceFD(vmm_sys_util::errno::Error::new(22)),
            VfioError::ContainerSetIOMMU(vmm_sys_util::errno::Error::new(1)),
        ] {
            let error = explained(error);
            let source = std::error::Error::source(&error).map(ToString::to_string);
            assert!(
                source.is_none_or(|s| !error.to_string().contains(&s)),
                "{error}"
            );
        }
    }
}

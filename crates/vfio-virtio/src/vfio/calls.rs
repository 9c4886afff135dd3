//! The calls of VFIO that vfio-ioctls lacks, or knows for functions behind an IOMMU only.
#![expect(unsafe_code, reason = "ioctls of VFIO")]

use std::{
    ffi::CString,
    fs::File,
    io,
    mem::size_of,
    os::fd::{AsRawFd, FromRawFd},
};

use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_GROUP_FLAGS_VIABLE, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD,
    VFIO_IRQ_SET_DATA_NONE, VFIO_TYPE, vfio_group_status, vfio_irq_info, vfio_irq_set,
    vfio_region_info,
};
use vmm_sys_util::ioctl::{
    _IOC_NONE, ioctl_expr, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref, ioctl_with_val,
};

use crate::EventFd;

const SET_IOMMU: u32 = 2;
const GROUP_GET_STATUS: u32 = 3;
const GROUP_SET_CONTAINER: u32 = 4;
const GROUP_GET_DEVICE_FD: u32 = 6;
const DEVICE_GET_REGION_INFO: u32 = 8;
const DEVICE_GET_IRQ_INFO: u32 = 9;
const DEVICE_SET_IRQS: u32 = 10;

const IRQ_SET_LEN: usize = size_of::<vfio_irq_set>();

type Request = std::ffi::c_ulong;

fn request(number: u32) -> Request {
    ioctl_expr(_IOC_NONE, VFIO_TYPE.into(), VFIO_BASE + number, 0)
}

fn check(returned: std::ffi::c_int) -> io::Result<()> {
    match returned {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Chooses the kind of IOMMU of a container that has a group.
pub(super) fn set_iommu(container: &File, kind: u32) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(unsafe { ioctl_with_val(container, request(SET_IOMMU), kind.into()) })
}

/// Whether all functions of a group are in the hands of VFIO or of nobody.
pub(super) fn is_viable(group: &File) -> io::Result<bool> {
    let mut status = vfio_group_status {
        argsz: size_of::<vfio_group_status>() as u32,
        flags: 0,
    };
    // SAFETY: the kernel writes no more than `argsz` bytes, which are the structure's.
    check(unsafe { ioctl_with_mut_ref(group, request(GROUP_GET_STATUS), &mut status) })?;
    Ok(status.flags & VFIO_GROUP_FLAGS_VIABLE != 0)
}

/// Puts a group into a container.
pub(super) fn set_container(group: &File, container: &File) -> io::Result<()> {
    let descriptor = container.as_raw_fd();
    // SAFETY: the kernel reads one descriptor.
    check(unsafe { ioctl_with_ref(group, request(GROUP_SET_CONTAINER), &descriptor) })
}

/// Opens the function of a group that has this name.
pub(super) fn open_device(group: &File, name: &str) -> io::Result<File> {
    let name = CString::new(name)?;
    // SAFETY: the kernel reads a string that ends with 0.
    let descriptor = unsafe { ioctl_with_ptr(group, request(GROUP_GET_DEVICE_FD), name.as_ptr()) };
    check(descriptor)?;
    // SAFETY: the kernel has just made the descriptor, for us and no one else.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// What the kernel says of a region; none where the device has no such region.
pub(super) fn region_info(device: &File, index: u32) -> io::Result<vfio_region_info> {
    let mut info = vfio_region_info {
        argsz: size_of::<vfio_region_info>() as u32,
        index,
        ..Default::default()
    };
    // SAFETY: the kernel writes no more than `argsz` bytes, which are the structure's.
    check(unsafe { ioctl_with_mut_ref(device, request(DEVICE_GET_REGION_INFO), &mut info) })?;
    Ok(info)
}

/// How many interrupts of a kind the device has.
pub(super) fn irq_count(device: &File, index: u32) -> io::Result<u32> {
    let mut info = vfio_irq_info {
        argsz: size_of::<vfio_irq_info>() as u32,
        index,
        ..Default::default()
    };
    // SAFETY: the kernel writes no more than `argsz` bytes, which are the structure's.
    check(unsafe { ioctl_with_mut_ref(device, request(DEVICE_GET_IRQ_INFO), &mut info) })?;
    Ok(info.count)
}

/// Where interrupts of one kind go.
#[derive(Clone, Copy)]
pub(super) enum Signal<'a> {
    /// The first ones to these events, each its own.
    Events(&'a [EventFd]),
    /// The only one to this event, or nowhere.
    One(Option<&'a EventFd>),
    /// All of them nowhere.
    Off,
}

/// Says where the interrupts of the kind `index` go.
pub(super) fn set_irqs(device: &File, index: u32, signal: Signal<'_>) -> io::Result<()> {
    let message = irq_set(index, signal);
    // SAFETY: the message begins with a `vfio_irq_set` whose `argsz` is the message's length; the
    // kernel reads that much and does not mind the alignment.
    check(unsafe { ioctl_with_ptr(device, request(DEVICE_SET_IRQS), message.as_ptr()) })
}

/// The `vfio_irq_set`: u32 argsz, flags, index, start, count, then descriptors.
fn irq_set(index: u32, signal: Signal<'_>) -> Vec<u8> {
    /// What stands for no event.
    const NOWHERE: i32 = -1;
    let (data, descriptors) = match signal {
        Signal::Events(events) => (
            VFIO_IRQ_SET_DATA_EVENTFD,
            events.iter().map(AsRawFd::as_raw_fd).collect(),
        ),
        // Other than switching off what is off already, sending it nowhere is never an error.
        Signal::One(event) => (
            VFIO_IRQ_SET_DATA_EVENTFD,
            vec![event.map_or(NOWHERE, AsRawFd::as_raw_fd)],
        ),
        Signal::Off => (VFIO_IRQ_SET_DATA_NONE, vec![]),
    };
    let len = IRQ_SET_LEN + descriptors.len() * size_of::<i32>();
    let flags = data | VFIO_IRQ_SET_ACTION_TRIGGER;
    // Neither can be cut off: a process has far fewer descriptors.
    let header = [len as u32, flags, index, 0, descriptors.len() as u32];
    let header = header.iter().flat_map(|word| word.to_ne_bytes());
    let descriptors = descriptors.iter().flat_map(|fd| fd.to_ne_bytes());
    header.chain(descriptors).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(signal: Signal<'_>) -> Vec<i32> {
        let message = irq_set(4, signal);
        let words = message.chunks_exact(4);
        words
            .map(|word| i32::from_ne_bytes(word.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn messages_carry_their_length_and_their_descriptors() {
        let events = [EventFd::new(0).unwrap(), EventFd::new(0).unwrap()];
        let [first, second] = [events[0].as_raw_fd(), events[1].as_raw_fd()];
        let trigger = VFIO_IRQ_SET_ACTION_TRIGGER as i32;
        let (none, event) = (trigger | 1, trigger | 4);
        assert_eq!(
            words(Signal::Events(&events)),
            [28, event, 4, 0, 2, first, second]
        );
        assert_eq!(
            words(Signal::One(Some(&events[0]))),
            [24, event, 4, 0, 1, first]
        );
        assert_eq!(words(Signal::One(None)), [24, event, 4, 0, 1, -1]);
        assert_eq!(words(Signal::Off), [20, none, 4, 0, 0]);
    }

    #[test]
    fn files_that_are_none_of_vfios_are_errors() {
        let file = File::open("/dev/null").unwrap();
        assert!(set_iommu(&file, 8).is_err());
        assert!(is_viable(&file).is_err());
        assert!(set_container(&file, &file).is_err());
        assert!(open_device(&file, "0000:00:01.0").is_err());
        assert!(region_info(&file, 0).is_err());
        assert!(irq_count(&file, 0).is_err());
        assert!(set_irqs(&file, 0, Signal::Off).is_err());
    }
}

//! The emulated device, told where the peer's queue is: what a transport of the peer's would write
//! to the registers of a PCI function (VIRTIO 1.3, 4.1.4.3).

use std::sync::Arc;

use vfio_virtio::{Doorbell, PciFunction, Width};
use zbd_emu::{EmulatedFunction, Stepper};

use crate::{
    peer_backend::Learnt,
    quiet::{Bell, QuietFunction},
    rings::{Format, Rings},
};

/// The emulated function's BAR with the registers, and the first queue's notification address.
const REGISTERS: u8 = 4;
const NOTIFY: u64 = 0x3000;

const FEATURE_SELECT: u64 = 0x00;
const FEATURE: u64 = 0x04;
const ACCEPTED_SELECT: u64 = 0x08;
const ACCEPTED: u64 = 0x0c;
const STATUS: u64 = 0x14;
const QUEUE_SELECT: u64 = 0x16;
const QUEUE_SIZE: u64 = 0x18;
const QUEUE_ENABLE: u64 = 0x1c;
const DESCRIPTORS: u64 = 0x20;
const DRIVER_AREA: u64 = 0x28;
const DEVICE_AREA: u64 = 0x30;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

const RING_PACKED: u64 = 1 << 34;

pub(crate) struct Device {
    pub(crate) bell: Arc<Bell>,
    pub(crate) doorbell: Box<dyn Doorbell>,
    pub(crate) stepper: Stepper,
    /// Ends the device when dropped.
    pub(crate) _function: QuietFunction,
}

/// Starts the device that the other layers drive on the peer's queue. `share` gives it the peer's
/// memory.
pub(crate) fn start(rings: Rings, queue: Learnt, share: impl FnOnce(&QuietFunction)) -> Device {
    let config = rings
        .device()
        .parse()
        .expect("the device string is well-formed");
    let (function, stepper) = EmulatedFunction::stepped(&config).expect("the device starts");
    let (function, bell) = QuietFunction::new(function);
    share(&function);
    let bar = function.open_bar(REGISTERS).expect("it has registers");
    let write = |offset, width, value| {
        bar.write(offset, width, value)
            .expect("the register can be written");
    };
    let status = |bits| write(STATUS, Width::Byte, bits);
    status(0);
    status(ACKNOWLEDGE | DRIVER);
    for half in 0..2 {
        write(FEATURE_SELECT, Width::Long, half);
        let mut features = bar.read(FEATURE, Width::Long).expect("it can be read");
        if rings.format == Format::Split {
            features &= !((RING_PACKED >> (32 * half)) as u32);
        }
        write(ACCEPTED_SELECT, Width::Long, half);
        write(ACCEPTED, Width::Long, features);
    }
    status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
    let read_back = bar.read(STATUS, Width::Byte).expect("it can be read");
    assert!(
        read_back & FEATURES_OK != 0,
        "the device refuses what it offered"
    );
    write(QUEUE_SELECT, Width::Word, 0);
    write(QUEUE_SIZE, Width::Word, rings.size().into());
    for (register, address) in [
        (DESCRIPTORS, queue.descriptors),
        (DRIVER_AREA, queue.driver_area),
        (DEVICE_AREA, queue.device_area),
    ] {
        write(register, Width::Long, address as u32);
        write(register + 4, Width::Long, (address >> 32) as u32);
    }
    write(QUEUE_ENABLE, Width::Word, 1);
    status(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    let doorbell = Arc::clone(&bar)
        .doorbell(NOTIFY, Width::Word)
        .expect("the queue has a doorbell");
    Device {
        bell,
        doorbell,
        stepper,
        _function: function,
    }
}

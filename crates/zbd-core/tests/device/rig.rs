//! A queue on a software device, with hands on both sides.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use vfio_virtio::PciFunction;
use zbd_core::{
    Backend, Completion, DmaBuffer, Error, ErrorKind, IoQueue, OpenOptions, Request, Result,
    Sector, Zone, ZoneAction, ZoneId, ZonedDevice, ZonedInfo,
};
use zbd_emu::{Control, EmulatedConfig, EmulatedFunction, Stepper};

use crate::{in_time::PATIENCE, random::Random};

/// Enough for all buffers of a test and small enough to be counted page by page.
pub(crate) const MEMORY_LEN: usize = 2 << 20;

/// Rings of every kind.
pub(crate) const RINGS: [&str; 7] = [
    "ring=split,indirect=on,in-order=off",
    "ring=split,indirect=off,in-order=off",
    "ring=packed,indirect=on,in-order=off",
    "ring=packed,indirect=off,in-order=off",
    "ring=split,indirect=off,in-order=on",
    "ring=packed,indirect=off,in-order=on",
    "ring=split,indirect=on,in-order=on",
];

/// A device configuration: `options`, and for what they do not say, the environment variable
/// `ZBD_TEST_DEVICE`, so that all tests can be run on rings of every kind.
///
/// With direct chains a queue holds a third as many requests. Tests count on a depth, so unless they
/// choose chains themselves, packed queues are made three times as large.
pub(crate) fn config(options: &str) -> EmulatedConfig {
    let environment = std::env::var("ZBD_TEST_DEVICE").unwrap_or_default();
    let mut all = merged(&environment, options);
    let is_direct = value(&environment, "indirect") == Some("off")
        && value(options, "indirect").is_none()
        && value(&all, "ring") == Some("packed");
    if is_direct {
        let size = value(&all, "queue-size").map_or(256, |size| size.parse().unwrap());
        let size: u32 = 32768.min(3 * size);
        all = merged(&all, &format!("queue-size={size}"));
    }
    all.parse().unwrap()
}

/// The options of `first`, except where `then` says something else.
pub(crate) fn merged(first: &str, then: &str) -> String {
    let mut options: Vec<(&str, &str)> = Vec::new();
    for (key, value) in [first, then].into_iter().flat_map(pairs) {
        options.retain(|(known, _)| *known != key);
        options.push((key, value));
    }
    let options = options
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"));
    options.collect::<Vec<_>>().join(",")
}

fn value<'a>(options: &'a str, key: &str) -> Option<&'a str> {
    pairs(options).find_map(|(known, value)| (known == key).then_some(value))
}

fn pairs(options: &str) -> impl Iterator<Item = (&str, &str)> {
    let options = options.split(',').filter(|option| !option.is_empty());
    options.map(|option| option.split_once('=').unwrap())
}

pub(crate) fn open_options() -> OpenOptions {
    OpenOptions {
        memory_len: MEMORY_LEN,
        ..OpenOptions::default()
    }
}

/// A queue and the device below it.
pub(crate) struct Rig {
    pub(crate) queue: IoQueue,
    pub(crate) device: Device,
}

/// A device from behind.
pub(crate) struct Device {
    pub(crate) function: Arc<EmulatedFunction>,
    pub(crate) control: Control,
    pub(crate) stepper: Option<Stepper>,
}

/// Opens `function`, which is stepped meanwhile.
pub(crate) fn open_stepped(
    function: Arc<dyn PciFunction>,
    stepper: &mut Stepper,
    options: OpenOptions,
) -> Result<Vec<IoQueue>> {
    let opening = thread::spawn(move || {
        options.open_function(function, Backend::Emulated, "emu:".to_owned())
    });
    while !opening.is_finished() {
        stepper.run_until_idle();
        thread::yield_now();
    }
    opening.join().unwrap()
}

impl Device {
    /// A device that does nothing until it is stepped.
    pub(crate) fn stepped(options: &str) -> Self {
        let (function, stepper) = EmulatedFunction::stepped(&config(options)).unwrap();
        Self::around(function, Some(stepper))
    }

    /// A device with a thread of its own.
    pub(crate) fn threaded(options: &str) -> Self {
        Self::around(EmulatedFunction::new(&config(options)).unwrap(), None)
    }

    fn around(function: EmulatedFunction, stepper: Option<Stepper>) -> Self {
        Self {
            control: function.control(),
            function: Arc::new(function),
            stepper,
        }
    }

    pub(crate) fn open(&mut self, options: OpenOptions) -> Result<Vec<IoQueue>> {
        let function = Arc::clone(&self.function);
        match &mut self.stepper {
            Some(stepper) => open_stepped(function, stepper, options),
            None => options.open_function(function, Backend::Emulated, "emu:".to_owned()),
        }
    }

    pub(crate) fn open_queue(&mut self) -> IoQueue {
        self.open(open_options()).unwrap().pop().unwrap()
    }

    pub(crate) fn open_shared(&mut self) -> ZonedDevice {
        ZonedDevice::from_queues(self.open(open_options()).unwrap()).unwrap()
    }

    /// Lets a stepped device do all there is to do.
    pub(crate) fn step(&mut self) -> u64 {
        self.stepper.as_mut().map_or(0, Stepper::run_until_idle)
    }

    /// Lets a device that has a thread of its own have the processor.
    pub(crate) fn give_way(&self) {
        if self.stepper.is_none() {
            thread::yield_now();
        }
    }

    /// How many requests the device has taken.
    pub(crate) fn requests(&self) -> u64 {
        self.control.counters().requests
    }
}

impl Rig {
    pub(crate) fn stepped(options: &str) -> Self {
        Self::over(Device::stepped(options))
    }

    pub(crate) fn threaded(options: &str) -> Self {
        Self::over(Device::threaded(options))
    }

    fn over(mut device: Device) -> Self {
        Self {
            queue: device.open_queue(),
            device,
        }
    }

    /// A buffer filled with [`pattern`].
    pub(crate) fn filled(&self, len: usize, seed: u64) -> DmaBuffer {
        let mut buffer = self.queue.buffer(len).unwrap();
        buffer.copy_from_slice(&pattern(seed, len));
        buffer
    }

    pub(crate) fn append(&self, zone: u32, len: usize, seed: u64) -> Request {
        Request::Append {
            zone: ZoneId(zone),
            buffer: self.filled(len, seed),
        }
    }

    pub(crate) fn write(&self, at: u64, len: usize, seed: u64) -> Request {
        Request::Write {
            at: Sector(at),
            buffer: self.filled(len, seed),
        }
    }

    /// All completions of what is in flight.
    pub(crate) fn finish(&mut self) -> Vec<Completion> {
        self.queue.commit();
        let begun = Instant::now();
        let mut done = Vec::new();
        while self.queue.in_flight() > 0 {
            self.device.step();
            match self.queue.poll() {
                Some(completion) => done.push(completion),
                None => {
                    assert!(begun.elapsed() < PATIENCE, "requests do not come back");
                    self.device.give_way();
                }
            }
        }
        done
    }

    /// Runs one request to its end.
    pub(crate) fn run(&mut self, request: Request) -> Completion {
        self.queue.submit(request, 4711).unwrap();
        let mut done = self.finish();
        assert_eq!(done.len(), 1);
        let done = done.pop().unwrap();
        assert_eq!(done.token, 4711);
        done
    }

    /// Runs one request without data and yields how it ended.
    pub(crate) fn manage(&mut self, action: ZoneAction, zone: u32) -> Result<Sector> {
        let zone = ZoneId(zone);
        self.run(Request::Manage { action, zone }).result
    }

    pub(crate) fn read(&mut self, at: u64, len: usize) -> Vec<u8> {
        let mut buffer = self.queue.buffer(len).unwrap();
        buffer.fill(0xee);
        let at = Sector(at);
        let done = self.run(Request::Read { at, buffer });
        assert_eq!(done.result.unwrap(), at);
        done.buffer.unwrap().to_vec()
    }

    pub(crate) fn report(&mut self) -> Vec<Zone> {
        let info = Arc::clone(self.queue.info());
        let zoned = info.zoned().unwrap();
        let len = ZonedInfo::report_len(zoned.zone_count);
        let mut buffer = self.queue.buffer(len).unwrap();
        buffer.fill(0);
        let from = Sector(0);
        let done = self.run(Request::Report { from, buffer });
        done.result.unwrap();
        zoned
            .parse_report(ZoneId(0), &done.buffer.unwrap())
            .unwrap()
    }
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..len.div_ceil(8))
        .flat_map(|_| random.next().to_le_bytes())
        .take(len)
        .collect()
}

/// How many pages the device's memory has left.
pub(crate) fn free_pages(allocate: impl Fn(usize) -> Result<DmaBuffer, Error>) -> usize {
    let mut pages = Vec::new();
    loop {
        match allocate(4096) {
            Ok(page) => pages.push(page),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfMemory);
                return pages.len();
            }
        }
    }
}

/// Waits until `holds`, which something else must bring about.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_micros(50));
    }
}

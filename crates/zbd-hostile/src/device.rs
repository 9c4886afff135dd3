//! The device behind the function: its registers, and what it does next.

use std::collections::HashMap;

use vfio_virtio::{Error, ErrorKind, EventFd, Notice, Result, Width};

use crate::{
    Key, Known, Script,
    answer::{Answer, Flaw},
    configuration::{self, BLK_LEN, DEVICE_OFFSET, IN_ORDER, Lies, PACKED},
    memory::Mapped,
    ring::Ring,
};

const DRIVER_OK: u8 = 4;
const NEEDS_RESET: u8 = 64;
/// So often one register is read before the device has gone.
const MOST_READS: u32 = 400;
/// How many queues the device has.
const QUEUES: usize = 2;

/// A register that is read as something else for a while.
struct Untruth {
    register: u64,
    /// How many reads are still true.
    after: u8,
    /// How many are not, then.
    times: u8,
    value: u32,
}

/// A queue as its registers have it.
#[derive(Clone, Default)]
struct QueueRegisters {
    size: u16,
    vector: u16,
    /// The addresses of its three parts.
    parts: [u64; 3],
}

pub(crate) struct Device {
    pub(crate) script: Script,
    pub(crate) lies: Lies,
    pub(crate) memory: Mapped,
    pub(crate) pci: [u8; 256],
    /// What is wrong with the answers of a device that otherwise does not lie.
    pub(crate) flaw: Flaw,
    /// Whether a reset may fail.
    pub(crate) merciless: bool,
    pub(crate) fields: [u8; BLK_LEN],
    pub(crate) rings: [Option<Ring>; QUEUES],
    /// Whether memory holds nothing but what answers and rings need: then a driver's rings make
    /// sense, and what it finds is what was answered.
    pub(crate) is_faithful: bool,
    pub(crate) answers: HashMap<Key, Answer>,
    /// How much has been done for reports.
    pub(crate) effort: u64,
    /// Counts appends and stamps.
    pub(crate) counter: u64,
    /// Whether requests are returned in their order.
    pub(crate) keeps_order: bool,
    features: u64,
    driver_features: u64,
    feature_half: u32,
    driver_feature_half: u32,
    size_max: u16,
    num_queues: u16,
    config_vector: u16,
    queue: u16,
    queues: [QueueRegisters; QUEUES],
    status: u8,
    generation: u8,
    /// How many more times the configuration changes while it is read.
    unrest: u16,
    untruths: Vec<Untruth>,
    /// Whether all registers read as ones.
    pub(crate) is_gone: bool,
    /// How many more reads of the status say that the reset is not over.
    slow_reset: u8,
    resets: u32,
    interrupts: Vec<EventFd>,
    notices: Vec<EventFd>,
    /// The register that a zero was written to last, and how often it has been read since.
    zeroed: Option<(u8, u64, u32)>,
    /// The register that was read last, and how often in a row.
    read_last: (u8, u64, u32),
}

impl Device {
    pub(crate) fn new(script: Script, lies: Lies) -> Self {
        let lying = lies == Lies::Everywhere;
        let untruths = match lying {
            true => script.pick([0, 0, 0, 0, 0, 1, 2, 4]),
            false => 0,
        };
        Self {
            lies,
            memory: Mapped::default(),
            features: configuration::features(&script, lies),
            pci: configuration::pci(&script, lies),
            fields: configuration::block_device(&script, lies),
            size_max: match lies {
                Lies::Nowhere => 16,
                Lies::Everywhere => {
                    script.pick([16, 4, 8, 64, 5, 100, 0, 1, 3, 256, 1024, u16::MAX])
                }
                Lies::InSplitRings => script.pick([8, 4, 16, 64]),
                Lies::InPackedRings => script.pick([8, 4, 5, 7, 16, 33]),
            },
            num_queues: if lying {
                script.pick([2, 1, 0, 2, 9])
            } else {
                2
            },
            unrest: if lying {
                script.pick([0, 0, 0, 0, 0, 0, 1, 2, 5, 900, 0, 1100])
            } else {
                0
            },
            untruths: (0..untruths)
                .map(|_| Untruth {
                    register: (script.u8() % 0x40).into(),
                    after: script.u8() % 16,
                    times: script.u8() % 8 + 1,
                    value: script.u32(),
                })
                .collect(),
            script,
            flaw: Flaw::None,
            merciless: false,
            rings: Default::default(),
            is_faithful: true,
            answers: HashMap::new(),
            effort: 0,
            counter: 0,
            keeps_order: false,
            driver_features: 0,
            feature_half: 0,
            driver_feature_half: 0,
            config_vector: 0,
            queue: 0,
            queues: Default::default(),
            status: 0,
            generation: 0,
            is_gone: false,
            slow_reset: 0,
            resets: 0,
            interrupts: Vec::new(),
            notices: Vec::new(),
            zeroed: None,
            read_last: (0, 0, 0),
        }
    }

    pub(crate) fn answer(&self, key: Key) -> Known<Answer> {
        match self.is_faithful {
            true => Known::Yes(self.answers.get(&key).copied()),
            false => Known::No,
        }
    }

    pub(crate) fn forget(&mut self, key: Key) {
        self.answers.remove(&key);
    }

    pub(crate) fn set_interrupts(&mut self, events: &[EventFd]) -> Result<()> {
        self.interrupts = events.iter().map(clone).collect::<Result<_>>()?;
        Ok(())
    }

    pub(crate) fn set_notice(&mut self, _: Notice, event: Option<&EventFd>) -> Result<()> {
        self.notices.extend(event.map(clone).transpose()?);
        Ok(())
    }

    /// Delivers one of the interrupts or notices, if there are any.
    pub(crate) fn interrupt(&self) {
        let all = self.interrupts.len() + self.notices.len();
        let number = self.script.below(all);
        if let Some(event) = self.interrupts.iter().chain(&self.notices).nth(number) {
            // A counter that is full says all that there is to say.
            drop(event.write(1));
        }
    }

    /// Says that the device has failed.
    pub(crate) fn fail(&mut self) {
        self.status |= NEEDS_RESET;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Changes a byte of the configuration.
    pub(crate) fn change_configuration(&mut self) {
        let at = self.script.below(BLK_LEN);
        self.fields[at] = self.script.u8();
        self.generation = self.generation.wrapping_add(1);
    }

    /// A register of any BAR.
    pub(crate) fn read_bar(&mut self, bar: u8, register: u64, width: Width) -> u32 {
        let (last_bar, last, times) = self.read_last;
        let is_again = (last_bar, last) == (bar, register);
        self.read_last = (bar, register, if is_again { times + 1 } else { 0 });
        let value = match bar {
            // Whoever waits for a device that says nothing gives up after half a minute: tried apart.
            _ if self.read_last.2 > MOST_READS => u32::MAX,
            configuration::BAR => self.read_register(register, width),
            _ => self.script.u32(),
        };
        match &mut self.zeroed {
            // A reset that is never over takes ten seconds and keeps the memory for good: tried
            // apart. The driver may have been led to take any register for the status.
            Some((in_bar, at, reads)) if *in_bar == bar && *at == register => {
                *reads += 1;
                let is_over = *reads > 32 || !(self.merciless || self.memory.is_empty());
                if is_over { 0 } else { value }
            }
            _ => value,
        }
    }

    pub(crate) fn write_bar(&mut self, bar: u8, register: u64, width: Width, value: u32) {
        self.zeroed = (width == Width::Byte && value == 0).then_some((bar, register, 0));
        if bar == configuration::BAR {
            self.write_register(register, width, value);
        }
    }

    fn read_register(&mut self, register: u64, width: Width) -> u32 {
        if register == 0x14 && self.status & DRIVER_OK != 0 {
            self.step();
        }
        if self.is_gone {
            return u32::MAX;
        }
        if let Some(untruth) = self
            .untruths
            .iter_mut()
            .find(|it| it.register == register && it.times > 0)
        {
            if untruth.after == 0 {
                untruth.times -= 1;
                return untruth.value;
            }
            untruth.after -= 1;
        }
        if let Some(at) = register.checked_sub(DEVICE_OFFSET) {
            let mut bytes = [0; 4];
            for (i, byte) in bytes.iter_mut().enumerate().take(width as usize) {
                *byte = self.fields.get(at as usize + i).copied().unwrap_or(0);
            }
            return u32::from_le_bytes(bytes);
        }
        let queue = self.queues.get(usize::from(self.queue));
        match register {
            0x00 => self.feature_half,
            0x04 => match self.feature_half {
                0 => self.features as u32,
                1 => (self.features >> 32) as u32,
                _ => 0,
            },
            0x10 => self.config_vector.into(),
            0x12 => self.num_queues.into(),
            0x14 => {
                if self.slow_reset > 0 {
                    self.slow_reset -= 1;
                    return 1;
                }
                self.status.into()
            }
            0x15 => {
                if self.unrest > 0 {
                    self.unrest -= 1;
                    self.change_configuration();
                }
                self.generation.into()
            }
            0x16 => self.queue.into(),
            0x18 => queue.map_or(0, |_| self.size_max.into()),
            0x1a => queue.map_or(0xffff, |queue| queue.vector.into()),
            0x1e | 0x38 => self.queue.into(),
            // Enabled or not, reset or not.
            _ => 0,
        }
    }

    fn write_register(&mut self, register: u64, width: Width, value: u32) {
        let index = usize::from(self.queue);
        let half = |word: &mut u64, number: u64| {
            let shift = 32 * number;
            *word = *word & !(0xffff_ffff << shift) | u64::from(value) << shift;
        };
        match register {
            0x00 => self.feature_half = value,
            0x08 => self.driver_feature_half = value,
            0x0c if self.driver_feature_half < 2 => {
                half(&mut self.driver_features, self.driver_feature_half.into());
            }
            0x10 => self.config_vector = value as u16,
            0x14 if value == 0 => self.reset(),
            0x14 => self.status = value as u8,
            0x16 => self.queue = value as u16,
            0x3a if value == 1 => {
                if let Some(ring) = self.rings.get_mut(index) {
                    *ring = None;
                }
            }
            _ => {}
        }
        if let Some(at) = register.checked_sub(DEVICE_OFFSET) {
            let ignores = self.lies == Lies::Everywhere && self.script.once_in(8);
            if let Some(field) = self.fields.get_mut(at as usize)
                && width == Width::Byte
                && !ignores
            {
                *field = value as u8;
            }
        }
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        match register {
            0x18 => queue.size = value as u16,
            0x1a => queue.vector = value as u16,
            0x1c if value == 1 && queue.size > 0 => {
                self.keeps_order = self.driver_features & IN_ORDER != 0;
                let is_packed = self.driver_features & PACKED != 0;
                self.rings[index] = Some(Ring::new(is_packed, queue.size, queue.parts));
            }
            0x20..0x38 => half(
                &mut queue.parts[(register - 0x20) as usize / 8],
                register / 4 % 2,
            ),
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.resets += 1;
        self.rings = Default::default();
        self.is_faithful = true;
        self.status = 0;
        self.driver_features = 0;
        self.is_gone = false;
        if self.lies == Lies::Everywhere && (self.merciless || self.resets == 1) {
            match self.script.below(64) {
                63 => self.is_gone = true,
                62 => self.slow_reset = 1,
                61 => self.features ^= 1 << (self.script.u8() % 64),
                60 => self.size_max = self.script.u16(),
                _ => {}
            }
        }
    }
}

fn clone(event: &EventFd) -> Result<EventFd> {
    event
        .try_clone()
        .map_err(|e| Error::new(ErrorKind::Io, "cannot share an event").with_source(e))
}

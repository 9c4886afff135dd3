//! MSI-X vectors and the ISR status (VIRTIO 1.3 §4.1.4.5, §4.1.5.1).

use vfio_virtio::EventFd;

/// A queue or the configuration that interrupts nobody (§4.1.5.1.2.1).
pub(crate) const NO_VECTOR: u16 = 0xffff;

const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// Where interrupts go.
#[derive(Debug)]
pub(crate) struct Interrupts {
    vectors: u16,
    /// None while MSI-X is off.
    events: Option<Vec<EventFd>>,
    pub(crate) config_vector: u16,
    isr: u8,
    sent: u64,
}

impl Interrupts {
    pub(crate) fn new(vectors: u16) -> Self {
        Self {
            vectors,
            events: None,
            config_vector: NO_VECTOR,
            isr: 0,
            sent: 0,
        }
    }

    pub(crate) fn vectors(&self) -> u16 {
        self.vectors
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn deliver_to(&mut self, events: Option<Vec<EventFd>>) {
        self.events = events;
    }

    /// What a vector register holds after `vector` was written to it (§4.1.5.1.2.1).
    pub(crate) fn accept(&self, vector: u16) -> u16 {
        if vector < self.vectors {
            vector
        } else {
            NO_VECTOR
        }
    }

    /// Forgets what a device reset forgets.
    pub(crate) fn reset(&mut self) {
        self.config_vector = NO_VECTOR;
        self.isr = 0;
    }

    pub(crate) fn queue(&mut self, vector: u16) {
        self.raise(vector, ISR_QUEUE);
    }

    pub(crate) fn config(&mut self) {
        self.raise(self.config_vector, ISR_CONFIG);
    }

    fn raise(&mut self, vector: u16, isr: u8) {
        match &self.events {
            // §4.1.4.5.1: the status is for functions without MSI-X. There is no pin to assert.
            None => self.isr |= isr,
            Some(events) => {
                if let Some(event) = events.get(usize::from(vector)) {
                    self.sent += 1;
                    // A full counter has its interrupt pending already.
                    drop(event.write(1));
                }
            }
        }
    }

    /// Reads the ISR status, which clears it.
    pub(crate) fn take_isr(&mut self) -> u8 {
        std::mem::take(&mut self.isr)
    }
}

//! A device that has been set up with some features, and the door to it for any request at all.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use vfio_virtio::{
    ConfiguredDevice, ErrorKind, Features, Negotiation, PciFunction, QueueOptions, Result,
    RunningDevice, Virtqueue,
};

use crate::{
    request::{Answer, Request},
    wire::BLOCK_DEVICE,
};

/// The DMA memory of a session: its rings, and what the largest requests need.
const ARENA_LEN: usize = 12 << 20;
/// As many requests and segments as any check needs; less where the device has less.
const QUEUE_SIZE: u16 = 256;
/// How often it is looked whether a device that does not answer still works.
const ALIVE_EVERY: Duration = Duration::from_millis(2);

/// Negotiates `wanted` and what the transport needs.
pub(crate) fn negotiate(
    function: &Arc<dyn PciFunction>,
    wanted: Features,
) -> Result<ConfiguredDevice> {
    Negotiation::begin(Arc::clone(function), BLOCK_DEVICE)?.accept(wanted, ARENA_LEN)
}

/// A running device with one queue.
pub(crate) struct Session {
    pub(crate) device: RunningDevice,
    queue: Virtqueue<u32>,
    patience: Duration,
}

/// Why a request has no answer.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// It could not be sent: it does not fit into the queue or the memory.
    NotSent(String),
    /// The device did something else than answering. The session is over.
    Unanswered(String),
}

impl Session {
    pub(crate) fn start(mut device: ConfiguredDevice, patience: Duration) -> Result<Self> {
        let mut options = QueueOptions::default();
        let most = device.queue_size_max(0)?;
        // A split ring's size is a power of two, whatever the device says of its greatest.
        options.size = Some(1 << most.clamp(1, QUEUE_SIZE).ilog2());
        device.add_queue(options)?;
        let (device, mut queues) = device.start::<u32>()?;
        let queue = queues.pop().ok_or_else(|| {
            vfio_virtio::Error::new(ErrorKind::NotFound, "the device has no request queue")
        })?;
        Ok(Self {
            device,
            queue,
            patience,
        })
    }

    /// Sends `requests` at once and waits for all answers, each in its request's place.
    pub(crate) fn execute(&mut self, requests: &[Request]) -> Vec<Result<Answer, Trouble>> {
        let mut answers: Vec<_> = requests
            .iter()
            .zip(0..)
            .map(|(request, index)| match self.push(request, index) {
                Ok(()) => None,
                Err(error) => Some(Err(Trouble::NotSent(error.to_string()))),
            })
            .collect();
        self.queue.commit();
        let outcome = self.collect(requests, &mut answers);
        let ending = match outcome {
            Ok(()) => "not answered".to_owned(),
            Err(what) => what,
        };
        answers
            .into_iter()
            .map(|answer| answer.unwrap_or_else(|| Err(Trouble::Unanswered(ending.clone()))))
            .collect()
    }

    fn push(&mut self, request: &Request, index: u32) -> Result<()> {
        let (chain, readable) = request.place(self.device.arena())?;
        self.queue
            .push_raw(chain, readable, index)
            .map_err(|rejected| rejected.error)
    }

    fn collect(
        &mut self,
        requests: &[Request],
        answers: &mut [Option<Result<Answer, Trouble>>],
    ) -> Result<(), String> {
        let begun = Instant::now();
        let mut looked = begun;
        while answers.iter().any(Option::is_none) {
            if self.take(requests, answers)? {
                continue;
            }
            let now = Instant::now();
            if now - looked > ALIVE_EVERY {
                looked = now;
                if let Err(error) = self.device.check_alive() {
                    // What it answered before counts.
                    while self.take(requests, answers)? {}
                    return Err(match error.kind() {
                        ErrorKind::NeedsReset => {
                            "not answered: the device asked for a reset (DEVICE_NEEDS_RESET)"
                                .to_owned()
                        }
                        _ => format!("not answered: {error}"),
                    });
                }
            }
            if now - begun > self.patience {
                return Err(format!("not answered within {:?}", self.patience));
            }
            thread::sleep(Duration::from_micros(10));
        }
        Ok(())
    }

    /// Takes one answer; false if there is none.
    fn take(
        &mut self,
        requests: &[Request],
        answers: &mut [Option<Result<Answer, Trouble>>],
    ) -> Result<bool, String> {
        let used = match self.queue.pop() {
            Ok(Some(used)) => used,
            Ok(None) => return Ok(false),
            Err(error) => return Err(format!("not answered: {error}")),
        };
        let index = used.context as usize;
        if let (Some(request), Some(place), Some(chain)) =
            (requests.get(index), answers.get_mut(index), &used.buffer)
        {
            *place = Some(Ok(request.answer(chain, used.written_len)));
        }
        Ok(true)
    }
}

//! The request path: what the device does when it looks at its queues.

use std::time::{Duration, Instant};

use super::{Device, Held, Queue};
use crate::{
    bell::Bell,
    chain::{Broken, Chain},
    config::Switch,
    disk::{Disk, NO_LOCATION, Outcome},
    fault::Faults,
    memory::DmaMap,
    request::Request,
    ring::{Ring, RingMemory, Taken, Used},
    wire::feature,
};

/// How many requests of a queue are completed together. Small enough for the driver to begin on
/// the first while the device goes on with the next.
const BATCH: u16 = 32;

/// What a look at the queues came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Requests taken.
    pub(crate) taken: u32,
    /// Requests completed.
    pub(crate) completed: u32,
}

impl Progress {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// Which queues to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// All of them.
    Everywhere,
    /// Those that the driver notified, or of which no notification was asked for.
    WhereNotified,
}

/// What the request path works on, apart from the queue.
struct Path<'d> {
    disk: &'d mut Disk,
    faults: &'d mut Faults,
    dma: &'d DmaMap,
    chain: &'d mut Chain,
    /// The features in force.
    features: u64,
}

impl Device {
    /// Takes and completes a batch of each queue.
    pub(crate) fn poll(&mut self, bell: &Bell, look: Look) -> Progress {
        let mut progress = Progress::default();
        self.settle();
        if !self.is_running() {
            return progress;
        }
        let with_data = self.negotiated(feature::NOTIFICATION_DATA) == Switch::On;
        for index in 0..self.queues.len() {
            let kicks = bell.kicks(index);
            let queue = &mut self.queues[index];
            if look == Look::WhereNotified && queue.armed && queue.kicks_seen == kicks {
                continue;
            }
            let notified = queue.kicks_seen != kicks;
            queue.kicks_seen = kicks;
            let notice = (notified && with_data).then(|| bell.last(index));
            match self.serve(index, notice) {
                Ok(taken) => progress.taken += u32::from(taken),
                Err(Broken(reason)) => {
                    self.break_down(reason);
                    return progress;
                }
            }
        }
        progress.completed = progress.taken;
        if self.holds_back() {
            progress.completed = match self.release_held() {
                Ok(completed) => completed,
                Err(Broken(reason)) => {
                    self.break_down(reason);
                    0
                }
            };
        }
        progress
    }

    /// Whether requests are not completed at once, or were not.
    #[inline]
    fn holds_back(&self) -> bool {
        !self.config.latency.is_zero() || self.on_hold || !self.held.is_empty()
    }

    /// Takes what waits in one queue, a batch at most. `notice` is what the driver said with its
    /// last notification, if it sent one and says anything.
    fn serve(&mut self, index: usize, notice: Option<u32>) -> Result<u16, Broken> {
        let features = self.features();
        let holds_back = self.holds_back();
        let held_room = self.most_held.saturating_sub(self.held.len());
        let Queue {
            ring: Some(ring),
            vector,
            armed,
            ..
        } = &mut self.queues[index]
        else {
            return Ok(0);
        };
        let memory = ring.memory(&self.dma)?;
        let waiting = ring.look(&memory)?;
        if let Some(notice) = notice {
            ring.check_notice((notice >> 16) as u16)?;
        }
        if !waiting {
            return Ok(0);
        }
        if std::mem::take(armed) {
            ring.decline_kicks(&memory)?;
        }
        let mut path = Path {
            disk: &mut self.disk,
            faults: &mut self.faults,
            dma: &self.dma,
            chain: &mut self.chain,
            features,
        };
        self.batches += 1;
        let mut taken = 0;
        let mut result = Ok(());
        if !holds_back {
            while taken < BATCH {
                match path.complete_next(ring, &memory) {
                    Ok(true) => taken += 1,
                    Ok(false) => break,
                    Err(broken) => {
                        result = Err(broken);
                        break;
                    }
                }
            }
            // What was completed before the device broke down is still handed over.
            ring.publish(&memory)?;
            if ring.wants_interrupt(&memory)? {
                self.interrupts.queue(*vector);
            }
        } else {
            let due = Instant::now() + self.config.latency;
            // The driver cannot have more in flight than there are descriptors, unless it hands
            // out the same ones again.
            let room = u16::try_from(held_room).unwrap_or(u16::MAX);
            while taken < BATCH.min(room) {
                let Some(request) = ring.take(&memory, path.chain, path.dma)? else {
                    break;
                };
                let used_len = path.run()?;
                self.held.push_back(Held {
                    queue: index as u16,
                    taken: request,
                    used_len,
                    due,
                });
                taken += 1;
            }
        }
        self.requests += u64::from(taken);
        result.map(|()| taken)
    }

    /// Completes the held requests whose time has come.
    fn release_held(&mut self) -> Result<u32, Broken> {
        let Some(first) = self.held.front().filter(|_| !self.on_hold) else {
            return Ok(0);
        };
        let now = Instant::now();
        if first.due > now {
            return Ok(0);
        }
        let mut completed = 0;
        let mut touched = 0u64;
        while let Some(held) = self.held.front().copied() {
            if held.due > now {
                break;
            }
            self.held.pop_front();
            let index = usize::from(held.queue);
            if let Some(ring) = &mut self.queues[index].ring {
                let memory = ring.memory(&self.dma)?;
                put(ring, &memory, &mut self.faults, held.taken, held.used_len)?;
                touched |= 1 << index;
                completed += 1;
            }
        }
        for (index, queue) in self.queues.iter_mut().enumerate() {
            let Some(ring) = queue.ring.as_mut().filter(|_| touched & 1 << index != 0) else {
                continue;
            };
            let memory = ring.memory(&self.dma)?;
            ring.publish(&memory)?;
            if ring.wants_interrupt(&memory)? {
                self.interrupts.queue(queue.vector);
            }
        }
        Ok(completed)
    }

    /// Asks for notifications of every queue that has nothing waiting. True when all are idle, so
    /// that whoever polls may sleep until one comes.
    pub(crate) fn arm(&mut self, bell: &Bell) -> bool {
        if !self.is_running() {
            return true;
        }
        let mut idle = true;
        // Nothing more is taken before something is completed, and nothing is on hold.
        let stalled = self.on_hold && self.held.len() >= self.most_held;
        for index in 0..self.queues.len() {
            let queue = &mut self.queues[index];
            let Some(ring) = &mut queue.ring else {
                continue;
            };
            if queue.armed {
                // A notification since then means that there is something to look at.
                idle &= queue.kicks_seen == bell.kicks(index);
                continue;
            }
            queue.kicks_seen = bell.kicks(index);
            let asked = ring.memory(&self.dma).and_then(|memory| {
                ring.ask_for_kick(&memory)?;
                ring.look(&memory)
            });
            match asked {
                Ok(waiting) => {
                    queue.armed = !waiting;
                    idle &= queue.armed || stalled;
                }
                Err(Broken(reason)) => {
                    self.break_down(reason);
                    return true;
                }
            }
        }
        idle
    }

    /// How long until the first held request is due, if there is one.
    pub(crate) fn due_in(&self) -> Option<Duration> {
        let first = self.held.front().filter(|_| !self.on_hold)?;
        Some(first.due.saturating_duration_since(Instant::now()))
    }
}

impl Path<'_> {
    /// Takes the next request and completes it, if there is one.
    #[inline]
    fn complete_next(&mut self, ring: &mut Ring, memory: &RingMemory<'_>) -> Result<bool, Broken> {
        let Some(taken) = ring.take(memory, self.chain, self.dma)? else {
            return Ok(false);
        };
        let used_len = self.run()?;
        put(ring, memory, self.faults, taken, used_len)?;
        Ok(true)
    }

    /// Carries out the request that was taken and writes its answer.
    #[inline]
    fn run(&mut self) -> Result<u32, Broken> {
        let request = Request::parse(self.chain, self.dma)?;
        let outcome = match self.faults.status() {
            None => {
                let mut outcome = self.disk.execute(&request, self.features, self.dma)?;
                self.faults.alter(request.kind, &mut outcome);
                outcome
            }
            Some(status) => {
                request.data_in.zero(self.dma)?;
                Outcome {
                    status,
                    append_sector: NO_LOCATION,
                }
            }
        };
        request.answer(outcome, self.dma)?;
        Ok(request.used_len)
    }
}

/// Puts a used element in place, or what a fault makes of it.
#[inline]
fn put(
    ring: &mut Ring,
    memory: &RingMemory<'_>,
    faults: &mut Faults,
    taken: Taken,
    used_len: u32,
) -> Result<(), Broken> {
    let used = Used {
        id: taken.id.into(),
        len: used_len,
    };
    if faults.is_empty() {
        return ring.put(memory, taken, used);
    }
    let (used, jump) = faults.used(used);
    ring.put(memory, taken, used)?;
    // An element that stood for later requests too would not show the fault.
    ring.end_batch(memory)?;
    ring.jump(jump);
    Ok(())
}

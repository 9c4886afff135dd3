//! Which interrupt vector announces what.

use super::watch::{Meaning, Notices, Source};
use crate::{Error, ErrorKind, EventFd, PciFunction, Result, event};

/// The vectors of a device: one for its configuration and one for each queue, or shared ones where
/// there are fewer.
#[derive(Default)]
pub(super) struct Interrupts {
    /// The vector that announces changes of the configuration.
    pub(super) config_vector: Option<u16>,
    queues: Vec<QueueInterrupt>,
    /// What a thread must wait for.
    pub(super) sources: Vec<Source>,
}

/// The interrupt of a queue.
struct QueueInterrupt {
    vector: u16,
    event: EventFd,
}

impl Interrupts {
    /// Prepares `function` for the interrupts of its configuration and of `queues` queues. Without
    /// queues to announce, there may be none at all.
    pub(super) fn set_up(function: &dyn PciFunction, queues: u16) -> Result<Self> {
        let plan = Plan::new(function.msix_vectors(), queues);
        let Some(plan) = plan else {
            if queues == 0 {
                return Ok(Self::default());
            }
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{} has no MSI-X vectors, so its queues can only be polled",
                    function.name()
                ),
            ));
        };
        let vectors: Vec<_> = (0..plan.vectors)
            .map(|_| event::new())
            .collect::<Result<_>>()?;
        function.enable_msix(&vectors)?;
        let mut interrupts = Self {
            config_vector: Some(0),
            queues: Vec::new(),
            sources: Vec::new(),
        };
        let mut shared: Vec<Vec<EventFd>> = vectors.iter().map(|_| Vec::new()).collect();
        for queue in 0..queues {
            let vector = plan.vector(queue);
            let event = if plan.is_shared(vector) {
                // The vector's event is read by the thread, which passes it on.
                let event = event::new()?;
                shared[usize::from(vector)].push(duplicate(&event)?);
                event
            } else {
                duplicate(&vectors[usize::from(vector)])?
            };
            interrupts.queues.push(QueueInterrupt { vector, event });
        }
        for ((event, queues), vector) in vectors.into_iter().zip(shared).zip(0..) {
            let is_config = interrupts.config_vector == Some(vector);
            if is_config || !queues.is_empty() {
                let meaning = Meaning::Vector { is_config, queues };
                interrupts.sources.push(Source { event, meaning });
            }
        }
        Ok(interrupts)
    }

    /// The vector of queue `index`, if it is to have one.
    pub(super) fn vector(&self, index: u16) -> Option<u16> {
        let queue = self.queues.get(usize::from(index))?;
        Some(queue.vector)
    }

    /// Yields the events of the queues in their order. Announcements are delivered to them, too, so
    /// that whoever waits for a queue learns of them.
    pub(super) fn take_events(&mut self, notices: &Notices) -> Result<Vec<EventFd>> {
        let mut events = Vec::new();
        for queue in self.queues.drain(..) {
            let event = duplicate(&queue.event)?;
            notices.add_hook(Box::new(move || {
                // Fails only where the counter is full, and then it wakes all the same.
                drop(event.write(1));
            }));
            events.push(queue.event);
        }
        Ok(events)
    }
}

fn duplicate(event: &EventFd) -> Result<EventFd> {
    event
        .try_clone()
        .map_err(|e| Error::new(ErrorKind::Io, "cannot share an event").with_source(e))
}

/// The distribution of vectors: the first is the configuration's, the others are the queues', which
/// share them in turn where there are not enough.
struct Plan {
    vectors: u16,
    queues: u16,
}

impl Plan {
    fn new(available: u16, queues: u16) -> Option<Self> {
        (available > 0).then(|| Self {
            vectors: available.min(queues.saturating_add(1)),
            queues,
        })
    }

    fn vector(&self, queue: u16) -> u16 {
        match self.vectors {
            // All share the only one, the configuration included.
            1 => 0,
            vectors => 1 + queue % (vectors - 1),
        }
    }

    fn is_shared(&self, vector: u16) -> bool {
        let users = (0..self.queues).filter(|queue| self.vector(*queue) == vector);
        vector == 0 || users.count() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vectors(available: u16, queues: u16) -> Vec<(u16, bool)> {
        let plan = Plan::new(available, queues).unwrap();
        (0..queues)
            .map(|queue| plan.vector(queue))
            .map(|vector| (vector, plan.is_shared(vector)))
            .collect()
    }

    #[test]
    fn each_queue_has_a_vector_of_its_own_where_there_are_enough() {
        assert_eq!(vectors(3, 2), [(1, false), (2, false)]);
        assert_eq!(vectors(100, 2), [(1, false), (2, false)]);
        assert_eq!(Plan::new(100, 2).unwrap().vectors, 3);
    }

    #[test]
    fn queues_share_vectors_in_turn_where_there_are_too_few() {
        assert_eq!(vectors(3, 4), [(1, true), (2, true), (1, true), (2, true)]);
        assert_eq!(vectors(3, 3), [(1, true), (2, false), (1, true)]);
        assert_eq!(vectors(2, 2), [(1, true), (1, true)]);
        assert_eq!(vectors(1, 2), [(0, true), (0, true)]);
    }

    #[test]
    fn a_device_without_vectors_is_polled() {
        assert!(Plan::new(0, 1).is_none());
        assert_eq!(Plan::new(5, 0).unwrap().vectors, 1);
    }
}

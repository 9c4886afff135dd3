//! The appends that run beside: where they go, and their buffers.

use zbd_core::{DmaBuffer, Request, SECTOR_LEN, SectorCount, Zone};

use super::plan::Beside;

/// A zone that is appended to.
#[derive(Debug)]
struct Target {
    zone: Zone,
    /// How many blocks fit.
    blocks: u64,
    /// How many have been given out.
    given: u64,
}

/// Appends to zones in turn, or writes to one after the other.
#[derive(Debug)]
pub(super) struct Stream {
    kind: Beside,
    targets: Vec<Target>,
    /// The zone that is next.
    next: usize,
    /// How many more blocks fit into all of them.
    left: u64,
    block: u64,
    /// The buffers that are not in flight.
    pub(super) free: Vec<DmaBuffer>,
    pub(super) depth: usize,
}

impl Stream {
    /// A stream over these zones, which are empty.
    pub(super) fn new(kind: Beside, zones: &[Zone], block: u64, buffers: Vec<DmaBuffer>) -> Self {
        let targets: Vec<Target> = zones
            .iter()
            .map(|zone| Target {
                zone: *zone,
                blocks: zone.capacity.bytes() / block,
                given: 0,
            })
            .collect();
        Self {
            kind,
            left: targets.iter().map(|target| target.blocks).sum(),
            targets,
            next: 0,
            block,
            depth: buffers.len(),
            free: buffers,
        }
    }

    /// What it does.
    pub(super) fn kind(&self) -> Beside {
        self.kind
    }

    /// How many more requests there can be before the zones have to be emptied.
    #[inline]
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// How many there can be when the zones are empty.
    pub(super) fn room(&self) -> u64 {
        self.targets.iter().map(|target| target.blocks).sum()
    }

    /// The zones have been emptied.
    pub(super) fn start_over(&mut self) {
        for target in &mut self.targets {
            target.given = 0;
        }
        self.next = 0;
        self.left = self.room();
    }

    /// The next request. There is room for it.
    #[inline]
    pub(super) fn request(&mut self, buffer: DmaBuffer) -> Request {
        let target = self.turn();
        let given = target.given;
        target.given += 1;
        let zone = target.zone;
        self.left -= 1;
        match self.kind {
            Beside::Appends => {
                self.next += 1;
                Request::Append {
                    zone: zone.id,
                    buffer,
                }
            }
            // Those of a zone stay together, so that a hypervisor may merge them.
            Beside::Writes => Request::Write {
                at: zone.start + SectorCount(given * (self.block / SECTOR_LEN)),
                buffer,
            },
        }
    }

    /// Whether what is in flight must end before the next request: hypervisors merge writes across
    /// the borders of zones, and such a write fails as a whole.
    #[inline]
    pub(super) fn is_at_border(&self) -> bool {
        self.kind == Beside::Writes
            && self
                .targets
                .get(self.next)
                .is_some_and(|target| target.given == target.blocks)
    }

    /// What was in flight has ended.
    pub(super) fn pass_border(&mut self) {
        self.next = (self.next + 1) % self.targets.len().max(1);
    }

    /// The zone whose turn it is: the next that is not full.
    #[inline]
    fn turn(&mut self) -> &mut Target {
        let count = self.targets.len();
        for _ in 0..count {
            if self.next >= count {
                self.next = 0;
            }
            let target = &self.targets[self.next];
            if target.given < target.blocks {
                break;
            }
            self.next += 1;
        }
        if self.next >= count {
            self.next = 0;
        }
        &mut self.targets[self.next]
    }

    /// The sectors of the zone that a failed request went to, and its number, as far as is known.
    pub(super) fn zones(&self) -> impl Iterator<Item = &Zone> {
        self.targets.iter().map(|target| &target.zone)
    }
}

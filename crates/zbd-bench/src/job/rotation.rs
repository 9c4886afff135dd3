//! Which zones a queue writes to now, and what becomes of those it has filled.

use std::collections::VecDeque;

use zbd_core::{Sector, ZoneId};

use super::{plan::Job, prepare::Area, source::Step};
use crate::cli::ResetPolicy;

/// A zone that is written to in turn with others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone {
    pub(crate) id: ZoneId,
    pub(crate) start: Sector,
    /// How many requests are to be written to it, from empty on.
    pub(crate) blocks: u64,
    /// How many have been given out.
    pub(crate) written: u64,
}

impl Zone {
    /// How many more are to be given out.
    #[inline]
    pub(crate) fn left(&self) -> u64 {
        self.blocks - self.written
    }
}

/// What a job does with zones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// To how many zones a queue writes at a time.
    pub(crate) places: usize,
    /// How much of a zone is written, in percent. Less than all, and it is finished then.
    pub(crate) finish_at: u8,
    pub(crate) reset: ResetPolicy,
}

impl Policy {
    /// The share of one of so many that write.
    pub(crate) fn of(job: &Job, parts: usize) -> Self {
        Self {
            places: (job.max_open as usize / parts).max(1),
            finish_at: job.finish_at,
            reset: job.reset,
        }
    }
}

/// The zones of one queue that are not being written to, and what is to be done about them.
///
/// A zone takes a full one's place only when nothing is in flight any more, so that at no time more
/// zones are open than the job may open. When no zone is left to write to, full ones are reset, the
/// one that has been full for longest first.
#[derive(Debug)]
pub(crate) struct Rotation {
    policy: Policy,
    /// Empty zones, the next one first.
    waiting: VecDeque<Zone>,
    /// Zones that have been written as far as they are to be and must be finished.
    unfinished: VecDeque<Zone>,
    /// The full zones, the oldest first.
    full: VecDeque<Zone>,
    /// Whether there is something to do before more is submitted.
    is_due: bool,
    /// Whether the full zones are being reset.
    resetting: bool,
}

impl Rotation {
    /// A rotation of these zones, which are empty.
    pub(crate) fn new(areas: &[Area], policy: Policy) -> Self {
        let share = |blocks: u64| (blocks * u64::from(policy.finish_at) / 100).max(1);
        let waiting: VecDeque<Zone> = areas
            .iter()
            .filter(|area| area.blocks > 0)
            .filter_map(|area| {
                Some(Zone {
                    id: area.zone?,
                    start: area.start,
                    blocks: share(area.blocks),
                    written: 0,
                })
            })
            .collect();
        Self {
            policy,
            unfinished: VecDeque::with_capacity(waiting.len()),
            full: VecDeque::with_capacity(waiting.len()),
            waiting,
            is_due: true,
            resetting: false,
        }
    }

    /// Takes a zone of which everything has been given out.
    pub(crate) fn filled(&mut self, zone: Zone) {
        if self.policy.finish_at < 100 {
            self.unfinished.push_back(zone);
            self.is_due = true;
        } else {
            self.full.push_back(zone);
            self.is_due |= !self.waiting.is_empty() || self.policy.reset == ResetPolicy::Oldest;
        }
    }

    /// Whether [`step`](Self::step) has something to say while some zones are being written to.
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.is_due
    }

    /// What has to be done before more is submitted to the `open` zones, if anything; gives them
    /// company where there is room.
    #[cold]
    pub(crate) fn step(&mut self, open: &mut VecDeque<Zone>, in_flight: usize) -> Option<Step> {
        if in_flight > 0 {
            return Some(Step::Drain);
        }
        if let Some(zone) = self.unfinished.pop_front() {
            self.full.push_back(zone);
            return Some(Step::Finish(zone.id));
        }
        let room = |open: &VecDeque<Zone>| open.len() < self.policy.places;
        if !self.resetting {
            while room(open) {
                match self.waiting.pop_front() {
                    Some(zone) => open.push_back(zone),
                    None => break,
                }
            }
        }
        let reset = match self.policy.reset {
            ResetPolicy::All => self.resetting || open.is_empty(),
            ResetPolicy::Oldest => room(open),
        };
        if reset && let Some(zone) = self.full.pop_front() {
            self.resetting = self.policy.reset == ResetPolicy::All && !self.full.is_empty();
            self.waiting.push_back(Zone { written: 0, ..zone });
            return Some(Step::Reset(zone.id));
        }
        self.is_due = false;
        // Without any zone there is nothing to write to; the job does not begin then.
        open.is_empty().then_some(Step::Drain)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Zones of so many blocks, the second beginning at sector 1000 and so on.
    pub(in crate::job) fn areas(blocks: &[u64]) -> Vec<Area> {
        (0..)
            .zip(blocks)
            .map(|(i, &blocks)| Area {
                zone: Some(ZoneId(i)),
                start: Sector(u64::from(i) * 1000),
                blocks,
            })
            .collect()
    }

    /// As many zones at a time as there are, written to their ends, reset together.
    pub(in crate::job) const ALL: Policy = Policy {
        places: usize::MAX,
        finish_at: 100,
        reset: ResetPolicy::All,
    };

    /// Everything that is done until `steps` are over, where whole zones are written at once.
    fn history(policy: Policy, blocks: &[u64], steps: usize) -> Vec<String> {
        let mut rotation = Rotation::new(&areas(blocks), policy);
        let mut open = VecDeque::new();
        let mut done = Vec::new();
        while done.len() < steps {
            if (rotation.is_due() || open.is_empty())
                && let Some(step) = rotation.step(&mut open, 0)
            {
                done.push(match step {
                    Step::Reset(zone) => format!("reset {zone}"),
                    Step::Finish(zone) => format!("finish {zone}"),
                    other => format!("{other:?}"),
                });
                continue;
            }
            let zone = open.pop_front().expect("a zone is open");
            done.push(format!("write {} to {}", zone.blocks, zone.id));
            rotation.filled(zone);
        }
        done
    }

    #[test]
    fn nothing_is_done_while_something_is_in_flight() {
        let mut rotation = Rotation::new(&areas(&[1]), ALL);
        let mut open = VecDeque::new();
        assert_eq!(rotation.step(&mut open, 1), Some(Step::Drain));
        assert!(open.is_empty());
        assert_eq!(rotation.step(&mut open, 0), None);
        assert_eq!(open.len(), 1);
    }

    #[test]
    fn all_full_zones_are_reset_when_none_is_left() {
        assert_eq!(
            history(ALL, &[2, 1], 5),
            [
                "write 2 to 0",
                "write 1 to 1",
                "reset 0",
                "reset 1",
                "write 2 to 0"
            ]
        );
    }

    #[test]
    fn the_oldest_is_reset_when_no_empty_zone_can_take_a_full_ones_place() {
        let policy = Policy {
            places: 1,
            reset: ResetPolicy::Oldest,
            ..ALL
        };
        assert_eq!(
            history(policy, &[2, 1], 6),
            [
                "write 2 to 0",
                "write 1 to 1",
                "reset 0",
                "write 2 to 0",
                "reset 1",
                "write 1 to 1",
            ]
        );
    }

    #[test]
    fn zones_are_finished_once_their_share_is_written() {
        let policy = Policy {
            finish_at: 50,
            ..ALL
        };
        assert_eq!(
            history(policy, &[10, 1], 6),
            [
                "write 5 to 0",
                "finish 0",
                "write 1 to 1",
                "finish 1",
                "reset 0",
                "reset 1",
            ]
        );
    }
}

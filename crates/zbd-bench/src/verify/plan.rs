//! What is done in a round: decided by the seed, the number of the round and what the rounds before
//! left, and by nothing else.

use fastrand::Rng;

use super::ledger::{Condition, ZoneLedger};

/// What is done to a zone, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Open,
    Close,
    Finish,
    Reset,
    /// Records of so many sectors, by all tasks of the zone, in any order.
    Append(Vec<u32>),
    /// Records at the write pointer, one after the other.
    Write(Vec<u32>),
    Flush,
    /// Compares the write pointer once nothing is in flight on the zone.
    Look,
}

/// What is done to one zone while the same goes on with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// The place of the zone among those that are used.
    pub(super) zone: usize,
    pub(super) steps: Vec<Step>,
}

/// What is done in a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) scripts: Vec<Script>,
    /// Whether the device is then closed and opened again.
    pub(super) reopen: bool,
}

/// What the device allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// What all lengths are multiples of, and the greatest of a record, in sectors.
    pub(super) unit: u32,
    pub(super) most: u32,
    /// How many zones may be open and active, besides those of others.
    pub(super) max_open: Option<u32>,
    pub(super) max_active: Option<u32>,
    /// Whether there are appends.
    pub(super) appends: bool,
}

/// How many records one step has at the most, and how many sectors, unless it fills a zone.
const MOST_RECORDS: u32 = 64;
const MOST_SECTORS: u64 = (4 << 20) / 512;
/// Zones with no more than so many sectors left are sometimes filled by records.
const FILLED: u64 = (32 << 20) / 512;
/// How many records one step writes at the write pointer.
const MOST_WRITES: u32 = 16;

/// Plans a round.
pub(super) fn round(seed: u64, number: u32, limits: &Limits, zones: &[ZoneLedger]) -> Round {
    let mut rng = Rng::with_seed(seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // The first numbers of neighbouring seeds are alike.
    rng.u64(..);
    let chosen = choose(&mut rng, limits, zones);
    let left_open = zones
        .iter()
        .filter(|zone| zone.condition == Condition::Explicit)
        .count() as u32;
    // There is always room for one that is not explicitly open, for the sake of the others.
    let mut explicit = match limits.max_open {
        None => u32::MAX,
        Some(1) if chosen.len() == 1 => 1,
        Some(most) => most.saturating_sub(left_open + 1),
    };
    let scripts = chosen
        .into_iter()
        .map(|zone| {
            let was_open = zones[zone].condition == Condition::Explicit;
            let may_open = was_open || (explicit > 0 && rng.u8(..) < 180);
            if may_open && !was_open {
                explicit -= 1;
            }
            Author {
                may_stay_open: limits.max_open != Some(1),
                may_open,
                left: zones[zone].capacity - zones[zone].written,
                written: zones[zone].written,
                condition: zones[zone].condition,
                steps: Vec::new(),
                rng: &mut rng,
                limits,
            }
            .script(zone, zones[zone].capacity)
        })
        .collect();
    Round {
        scripts,
        reopen: rng.u8(..3) == 0,
    }
}

/// Chooses zones that can all be written to at the same time.
fn choose(rng: &mut Rng, limits: &Limits, zones: &[ZoneLedger]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..zones.len()).collect();
    rng.shuffle(&mut order);
    let wanted = rng.usize(1..=zones.len());
    let is_active = |zone: &usize| zones[*zone].condition.is_active();
    let active = order.iter().filter(|zone| is_active(zone)).count();
    let mut room = match limits.max_active {
        Some(most) => (most as usize).saturating_sub(active),
        None => usize::MAX,
    };
    let mut chosen = Vec::new();
    for zone in order {
        if chosen.len() == wanted {
            break;
        }
        if is_active(&zone) {
            chosen.push(zone);
        } else if room > 0 {
            room -= 1;
            chosen.push(zone);
        }
    }
    chosen
}

/// Writes a script, and knows meanwhile what has become of the zone.
struct Author<'a> {
    rng: &'a mut Rng,
    limits: &'a Limits,
    may_open: bool,
    may_stay_open: bool,
    condition: Condition,
    written: u64,
    left: u64,
    steps: Vec<Step>,
}

impl Author<'_> {
    fn script(mut self, zone: usize, capacity: u64) -> Script {
        if self.condition == Condition::Full || (self.written > 0 && self.chance(50)) {
            self.reset(capacity);
        }
        for _ in 0..self.rng.u32(1..=3) {
            if self.may_open && self.condition != Condition::Explicit && self.chance(40) {
                self.open();
            }
            self.write();
            if self.chance(30) {
                self.steps.push(Step::Look);
            }
            if self.chance(10) {
                self.steps.push(Step::Flush);
            }
            if self.condition == Condition::Full || self.left == 0 {
                break;
            }
            if self.chance(15) {
                self.close();
            }
            if self.chance(12) {
                self.reset(capacity);
            }
        }
        match self.rng.u8(..8) {
            0..=2 => self.finish(),
            3 => self.close(),
            4 => self.reset(capacity),
            _ => {}
        }
        if self.condition == Condition::Explicit && !self.may_stay_open {
            match self.written {
                0 => self.reset(capacity),
                _ => self.close(),
            }
        }
        Script {
            zone,
            steps: self.steps,
        }
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    fn open(&mut self) {
        self.steps.push(Step::Open);
        self.condition = Condition::Explicit;
    }

    /// Devices differ in whether a closed zone can be closed or finished, and an implicitly open one
    /// may have been closed; so it is opened explicitly before, if it may be.
    fn is_open_for_sure(&mut self) -> bool {
        if self.written == 0 || self.condition == Condition::Full || !self.may_open {
            return false;
        }
        if self.condition != Condition::Explicit {
            self.open();
        }
        true
    }

    fn close(&mut self) {
        if self.is_open_for_sure() {
            self.steps.push(Step::Close);
            self.condition = Condition::Closed;
        }
    }

    fn finish(&mut self) {
        if self.is_open_for_sure() {
            self.steps.push(Step::Finish);
            self.condition = Condition::Full;
        }
    }

    fn reset(&mut self, capacity: u64) {
        self.steps.push(Step::Reset);
        self.condition = Condition::Empty;
        self.written = 0;
        self.left = capacity;
    }

    fn write(&mut self) {
        let unit = u64::from(self.limits.unit);
        let in_order = !self.limits.appends || self.chance(20);
        let fill = self.left <= FILLED && self.chance(20);
        let (records, sectors) = match (fill, in_order) {
            (true, _) => (u32::MAX, self.left),
            (false, true) => (self.rng.u32(1..=MOST_WRITES), MOST_SECTORS),
            (false, false) => (self.rng.u32(1..=MOST_RECORDS), MOST_SECTORS),
        };
        // What is less than a unit stays unwritten.
        let mut left = sectors.min(self.left) / unit * unit;
        let mut lengths = Vec::new();
        while left > 0 && (lengths.len() as u32) < records {
            let length = u64::from(self.length()).min(left);
            left -= length;
            self.left -= length;
            self.written += length;
            lengths.push(length as u32);
        }
        if lengths.is_empty() {
            return;
        }
        self.steps.push(match in_order {
            true => Step::Write(lengths),
            false => Step::Append(lengths),
        });
        if self.left == 0 {
            self.condition = Condition::Full;
        } else if self.condition != Condition::Explicit {
            self.condition = Condition::Written;
        }
    }

    /// As many short ones as long ones, whatever the greatest is; the greatest itself now and then.
    fn length(&mut self) -> u32 {
        let most = self.limits.most / self.limits.unit;
        if self.rng.u8(..32) == 0 {
            return most * self.limits.unit;
        }
        let bits = self.rng.u32(..=most.ilog2());
        let units = self.rng.u32(1 << bits..=((1 << (bits + 1)) - 1).min(most));
        units * self.limits.unit
    }
}

#[cfg(test)]
mod tests;

//! Faults of the medium that the configuration asks for. A device without any has none of this.

use crate::config::{DataFault, DataFaultKind, Recurrence};

/// What is known of a write when its fate is decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prospect {
    pub(crate) is_append: bool,
    pub(crate) sectors: u64,
    /// Whether it begins where its zone does.
    pub(crate) at_start: bool,
    /// How much of the zone there will be left.
    pub(crate) room: u64,
}

/// Counts writes and says which of them are done wrong, and how.
#[derive(Debug)]
pub(crate) struct DataFaults {
    faults: Vec<Countdown>,
    /// How many writes there were.
    writes: u64,
}

#[derive(Debug)]
struct Countdown {
    fault: DataFault,
    /// How many more that count there are to the next that is done wrong, that one included. 0 for
    /// one that is due; `None` if there will be none any more.
    left: Option<u64>,
}

impl DataFaults {
    /// Those that were asked for, if any were.
    pub(crate) fn new(faults: &[DataFault]) -> Option<Box<Self>> {
        let countdown = |fault: &DataFault| Countdown {
            fault: *fault,
            left: Some(period(fault)),
        };
        (!faults.is_empty()).then(|| {
            Box::new(Self {
                faults: faults.iter().map(countdown).collect(),
                writes: 0,
            })
        })
    }

    /// What is done wrong with the next write, if anything.
    pub(crate) fn next(&mut self, write: Prospect) -> Option<DataFaultKind> {
        self.writes += 1;
        let mut chosen = None;
        for countdown in &mut self.faults {
            let (fault, Some(left)) = (countdown.fault, &mut countdown.left) else {
                continue;
            };
            if !counts(fault.kind, write) {
                continue;
            }
            *left = left.saturating_sub(1);
            if *left == 0 && chosen.is_none() {
                chosen = Some(fault.kind);
                countdown.left = match fault.when {
                    Recurrence::Once(_) => None,
                    Recurrence::Every(period) => Some(period.get()),
                };
            }
        }
        chosen
    }

    /// A number below `limit` that only the number of the present write decides.
    pub(crate) fn choose(&self, limit: u64) -> u64 {
        // What makes neighbouring numbers differ in all bits (Knuth, 6.4).
        let mixed = u128::from(self.writes.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        ((mixed * u128::from(limit)) >> 64) as u64
    }
}

fn period(fault: &DataFault) -> u64 {
    match fault.when {
        Recurrence::Once(number) | Recurrence::Every(number) => number.get(),
    }
}

fn counts(kind: DataFaultKind, write: Prospect) -> bool {
    match kind {
        DataFaultKind::FlipBit | DataFaultKind::LoseData => true,
        DataFaultKind::SwapSectors => write.sectors > 1,
        DataFaultKind::LoseAppend => write.is_append,
        DataFaultKind::RepeatAppend => write.is_append && write.room >= write.sectors,
        DataFaultKind::Misreport => write.is_append && !write.at_start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPEND: Prospect = Prospect {
        is_append: true,
        sectors: 8,
        at_start: false,
        room: 100,
    };

    /// The numbers, from 1 on, of those of so many writes that are done wrong.
    fn struck(faults: &str, write: Prospect, count: u64) -> Vec<(u64, DataFaultKind)> {
        let faults: Vec<DataFault> = faults.split('+').map(|f| f.parse().unwrap()).collect();
        let mut faults = DataFaults::new(&faults).unwrap();
        (1..=count)
            .filter_map(|number| Some((number, faults.next(write)?)))
            .collect()
    }

    #[test]
    fn the_nth_is_struck_once_and_every_nth_each_time() {
        use DataFaultKind::{FlipBit, LoseAppend};
        assert_eq!(struck("flip-bit@3", APPEND, 10), [(3, FlipBit)]);
        assert_eq!(
            struck("lose-append@every:4", APPEND, 9),
            [(4, LoseAppend), (8, LoseAppend)]
        );
    }

    #[test]
    fn of_two_that_are_due_the_second_waits() {
        use DataFaultKind::{FlipBit, LoseData};
        assert_eq!(
            struck("flip-bit@2+lose-data@2", APPEND, 5),
            [(2, FlipBit), (3, LoseData)]
        );
    }

    #[test]
    fn what_cannot_go_wrong_in_that_way_does_not_count() {
        let write = Prospect {
            is_append: false,
            ..APPEND
        };
        let first = Prospect {
            at_start: true,
            ..APPEND
        };
        let last = Prospect { room: 7, ..APPEND };
        let small = Prospect {
            sectors: 1,
            ..APPEND
        };
        for (fault, exempt) in [
            ("lose-append@1", write),
            ("repeat-append@1", write),
            ("misreport@1", write),
            ("misreport@1", first),
            ("repeat-append@1", last),
            ("swap-sectors@1", small),
        ] {
            assert_eq!(struck(fault, exempt, 3), [], "{fault}");
            assert_eq!(struck(fault, APPEND, 3).len(), 1, "{fault}");
        }
        assert_eq!(struck("flip-bit@1+lose-data@1", write, 3).len(), 2);
    }

    #[test]
    fn a_choice_is_below_its_limit_and_differs() {
        let mut faults = DataFaults::new(&["flip-bit@1".parse().unwrap()]).unwrap();
        let mut chosen: Vec<u64> = (0..100)
            .map(|_| {
                faults.next(APPEND);
                faults.choose(4096)
            })
            .collect();
        assert!(chosen.iter().all(|choice| *choice < 4096));
        chosen.sort_unstable();
        chosen.dedup();
        assert!(chosen.len() > 80);
    }
}

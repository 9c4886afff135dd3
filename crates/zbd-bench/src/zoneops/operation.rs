//! What is measured: operations, and what zones are like when they begin.

use zbd_core::{SECTOR_LEN, ZoneAction};

use crate::cli::ZoneOp;

/// How much of a zone is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Nothing,
    OneBlock,
    Quarter,
    Half,
    ThreeQuarters,
    AllButOneBlock,
    All,
}

/// An operation on a zone in a certain state, or on all of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    ReportAll,
    ReportOne,
    OpenEmpty,
    OpenClosed,
    Close,
    Finish(Fill),
    Reset(Fill),
    ResetAll,
    Flush,
}

/// What zones can take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measures {
    /// The capacity of the smallest zone that is used, in bytes.
    pub(crate) capacity: u64,
    /// One block, in bytes.
    pub(crate) block: u64,
    /// What all writes are multiples of, in bytes.
    pub(crate) unit: u64,
}

impl Measures {
    /// How many bytes are written for a fill level.
    pub(crate) fn bytes(&self, fill: Fill) -> u64 {
        let whole = |bytes: u64| bytes / self.unit * self.unit;
        // A quarter of the sectors, so that no capacity is too great.
        let part = |quarters: u64| whole(self.capacity / SECTOR_LEN * quarters / 4 * SECTOR_LEN);
        match fill {
            Fill::Nothing => 0,
            Fill::OneBlock => self.block,
            Fill::Quarter => part(1),
            Fill::Half => part(2),
            Fill::ThreeQuarters => part(3),
            Fill::AllButOneBlock => whole(self.capacity - self.block),
            Fill::All => whole(self.capacity),
        }
    }

    /// Those of the fill levels, in ascending order, that differ from the one before.
    fn distinct<'a>(&'a self, fills: &'a [Fill]) -> impl Iterator<Item = Fill> + 'a {
        let mut last = None;
        fills.iter().copied().filter(move |fill| {
            let bytes = self.bytes(*fill);
            let more = last.is_none_or(|last| bytes > last);
            if more {
                last = Some(bytes);
            }
            more
        })
    }
}

/// Everything that is asked for, in the order in which it is measured.
pub(crate) fn operations(ops: &[ZoneOp], measures: &Measures) -> Vec<Operation> {
    const FINISH: [Fill; 6] = [
        Fill::Nothing,
        Fill::OneBlock,
        Fill::Quarter,
        Fill::Half,
        Fill::ThreeQuarters,
        Fill::AllButOneBlock,
    ];
    const RESET: [Fill; 3] = [Fill::OneBlock, Fill::Half, Fill::All];
    let wanted = |op| ops.is_empty() || ops.contains(&op);
    let mut all = Vec::new();
    if wanted(ZoneOp::Report) {
        all.extend([Operation::ReportAll, Operation::ReportOne]);
    }
    if wanted(ZoneOp::Open) {
        all.extend([Operation::OpenEmpty, Operation::OpenClosed]);
    }
    if wanted(ZoneOp::Close) {
        all.push(Operation::Close);
    }
    if wanted(ZoneOp::Finish) {
        all.extend(measures.distinct(&FINISH).map(Operation::Finish));
    }
    if wanted(ZoneOp::Reset) {
        all.extend(measures.distinct(&RESET).map(Operation::Reset));
    }
    if wanted(ZoneOp::ResetAll) {
        all.push(Operation::ResetAll);
    }
    if wanted(ZoneOp::Flush) {
        all.push(Operation::Flush);
    }
    all
}

impl Operation {
    /// What it is an example of.
    pub(crate) fn op(self) -> ZoneOp {
        match self {
            Self::ReportAll | Self::ReportOne => ZoneOp::Report,
            Self::OpenEmpty | Self::OpenClosed => ZoneOp::Open,
            Self::Close => ZoneOp::Close,
            Self::Finish(_) => ZoneOp::Finish,
            Self::Reset(_) => ZoneOp::Reset,
            Self::ResetAll => ZoneOp::ResetAll,
            Self::Flush => ZoneOp::Flush,
        }
    }

    /// How much of a zone is written before; of each zone, if it is about several.
    pub(crate) fn fill(self) -> Fill {
        match self {
            Self::ReportAll | Self::ReportOne | Self::OpenEmpty => Fill::Nothing,
            Self::OpenClosed | Self::Close | Self::Flush => Fill::OneBlock,
            Self::Finish(fill) | Self::Reset(fill) => fill,
            Self::ResetAll => Fill::All,
        }
    }

    /// The state that the zone is in before, if it is about zones in a certain state.
    pub(crate) fn state(self) -> Option<&'static str> {
        match self {
            Self::ReportAll | Self::ReportOne | Self::Flush => None,
            Self::OpenEmpty | Self::Finish(Fill::Nothing) => Some("empty"),
            Self::OpenClosed => Some("closed"),
            Self::Close => Some("exp-open"),
            Self::Reset(Fill::All) | Self::ResetAll => Some("full"),
            Self::Finish(_) | Self::Reset(_) => Some("imp-open"),
        }
    }

    /// The change of a zone that it is, if it is one.
    pub(crate) fn action(self) -> Option<ZoneAction> {
        match self {
            Self::OpenEmpty | Self::OpenClosed => Some(ZoneAction::Open),
            Self::Close => Some(ZoneAction::Close),
            Self::Finish(_) => Some(ZoneAction::Finish),
            Self::Reset(_) => Some(ZoneAction::Reset),
            Self::ReportAll | Self::ReportOne | Self::ResetAll | Self::Flush => None,
        }
    }

    /// Whether zones have to be made ready for it.
    pub(crate) fn needs_zones(self) -> bool {
        !matches!(self, Self::ReportAll | Self::ReportOne)
    }

    /// Whether a device may refuse it although it is asked for at the right time: the
    /// specification does not say what finishing an empty zone does.
    pub(crate) fn may_be_refused(self) -> bool {
        self == Self::Finish(Fill::Nothing)
    }

    /// Whether it can be repeated beside appends: one that empties all zones would empty theirs.
    pub(crate) fn goes_beside(self) -> bool {
        self != Self::ResetAll
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measures(capacity: u64) -> Measures {
        Measures {
            capacity,
            block: 4096,
            unit: 4096,
        }
    }

    #[test]
    fn fill_levels_are_whole_units() {
        let odd = measures(7 * 4096 + 512);
        let bytes = [
            Fill::Nothing,
            Fill::OneBlock,
            Fill::Quarter,
            Fill::Half,
            Fill::ThreeQuarters,
            Fill::AllButOneBlock,
            Fill::All,
        ]
        .map(|fill| odd.bytes(fill) / 4096);
        assert_eq!(bytes, [0, 1, 1, 3, 5, 6, 7]);
        assert!(measures(u64::MAX).bytes(Fill::ThreeQuarters) > u64::MAX / 2);
    }

    #[test]
    fn fill_levels_of_small_zones_are_measured_once() {
        let fills = |capacity| -> Vec<Fill> {
            operations(&[ZoneOp::Finish], &measures(capacity))
                .into_iter()
                .map(Operation::fill)
                .collect()
        };
        assert_eq!(fills(1 << 20).len(), 6);
        assert_eq!(fills(2 * 4096), [Fill::Nothing, Fill::OneBlock]);
        assert_eq!(
            fills(4 * 4096),
            [
                Fill::Nothing,
                Fill::OneBlock,
                Fill::Half,
                Fill::ThreeQuarters
            ]
        );
    }

    #[test]
    fn what_is_not_asked_for_is_not_measured() {
        let asked = [ZoneOp::Close, ZoneOp::Report];
        assert_eq!(
            operations(&asked, &measures(1 << 20)),
            [Operation::ReportAll, Operation::ReportOne, Operation::Close]
        );
        assert_eq!(operations(&[], &measures(1 << 20)).len(), 16);
    }
}

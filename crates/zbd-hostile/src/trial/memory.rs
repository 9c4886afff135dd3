//! Who has which memory.

use zbd_core::DmaBuffer;

/// Where a buffer is: of each of its segments, the device's address and the length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place(Vec<(u64, u64)>);

impl Place {
    pub(super) fn of(buffer: &DmaBuffer) -> Self {
        let segments = buffer.segments();
        Self(
            segments
                .map(|segment| (segment.iova.0, segment.len_bytes.into()))
                .collect(),
        )
    }

    /// The device's address of the first byte.
    pub(super) fn iova(&self) -> u64 {
        self.0.first().map_or(0, |(iova, _)| *iova)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let ends_before = |a: &(u64, u64), b: &(u64, u64)| a.0 + a.1 <= b.0;
        self.0.iter().any(|mine| {
            let mut others = other.0.iter();
            others.any(|theirs| !ends_before(mine, theirs) && !ends_before(theirs, mine))
        })
    }
}

/// The memory that the device may use.
#[derive(Debug, Default)]
pub(super) struct Lent(Vec<Place>);

impl Lent {
    /// Checks that a buffer which was just allocated is nobody else's.
    pub(super) fn check(&self, place: &Place) {
        assert!(
            !self.0.iter().any(|lent| lent.overlaps(place)),
            "{place:?} was given away while the device may use it"
        );
    }

    pub(super) fn lend(&mut self, place: Place) {
        self.check(&place);
        self.0.push(place);
    }

    /// Takes back what the device has returned. After a reset, it may not be there.
    pub(super) fn take_back(&mut self, place: &Place, was_reset: bool) {
        match self.0.iter().position(|lent| lent == place) {
            Some(at) => drop(self.0.swap_remove(at)),
            None => assert!(was_reset, "{place:?} came back and had not been lent"),
        }
    }

    /// The device has been reset: it uses none of it any more.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

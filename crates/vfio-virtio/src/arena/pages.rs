//! Which pages of an arena are free, and where the device sees them.

use std::ops::RangeInclusive;

use offset_allocator::{Allocation, Allocator};

use super::PAGE;
use crate::Iova;

/// Arenas are placed at multiples of the largest page the IOMMU may use for them.
const PLACEMENT: u64 = 2 << 20;
/// Where an arena is placed if the platform allows it: an address that, if it was ever cut to 32
/// bits or taken for a host address, would be seen to be wrong at once.
pub(super) const PREFERRED_IOVA: u64 = 0x10_0000_0000;

/// Where the device sees an arena: stretches of pages that follow one another for it.
///
/// Behind an IOMMU there is one. Without, a page's address is its physical one, and an arena has as
/// many stretches as the kernel gave it.
pub(super) struct Placement {
    /// The first page of each stretch and its address, in ascending order of pages.
    stretches: Box<[(u32, Iova)]>,
    pages: u32,
}

impl Placement {
    /// One stretch.
    pub(super) fn contiguous(iova: Iova, pages: u32) -> Self {
        Self {
            stretches: Box::new([(0, iova)]),
            pages,
        }
    }

    /// As many stretches as it takes for pieces of `piece_pages` pages at `addresses`.
    pub(super) fn scattered(addresses: &[Iova], piece_pages: u32) -> Self {
        let piece_len = u64::from(piece_pages) * PAGE as u64;
        let mut stretches = Vec::new();
        let mut expected = None;
        for (first, iova) in (0..).step_by(piece_pages as usize).zip(addresses) {
            if expected != Some(*iova) {
                stretches.push((first, *iova));
            }
            expected = iova.0.checked_add(piece_len).map(Iova);
        }
        Self {
            stretches: stretches.into(),
            pages: addresses.len() as u32 * piece_pages,
        }
    }

    /// The address of the first page.
    pub(super) fn start(&self) -> Iova {
        self.stretches.first().map_or(Iova(0), |(_, iova)| *iova)
    }

    /// The number of pages of the longest stretch.
    pub(super) fn longest(&self) -> u32 {
        let ends = self.stretches.iter().skip(1).map(|(first, _)| *first);
        let ends = ends.chain([self.pages]);
        let stretches = self.stretches.iter().zip(ends);
        let lengths = stretches.map(|((first, _), end)| end - first);
        lengths.max().unwrap_or(0)
    }

    /// The address of a page.
    pub(super) fn iova(&self, page: u32) -> Iova {
        let (first, iova) = self.stretches[self.stretch(page)];
        Iova(iova.0 + u64::from(page - first) * PAGE as u64)
    }

    /// The address of the `len` bytes from `offset` on, which lie in the arena, if they are
    /// contiguous for the device.
    pub(super) fn range(&self, offset: usize, len: usize) -> Option<Iova> {
        let first = u32::try_from(offset / PAGE).ok()?;
        let last = u32::try_from((offset + len.checked_sub(1)?) / PAGE).ok()?;
        (self.stretch(first) == self.stretch(last))
            .then(|| Iova(self.iova(first).0 + (offset % PAGE) as u64))
    }

    /// The stretch in which a page lies.
    fn stretch(&self, page: u32) -> usize {
        self.stretches.partition_point(|(first, _)| *first <= page) - 1
    }
}

/// The free pages.
pub(super) struct Pages {
    /// One for each stretch, so that no block lies across two: its first page, and the allocator.
    stretches: Box<[(u32, Allocator)]>,
    /// What the allocator wants back for the block that begins at each page.
    allocated: Box<[Option<Allocation>]>,
}

impl Pages {
    pub(super) fn new(placement: &Placement) -> Self {
        let firsts = placement.stretches.iter().map(|(first, _)| *first);
        let ends = firsts.clone().skip(1).chain([placement.pages]);
        Self {
            stretches: firsts
                .zip(ends)
                .map(|(first, end)| {
                    let count = end - first;
                    let allocator = Allocator::with_max_allocs(count, count.saturating_add(2));
                    (first, allocator)
                })
                .collect(),
            allocated: vec![None; placement.pages as usize].into(),
        }
    }

    pub(super) fn take(&mut self, pages: u32) -> Option<u32> {
        let (page, allocation) = self.stretches.iter_mut().find_map(|(first, allocator)| {
            let allocation = allocator.allocate(pages)?;
            Some((*first + allocation.offset, allocation))
        })?;
        self.allocated[page as usize] = Some(allocation);
        Some(page)
    }

    pub(super) fn give(&mut self, page: u32) {
        if let Some(allocation) = self.allocated[page as usize].take() {
            let stretch = self.stretches.partition_point(|(first, _)| *first <= page) - 1;
            self.stretches[stretch].1.free(allocation);
        }
    }
}

/// The lowest suitable place for `len` bytes that are not `taken`, from [`PREFERRED_IOVA`] upwards
/// if there is one.
pub(super) fn place(
    ranges: &[RangeInclusive<u64>],
    taken: &[RangeInclusive<u64>],
    len: u64,
) -> Option<Iova> {
    let fit = |from: u64| {
        ranges.iter().find_map(|range| {
            // Never address 0: too many devices take it for "none".
            let mut from = (*range.start()).max(from).max(1);
            // Each turn goes past one of those that are taken.
            loop {
                let start = from.checked_next_multiple_of(PLACEMENT)?;
                let end = start.checked_add(len.checked_sub(1)?)?;
                if end > *range.end() {
                    return None;
                }
                let in_the_way =
                    |it: &&RangeInclusive<u64>| *it.start() <= end && start <= *it.end();
                match taken.iter().find(in_the_way) {
                    None => return Some(Iova(start)),
                    Some(other) => from = other.end().checked_add(1)?,
                }
            }
        })
    };
    fit(PREFERRED_IOVA).or_else(|| fit(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arenas_are_placed_inside_the_ranges() {
        let len = 4 << 20;
        let place = |ranges: &[_], len| super::place(ranges, &[], len);
        assert_eq!(place(&[0..=u64::MAX], len), Some(Iova(PREFERRED_IOVA)));
        // Around the interrupt window of x86, below the preferred place.
        let narrow = [0..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff];
        assert_eq!(place(&narrow, len), Some(Iova(PLACEMENT)));
        assert_eq!(place(&[0..=len - 1], len), None, "address 0 is never used");
        assert_eq!(place(&[u64::MAX - 10..=u64::MAX], len), None);
        assert_eq!(place(&[], len), None);
    }

    #[test]
    fn arenas_are_not_placed_over_one_another() {
        let all = [0..=u64::MAX];
        let mut taken = Vec::new();
        // The last is not a multiple of the placement, and the next begins at one all the same.
        for (len, offset) in [
            (4 << 20, 0),
            (2 << 20, 4 << 20),
            (4096, 6 << 20),
            (1, 8 << 20),
        ] {
            let at = place(&all, &taken, len).unwrap();
            assert_eq!(at.0, PREFERRED_IOVA + offset);
            taken.insert(0, at.0..=at.0 + len - 1);
        }
        // Gaps are used if they are wide enough.
        taken.retain(|range| *range.start() != PREFERRED_IOVA + (4 << 20));
        let place = |len| place(&all, &taken, len).map(|at| at.0 - PREFERRED_IOVA);
        assert_eq!(place(2 << 20), Some(4 << 20));
        assert_eq!(place((2 << 20) + 1), Some(10 << 20));
        // Above there is no room, below there is, and then nowhere.
        let narrow = [0..=PREFERRED_IOVA + (2 << 20) - 1];
        let above = PREFERRED_IOVA..=PREFERRED_IOVA;
        let fit = |taken: &[_]| super::place(&narrow, taken, 2 << 20);
        assert_eq!(fit(std::slice::from_ref(&above)), Some(Iova(PLACEMENT)));
        assert_eq!(fit(&[above, 0..=PREFERRED_IOVA - 1]), None);
        assert_eq!(super::place(&all, &[1..=u64::MAX], 4096), None);
    }

    #[test]
    fn no_block_lies_across_pieces_that_are_apart() {
        // The second piece follows the first, the others lie below them.
        let pieces = [0x40_0000, 0x60_0000, 0x20_0000, 0x1000_0000].map(Iova);
        let placement = Placement::scattered(&pieces, 512);
        assert_eq!(placement.start(), Iova(0x40_0000));
        assert_eq!(placement.iova(600), Iova(0x60_0000 + 88 * 4096));
        assert_eq!(placement.iova(1024), Iova(0x20_0000));
        assert_eq!(placement.iova(2047), Iova(0x1000_0000 + 511 * 4096));

        let piece_len = 2 << 20;
        assert_eq!(placement.range(7, 2 * piece_len - 7), Some(Iova(0x40_0007)));
        assert_eq!(placement.range(7, 2 * piece_len - 6), None);
        assert_eq!(
            placement.range(2 * piece_len + 4095, 2),
            Some(Iova(0x20_0fff))
        );
        assert_eq!(placement.range(3 * piece_len - 1, 2), None);
        assert_eq!(placement.range(5, 0), None);

        let mut pages = Pages::new(&placement);
        let whole = pages.take(1024).expect("the first two pieces are one");
        assert_eq!(whole, 0);
        assert_eq!(pages.take(1024), None);
        let mut rest: Vec<_> = (0..4).map(|_| pages.take(256).unwrap()).collect();
        rest.sort_unstable();
        assert_eq!(rest, [1024, 1280, 1536, 1792]);
        assert_eq!(pages.take(1), None);
        for page in rest {
            pages.give(page);
        }
        pages.give(whole);
        assert_eq!(pages.take(1024), Some(0));
    }
}

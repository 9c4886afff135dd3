//! Which parts of a BAR are mapped.

use std::ops::Range;

/// A range of bytes in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Area {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Area {
    pub(super) fn new(offset: u64, len_bytes: u64) -> Self {
        Self {
            start: offset,
            end: offset.saturating_add(len_bytes),
        }
    }

    pub(super) fn len_bytes(self) -> u64 {
        self.end - self.start
    }
}

/// What the kernel allows to be mapped of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mappable {
    Nothing,
    Everything,
    Areas(Vec<Area>),
}

/// The areas of a region of `size` bytes to map: what is `mappable`, in whole pages, without the
/// pages of the MSI-X table, which is the kernel's.
///
/// An area may end amid a page only where the region or the kernel's own area does.
pub(super) fn areas(
    size: u64,
    mappable: &Mappable,
    msix_table: Option<Range<u64>>,
    page_size: u64,
) -> Vec<Area> {
    let whole = [Area::new(0, size)];
    let allowed = match mappable {
        Mappable::Nothing => &[],
        Mappable::Everything => &whole[..],
        Mappable::Areas(areas) => areas,
    };
    let (cut_start, cut_end) = match msix_table.filter(|t| !t.is_empty()) {
        Some(table) => (
            table.start / page_size * page_size,
            table
                .end
                .checked_next_multiple_of(page_size)
                .unwrap_or(u64::MAX),
        ),
        None => (u64::MAX, u64::MAX),
    };
    allowed
        .iter()
        .flat_map(|area| {
            let before = (area.start, area.end.min(cut_start));
            let behind = (area.start.max(cut_end), area.end);
            [before, behind]
        })
        .filter_map(|(start, end)| {
            let start = start.checked_next_multiple_of(page_size)?;
            let end = end.min(size);
            (start < end).then_some(Area { start, end })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn mapped(size: u64, mappable: &Mappable, table: Option<Range<u64>>) -> Vec<(u64, u64)> {
        areas(size, mappable, table, PAGE)
            .into_iter()
            .map(|area| (area.start, area.end))
            .collect()
    }

    #[test]
    fn a_region_without_a_table_is_mapped_whole() {
        assert_eq!(mapped(16384, &Mappable::Everything, None), [(0, 16384)]);
        assert_eq!(mapped(128, &Mappable::Everything, None), [(0, 128)]);
        assert_eq!(mapped(16384, &Mappable::Nothing, None), []);
    }

    #[test]
    fn the_pages_of_the_msix_table_are_left_out() {
        let all = Mappable::Everything;
        assert_eq!(
            mapped(16384, &all, Some(4100..4200)),
            [(0, 4096), (8192, 16384)]
        );
        assert_eq!(mapped(16384, &all, Some(0..8192)), [(8192, 16384)]);
        assert_eq!(mapped(16384, &all, Some(16000..16384)), [(0, 12288)]);
        assert_eq!(mapped(4096, &all, Some(0..48)), []);
        assert_eq!(mapped(16384, &all, Some(0..u64::MAX)), []);
    }

    #[test]
    fn sparse_areas_are_clipped_to_pages_and_to_the_region() {
        let sparse = |areas: &[(u64, u64)]| {
            Mappable::Areas(areas.iter().map(|(o, l)| Area::new(*o, *l)).collect())
        };
        let two = sparse(&[(0, 4096), (8192, 4096)]);
        assert_eq!(mapped(16384, &two, None), [(0, 4096), (8192, 12288)]);
        assert_eq!(mapped(16384, &two, Some(8192..8224)), [(0, 4096)]);
        assert_eq!(mapped(10000, &two, None), [(0, 4096), (8192, 10000)]);
        assert_eq!(mapped(16384, &sparse(&[(100, 8092)]), None), [(4096, 8192)]);
        assert_eq!(
            mapped(16384, &sparse(&[(4096, u64::MAX)]), None),
            [(4096, 16384)]
        );
        assert_eq!(
            mapped(
                16384,
                &sparse(&[(u64::MAX, 1), (0, 0), (32768, 4096)]),
                None
            ),
            []
        );
        assert_eq!(mapped(16384, &sparse(&[]), None), []);
    }
}

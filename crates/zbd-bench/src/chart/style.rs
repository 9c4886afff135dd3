//! What pictures look like.

/// Fonts that are there on one system or another.
pub(super) const FONTS: &str = "Helvetica Neue, Helvetica, Arial, Liberation Sans, DejaVu Sans, \
                                sans-serif";

/// The colours of the light look, which elements name themselves, so that programs that do not
/// read style sheets show them, too.
pub(crate) const PAPER: &str = "#ffffff";
pub(crate) const INK: &str = "#1a1a1a";
pub(crate) const SOFT: &str = "#555555";
pub(crate) const GRID: &str = "#dddddd";

/// The dark look, for screens that ask for it. It finds elements by their classes.
pub(crate) const DARK: &str = "@media screen and (prefers-color-scheme: dark) { \
    .zb-paper { fill: #16181c } .zb-ink { fill: #e8e8e8 } .zb-soft { fill: #b0b0b0 } \
    .zb-grid { stroke: #3a3d44 } .zb-axis { stroke: #9a9a9a } \
    .zb-0 { stroke: #5aa9e6; fill: #5aa9e6 } .zb-1 { stroke: #ff8a50; fill: #ff8a50 } \
    .zb-2 { stroke: #2fc79a; fill: #2fc79a } .zb-3 { stroke: #e39ac4; fill: #e39ac4 } \
    .zb-4 { stroke: #f2b134; fill: #f2b134 } .zb-5 { stroke: #9ad4f5; fill: #9ad4f5 } \
    .zb-6 { stroke: #ffffff; fill: #ffffff } .zb-7 { stroke: #a0a0a0; fill: #a0a0a0 } \
    .zb-hollow { fill: #16181c } }";

/// How the line and the points of a series look.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) class: &'static str,
    pub(super) colour: &'static str,
    /// The lengths of dashes and gaps; empty for a line without.
    pub(super) dashes: &'static str,
    pub(super) marker: Marker,
}

/// The shapes of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Disc,
    Ring,
    Square,
    HollowSquare,
    Triangle,
    HollowTriangle,
    Diamond,
    Cross,
}

/// The colours are those of Okabe and Ito, which the colour-blind can tell apart, but for their
/// yellow, which nobody sees on white: there is a grey in its place.
const LOOKS: [Look; 8] = [
    look("zb-0", "#0072b2", "", Marker::Disc),
    look("zb-1", "#d55e00", "9 4", Marker::HollowSquare),
    look("zb-2", "#009e73", "2 3", Marker::Triangle),
    look("zb-3", "#cc79a7", "11 4 2 4", Marker::Diamond),
    look("zb-4", "#e69f00", "5 3", Marker::Ring),
    look("zb-5", "#56b4e9", "16 5", Marker::Square),
    look("zb-6", "#000000", "8 3 2 3 2 3", Marker::HollowTriangle),
    look("zb-7", "#777777", "1 5", Marker::Cross),
];

const fn look(
    class: &'static str,
    colour: &'static str,
    dashes: &'static str,
    marker: Marker,
) -> Look {
    Look {
        class,
        colour,
        dashes,
        marker,
    }
}

/// The look of a series. The ninth looks like the first.
pub(super) fn of(series: usize) -> &'static Look {
    &LOOKS[series % LOOKS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_series_differ_in_shape_dashes_and_colour_each() {
        for (i, a) in LOOKS.iter().enumerate() {
            for b in &LOOKS[i + 1..] {
                assert_ne!(a.marker, b.marker);
                assert_ne!(a.dashes, b.dashes);
                assert_ne!(a.colour, b.colour);
                assert_ne!(a.class, b.class);
            }
            assert!(DARK.contains(&format!(".{} ", a.class)), "{}", a.class);
        }
    }
}

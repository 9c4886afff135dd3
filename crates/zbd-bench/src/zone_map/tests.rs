use unicode_width::UnicodeWidthStr;
use zbd_core::{DeviceSpec, OpenOptions, Sector, SectorCount, ZoneId};

use super::*;
use crate::chart::Glyphs;

fn zone(id: u32, state: ZoneState, written: Option<u64>) -> Zone {
    let start = Sector(u64::from(id) * 1000);
    Zone {
        id: ZoneId(id),
        start,
        size: SectorCount(1000),
        capacity: SectorCount(800),
        write_pointer: written.map(|written| start + SectorCount(written)),
        zone_type: if state == ZoneState::NotWritePointer {
            ZoneType::Conventional
        } else {
            ZoneType::SequentialRequired
        },
        state,
    }
}

#[test]
fn only_what_is_full_looks_full_and_only_what_is_empty_empty() {
    let fill = |written| Cell::new(&[zone(0, ZoneState::Closed, Some(written))]).fill;
    assert_eq!(fill(0), Fill::Nothing);
    assert_eq!(fill(200), Fill::Part(0.25));
    assert!(matches!(fill(1), Fill::Part(_)));
    assert!(matches!(fill(799), Fill::Part(_)));
    assert_eq!(fill(800), Fill::All);
    let alone = |state| Cell::new(&[zone(0, state, None)]).fill;
    assert_eq!(alone(ZoneState::Full), Fill::All);
    assert_eq!(alone(ZoneState::NotWritePointer), Fill::Anywhere);
    assert_eq!(alone(ZoneState::ReadOnly), Fill::Unknown);
    assert_eq!(alone(ZoneState::Offline), Fill::Unknown);
}

#[test]
fn several_zones_have_their_common_fill_and_the_state_that_matters_most() {
    let cell = Cell::new(&[
        zone(0, ZoneState::Full, None),
        zone(1, ZoneState::ImplicitlyOpen, Some(400)),
        zone(2, ZoneState::Empty, Some(0)),
        zone(3, ZoneState::NotWritePointer, None),
    ]);
    assert_eq!(cell.fill, Fill::Part(0.5));
    assert_eq!(cell.letter(), 'o');
    let cell = Cell::new(&[
        zone(0, ZoneState::Full, None),
        zone(1, ZoneState::Offline, None),
    ]);
    // Of the one that is offline nobody knows.
    assert_eq!((cell.fill, cell.letter()), (Fill::All, 'x'));
}

#[test]
fn a_zone_that_claims_more_than_its_capacity_is_full() {
    let cell = Cell::new(&[zone(0, ZoneState::Closed, Some(1000))]);
    assert_eq!(cell.fill, Fill::All);
}

/// What is known of an emulated device.
fn info(spec: &str) -> std::sync::Arc<DeviceInfo> {
    let spec: DeviceSpec = spec.parse().expect("the test names a device");
    let queue = OpenOptions::default().open(&spec).expect("it opens").pop();
    std::sync::Arc::clone(queue.expect("it has a queue").info())
}

fn zones() -> Vec<Zone> {
    let states = [
        (ZoneState::NotWritePointer, None),
        (ZoneState::Empty, Some(0)),
        (ZoneState::ImplicitlyOpen, Some(400)),
        (ZoneState::ExplicitlyOpen, Some(1)),
        (ZoneState::Closed, Some(799)),
        (ZoneState::Full, None),
        (ZoneState::ReadOnly, None),
        (ZoneState::Offline, None),
    ];
    (0..)
        .zip(states)
        .map(|(id, (state, written))| zone(id, state, written))
        .collect()
}

fn look(glyphs: Glyphs, columns: usize, lines: usize) -> Look {
    Look {
        glyphs,
        columns,
        lines,
    }
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn each_state_can_be_told_without_colour() {
    let (info, zones) = (info("emu:zones=8,max-open=4,max-active=6"), zones());
    let map = Map {
        info: &info,
        zones: &zones,
    };
    let shown = plain(&text(&map, look(Glyphs::Unicode, 80, 24)));
    assert!(shown.contains("  0  ░·▄▁▇█??\n     = oOcfrx\n"), "{shown}");
    let ascii = plain(&text(&map, look(Glyphs::Ascii, 80, 24)));
    assert!(ascii.contains("  0  =.509#??\n     = oOcfrx\n"), "{ascii}");
    assert!(ascii.is_ascii());
    for fact in [
        "open     2 of 4\n",
        "active   3 of 6\n",
        "1 conventional, 7 seq-required\n",
        "without 2 zones that do not say\n",
    ] {
        assert!(shown.contains(fact), "{fact}: {shown}");
    }
}

#[test]
fn colours_are_there_to_be_taken_out() {
    let (info, zones) = (info("emu:zones=8"), zones());
    let map = Map {
        info: &info,
        zones: &zones,
    };
    let shown = text(&map, look(Glyphs::Unicode, 80, 24));
    for (state, ..) in STATES {
        if !matches!(state, ZoneState::Empty | ZoneState::NotWritePointer) {
            assert!(shown.contains(&text::style(state).to_string()), "{state}");
        }
    }
    // Whatever is coloured ends.
    for line in shown.lines().filter(|line| line.contains('\x1b')) {
        let last = line.rfind('\x1b').expect("it has one");
        assert!(line[last..].starts_with("\x1b[0m"), "{line:?}");
    }
}

#[test]
fn the_picture_fits_the_terminal_however_many_zones_there_are() {
    let info = info("emu:zones=8");
    for count in [1, 7, 64, 65, 1000, 4097, 100_000] {
        let zones: Vec<_> = (0..count)
            .map(|id| zone(id, ZoneState::Closed, Some(u64::from(id) % 800 + 1)))
            .collect();
        let map = Map {
            info: &info,
            zones: &zones,
        };
        for (columns, lines) in [(80, 24), (80, 60), (200, 50), (132, 30)] {
            let shown = plain(&text(&map, look(Glyphs::Unicode, columns, lines)));
            assert!(shown.lines().count() < lines, "{count}: {shown}");
            let widest = shown.lines().map(UnicodeWidthStr::width).max();
            assert!(widest <= Some(columns), "{count}: {shown}");
        }
        // Where it is too small, lines are broken or the picture is scrolled.
        text(&map, look(Glyphs::Unicode, 0, 0));
    }
}

#[test]
fn a_drawing_shows_each_zone_and_what_is_meant() {
    let (info, zones) = (info("emu:zones=8,max-open=4"), zones());
    let map = Map {
        info: &info,
        zones: &zones,
    };
    let drawing = svg(&map);
    for (_, letter, name) in STATES {
        assert!(drawing.contains(&format!(">{name}</text>")), "{name}");
        if letter != ' ' {
            let count = drawing.matches(&format!(">{letter}</text>")).count();
            assert_eq!(count, 2, "{letter}, in the picture and in the legend");
        }
    }
    assert_eq!(
        drawing
            .matches("width=\"18\" height=\"26\" fill=\"none\"")
            .count(),
        8
    );
    assert!(drawing.contains(">2 of 4</text>"), "{drawing}");
}

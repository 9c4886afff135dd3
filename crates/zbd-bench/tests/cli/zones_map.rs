//! `zones map`, as its users meet it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::Stdio,
};

use crate::harness::{interrupt, plain, printed};

/// A device in a file, with zones in several states.
fn prepared(folder: &Path) -> String {
    let file = folder.join("disk.zbd");
    let device = format!(
        "emu:zones=16,zone-size=1m,conventional=2,max-open=4,max-active=6,store={}",
        file.display()
    );
    printed(&mut plain(&[
        "run", "--device", &device, "--zones", "3", "--count", "384",
    ]));
    printed(&mut plain(&["zones", "finish", &device, "--zone", "9"]));
    device
}

#[test]
fn states_fill_and_limits_are_seen() {
    let folder = tempfile::tempdir().expect("there is room");
    let device = prepared(folder.path());
    let map = printed(&mut plain(&["zones", "map", &device]));
    assert!(
        map.contains("   0  ░░▄▄▄··· ·█······\n      ==ccc     f\n"),
        "{map}"
    );
    assert!(map.contains("open     0 of 4\n"), "{map}");
    assert!(map.contains("active   3 of 6\n"), "{map}");
    assert!(map.contains("2560 KiB of 14 MiB (17.9 %)"), "{map}");
    assert!(map.contains("c closed                  3 "), "{map}");
}

#[test]
fn other_characters_than_ascii_need_a_locale_that_has_them() {
    let ascii = printed(plain(&["zones", "map", "emu:conventional=3"]).env("LC_ALL", "C"));
    assert!(ascii.is_ascii(), "{ascii}");
    assert!(ascii.contains("  0  ===....."), "{ascii}");
    let asked = printed(&mut plain(&[
        "zones",
        "map",
        "emu:conventional=3",
        "--ascii",
    ]));
    assert_eq!(asked, ascii);
}

#[test]
fn colours_are_for_those_who_want_them() {
    let folder = tempfile::tempdir().expect("there is room");
    let device = prepared(folder.path());
    let arguments = ["zones", "map", &device];
    // This is no terminal.
    assert!(!printed(&mut plain(&arguments)).contains('\x1b'));
    let forced = printed(plain(&arguments).env("CLICOLOR_FORCE", "1"));
    assert!(forced.contains("\x1b[33m"), "{forced}");
    let refused = printed(
        plain(&arguments)
            .env("CLICOLOR_FORCE", "1")
            .env("NO_COLOR", "1"),
    );
    assert!(!refused.contains('\x1b'), "{refused}");
}

#[test]
fn what_is_watched_is_shown_until_it_is_interrupted() {
    let mut child = plain(&["zones", "map", "emu:zones=3", "--watch", "20ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let frames = lines
        .by_ref()
        .map_while(Result::ok)
        .filter(|line| line == "emu:zones=3");
    assert_eq!(frames.take(3).count(), 3);
    interrupt(&child);
    // The rest of the last picture.
    assert!(
        lines
            .map_while(Result::ok)
            .all(|line| !line.contains('\x1b'))
    );
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty());
}

#[test]
fn watching_ends_when_nobody_looks_any_more() {
    let mut child = plain(&["zones", "map", "emu:", "--watch=10ms"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tool starts");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    out.read_line(&mut line).expect("there is a picture");
    drop(out);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_drawing_is_a_file_that_is_well_formed() {
    let folder = tempfile::tempdir().expect("there is room");
    let device = prepared(folder.path());
    let file = folder.path().join("map.svg");
    let arguments = [
        "zones",
        "map",
        &device,
        "--svg",
        file.to_str().expect("it is text"),
    ];
    assert!(printed(&mut plain(&arguments)).contains("==ccc     f"));
    let drawing = fs::read_to_string(&file).expect("it is written");
    let mut reader = quick_xml::Reader::from_str(&drawing);
    while reader.read_event().expect("it is well-formed") != quick_xml::events::Event::Eof {}
    assert_eq!(drawing.matches(">c</text>").count(), 4, "{drawing}");
    assert!(drawing.contains(">3 of 6</text>"), "{drawing}");
}

#[test]
fn what_cannot_be_shown_is_refused() {
    for (arguments, code, word) in [
        (
            &["zones", "map", "emu:model=none"][..],
            3,
            "not a zoned device",
        ),
        (&["zones", "map", "emu:", "--watch", "1ms"], 2, "10ms"),
        (&["zones", "map", "--watch", "emu:"], 2, "before --watch"),
        (
            &["zones", "map", "emu:", "--svg", "/nowhere/map.svg"],
            2,
            "/nowhere/map.svg",
        ),
        (
            &["zones", "map", "emu:", "--watch", "--svg", "map.svg"],
            2,
            "--svg",
        ),
    ] {
        let output = plain(arguments).output().expect("the tool starts");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        assert!(message.contains(word), "{arguments:?}: {message}");
    }
}

//! A device in a file: what is left of it when the power is cut or the process killed.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use crate::{
    driver::Rig,
    oracle::{Chance, Deed, OPTIONS, Oracle},
};

/// A directory for a file of a device. Where there is one in memory, a sync takes no time there.
fn directory() -> tempfile::TempDir {
    match std::fs::metadata("/dev/shm") {
        Ok(_) => tempfile::tempdir_in("/dev/shm").unwrap(),
        Err(_) => tempfile::tempdir().unwrap(),
    }
}

/// Random deeds, then a cut, a thousand times; now and then the device is closed instead.
fn cut_and_compare(cuts: u64, options: &str) {
    let directory = directory();
    let options = format!("store={}/disk,{options}", directory.path().display());
    let mut chance = Chance(cuts);
    let mut oracle = Oracle::new();
    let mut tag = 0;
    let mut unsure = 0;
    for cut in 0..cuts {
        let mut rig = Rig::ready(&options);
        let mut deeds = Vec::new();
        for _ in 0..2 + chance.below(20) {
            let deed = Deed::random(&mut chance, &mut tag);
            deeds.push(deed);
            oracle.go(&mut rig, deed);
            if chance.below(16) == 0 {
                oracle.check_present(&mut rig, &deeds);
            }
        }
        // With the power the lock goes, before the device is dropped.
        let mut gone = None;
        if chance.below(16) == 0 {
            oracle.flush();
            drop(rig);
        } else {
            unsure += u64::from(!oracle.is_sure());
            rig.function.power_cut(cut);
            assert_eq!(rig.status(), 0xff);
            gone = Some(rig);
        }
        let mut again = Rig::ready(&options);
        drop(gone);
        oracle.check(&mut again, &(cut, &deeds));
        assert!(again.control.broken().is_none());
    }
    assert!(unsure > cuts / 2, "{unsure}");
}

#[test]
fn seven_hundred_power_cuts_leave_what_was_flushed_and_prefixes() {
    cut_and_compare(700, OPTIONS);
}

#[test]
fn three_hundred_power_cuts_of_a_device_that_writes_back_early() {
    cut_and_compare(300, &format!("{OPTIONS},cache=16k"));
}

#[test]
fn seeds_decide_what_survives() {
    let directory = directory();
    let options = format!("store={}/disk,{OPTIONS}", directory.path().display());
    let survivors = |seed: u64| {
        let mut oracle = Oracle::new();
        let mut rig = Rig::ready(&options);
        oracle.go(&mut rig, Deed::ResetAll);
        oracle.go(&mut rig, Deed::Overwrite(0, 0, 0));
        oracle.go(&mut rig, Deed::Flush);
        oracle.go(&mut rig, Deed::Append(2, 3, 1));
        oracle.go(&mut rig, Deed::Append(2, 2, 4));
        oracle.go(&mut rig, Deed::Overwrite(0, 0, 9));
        rig.control.power_cut(seed);
        let mut rig = Rig::ready(&options);
        oracle.check(&mut rig, &seed);
        oracle.tags()
    };
    let all: std::collections::BTreeSet<_> = (0..100).map(survivors).collect();
    // Six prefixes, each with the block or without.
    assert_eq!(all.len(), 12);
    assert_eq!(survivors(1), survivors(1));
}

#[test]
fn a_device_that_was_closed_comes_back_as_it_was() {
    let directory = directory();
    let options = format!("store={}/disk,{OPTIONS}", directory.path().display());
    let mut oracle = Oracle::new();
    let mut rig = Rig::threaded(&options);
    for deed in [
        Deed::Append(2, 3, 1),
        Deed::Overwrite(1, 4, 8),
        Deed::Append(3, 1, 11),
        Deed::Finish(3),
        Deed::Open(4),
        Deed::Open(5),
        Deed::Append(5, 1, 21),
    ] {
        oracle.go(&mut rig, deed);
    }
    oracle.flush();
    drop(rig);
    for _ in 0..2 {
        let mut rig = Rig::threaded(&options);
        oracle.check(&mut rig, &"closed");
    }
    // Pulled out, it is closed as well.
    let mut rig = Rig::ready(&options);
    oracle.go(&mut rig, Deed::Append(2, 1, 31));
    rig.control.unplug();
    oracle.flush();
    oracle.check(&mut Rig::ready(&options), &"pulled out");
}

#[test]
fn a_power_cut_loses_all_of_a_device_in_memory() {
    let mut rig = Rig::ready(OPTIONS);
    let mut oracle = Oracle::new();
    oracle.go(&mut rig, Deed::Append(2, 3, 1));
    oracle.go(&mut rig, Deed::Flush);
    rig.function.power_cut(0);
    assert_eq!(rig.status(), 0xff);
    rig.kick(0);
    rig.step();
    Oracle::new().check(&mut Rig::ready(OPTIONS), &"another device");
}

#[test]
fn a_threaded_device_is_cut_while_it_works() {
    let directory = directory();
    let options = format!("store={}/disk,{OPTIONS}", directory.path().display());
    let mut oracle = Oracle::new();
    let mut chance = Chance(7);
    let mut tag = 0;
    for seed in 0..30 {
        let mut rig = Rig::threaded(&options);
        for _ in 0..10 {
            oracle.go(&mut rig, Deed::random(&mut chance, &mut tag));
        }
        let control = rig.control.clone();
        let cut = std::thread::spawn(move || control.power_cut(seed));
        cut.join().unwrap();
        assert_eq!(rig.status(), 0xff);
        oracle.check(&mut Rig::threaded(&options), &seed);
    }
}

/// What the victim does, one deed after the other.
fn deeds() -> impl Iterator<Item = Deed> {
    let mut chance = Chance(99);
    let mut tag = 0;
    std::iter::repeat_with(move || Deed::random(&mut chance, &mut tag))
}

#[test]
fn a_killed_process_leaves_what_it_flushed() {
    let directory = directory();
    for round in 0..20 {
        let path = directory.path().join(format!("disk{round}"));
        let options = format!("store={},{OPTIONS}", path.display());
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "durable::victim"])
            .env("ZBD_EMU_VICTIM", &options)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let mut flushed = 0;
        let mut heed = |line: std::io::Result<String>| {
            if let Some(number) = line.unwrap().strip_prefix("flushed ") {
                flushed = number.parse().unwrap();
            }
        };
        lines.by_ref().take(5 + 13 * round).for_each(&mut heed);
        victim.kill().unwrap();
        victim.wait().unwrap();
        lines.for_each(&mut heed);
        assert!(flushed > 0);
        let mut oracle = Oracle::new();
        let mut all = deeds();
        for deed in all.by_ref().take(flushed) {
            oracle.note(deed);
        }
        let mut ahead = oracle.clone();
        // It may have got to the end of the next flush, which it would have told of.
        for deed in all.take_while(|deed| *deed != Deed::Flush) {
            ahead.note(deed);
        }
        let mut rig = Rig::ready(&options);
        ahead.check(&mut rig, &(round, flushed));
    }
}

#[test]
#[ignore = "a_killed_process_leaves_what_it_flushed runs it in a process of its own"]
fn victim() {
    let Ok(options) = std::env::var("ZBD_EMU_VICTIM") else {
        panic!("this is for a_killed_process_leaves_what_it_flushed to run");
    };
    let mut rig = Rig::ready(&options);
    let mut oracle = Oracle::new();
    let mut out = std::io::stdout().lock();
    for (number, deed) in deeds().enumerate() {
        oracle.go(&mut rig, deed);
        if deed == Deed::Flush {
            writeln!(out, "flushed {}", number + 1).unwrap();
        }
    }
}

//! Replays what the fuzzer has found worth keeping: `fuzz/corpus`, a folder a target.

use std::{fs, path::Path};

use zbd_hostile::trial;

fn replay(target: &str, trial: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() > 10, "{} is not the corpus", folder.display());
    for file in files {
        // Shown only if the trial fails.
        println!("{}", file.display());
        trial(&fs::read(&file).unwrap());
    }
}

#[test]
fn function() {
    replay("function", trial::function);
}

#[test]
fn split_queue() {
    replay("queue_split", trial::split_queue);
}

#[test]
fn packed_queue() {
    replay("queue_packed", trial::packed_queue);
}

#[test]
fn report() {
    replay("report", trial::report);
}

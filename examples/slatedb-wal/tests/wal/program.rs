//! The program: its writers are killed (SIGKILL), and its figures are complete.

use std::process::Command;

use crate::rig::Result;

const PROGRAM: &str = env!("CARGO_BIN_EXE_slatedb-wal");

#[test]
fn killed_writers_lose_nothing_that_they_acknowledged() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let device = format!("emu:store={}", directory.path().join("log.zbd").display());
    let output = Command::new(PROGRAM)
        .args(["check", "--device", &device, "--rounds", "12", "--tables"])
        .arg(directory.path().join("tables"))
        .output()?;
    let printed = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    assert!(printed.starts_with("12 kills, "), "{printed}{errors}");
    Ok(())
}

#[test]
fn every_log_has_its_figures() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let device = format!("emu:store={}", directory.path().join("log.zbd").display());
    let bench = || {
        let mut command = Command::new(PROGRAM);
        command.args(["bench", "--device", &device, "--puts", "5", "--rounds", "2"]);
        command
    };
    let output = bench().output()?;
    let printed = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    for (log, lines) in [
        ("zones ", 1),
        ("objects, no fsync ", 2),
        ("objects, fsync ", 2),
    ] {
        let figures = printed.lines().filter(|line| line.starts_with(log));
        assert_eq!(figures.count(), lines, "{log}: {printed}");
    }
    assert!(!printed.contains("NaN"), "{printed}");
    // The log of a database that is gone is nobody's to overwrite without a word.
    let again = bench().output()?;
    let errors = String::from_utf8_lossy(&again.stderr);
    assert!(
        !again.status.success() && errors.contains("reset the zones"),
        "{errors}"
    );
    assert!(bench().arg("--destroy").status()?.success());
    Ok(())
}

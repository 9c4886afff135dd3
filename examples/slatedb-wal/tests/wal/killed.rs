//! The program that is killed (SIGKILL) while it writes.

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

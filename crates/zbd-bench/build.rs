//! Tells the tool of which commit it is, for its reports.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../../.git/HEAD");
    println!("cargo::rerun-if-changed=../../.git/logs/HEAD");
    println!("cargo::rerun-if-env-changed=ZBD_COMMIT");
    println!(
        "cargo::rustc-env=ZBD_COMMIT={}",
        commit().unwrap_or_else(|| "unknown".to_owned())
    );
}

/// What the build was told, or what git says of the tree; nothing where there is no git.
fn commit() -> Option<String> {
    if let Ok(commit) = std::env::var("ZBD_COMMIT") {
        return Some(commit);
    }
    let output = Command::new("git")
        .args(["rev-parse", "--short=12", "HEAD"])
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let commit = String::from_utf8(output.stdout).ok()?;
    Some(commit.trim().to_owned()).filter(|commit| !commit.is_empty())
}

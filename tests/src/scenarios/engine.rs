//! A storage engine whose log is on the disk's zones: `examples/slatedb-wal`.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Context;
use crate::inside::kernel_view::State;

pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// Where the program lies in the guest.
const PATH: &str = "/bin/slatedb-wal";

pub(super) fn database_outlives_its_killed_processes(context: &mut Context) -> Result<()> {
    kill_and_compare(context, "unmerged", 5)
}

pub(super) fn database_keeps_to_the_limits_of_open_and_active_zones(
    context: &mut Context,
) -> Result<()> {
    kill_and_compare(context, "main", 2)
}

/// Has the program kill processes of its own while they put to a database on `disk`, and compare
/// what it finds with what they acknowledged. Each opens the disk that the one before left behind.
fn kill_and_compare(context: &mut Context, disk: &str, kills: u32) -> Result<()> {
    let claim = context.claim(disk)?;
    let output = Command::new(PATH)
        .args(["check", "--device", &claim.spec()])
        .args(["--tables", &format!("/tmp/engine-{disk}")])
        .args(["--rounds", &kills.to_string(), "--longest", "1500"])
        .stdin(Stdio::null())
        .output()
        .context(PATH)?;
    let printed = String::from_utf8(output.stdout)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{printed}{errors}");
    // "5 kills, 1234 puts acknowledged, …"
    let mut words = printed.split_whitespace();
    ensure!(words.next() == Some(&kills.to_string()), "{printed}");
    let acknowledged = words.nth(1).context("no count")?;
    let acknowledged: f64 = acknowledged.parse().with_context(|| printed.clone())?;
    ensure!(acknowledged > 0.0, "nothing was put: {printed}");
    context.metric("puts_acknowledged", acknowledged);

    let report = claim.give_back()?.report()?;
    let sequential = report
        .iter()
        .filter(|zone| zone.state != State::Conventional);
    let written: u64 = sequential.map(|zone| zone.written()).sum();
    ensure!(written > 0, "no zone was written: {report:?}");
    context.metric("sectors_in_zones", written as f64);
    Ok(())
}

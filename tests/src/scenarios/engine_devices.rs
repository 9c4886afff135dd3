//! One engine on every kind of device: the program that runs on the embedded one, too.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::Context;
use crate::inside::engine::{self, Destroy, Medium};
use crate::inside::null_block::NullBlock;

pub(super) const LIMIT: Duration = Duration::from_secs(120);

fn run(context: &mut Context, spec: &str, name: &str) -> Result<()> {
    let start = Instant::now();
    engine::exercise(spec, Destroy, Medium::Lasting).with_context(|| spec.to_owned())?;
    context.metric(format!("{name}_seconds"), start.elapsed().as_secs_f64());
    Ok(())
}

pub(super) fn one_engine_runs_on_functions(context: &mut Context) -> Result<()> {
    for name in ["main", "unmerged"] {
        let claim = context.claim(name)?;
        run(context, &claim.spec(), name)?;
        // Linux finds zones that it understands.
        let report = claim.give_back()?.report()?;
        let written = report.iter().filter(|zone| zone.written() > 0);
        ensure!(written.count() > 0, "{name}: nothing is written");
    }
    Ok(())
}

pub(super) fn one_engine_runs_on_the_same_disks_under_linux(context: &mut Context) -> Result<()> {
    for name in ["main", "unmerged"] {
        let disk = context.kernel_disk(name)?;
        run(context, &disk.path().display().to_string(), name)?;
    }
    Ok(())
}

pub(super) fn one_engine_runs_on_null_blk(context: &mut Context) -> Result<()> {
    let made = NullBlock::zoned("nullb0", &[])?;
    run(context, &made.path(), "limited")?;
    drop(made);
    let unlimited = [("zone_max_open", 0), ("zone_max_active", 0)];
    let made = NullBlock::zoned("nullb0", &unlimited)?;
    run(context, &made.path(), "unlimited")
}

//! What `cargo xtask pictures` runs in the guest: the tool's sweeps, comparisons and the rest, with
//! reports that people read. They are no tests, and run only when that asks for them.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::{Context, Scenario};
use crate::guest::machine;
use crate::inside::tool::run;

/// The one there is.
pub static ALL: &[Scenario] = &[Scenario {
    name: "bench::pictures::all",
    machine: &machine::bench,
    limit: Duration::from_secs(1800),
    run: all,
}];

fn all(context: &mut Context) -> Result<()> {
    for (disk, name) in [("unmerged-split", "unmerged"), ("merged-split", "merged")] {
        sweep(context, disk, name)?;
    }
    compare(context)?;
    let function = context.function("unmerged-split")?;
    let address = function.address();
    function.bind("vfio-pci")?;
    let zoneops = format!("zoneops pci:{address} --zones 4 --fill-limit 256m --destroy");
    report(context, "zoneops", &zoneops)?;
    let verify = format!("verify pci:{address} --duration 60s --seed 1 --destroy");
    report(context, "verify", &verify)?;
    function.bind_to_kernel()?;
    let disk = function.block_device()?;
    let verify = format!("verify /dev/{disk} --duration 60s --seed 1 --destroy");
    report(context, "verify-kernel", &verify)
}

/// Keeps what the tool prints, after the command.
fn report(context: &mut Context, name: &str, command: &str) -> Result<()> {
    let printed = run(command)?;
    let text = format!("$ zbd-bench {command}\n{}", printed.printed()?);
    context.file(format!("qemu-{name}.txt"), text);
    Ok(())
}

fn sweep(context: &mut Context, disk: &str, name: &str) -> Result<()> {
    let function = context.function(disk)?;
    function.bind("vfio-pci")?;
    let pictures = ["", "-latency"].map(|what| format!("qemu-{name}{what}.svg"));
    let address = function.address();
    report(
        context,
        name,
        &format!(
            "sweep --device pci:{address} --ops append,write,randread --runtime 700ms --repeat 5 \
             --destroy --plot /tmp/{}",
            pictures[0]
        ),
    )?;
    for picture in pictures {
        let drawn = fs::read_to_string(format!("/tmp/{picture}"))?;
        context.file(picture, drawn);
    }
    function.bind_to_kernel()?.reset_all()
}

fn compare(context: &mut Context) -> Result<()> {
    let function = context.function("merged-split")?;
    let devices = format!(
        "pci:{} /dev/{}",
        function.address(),
        function.block_device()?
    );
    for op in ["write", "randread", "append"] {
        let job = format!("compare {devices} --rebind --op {op} --runtime 1s --destroy");
        report(context, &format!("compare-{op}"), &job)?;
    }
    Ok(())
}

//! The tool's sweeps and comparisons, and what else jobs can do, on real disks.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Context;
use crate::inside::tool::run;

pub(super) const LIMIT: Duration = Duration::from_secs(90);

fn number(value: &Value, what: &str) -> Result<f64> {
    value.as_f64().with_context(|| format!("{what}: {value}"))
}

pub(super) fn one_disk_is_compared_through_both_drivers(context: &mut Context) -> Result<()> {
    let function = context.function("unmerged")?;
    let (address, kernel) = (function.address(), function.block_device()?);
    let devices = format!("pci:{address} /dev/{kernel}");
    let document = run(&format!(
        "compare {devices} --rebind --destroy --op write --runtime 300ms --repeat 3 --format json"
    ))?
    .json()?;
    let results = document["results"].as_array().context("results")?;
    ensure!(results.len() == 2, "{document}");
    for (result, backend) in results.iter().zip(["VFIO", "Linux"]) {
        ensure!(
            result["rounds"].as_array().map(Vec::len) == Some(3),
            "{result}"
        );
        let shown = result["device"]["backend"].as_str().unwrap_or_default();
        ensure!(shown.contains(backend), "{result}");
    }
    let ratio = number(&results[1]["ratio"]["median"], "ratio")?;
    context.metric("kernel_to_vfio_write_ratio".to_owned(), ratio);
    ensure!(ratio < 1.0, "the kernel's driver costs more: {document}");
    ensure!(
        function.driver().as_deref() == Some("virtio-pci"),
        "it goes back to where it was"
    );

    // Appends on the kernel's disk are something else, and that is said.
    let document = run(&format!(
        "compare {devices} --rebind --destroy --count 200 --repeat 1 --format json"
    ))?
    .json()?;
    let conclusions = document["conclusions"].to_string();
    ensure!(conclusions.contains("are emulated"), "{conclusions}");
    ensure!(
        conclusions.contains("Nothing can be concluded"),
        "{conclusions}"
    );
    Ok(())
}

pub(super) fn a_sweep_shows_that_the_hypervisor_serialises(context: &mut Context) -> Result<()> {
    let function = context.function("unmerged")?;
    run(&format!("bind {}", function.address()))?.printed()?;
    let page = "/tmp/sweep.html";
    let document = run(&format!(
        "sweep --device pci:{} --destroy --ops append,write --depths 1,4,32 --runtime 400ms \
         --repeat 3 --format json --plot {page}",
        function.address()
    ))?
    .json()?;
    let results = document["results"].as_array().context("results")?;
    ensure!(results.len() == 6, "{document}");
    for result in results {
        let iops = number(&result["iops"]["median"], "iops")?;
        let (op, depth) = (result["op"].as_str().unwrap_or_default(), &result["depth"]);
        context.metric(format!("{op}_iops_at_{depth}"), iops);
    }
    ensure!(
        document["findings"].to_string().contains("of writes ("),
        "{document}"
    );
    let page = fs::read_to_string(page)?;
    ensure!(
        page.contains("<svg") && page.contains("access_platform"),
        "{page}"
    );
    Ok(())
}

pub(super) fn jobs_mix_keep_a_rate_and_turn_zones_over(context: &mut Context) -> Result<()> {
    let function = context.function("main")?;
    run(&format!("bind {}", function.address()))?.printed()?;
    let device = format!("pci:{}", function.address());
    // The disk allows 8 open zones, and there are 30; each takes 1536 requests.
    let job = format!(
        "run --device {device} --destroy --zones 12 --max-open-zones 2 --finish-at 10 --reset \
         oldest --read-mix 20 --count 4000 --format json"
    );
    let document = run(&job)?.json()?;
    let results = document["results"].as_array().context("results")?;
    let ios: Vec<u64> = results
        .iter()
        .filter_map(|result| result["ios"].as_u64())
        .collect();
    ensure!(ios.len() == 2 && ios.iter().sum::<u64>() == 4000, "{ios:?}");
    ensure!((600..1000).contains(&ios[1]), "{ios:?}");
    let finishes = results[0]["zone_finishes"]
        .as_u64()
        .context("zone_finishes")?;
    ensure!(
        finishes == ios[0] / 153 || finishes == ios[0] / 153 - 1,
        "{ios:?} {finishes}"
    );
    ensure!(results[0]["errors"] == 0, "{document}");

    let job = format!(
        "run --device {device} --destroy --rate_iops 200 --ramp_time 200ms --runtime 1s --format \
         json"
    );
    let result = run(&job)?.json()?["results"][0].clone();
    let ios = result["ios"].as_u64().context("ios")?;
    ensure!((150..=201).contains(&ios), "{result}");
    ensure!(
        result["service_latency_ns"]["p50"].as_u64() > Some(0),
        "{result}"
    );
    Ok(())
}

//! `zbd-bench check`

use std::{
    io::{self, IsTerminal},
    sync::Arc,
};

use indicatif::ProgressBar;
use vfio_virtio::{Features, PciFunction, VfioFunction, VfioOptions, sysfs};
use zbd_check::{Options, Requirement, Suite, requirements};
use zbd_core::{DeviceSpec, RingOptions};
use zbd_emu::EmulatedFunction;

use crate::{
    cli::{CheckArgs, CheckFormat},
    failure::{During, Failure},
    job::stop::Stop,
    report::{self, check::Checked},
};

/// Looks at a device, requirement by requirement.
pub(crate) fn check(args: &CheckArgs) -> Result<(), Failure> {
    let selected = selected(&args.only)?;
    if args.list {
        return report::check::list(&selected, args.format);
    }
    let device = args.device.as_deref().unwrap_or_default();
    let (function, rings) = open(device, args.destroy)?;
    let mut options = Options::default();
    options.patience = args.patience;
    options.rings = rings
        .accepted(device, Features::from_bits(u64::MAX))
        .map_err(opening)?;
    let mut suite = Suite::open(function, options).map_err(|error| opening(error.into()))?;
    rings
        .accepted(device, suite.device().offered)
        .map_err(opening)?;

    let stop = Stop::on_interrupt();
    let bar = match io::stderr().is_terminal() {
        true => ProgressBar::new(selected.len() as u64),
        false => ProgressBar::hidden(),
    };
    let mut checked = Checked::new(device, suite.device(), selected.len());
    for requirement in selected {
        if stop.is_set() {
            checked.is_interrupted = true;
            break;
        }
        bar.set_message(requirement.id);
        checked
            .results
            .push((requirement, suite.check(requirement)));
        bar.inc(1);
    }
    bar.finish_and_clear();
    drop(suite);
    match args.format {
        CheckFormat::Text => report::check::text(&checked),
        CheckFormat::Json => report::check::json(&checked),
        CheckFormat::Junit => report::check::junit(&checked),
    }?;
    verdict(&checked, args.strict)
}

fn verdict(checked: &Checked<'_>, strict: bool) -> Result<(), Failure> {
    let (failed, warnings) = (checked.failed(), checked.warnings());
    if failed > 0 || (strict && warnings > 0) {
        let count = failed + if strict { warnings } else { 0 };
        let what = if count == 1 {
            "requirement is"
        } else {
            "requirements are"
        };
        return Err(Failure::io(format!("{count} {what} not met")));
    }
    if checked.is_interrupted {
        return Err(Failure::io(format!(
            "interrupted after {} of {} requirements",
            checked.results.len(),
            checked.selected
        )));
    }
    Ok(())
}

fn selected(only: &[String]) -> Result<Vec<&'static Requirement>, Failure> {
    let all = requirements();
    let is_known = |id: &&String| all.iter().any(|requirement| requirement.id == **id);
    if let Some(unknown) = only.iter().find(|id| !is_known(id)) {
        return Err(Failure::usage(format!(
            "--only {unknown}: there is no such requirement; see zbd-bench check --list"
        )));
    }
    Ok(all
        .into_iter()
        .filter(|requirement| only.is_empty() || only.iter().any(|id| id == requirement.id))
        .collect())
}

fn opening(error: zbd_core::Error) -> Failure {
    Failure::from_device(During::Opening, &error)
}

/// Claims the function, below any block layer.
fn open(device: &str, destroy: bool) -> Result<(Arc<dyn PciFunction>, RingOptions), Failure> {
    match device.parse().map_err(opening)? {
        DeviceSpec::Emulated(config) => {
            let function = EmulatedFunction::new(&config).map_err(|e| opening(e.into()))?;
            Ok((Arc::new(function), RingOptions::default()))
        }
        DeviceSpec::Pci(_) if !destroy => Err(Failure::device(format!(
            "{device}: the check writes to all parts of the device and resets its zones; all data \
             on it would be lost. Allow that with --destroy"
        ))),
        DeviceSpec::Pci(pci) => {
            let options = VfioOptions::default().no_iommu(pci.no_iommu);
            let function = VfioFunction::open_with(pci.address, options);
            Ok((
                Arc::new(function.map_err(|e| opening(e.into()))?),
                pci.rings,
            ))
        }
        _ => Err(Failure::device(format!(
            "{device}: the check drives the device itself, not the kernel's disk; hand it over \
             with zbd-bench bind {0}, then check pci:{0}",
            function_of(device)
        ))),
    }
}

/// The PCI address of the function behind a disk of the kernel, as far as that can be seen.
fn function_of(disk: &str) -> String {
    let name = disk.strip_prefix("/dev/").unwrap_or(disk);
    sysfs::functions()
        .unwrap_or_default()
        .into_iter()
        .find(|function| function.disks.iter().any(|disk| disk.name == name))
        .map_or_else(
            || "BDF (zbd-bench list shows it)".to_owned(),
            |function| function.address.to_string(),
        )
}

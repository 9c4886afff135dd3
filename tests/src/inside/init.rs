//! The guest's first process: sets the system up, runs the scenarios, powers off.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, mount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::function::Function;
use super::kernel_log::KernelLog;
use super::{beside, child};
use crate::guest::machine::{Iommu, Machine};
use crate::guest::plan::{self, Plan};
use crate::guest::report::{Event, Outcome};
use crate::scenarios::{Context, Scenario};

const REPORT_PORT: &str = "/dev/ttyS1";
/// Where a scenario leaves what it measured.
const FOUND: &str = "/tmp/found.json";

/// What `/init` does: as the first process, all; told `run NAME`, that one scenario; told
/// `beside ROLE …`, what a scenario wants done beside it.
pub fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["run", scenario] => run_scenario(scenario),
        ["beside", ref role @ ..] => beside::main(role),
        _ if std::process::id() != 1 => Err(anyhow::anyhow!("this is a guest's first process")),
        _ => {
            carry_out();
            Ok(())
        }
    };
    if let Err(error) = done {
        eprintln!("{error:#}");
        std::process::exit(1);
    }
}

/// Runs the whole plan, and powers off whatever comes of it.
fn carry_out() {
    let plan = || -> Result<()> {
        let plan: Plan = serde_json::from_slice(&fs::read(plan::PATH)?)?;
        let machine = Machine::by_name(&plan.machine).with_context(|| plan.machine.clone())?;
        run_plan(&mut set_up(machine)?, machine, &plan.scenarios)
    };
    if let Err(error) = plan() {
        let message = format!("{error:#}");
        eprintln!("zbd-guest: {message}");
        if let Ok(mut port) = OpenOptions::new().write(true).open(REPORT_PORT) {
            let _ = send(&mut port, &Event::Broken { message });
        }
    }
    rustix::fs::sync();
    // What was written to a serial port is on its way once the port has drained.
    std::thread::sleep(Duration::from_millis(50));
    let failed = reboot(RebootCommand::PowerOff);
    panic!("cannot power off: {failed:?}");
}

fn set_up(machine: &Machine) -> Result<File> {
    for (kind, place) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
    ] {
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("mount {place}"))?;
    }
    let report = OpenOptions::new()
        .read(true)
        .write(true)
        .open(REPORT_PORT)
        .context(REPORT_PORT)?;
    let mut settings = tcgetattr(&report)?;
    settings.make_raw();
    tcsetattr(&report, OptionalActions::Now, &settings)?;
    let order = fs::read_to_string(Path::new(plan::MODULES).join("order"))?;
    for name in order.lines() {
        let module = File::open(Path::new(plan::MODULES).join(name))?;
        let parameters = CString::new(parameters(name, machine))?;
        finit_module(&module, &parameters, 0).with_context(|| format!("load {name}"))?;
    }
    Ok(report)
}

/// What a module is told when it is loaded.
fn parameters(module: &str, machine: &Machine) -> &'static str {
    match (module, machine.iommu) {
        // One device that nobody asked for would be in the way.
        ("null_blk.ko", _) => "nr_devices=0",
        ("vfio.ko", Iommu::None) => "enable_unsafe_noiommu_mode=1",
        _ => "",
    }
}

fn run_plan(report: &mut File, machine: &'static Machine, scenarios: &[String]) -> Result<()> {
    let uptime = fs::read_to_string("/proc/uptime")?;
    let seconds = uptime
        .split(' ')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0.0);
    send(report, &Event::Booted { seconds })?;
    let mut log = KernelLog::open()?;
    for name in scenarios {
        send(
            report,
            &Event::Started {
                scenario: name.clone(),
            },
        )?;
        println!("--- {name}");
        log.skip();
        let outcome = attempt(machine, name);
        if let Some(failure) = &outcome.failure {
            println!("--- {name} failed: {failure}\n--- the kernel said meanwhile:");
            log.print();
        }
        send(
            report,
            &Event::Finished {
                scenario: name.clone(),
                outcome,
            },
        )?;
    }
    send(report, &Event::Done)
}

/// Runs one scenario in a process of its own, on devices as fresh as they can be made.
fn attempt(machine: &'static Machine, name: &str) -> Outcome {
    let start = Instant::now();
    let ran = || -> Result<()> {
        let scenario = Scenario::by_name(name)?;
        for disk in machine.disks {
            Function::of(disk)
                .freshen()
                .with_context(|| format!("before it began: {}", disk.name))?;
        }
        let _ = fs::remove_file(FOUND);
        let mut itself = Command::new("/init");
        let ended = child::run(itself.args(["run", name]), scenario.limit);
        // Whatever the scenario started and left behind is ours to bury.
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        ended
    };
    let failure = ran().err().map(|error| format!("{error:#}"));
    let found: Option<(_, _)> = fs::read(FOUND)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let (metrics, files) = found.unwrap_or_default();
    Outcome {
        failure,
        seconds: start.elapsed().as_secs_f64(),
        metrics,
        files,
    }
}

/// Runs one scenario in this process.
fn run_scenario(name: &str) -> Result<()> {
    let scenario = Scenario::by_name(name)?;
    let mut context = Context::new(scenario.machine);
    let done = (scenario.run)(&mut context);
    fs::write(
        FOUND,
        serde_json::to_vec(&(context.metrics, context.files))?,
    )?;
    done
}

fn send(report: &mut File, event: &Event) -> Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    report.write_all(&line).context("cannot report")
}

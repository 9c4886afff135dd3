//! One boot of a machine, from the images to the report.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::build::Parts;
use super::machine::Machine;
use super::plan::Plan;
use super::qemu::{self, files};
use super::report::{Outcome, Report};
use super::{images, initramfs, selection};

/// How often QEMU may abort before the boot counts as failed.
const ATTEMPTS: u32 = 3;
const SIGABRT: i32 = 6;

/// What a boot has beyond what its machine always has.
#[derive(Debug, Default)]
pub struct Additions {
    /// Programs that the guest finds in `/bin`.
    pub programs: Vec<PathBuf>,
    /// Arguments for QEMU.
    pub arguments: Vec<String>,
}

/// A boot that came to its end.
#[derive(Debug)]
pub struct Boot {
    report: Report,
    directory: PathBuf,
    /// How long it took, images and power-off included.
    pub seconds: f64,
    /// How often QEMU aborted before.
    pub aborted: u32,
}

impl Boot {
    /// Boots `machine` and runs the scenarios that were asked for. One boot at a time: each is as
    /// wide as the machine it runs on.
    ///
    /// # Errors
    /// Says why the machine could not be booted, or where it stopped, and how to mend it.
    pub fn run(machine: &'static Machine) -> Result<Self> {
        Self::carry_out(machine, selection::selected(machine), &Additions::default())
    }

    /// Boots `machine` with additions and runs some scenarios, one boot at a time.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn carry_out(
        machine: &'static Machine,
        scenarios: Vec<String>,
        additions: &Additions,
    ) -> Result<Self> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = Plan {
            machine: machine.name.into(),
            scenarios,
        };
        let parts = Parts::gather()?;
        let directory = parts.run_directory(machine.name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).with_context(|| format!("{}", directory.display()))?;
        let initramfs = directory.join(files::INITRAMFS);
        initramfs::write(&parts, machine, &plan, &additions.programs, &initramfs)?;
        let start = Instant::now();
        for aborted in 0..ATTEMPTS {
            images::create(machine, &directory)?;
            let status = run_once(machine, &parts, &additions.arguments, &directory)?;
            if status.signal() == Some(SIGABRT) {
                // A known race in QEMU's emulation; nothing that the guest or our code could do.
                println!(
                    "QEMU aborted ({}); booting again",
                    log_tail(&directory.join(files::QEMU))
                );
                continue;
            }
            let seconds = start.elapsed().as_secs_f64();
            return Self::judge(status, directory, seconds, aborted);
        }
        bail!(
            "QEMU aborted {ATTEMPTS} times in a row: {}",
            log_tail(&directory.join(files::QEMU))
        )
    }

    fn judge(status: ExitStatus, directory: PathBuf, seconds: f64, aborted: u32) -> Result<Self> {
        let text = fs::read(directory.join(files::REPORT)).unwrap_or_default();
        let report = Report::parse(&String::from_utf8_lossy(&text));
        let logs = directory.display();
        if !status.success() {
            bail!(
                "QEMU ended with {status}: {} (logs in {logs})",
                log_tail(&directory.join(files::QEMU))
            );
        }
        if let Some(message) = &report.broken {
            bail!("the guest gave up: {message} (logs in {logs})");
        }
        ensure!(
            report.done || report.unfinished.is_some(),
            "the guest ended before it came to the scenarios: {} (logs in {logs})",
            log_tail(&directory.join(files::CONSOLE))
        );
        println!(
            "booted in {:.1} s of guest time; {} scenarios; {seconds:.1} s in all; QEMU aborted {aborted} times before",
            report.boot_seconds,
            report.outcomes.len(),
        );
        Ok(Self {
            report,
            directory,
            seconds,
            aborted,
        })
    }

    /// What a scenario measured.
    ///
    /// # Errors
    /// If it failed, or was not run.
    pub fn metrics(&self, scenario: &str) -> Result<&BTreeMap<String, f64>> {
        Ok(&self.outcome(scenario)?.metrics)
    }

    /// The texts that a scenario left behind, by the names of their files.
    ///
    /// # Errors
    /// If it failed, or was not run.
    pub fn files(&self, scenario: &str) -> Result<&BTreeMap<String, String>> {
        Ok(&self.outcome(scenario)?.files)
    }

    fn outcome(&self, scenario: &str) -> Result<&Outcome> {
        let logs = self.directory.display();
        let outcome = self.report.outcomes.get(scenario);
        let outcome =
            outcome.with_context(|| format!("{scenario} did not end (logs in {logs})"))?;
        match &outcome.failure {
            None => Ok(outcome),
            Some(failure) => bail!("{scenario}: {failure} (logs in {logs})"),
        }
    }

    /// Passes if the scenario passed, and prints what it measured.
    ///
    /// # Panics
    /// If it failed, or was not run.
    pub fn check(&self, scenario: &str) {
        let logs = self.directory.display();
        let Some(outcome) = self.report.outcomes.get(scenario) else {
            match &self.report.unfinished {
                Some(running) => panic!("the guest ended during {running} (logs in {logs})"),
                None => panic!("the guest was not told to run {scenario}"),
            }
        };
        if let Some(failure) = &outcome.failure {
            panic!("{failure}\n(logs in {logs})");
        }
        println!("{scenario}: {:.2} s", outcome.seconds);
        for (name, value) in &outcome.metrics {
            println!("  {name} = {value}");
        }
    }
}

/// Runs QEMU to its end, or for as long as the machine's limit allows.
fn run_once(
    machine: &Machine,
    parts: &Parts,
    arguments: &[String],
    directory: &Path,
) -> Result<ExitStatus> {
    let log = File::create(directory.join(files::QEMU))?;
    let mut command = qemu::command(machine, parts, directory);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {}: run `cargo xtask setup`", qemu::PROGRAM))?;
    let mut child = KillOnDrop(child);
    let deadline = Instant::now() + machine.limit;
    loop {
        if let Some(status) = child.0.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            bail!(
                "the guest was still running after {:?}: {} (logs in {})",
                machine.limit,
                log_tail(&directory.join(files::CONSOLE)),
                directory.display()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // Both fail where it has ended already, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last lines of a log.
fn log_tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

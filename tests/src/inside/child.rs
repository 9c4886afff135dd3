//! Runs a scenario as a process of its own, so that its crash, its panic or its hanging are its own
//! failure and no one else's.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Runs `command` for at most `limit`, in a process group that does not outlive it.
///
/// # Errors
/// With the end of what it printed, if it does not succeed.
pub fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let printed = Printed::create()?;
    command
        .stdin(Stdio::null())
        .stdout(printed.file.try_clone()?)
        .stderr(printed.file.try_clone()?);
    let mut child = command
        .process_group(0)
        .spawn()
        .context("cannot start the scenario")?;
    let group = Pid::from_child(&child);
    let ended = wait(&mut child, limit)?;
    // Fails where nothing of the group is left, which is as well.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
    let printed = printed.take();
    print!("{printed}");
    match ended {
        Some(status) if status.success() => Ok(()),
        Some(status) if status.code() == Some(1) => bail!("{}", tail(&printed)),
        Some(status) => bail!("{status}: {}", tail(&printed)),
        None => bail!("still running after {limit:?}: {}", tail(&printed)),
    }
}

/// Waits for a process to end, soon found out for a short one, and seldom looked at for a long one:
/// what the guest executes meanwhile may be counted.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let waited = begun.elapsed();
        if waited >= limit {
            return Ok(None);
        }
        let pause = (waited / 16).clamp(Duration::from_millis(2), Duration::from_millis(100));
        std::thread::sleep(pause);
    }
}

/// What the process prints goes to a file: a pipe would be held open by whatever it leaves behind.
struct Printed {
    path: PathBuf,
    file: File,
}

impl Printed {
    fn create() -> Result<Self> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("zbd-printed-{}-{number}", std::process::id()));
        let file = File::options().append(true).create_new(true).open(&path)?;
        Ok(Self { path, file })
    }

    fn take(self) -> String {
        let printed = fs::read(&self.path).unwrap_or_default();
        let _ = fs::remove_file(&self.path);
        String::from_utf8_lossy(&printed).into_owned()
    }
}

/// The last lines of what was printed.
fn tail(printed: &str) -> String {
    let lines: Vec<&str> = printed.trim_end().lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Result<()> {
        run(Command::new("sh").args(["-c", script]), limit)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn failure_carries_what_was_printed() {
        assert!(shell("echo fine", LONG).is_ok());
        let failure = shell("echo oh dear >&2; exit 1", LONG).unwrap_err();
        assert_eq!(failure.to_string(), "oh dear");
    }

    #[test]
    fn crash_is_reported_with_its_signal() {
        let failure = shell("echo before; kill -SEGV $$", LONG)
            .unwrap_err()
            .to_string();
        assert!(
            failure.contains("signal: 11") && failure.contains("before"),
            "{failure}"
        );
    }

    #[test]
    fn process_that_does_not_end_is_ended_with_all_it_started() {
        let start = Instant::now();
        let failure = shell(
            "sleep 60 & echo waiting; sleep 60",
            Duration::from_millis(300),
        )
        .unwrap_err();
        assert!(failure.to_string().contains("still running"), "{failure}");
        assert!(start.elapsed() < LONG);
    }
}

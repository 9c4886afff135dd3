//! The benchmark program of `zbd-core`, run by itself or under valgrind.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::step::{cargo, output, step};

/// The program, built.
pub(crate) struct Program(PathBuf);

impl Program {
    pub(crate) fn build() -> Result<Self> {
        if Command::new("valgrind").arg("--version").output().is_err() {
            bail!("valgrind is missing; install it (Debian: apt-get install valgrind)");
        }
        let mut program = None;
        step("build", || {
            let built = output(&mut cargo(&[
                "bench",
                "--package",
                "zbd-core",
                "--bench",
                "requests",
                "--no-run",
                "--message-format=json",
            ]))?;
            program = built.lines().rev().find_map(executable);
            Ok(())
        })?;
        let program = program.context("cargo did not say where the benchmark is")?;
        Ok(Self(program))
    }

    /// What it prints.
    pub(crate) fn print(&self, arguments: &str) -> Result<String> {
        output(Command::new(&self.0).args(arguments.split(' ')))
    }

    /// Instructions in the functions whose names begin with `counted_`.
    pub(crate) fn instructions(&self, arguments: &str) -> Result<f64> {
        let log = self.valgrind(
            &[
                "--tool=callgrind",
                "--callgrind-out-file=/dev/null",
                "--toggle-collect=*counted_*",
            ],
            arguments,
        )?;
        let collected = log
            .lines()
            .find_map(|line| line.split_once("Collected :"))
            .and_then(|(_, count)| count.trim().parse().ok());
        collected.with_context(|| format!("callgrind did not say what it counted:\n{log}"))
    }

    /// System calls between the two that the program marks the beginning and the end with.
    pub(crate) fn system_calls(&self, arguments: &str) -> Result<usize> {
        let log = self.valgrind(&["--tool=none", "--trace-syscalls=yes"], arguments)?;
        let mut marks = 0;
        let mut calls = 0;
        for line in log.lines().filter(|line| line.contains("SYSCALL[")) {
            if line.contains("sys_getppid") {
                marks += 1;
            } else if marks == 1
                && !line.contains(") ... [async]")
                && !line.contains("sys_clock_gettime")
            {
                // A call that blocks has a second line, when it returns. Reading the clock is a system
                // call under valgrind only, which has no vDSO.
                calls += 1;
            }
        }
        if marks != 2 {
            bail!("valgrind traced {marks} marks, not two:\n{log}");
        }
        Ok(calls)
    }

    fn valgrind(&self, options: &[&str], arguments: &str) -> Result<String> {
        let done = Command::new("valgrind")
            .args(options)
            .arg(&self.0)
            .args(arguments.split(' '))
            .output()
            .context("cannot start valgrind")?;
        let log = String::from_utf8_lossy(&done.stderr).into_owned();
        if !done.status.success() {
            bail!("{arguments}: {}\n{log}", done.status);
        }
        Ok(log)
    }
}

/// The program that a line of cargo's JSON names, if it does.
fn executable(line: &str) -> Option<PathBuf> {
    let (_, rest) = line.split_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(path.into())
}

/// The number that follows `name` in a line of words.
pub(crate) fn number(line: &str, name: &str) -> Result<f64> {
    let mut words = line.split_whitespace();
    let found = words.by_ref().any(|word| word == name);
    let value = words.next().filter(|_| found);
    value
        .and_then(|value| value.parse().ok())
        .with_context(|| format!("no {name} in {line:?}"))
}

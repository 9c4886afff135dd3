//! The tool, run as people run it: arguments in; exit status, standard output and errors out.

use std::fmt;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Where it lies in the guest.
pub const PATH: &str = "/bin/zbd-bench";

/// A user who is not root.
pub const USER: u32 = 1000;

/// The tool with arguments, split at spaces.
#[must_use]
pub fn command(arguments: &str) -> Command {
    let mut command = Command::new(PATH);
    command
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs the tool as root.
///
/// # Errors
/// If it cannot be started.
pub fn run(arguments: &str) -> Result<Ended> {
    Ended::of(arguments, &mut command(arguments))
}

/// Runs the tool as [`USER`].
///
/// # Errors
/// If it cannot be started.
pub fn run_as_user(arguments: &str) -> Result<Ended> {
    Ended::of(arguments, command(arguments).uid(USER).gid(USER))
}

/// What came of it.
pub struct Ended {
    arguments: String,
    code: Option<i32>,
    printed: String,
    errors: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            arguments,
            code,
            printed,
            errors,
        } = self;
        write!(
            f,
            "`zbd-bench {arguments}` ended with {code:?}, printed `{printed}` and complained `{errors}`"
        )
    }
}

impl Ended {
    fn of(arguments: &str, command: &mut Command) -> Result<Self> {
        let output = command.output().context(PATH)?;
        Self::from_output(arguments, output)
    }

    /// What came of a process that was started with [`command`].
    ///
    /// # Errors
    /// If it printed anything but text.
    pub fn from_output(arguments: &str, output: Output) -> Result<Self> {
        Ok(Self {
            arguments: arguments.into(),
            code: output.status.code(),
            printed: String::from_utf8(output.stdout)?,
            errors: String::from_utf8(output.stderr)?,
        })
    }

    /// What it printed, if it succeeded without a word of complaint.
    ///
    /// # Errors
    /// With what it complained of.
    pub fn printed(&self) -> Result<&str> {
        ensure!(self.code == Some(0) && self.errors.is_empty(), "{self}");
        Ok(&self.printed)
    }

    /// What it printed, if it ended with `code` and one line of complaint that contains `words`.
    ///
    /// # Errors
    /// With what it did instead.
    pub fn printed_with(&self, code: i32, words: &str) -> Result<&str> {
        let line = self.errors.strip_suffix('\n').unwrap_or(&self.errors);
        let complains = line.starts_with("zbd-bench: ") && !line.contains('\n');
        ensure!(
            self.code == Some(code) && complains && line.contains(words),
            "not {code}: {self}"
        );
        Ok(&self.printed)
    }

    /// What it printed, as JSON.
    ///
    /// # Errors
    /// As [`printed`](Self::printed), and if it is none.
    pub fn json(&self) -> Result<Value> {
        let value: Value = serde_json::from_str(self.printed()?)?;
        ensure!(value["schema"] == "zbd-bench/1", "{value}");
        Ok(value)
    }

    /// What it printed, as JSON, if it succeeded with one warning that contains all of `words`.
    ///
    /// # Errors
    /// As [`json`](Self::json), or with what it warned of instead.
    pub fn json_with_warning(&self, words: &[&str]) -> Result<Value> {
        let line = self.errors.strip_suffix('\n').unwrap_or(&self.errors);
        ensure!(
            line.starts_with("zbd-bench: warning: ") && !line.contains('\n'),
            "not one warning: {self}"
        );
        for word in words {
            ensure!(line.contains(word), "`{word}` is missing: {self}");
        }
        let quiet = Self {
            arguments: self.arguments.clone(),
            code: self.code,
            printed: self.printed.clone(),
            errors: String::new(),
        };
        quiet.json()
    }

    /// Passes if it failed with `code`, printed nothing, and said why on one line that contains all
    /// of `words`.
    ///
    /// # Errors
    /// With what it did instead.
    pub fn refused(&self, code: i32, words: &[&str]) -> Result<()> {
        let line = self.errors.strip_suffix('\n').unwrap_or(&self.errors);
        ensure!(self.code == Some(code), "not {code}: {self}");
        ensure!(self.printed.is_empty(), "{self}");
        ensure!(
            line.starts_with("zbd-bench: ") && !line.contains('\n'),
            "not one line: {self}"
        );
        for word in words {
            ensure!(line.contains(word), "`{word}` is missing: {self}");
        }
        Ok(())
    }
}

//! Why the tool ends with another status than 0.

use std::{error::Error, process::ExitCode};

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapKind};
use zbd_core::{DeviceSpec, ErrorKind};

use crate::cli;

/// The statuses that are not success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// I/O or verification failed.
    Io = 1,
    /// The command line is wrong, or a value is outside the device's limits.
    Usage = 2,
    /// The device cannot be opened or cannot do what is asked.
    Device = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What was going on when a device refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum During {
    /// It was being opened.
    Opening,
    /// It was open.
    Use,
}

/// An exit status and the one line that explains it.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message.into())
    }

    pub(crate) fn device(message: impl Into<String>) -> Self {
        Self::new(Exit::Device, message.into())
    }

    pub(crate) fn io(message: impl Into<String>) -> Self {
        Self::new(Exit::Io, message.into())
    }

    /// The failure that an error of the device is, with all its causes.
    pub(crate) fn from_device(during: During, error: &zbd_core::Error) -> Self {
        Self::new(exit_for(during, error.kind()), chain(error))
    }

    /// The same, after what could not be done.
    pub(crate) fn doing(what: &str, error: &zbd_core::Error) -> Self {
        let text = format!("cannot {what}: {}", chain(error));
        Self::new(exit_for(During::Use, error.kind()), text)
    }

    /// The same failure, of one of several jobs.
    pub(crate) fn of_job(self, name: &str) -> Self {
        Self::new(self.exit, format!("{name}: {}", self.message))
    }

    /// What clap has to say, on one line.
    pub(crate) fn from_command_line(error: &clap::Error) -> Self {
        if error.kind() == ClapKind::DisplayHelpOnMissingArgumentOrSubcommand {
            return Self::usage(format!("a command is missing; see {}", cli::help()));
        }
        // The cause comes first, then tips, then the usage, each after an empty line.
        let text = error.render().to_string();
        let mut parts: Vec<_> = text
            .split("\n\n")
            .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more"))
            .map(|part| part.replacen("error: ", "", 1).replace("tip: ", ""))
            .filter(|part| !part.is_empty())
            .collect();
        if let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg)
            && argument.parse::<DeviceSpec>().is_ok()
        {
            parts.push(format!("give the device as --device {argument}"));
        }
        parts.push(format!("see {}", cli::help()));
        Self::new(Exit::Usage, parts.join("; "))
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    fn new(exit: Exit, message: String) -> Self {
        Self {
            exit,
            message: message.replace('\n', " "),
        }
    }
}

/// The exit status for an error of the device: the one place where that is decided.
fn exit_for(during: During, kind: ErrorKind) -> Exit {
    match (during, kind) {
        (_, ErrorKind::InvalidSpec | ErrorKind::InvalidRequest) => Exit::Usage,
        (During::Opening, _) => Exit::Device,
        (During::Use, ErrorKind::Unsupported | ErrorKind::ReadOnly | ErrorKind::OutOfMemory) => {
            Exit::Device
        }
        (During::Use, _) => Exit::Io,
    }
}

/// The text of an error and of everything that caused it.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_causes_follow_the_error() {
        let cause = zbd_core::Error::new(ErrorKind::Io, "the cause");
        let error = zbd_core::Error::new(ErrorKind::OutOfMemory, "no\nmemory").with_source(cause);
        let failure = Failure::from_device(During::Use, &error);
        assert_eq!(failure.message(), "no memory: the cause");
        assert_eq!(failure.exit(), Exit::Device);
    }

    #[test]
    fn a_value_outside_the_limits_is_a_usage_error() {
        assert_eq!(
            exit_for(During::Opening, ErrorKind::InvalidRequest),
            Exit::Usage
        );
        assert_eq!(exit_for(During::Opening, ErrorKind::Medium), Exit::Device);
        assert_eq!(exit_for(During::Use, ErrorKind::Medium), Exit::Io);
    }
}

//! The error of this crate: what went wrong, in which words, and why.

use std::{error, fmt};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn error::Error + Send + Sync>;

/// What a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such function, or it is not the kind of device asked for.
    NotFound,
    /// The caller may not open the device or lock the memory it needs.
    PermissionDenied,
    /// Another process or another driver holds the device.
    Busy,
    /// The function shares an isolation group with functions that are not bound to vfio-pci.
    GroupNotViable,
    /// The device or the platform lacks something that is needed.
    Unsupported,
    /// An argument is outside what the device allows.
    InvalidInput,
    /// No DMA memory, lockable memory or address space is left.
    OutOfMemory,
    /// The device broke the specification; it can no longer be trusted.
    Protocol,
    /// The device has gone.
    DeviceGone,
    /// The device has failed and asks for a reset.
    NeedsReset,
    /// The device did not answer in time.
    Timeout,
    /// The operating system reported an error that has no kind of its own here.
    Io,
}

/// An error with its kind, its context and what caused it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    context: String,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind`; `context` says what failed and, where there is one, the remedy.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            context: context.into(),
            source: None,
        }))
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The context and the cause, for an error of a higher layer to carry on.
    pub fn into_parts(self) -> (String, Option<Box<dyn error::Error + Send + Sync>>) {
        (self.0.context, self.0.source)
    }

    /// What a caller can act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("context", &self.0.context)
            .field("source", &self.0.source)
            .finish()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|e| e as &(dyn error::Error + 'static))
    }
}

//! What goes wrong, in SlateDB's kinds.

use std::fmt;
use std::sync::Arc;

use slatedb::wal::WalError;
use zbd_core::{Error, ErrorKind};

/// An error of the log or its device, in the kind on which SlateDB acts.
///
/// SlateDB prints the error that it is given, but not the errors under it; so the text has them all.
pub(crate) fn wal_error(error: &Error) -> WalError {
    let text = Arc::new(Explained::of(error));
    match error.kind() {
        ErrorKind::Fenced => WalError::Fenced,
        ErrorKind::Corrupt | ErrorKind::Protocol => WalError::DataError(text),
        ErrorKind::InvalidRequest | ErrorKind::Unsupported | ErrorKind::InvalidSpec => {
            WalError::InternalError(text)
        }
        _ => WalError::Unavailable(text),
    }
}

/// Stored data that cannot be this database's log, or are damaged.
pub(crate) fn data_error(what: impl Into<String>) -> WalError {
    WalError::DataError(Arc::new(Explained(what.into())))
}

/// A mistake of this process.
pub(crate) fn internal_error(what: impl Into<String>) -> WalError {
    WalError::InternalError(Arc::new(Explained(what.into())))
}

/// Something that may work later.
pub(crate) fn unavailable(what: impl Into<String>) -> WalError {
    WalError::Unavailable(Arc::new(Explained(what.into())))
}

/// An error's text with those of its causes. Unlike the error, it holds no buffer of the device and
/// can be shared.
#[derive(Debug)]
struct Explained(String);

impl Explained {
    fn of(error: &Error) -> Self {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(below) = cause {
            text.push_str(": ");
            text.push_str(&below.to_string());
            cause = below.source();
        }
        Self(text)
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Explained {}

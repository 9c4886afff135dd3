//! The error of this crate: a kind to act on, words to read, a cause, and the buffer back.

use std::{error, fmt};

use vfio_virtio::DmaBuffer;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn error::Error + Send + Sync>;

/// What a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such device, or it is not a block device.
    NotFound,
    /// The caller may not open the device or lock the memory it needs.
    PermissionDenied,
    /// Another process or another driver holds the device.
    Busy,
    /// The function shares an isolation group with functions that are not bound to vfio-pci.
    GroupNotViable,
    /// The device cannot do what is asked, in principle.
    Unsupported,
    /// A device string or option is malformed.
    InvalidSpec,
    /// A request is outside what the device allows; the device has not seen it.
    InvalidRequest,
    /// The device cannot be written.
    ReadOnly,
    /// All slots of the queue are in use; poll and submit again.
    QueueFull,
    /// No DMA memory, lockable memory or address space is left.
    OutOfMemory,
    /// The device could not read or write its medium (VIRTIO_BLK_S_IOERR).
    Medium,
    /// The zone is not in a state in which the command can be carried out: for an append or a
    /// write most often because the zone is full (VIRTIO_BLK_S_ZONE_INVALID_CMD).
    InvalidZoneState,
    /// A write began elsewhere than at the zone's write pointer, or an append was not aligned
    /// (VIRTIO_BLK_S_ZONE_UNALIGNED_WP).
    UnalignedWritePointer,
    /// As many zones are open as the device allows (VIRTIO_BLK_S_ZONE_OPEN_RESOURCE).
    OpenLimit,
    /// As many zones are active as the device allows (VIRTIO_BLK_S_ZONE_ACTIVE_RESOURCE).
    ActiveLimit,
    /// The device broke the specification; what it says can no longer be trusted.
    Protocol,
    /// The device has gone or has been closed.
    DeviceGone,
    /// The device has failed and asks to be reset; see
    /// [`IoQueue::recover`](crate::IoQueue::recover).
    NeedsReset,
    /// The request was ended by a reset of the device. Whether it was carried out is not known.
    DeviceReset,
    /// The device did not answer in time. Whether a request was carried out, or still will be, is
    /// not known.
    Timeout,
    /// All zones of a [`ZoneLog`](crate::ZoneLog) hold records that are still wanted; trim it.
    LogFull,
    /// A [`ZoneLog`](crate::ZoneLog) has been opened anew, and this handle is no longer its writer.
    Fenced,
    /// What is stored is not what was written: a record that was durable is missing or damaged.
    Corrupt,
    /// The operating system reported an error that has no kind of its own here.
    Io,
}

/// An error with its kind, its context, what caused it and, for a request, its buffer.
///
/// It is one pointer wide, so results stay small.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    context: String,
    source: Option<Source>,
    buffer: Option<DmaBuffer>,
}

impl Error {
    /// An error of `kind`; `context` says what failed and, where there is one, the remedy.
    #[cold]
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            context: context.into(),
            source: None,
            buffer: None,
        }))
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error with `buffer` in the place of what it had.
    #[must_use]
    pub(crate) fn with_buffer(mut self, buffer: Option<DmaBuffer>) -> Self {
        self.0.buffer = buffer;
        self
    }

    /// What a caller can act on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The buffer of the request that failed.
    ///
    /// `None` if the request had none, and where the device may still be using it: after
    /// [`ErrorKind::Timeout`] it goes back to the pool by itself when the device has returned it or
    /// has been reset; after [`ErrorKind::Protocol`], [`ErrorKind::NeedsReset`] or
    /// [`ErrorKind::DeviceGone`] when it has been reset; never, if the device has gone or does not
    /// confirm its reset.
    pub fn into_buffer(self) -> Option<DmaBuffer> {
        self.0.buffer
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
            .finish_non_exhaustive()
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

impl From<vfio_virtio::Error> for Error {
    /// Keeps the words and the cause; only the kind is translated.
    fn from(error: vfio_virtio::Error) -> Self {
        use vfio_virtio::ErrorKind as Lower;
        let kind = match error.kind() {
            Lower::NotFound => ErrorKind::NotFound,
            Lower::PermissionDenied => ErrorKind::PermissionDenied,
            Lower::Busy => ErrorKind::Busy,
            Lower::GroupNotViable => ErrorKind::GroupNotViable,
            Lower::Unsupported => ErrorKind::Unsupported,
            Lower::InvalidInput => ErrorKind::InvalidRequest,
            Lower::OutOfMemory => ErrorKind::OutOfMemory,
            Lower::Protocol => ErrorKind::Protocol,
            Lower::DeviceGone => ErrorKind::DeviceGone,
            Lower::NeedsReset => ErrorKind::NeedsReset,
            Lower::Timeout => ErrorKind::Timeout,
            _ => ErrorKind::Io,
        };
        let (context, source) = error.into_parts();
        Self(Box::new(Inner {
            kind,
            context,
            source,
            buffer: None,
        }))
    }
}

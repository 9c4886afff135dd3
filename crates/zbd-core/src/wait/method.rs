//! How a thread sleeps on this system.

use std::{fmt, io};

/// How a thread that has nothing to do sleeps. io_uring where the system has it, else epoll, which
/// does the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitMethod {
    /// In an io_uring that watches the device's interrupt and the submissions of other threads.
    IoUring,
    /// In epoll, because io_uring cannot be used.
    Epoll(NoIoUring),
}

/// Why io_uring is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NoIoUring {
    /// This process may not use it. A container's seccomp profile can allow `io_uring_setup`,
    /// `io_uring_enter` and `io_uring_register`; the sysctl `kernel.io_uring_disabled` must be 0.
    Forbidden,
    /// This kernel has none.
    Missing,
    /// This kernel's lacks what is needed, which Linux 5.13 has.
    TooOld,
    /// It failed with this error number.
    Failed(i32),
}

impl From<&io::Error> for NoIoUring {
    fn from(error: &io::Error) -> Self {
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::PermissionDenied, _) => Self::Forbidden,
            (io::ErrorKind::Unsupported, _) => Self::Missing,
            (_, number) => Self::Failed(number.unwrap_or(0)),
        }
    }
}

impl fmt::Display for WaitMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IoUring => f.write_str("io_uring"),
            Self::Epoll(why) => write!(f, "epoll: {why}"),
        }
    }
}

impl fmt::Display for NoIoUring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forbidden => f.write_str("io_uring is not permitted here (EPERM)"),
            Self::Missing => f.write_str("this kernel has no io_uring (ENOSYS)"),
            Self::TooOld => f.write_str("this kernel's io_uring is older than that of Linux 5.13"),
            Self::Failed(number) => {
                let error = io::Error::from_raw_os_error(*number);
                write!(f, "io_uring fails: {error}")
            }
        }
    }
}

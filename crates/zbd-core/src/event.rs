//! What a device announces while it is open.

use crate::SectorCount;

/// What a device announces while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceEvent {
    /// The device has another size. A device without zones is used with it from now on; one with
    /// zones keeps those that it was opened with, and is to be reopened.
    Resized {
        /// The size that was known.
        before: SectorCount,
        /// The size that the device states now.
        now: SectorCount,
    },
    /// The device has announced a change of its configuration in which nothing changed that is
    /// looked at. Not told apart from a queue's interrupt, and so left out, where both share a
    /// vector.
    ConfigChanged,
    /// The device has failed, asks for a reset or broke the rules: it needs to be
    /// [recovered](crate::IoQueue::recover).
    Failed,
    /// The device has been unplugged, or is wanted back by the kernel, which waits until it is
    /// closed.
    Gone,
    /// The device has been reset and works again.
    Reset,
}

//! What the kernel's errors mean.

use rustix::io::Errno;

use super::{ioctl::RawZone, turns::Pointer};
use crate::{ErrorKind, Sector, SectorCount, ZoneAction, ZoneState};

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// A write, or an append that was one by then.
    Write { at: Sector, len: SectorCount },
    /// A zone command.
    Manage(ZoneAction),
    /// Something that depends on no zone.
    Other,
}

/// A zone as it was reported after a failure, and what of the device may have been the reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) zone: RawZone,
    /// The limit that keeps a zone which is not open from being opened, if one does.
    pub(super) limit: Option<Limit>,
}

/// A limit of the device that has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Open,
    Active,
}

impl Limit {
    /// The limit that keeps `zone` from being opened, given the greatest numbers of open and of
    /// active zones and all `zones`. Zones that are open implicitly are no hindrance: the device
    /// may close one of them.
    pub(super) fn of(
        zone: &RawZone,
        (open, active): (Option<u32>, Option<u32>),
        zones: &[RawZone],
    ) -> Option<Self> {
        let count = |f: &dyn Fn(ZoneState) -> bool| {
            let zones = zones.iter().filter(|zone| zone.state().is_some_and(f));
            zones.count()
        };
        let reached = |limit: Option<u32>, n: usize| limit.is_some_and(|limit| n >= limit as usize);
        let explicitly = |state| state == ZoneState::ExplicitlyOpen;
        match zone.state()? {
            ZoneState::Empty if reached(active, count(&ZoneState::is_active)) => Some(Self::Active),
            ZoneState::Empty | ZoneState::Closed if reached(open, count(&explicitly)) => {
                Some(Self::Open)
            }
            _ => None,
        }
    }

    fn explain(self) -> (ErrorKind, &'static str) {
        match self {
            Self::Open => (
                ErrorKind::OpenLimit,
                "too many zones are open; close or finish one",
            ),
            Self::Active => (
                ErrorKind::ActiveLimit,
                "too many zones are active; finish or reset one",
            ),
        }
    }
}

/// What `errno` means after `attempt`, as a kind and in words. Block devices have one error, EIO,
/// for most of what virtio-blk tells apart; the rest shows in the zone as it was reported
/// afterwards.
pub(super) fn explain(
    errno: Errno,
    attempt: Attempt,
    seen: Option<&Seen>,
) -> (ErrorKind, &'static str) {
    match errno {
        Errno::TOOMANYREFS => Limit::Open.explain(),
        Errno::OVERFLOW => Limit::Active.explain(),
        Errno::ROFS | Errno::PERM | Errno::BADF => {
            (ErrorKind::ReadOnly, "the device cannot be written")
        }
        Errno::NODEV | Errno::NXIO | Errno::SHUTDOWN => {
            (ErrorKind::DeviceGone, "the device is gone")
        }
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS => (
            ErrorKind::Unsupported,
            "the device does not support the request",
        ),
        Errno::TIMEDOUT | Errno::TIME => (
            ErrorKind::Timeout,
            "the device did not answer the kernel in time; whether the request was carried out is not known",
        ),
        Errno::NOMEM => (
            ErrorKind::OutOfMemory,
            "the kernel has no memory for the request",
        ),
        Errno::INVAL => (
            ErrorKind::InvalidRequest,
            "the kernel takes no such request for this device",
        ),
        Errno::NOSPC => (
            ErrorKind::InvalidRequest,
            "it reaches past the end of the device, or the device has no space for it",
        ),
        Errno::CANCELED => (
            ErrorKind::Io,
            "the kernel broke it off, as it does when the thread that committed it has ended; whether it was carried out is not known",
        ),
        Errno::IO | Errno::REMOTEIO | Errno::NODATA | Errno::ILSEQ | Errno::NOLINK => {
            explain_by_zone(attempt, seen).unwrap_or((
                ErrorKind::Medium,
                "the device could not read or write its medium",
            ))
        }
        _ => (ErrorKind::Io, "the kernel reports an error"),
    }
}

fn explain_by_zone(attempt: Attempt, seen: Option<&Seen>) -> Option<(ErrorKind, &'static str)> {
    let Seen { zone, limit } = seen?;
    let state = zone.state()?;
    const STATE: (ErrorKind, &str) = (
        ErrorKind::InvalidZoneState,
        "the zone's type or state does not allow it",
    );
    match attempt {
        Attempt::Write { at, len } => match (zone.pointer(), state) {
            (_, ZoneState::NotWritePointer) => None,
            (Pointer::At(pointer), _) if pointer != at => Some((
                ErrorKind::UnalignedWritePointer,
                "it does not begin at the zone's write pointer",
            )),
            (Pointer::At(_), _) if at + len > zone.end() => Some((
                ErrorKind::InvalidZoneState,
                "it does not fit into what is left of the zone",
            )),
            (Pointer::At(_), _) => limit.map(Limit::explain),
            (Pointer::None | Pointer::Unknown, _) => Some(STATE),
        },
        Attempt::Manage(action) => {
            let is_refused = match state {
                ZoneState::NotWritePointer | ZoneState::ReadOnly | ZoneState::Offline => true,
                ZoneState::Full => matches!(action, ZoneAction::Open | ZoneAction::Close),
                ZoneState::Empty => action == ZoneAction::Close,
                _ => false,
            };
            match (is_refused, action) {
                (true, _) => Some(STATE),
                (false, ZoneAction::Open) => limit.map(Limit::explain),
                (false, _) => None,
            }
        }
        Attempt::Other => None,
    }
}

/// Where an append that failed at `tried` can be tried again: where the zone says that its write
/// pointer is, if somebody else has moved it. An append of which a part may have been written, or
/// which failed where it should have gone, is not.
pub(super) fn second_try(tried: Sector, len: SectorCount, zone: &RawZone) -> Option<Sector> {
    match zone.pointer() {
        Pointer::At(now) if (now < tried || now > tried + len) && now + len <= zone.end() => {
            Some(now)
        }
        _ => None,
    }
}

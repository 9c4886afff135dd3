//! `zbd-bench list`

use std::fs;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use zbd_core::sysfs::{self, Hindrance};

use crate::{
    cli::ListArgs,
    failure::{During, Failure},
    report,
};

/// What opening a device locks at the least.
const LOCKED_LEN: u64 = 4 << 20;

/// Lists the virtio-blk functions of this machine.
pub(crate) fn list(args: &ListArgs) -> Result<(), Failure> {
    let functions =
        sysfs::functions().map_err(|error| Failure::from_device(During::Opening, &error.into()))?;
    report::functions::functions(&functions, locking().as_ref(), args.format)
}

/// What keeps this process from locking enough memory for any device.
fn locking() -> Option<Hindrance> {
    let (limit, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    hindrance(limit, &status)
}

/// The same, under this limit and with what the kernel says of the process.
fn hindrance(limit: u64, status: &str) -> Option<Hindrance> {
    /// CAP_IPC_LOCK: whoever has it is not limited.
    const MAY_LOCK: u64 = 1 << 14;
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let limited = capabilities.unwrap_or(0) & MAY_LOCK == 0;
    let needed = LOCKED_LEN >> 10;
    (limited && limit != RLIM_INFINITY && limit < LOCKED_LEN).then(|| {
        Hindrance::new(
            format!(
                "this user may lock {} KiB of memory, and {needed} KiB are needed",
                limit >> 10
            ),
            format!("ulimit -l {needed} or more, or LimitMEMLOCK= of the systemd unit"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_low_a_limit_hinders_those_who_are_bound_by_it() {
        let user = "Name:\tzbd\nCapEff:\t0000000000000000\n";
        let found = hindrance(64 << 10, user).unwrap();
        assert!(found.cause.contains("64 KiB"), "{found:?}");
        assert!(found.remedy.contains("ulimit -l 4096"), "{found:?}");
        assert_eq!(hindrance(LOCKED_LEN, user), None);
        assert_eq!(hindrance(RLIM_INFINITY, user), None);
        assert_eq!(hindrance(0, "CapEff:\t0000000000004000\n"), None);
    }
}

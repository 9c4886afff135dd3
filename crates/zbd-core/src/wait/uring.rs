//! Sleeping in an io_uring.

#![expect(
    unsafe_code,
    reason = "io_uring's submission and enter are unsafe to call"
)]

use std::{io, time::Duration};

use io_uring::{
    EnterFlags, IoUring, Parameters, cqueue, opcode,
    types::{Fd, SubmitArgs, Timespec},
};
use libc::{EAGAIN, EBUSY, EINTR, ETIME};

use super::{method::NoIoUring, sleeper::Watched};

const POLLIN: u32 = libc::POLLIN as u32;

/// How the ring is set up.
#[derive(Clone, Copy)]
pub(super) enum Setup {
    /// As this kernel has it best.
    Best,
    /// As kernels before 6.1 have it.
    #[cfg(test)]
    Plain { completions: u32 },
}

/// An io_uring with a multishot poll request on each watched descriptor.
///
/// Such a request completes once for each edge, however many sleeps there are between, and completes
/// at once if the descriptor is readable when it is made. It can end, for one when completions
/// overflow, and is then made anew before the next sleep; a signal between the two finds the
/// descriptor readable.
pub(super) struct PollRing {
    ring: IoUring,
    /// Whether each descriptor has a request that has not ended.
    is_armed: Vec<bool>,
    is_enabled: bool,
    enter: EnterFlags,
}

impl PollRing {
    /// A ring for `watched` descriptors, which the first thread that sleeps in it owns.
    pub(super) fn new(watched: usize, setup: Setup) -> Result<Self, NoIoUring> {
        let ring = build(watched, setup).map_err(|error| NoIoUring::from(&error))?;
        let features = ring.params();
        if !is_sufficient(features) {
            return Err(NoIoUring::TooOld);
        }
        let mut enter = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        // Else a thread that sleeps here counts as one that waits for a disk, and its processor as
        // busy.
        if features.is_feature_no_iowait() {
            enter |= EnterFlags::NO_IOWAIT;
        }
        Ok(Self {
            ring,
            is_armed: vec![false; watched],
            is_enabled: false,
            enter,
        })
    }

    /// Sleeps until there is a completion, or for `timeout`.
    ///
    /// # Errors
    /// If the ring can no longer be used.
    pub(super) fn sleep(&mut self, watched: &[Watched], timeout: Duration) -> io::Result<()> {
        if !self.is_enabled {
            // From here on the ring belongs to this thread.
            self.ring.submitter().register_enable_rings()?;
            self.is_enabled = true;
        }
        self.arm(watched)?;
        let timeout = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&timeout);
        let to_submit = self.ring.submission().len() as u32;
        // SAFETY: EXT_ARG makes the kernel read `args` as what it is, which, like the `timeout` that
        // it points to, lives until the call returns. All that is submitted is poll requests, which
        // refer to no memory.
        let entered = unsafe {
            let submitter = self.ring.submitter();
            submitter.enter(to_submit, 1, self.enter.bits(), Some(&args))
        };
        match entered.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => {}
            // The time is up; or a signal has come; or the kernel is short of memory, or of room
            // for completions, which are about to be taken. All of them mean: look, come again.
            Err((Some(ETIME | EINTR | EAGAIN | EBUSY), _)) => {}
            Err((_, error)) => return Err(error),
        }
        self.take_completions()
    }

    /// Makes the requests that have ended anew.
    fn arm(&mut self, watched: &[Watched]) -> io::Result<()> {
        for (index, descriptor) in watched.iter().enumerate() {
            if self.is_armed[index] {
                continue;
            }
            let request = opcode::PollAdd::new(Fd(descriptor.as_raw_fd()), POLLIN)
                .multi(true)
                .build()
                .user_data(index as u64);
            // SAFETY: a poll request refers to no memory.
            unsafe { self.ring.submission().push(&request) }
                .map_err(|_| io::Error::other("io_uring takes no requests"))?;
            self.is_armed[index] = true;
        }
        Ok(())
    }

    fn take_completions(&mut self) -> io::Result<()> {
        for completion in self.ring.completion() {
            if completion.result() < 0 {
                return Err(io::Error::from_raw_os_error(-completion.result()));
            }
            let index = completion.user_data() as usize;
            if !cqueue::more(completion.flags())
                && let Some(is_armed) = self.is_armed.get_mut(index)
            {
                *is_armed = false;
            }
        }
        Ok(())
    }
}

/// Disabled, so that the thread which enables it is its owner, not the one which makes it.
fn build(watched: usize, setup: Setup) -> io::Result<IoUring> {
    let entries = u32::try_from(watched.max(1)).map_err(io::Error::other)?;
    let mut plain = IoUring::builder();
    plain.setup_r_disabled();
    match setup {
        Setup::Best => {
            // Room for several edges of each descriptor: an overflow costs system calls.
            plain.setup_cqsize(entries.saturating_mul(8).next_power_of_two());
            let mut best = plain.clone();
            // Signals are taken note of when the thread enters the ring to sleep, and do not
            // interrupt it meanwhile.
            best.setup_single_issuer().setup_defer_taskrun();
            match best.build(entries) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => plain.build(entries),
                built => built,
            }
        }
        #[cfg(test)]
        Setup::Plain { completions } => plain.setup_cqsize(completions).build(entries),
    }
}

/// Whether waiting takes a timeout, completions are never dropped, and poll requests are multishot:
/// the latter came with resource tagging, in Linux 5.13.
fn is_sufficient(features: &Parameters) -> bool {
    features.is_feature_ext_arg()
        && features.is_feature_nodrop()
        && features.is_feature_resource_tagging()
}

/// Makes a request complete in another ring.
#[cfg(test)]
pub(super) fn complete_one(ring: &mut IoUring) -> io::Result<()> {
    // SAFETY: a request that does nothing refers to no memory.
    unsafe { ring.submission().push(&opcode::Nop::new().build()) }.map_err(io::Error::other)?;
    ring.submit().map(drop)
}

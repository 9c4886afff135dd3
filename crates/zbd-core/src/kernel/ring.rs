#![expect(
    unsafe_code,
    reason = "tells the kernel addresses of buffers that it reads and writes by itself"
)]
//! An io_uring and what is in flight on it.
//!
//! # Why this is sound
//!
//! The kernel reads and writes the memory of a request until it has posted the request's
//! completion. A [`Ring`] takes the buffer of each request by value and gives it back with the
//! completion only, so nobody else reaches the memory meanwhile, and it goes back to no pool. A
//! ring that is dropped waits for its completions, and lets go for ever of the buffers of those that
//! do not come. The memory's mapping outlives all buffers, as each holds its arena.

use std::{
    collections::VecDeque,
    fs::File,
    io, mem,
    os::fd::AsRawFd,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::Errno;
use vfio_virtio::{DmaArena, DmaBuffer, EventFd};

use crate::{Error, ErrorKind, Result};

/// How long a ring that is dropped waits for the kernel.
const PATIENCE: Duration = Duration::from_secs(10);
/// The greatest length of one registered buffer.
const CHUNK: usize = 1 << 30;

/// What is done with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transfer {
    Read,
    Write,
}

/// A request that the kernel has, or is about to get.
struct Flight {
    buffer: Option<DmaBuffer>,
    /// The addresses of the segments of a buffer that has several.
    _pieces: Pieces,
}

#[derive(Default)]
struct Pieces(Box<[libc::iovec]>);

// SAFETY: the addresses are those of the flight's own buffer, and nothing here follows them.
unsafe impl Send for Pieces {}

/// An io_uring, by whose slots requests are told apart.
pub(super) struct Ring {
    ring: IoUring,
    flights: Box<[Option<Flight>]>,
    in_flight: usize,
    /// Pushed, and not yet taken by the kernel.
    pushed: VecDeque<u16>,
    /// Where the registered memory begins; none if the kernel would not have it registered.
    registered: Option<usize>,
    registered_len: usize,
    enters: u64,
    /// The kernel takes no more requests.
    is_broken: bool,
    event: Option<EventFd>,
    /// Last: requests hold the file by its number.
    file: Arc<File>,
}

impl Ring {
    pub(super) fn new(file: Arc<File>, depth: u16, arena: &DmaArena) -> Result<Self> {
        // One bad request must not hold up those that follow it; kernels before 5.18 do not know
        // that, and there the rest is submitted with another call.
        let ring = IoUring::builder()
            .setup_submit_all()
            .build(depth.into())
            .or_else(|error| match error.raw_os_error() {
                Some(libc::EINVAL) => IoUring::new(depth.into()),
                _ => Err(error),
            })
            .map_err(no_ring)?;
        let start = arena.memory().as_ptr();
        let len = arena.len_bytes();
        let chunks: Vec<_> = (0..len)
            .step_by(CHUNK)
            .map(|offset| libc::iovec {
                iov_base: start.wrapping_add(offset).cast(),
                iov_len: CHUNK.min(len - offset),
            })
            .collect();
        // SAFETY: the chunks are the mapping of the arena. The kernel pins its pages, so that they
        // stay pages of this memory for as long as the kernel knows them; what is done with them is
        // up to the requests, each of which owns its part.
        let registered = unsafe { ring.submitter().register_buffers(&chunks) };
        Ok(Self {
            ring,
            flights: (0..depth).map(|_| None).collect(),
            in_flight: 0,
            pushed: VecDeque::with_capacity(depth.into()),
            // Mostly for want of lockable memory. The kernel pins pages by the request then.
            registered: registered.ok().map(|()| start.addr()),
            registered_len: len,
            enters: 0,
            is_broken: false,
            event: None,
            file,
        })
    }

    /// Whether the memory is registered.
    pub(super) fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    /// How often requests were handed to the kernel.
    pub(super) fn enters(&self) -> u64 {
        self.enters
    }

    /// Lets `event` be signalled for each completion from now on.
    pub(super) fn signal(&mut self, event: &EventFd) -> io::Result<()> {
        if self.event.is_none() {
            let event = event.try_clone()?;
            self.ring.submitter().register_eventfd(event.as_raw_fd())?;
            self.event = Some(event);
        }
        Ok(())
    }

    /// Prepares a transfer of all of `buffer` from or to `offset`; the kernel gets it with
    /// [`submit`](Self::submit).
    ///
    /// # Panics
    /// If there is no such slot, or it is in flight.
    pub(super) fn transfer(
        &mut self,
        slot: u16,
        transfer: Transfer,
        offset: u64,
        buffer: DmaBuffer,
    ) {
        let file = types::Fd(self.file.as_raw_fd());
        let (at, len) = (buffer.as_ptr(), buffer.len() as u32);
        let mut pieces = Pieces::default();
        let entry = if !buffer.is_contiguous() {
            // All segments are of one arena; where they are in it is what their addresses tell.
            let (first, first_at) = (buffer.iova().0, at);
            pieces.0 = buffer
                .segments()
                .map(|segment| libc::iovec {
                    iov_base: first_at
                        .wrapping_add(segment.iova.0.wrapping_sub(first) as usize)
                        .cast(),
                    iov_len: segment.len_bytes as usize,
                })
                .collect();
            let (list, count) = (pieces.0.as_ptr(), pieces.0.len() as u32);
            match transfer {
                Transfer::Read => opcode::Readv::new(file, list, count).offset(offset).build(),
                Transfer::Write => opcode::Writev::new(file, list, count)
                    .offset(offset)
                    .build(),
            }
        } else if let Some(index) = self.registered_at(at.addr(), len as usize) {
            match transfer {
                Transfer::Read => opcode::ReadFixed::new(file, at, len, index)
                    .offset(offset)
                    .build(),
                Transfer::Write => opcode::WriteFixed::new(file, at, len, index)
                    .offset(offset)
                    .build(),
            }
        } else {
            match transfer {
                Transfer::Read => opcode::Read::new(file, at, len).offset(offset).build(),
                Transfer::Write => opcode::Write::new(file, at, len).offset(offset).build(),
            }
        };
        let flight = Flight {
            buffer: Some(buffer),
            _pieces: pieces,
        };
        self.push(slot, entry, flight);
    }

    /// Prepares a flush.
    ///
    /// # Panics
    /// As [`transfer`](Self::transfer).
    pub(super) fn flush(&mut self, slot: u16) {
        let entry = opcode::Fsync::new(types::Fd(self.file.as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        let flight = Flight {
            buffer: None,
            _pieces: Pieces::default(),
        };
        self.push(slot, entry, flight);
    }

    /// The registered chunk in which a buffer lies whole.
    fn registered_at(&self, at: usize, len: usize) -> Option<u16> {
        let offset = at.checked_sub(self.registered?)?;
        let end = offset.checked_add(len)?;
        let index = offset / CHUNK;
        (end <= self.registered_len && (end - 1) / CHUNK == index).then_some(index as u16)
    }

    fn push(&mut self, slot: u16, entry: squeue::Entry, flight: Flight) {
        let place = &mut self.flights[usize::from(slot)];
        assert!(place.is_none(), "slot {slot} is in flight");
        *place = Some(flight);
        self.in_flight += 1;
        self.pushed.push_back(slot);
        let entry = entry.user_data(slot.into());
        // SAFETY: the memory that the entry names belongs to the flight, which stays in its place
        // until the completion has come (see the head of this file); the file is open for as long
        // as the ring is there. The buffer was moved, its memory was not.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        // The ring has room for every slot, and a slot has one entry.
        assert!(pushed.is_ok(), "the submission ring has no room");
    }

    /// Hands the kernel all that was prepared. What it does not take now is left for the next time.
    ///
    /// # Errors
    /// When it will never take any more; see [`take_back`](Self::take_back).
    pub(super) fn submit(&mut self) -> io::Result<()> {
        while !self.pushed.is_empty() {
            if self.is_broken {
                return Err(Errno::SHUTDOWN.into());
            }
            match self.ring.submit() {
                Ok(0) => break,
                Ok(taken) => {
                    self.enters += 1;
                    let taken = taken.min(self.pushed.len());
                    self.pushed.drain(..taken);
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // For want of memory or of room in the completion ring, which pass.
                    Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => break,
                    _ => {
                        self.is_broken = true;
                        return Err(error);
                    }
                },
            }
        }
        Ok(())
    }

    /// A request that a broken ring has not handed to the kernel, and never will: its slot and its
    /// buffer.
    pub(super) fn take_back(&mut self) -> Option<(u16, Option<DmaBuffer>)> {
        if !self.is_broken {
            return None;
        }
        let slot = self.pushed.pop_front()?;
        let flight = self.flights[usize::from(slot)].take()?;
        self.in_flight -= 1;
        Some((slot, flight.buffer))
    }

    /// The next request that has ended: its slot, what the kernel says, and its buffer.
    pub(super) fn next(&mut self) -> Option<(u16, Result<u32, Errno>, Option<DmaBuffer>)> {
        loop {
            let entry = self.ring.completion().next()?;
            let slot = entry.user_data() as u16;
            // There are no other entries.
            let Some(flight) = self.flights[usize::from(slot)].take() else {
                continue;
            };
            self.in_flight -= 1;
            let result = match u32::try_from(entry.result()) {
                Ok(done) => Ok(done),
                Err(_) => Err(Errno::from_raw_os_error(entry.result().saturating_neg())),
            };
            return Some((slot, result, flight.buffer));
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // What the kernel has not got it will not get.
        for slot in mem::take(&mut self.pushed) {
            self.flights[usize::from(slot)] = None;
            self.in_flight -= 1;
        }
        let deadline = Instant::now() + PATIENCE;
        while self.in_flight > 0 {
            if self.next().is_some() {
                continue;
            }
            if Instant::now() > deadline {
                tracing::warn!(
                    requests = self.in_flight,
                    "the kernel does not return requests of a block device that is being closed; their memory is kept until the process ends"
                );
                for flight in self.flights.iter_mut().filter_map(Option::take) {
                    mem::forget(flight);
                }
                break;
            }
            thread::sleep(Duration::from_micros(100));
        }
        // At once, and not when the kernel gets round to it: locked memory is limited.
        if self.registered.is_some() {
            let _ = self.ring.submitter().unregister_buffers();
        }
    }
}

/// Why there is no ring, and what helps.
fn no_ring(error: io::Error) -> Error {
    let (kind, what) = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => (
            ErrorKind::PermissionDenied,
            "this process may not use io_uring: set the sysctl kernel.io_uring_disabled to 0, and allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile of its container",
        ),
        Some(libc::ENOSYS) => (
            ErrorKind::Unsupported,
            "there is no io_uring: the kernel is older than 5.6 or built without it, or a seccomp profile hides it, as those of container engines do; allow io_uring_setup, io_uring_enter and io_uring_register there",
        ),
        Some(libc::ENOMEM) => (
            ErrorKind::OutOfMemory,
            "there is no memory for an io_uring: raise the limit of locked memory (ulimit -l)",
        ),
        _ => (ErrorKind::Io, "cannot make an io_uring"),
    };
    Error::new(kind, what).with_source(error)
}

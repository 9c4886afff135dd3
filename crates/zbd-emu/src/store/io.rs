//! Reads, writes and syncs of a file: on io_uring, or by system calls where that is forbidden.
//!
//! Why it is sound: the kernel is told addresses of buffers that a call borrows, and the call does
//! not return, nor unwind, before every request that the kernel took has been completed
//! (`Ring::carry_out`). So no buffer is used by the kernel after its borrow has ended.
#![expect(unsafe_code, reason = "io_uring is told the addresses of buffers")]

use std::{
    fs::File,
    io,
    ops::Range,
    os::{fd::AsRawFd, unix::fs::FileExt},
    thread,
};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::{
    fs::{FallocateFlags, FlockOperation, fallocate, flock},
    io::Errno,
};

/// How many requests the kernel has at a time.
const ENTRIES: u32 = 32;
/// The longest request: a part of a long write is done while the next is waited for.
const PIECE_BYTES: usize = 1 << 20;
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

/// What carries the requests of a file out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreIo {
    /// io_uring.
    IoUring,
    /// System calls, each waited for, because the kernel refused an io_uring.
    Syscalls,
}

/// A file and the way to it.
#[derive(Debug)]
pub(crate) struct Io {
    file: File,
    ring: Option<Ring>,
}

impl Io {
    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            // ENOSYS, EPERM and want of memory alike: the other way always works.
            ring: IoUring::new(ENTRIES).ok().map(Ring),
        }
    }

    pub(crate) fn kind(&self) -> StoreIo {
        match self.ring {
            Some(_) => StoreIo::IoUring,
            None => StoreIo::Syscalls,
        }
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Fills `buffer` with what the file holds from `at` on.
    pub(crate) fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let len = buffer.len();
        let mut done = false;
        if let (Some(ring), Ok(short)) = (&mut self.ring, u32::try_from(len)) {
            let fd = types::Fd(self.file.as_raw_fd());
            let address = buffer.as_mut_ptr();
            let carried_out = ring.carry_out(
                1,
                |_| opcode::Read::new(fd, address, short).offset(at).build(),
                |_, result| done = usize::try_from(result) == Ok(len),
            );
            if carried_out.is_err() {
                self.ring = None;
            }
        }
        if done {
            return Ok(());
        }
        // What the ring did not do whole is done by a system call, which says what is wrong.
        self.file.read_exact_at(buffer, at)
    }

    /// Writes each of `writes`, in any order.
    pub(crate) fn write(&mut self, writes: &[(u64, &[u8])]) -> io::Result<()> {
        let pieces: Vec<(u64, &[u8])> = writes
            .iter()
            .flat_map(|(at, data)| {
                let starts = (*at..).step_by(PIECE_BYTES);
                starts.zip(data.chunks(PIECE_BYTES))
            })
            .collect();
        let mut done = vec![false; pieces.len()];
        if let Some(ring) = &mut self.ring {
            let fd = types::Fd(self.file.as_raw_fd());
            let carried_out = ring.carry_out(
                pieces.len(),
                |index| {
                    let (at, data) = pieces[index];
                    // No longer than PIECE_BYTES.
                    opcode::Write::new(fd, data.as_ptr(), data.len() as u32)
                        .offset(at)
                        .build()
                },
                |index, result| {
                    done[index] = usize::try_from(result) == Ok(pieces[index].1.len());
                },
            );
            if carried_out.is_err() {
                self.ring = None;
            }
        }
        for ((at, data), done) in pieces.into_iter().zip(done) {
            if !done {
                self.file.write_all_at(data, at)?;
            }
        }
        Ok(())
    }

    /// Makes everything that was written durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let mut outcome = None;
        if let Some(ring) = &mut self.ring {
            let fd = types::Fd(self.file.as_raw_fd());
            let carried_out = ring.carry_out(
                1,
                |_| {
                    opcode::Fsync::new(fd)
                        .flags(types::FsyncFlags::DATASYNC)
                        .build()
                },
                |_, result| outcome = Some(result),
            );
            if carried_out.is_err() {
                self.ring = None;
            }
        }
        match outcome {
            // The kernel tells of data that it could not write once: a second sync would succeed.
            Some(result) if result < 0 => Err(io::Error::from_raw_os_error(-result)),
            Some(_) => Ok(()),
            None => self.file.sync_data(),
        }
    }

    /// Makes a range of the file zero, and gives its space back where the file system can.
    pub(crate) fn zero(&mut self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, flags, range.start, range.end - range.start) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let mut at = range.start;
                while at < range.end {
                    let len = (range.end - at).min(ZEROES.len() as u64);
                    self.file.write_all_at(&ZEROES[..len as usize], at)?;
                    at += len;
                }
                Ok(())
            }
            Err(e) => Err(e.into()),
        }
    }
}

impl Drop for Io {
    /// Lets go of the lock on the file even while someone else, such as a process that was forked
    /// and has not begun its program, has it open too.
    fn drop(&mut self) {
        // Closing the file is all that can be done after an error.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// An io_uring in which nothing is in flight between two calls.
struct Ring(IoUring);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ring")
    }
}

impl Ring {
    /// Carries out the requests that `entry` makes of the numbers up to `count` and tells `finish`
    /// how each ended. After an error some were not carried out, and the ring must be dropped: it
    /// may hold requests that the kernel has not seen.
    fn carry_out(
        &mut self,
        count: usize,
        entry: impl Fn(usize) -> squeue::Entry,
        mut finish: impl FnMut(usize, i32),
    ) -> io::Result<()> {
        let mut next = 0;
        let mut in_flight = 0;
        loop {
            while next < count && in_flight < ENTRIES as usize {
                let request = entry(next).user_data(next as u64);
                // SAFETY: `request` reads or writes a buffer that the caller of this function, a
                // method of `Io`, borrows until this function returns. It returns when nothing
                // that the kernel took is in flight any more, and what the kernel did not take is
                // dropped with the ring. Neither closure panics: indices are below `count`.
                // The tests of the file store compare every byte that comes back.
                if unsafe { self.0.submission().push(&request) }.is_err() {
                    break;
                }
                next += 1;
                in_flight += 1;
            }
            if in_flight == 0 {
                return Ok(());
            }
            match self.0.submit_and_wait(1) {
                Ok(_) => {}
                Err(e) if is_passing(&e) => thread::yield_now(),
                Err(e) => {
                    let unseen = self.0.submission().len();
                    while in_flight > unseen {
                        in_flight -= self.reap(&mut finish);
                        thread::yield_now();
                    }
                    return Err(e);
                }
            }
            in_flight -= self.reap(&mut finish);
        }
    }

    fn reap(&mut self, finish: &mut impl FnMut(usize, i32)) -> usize {
        let mut reaped = 0;
        for completion in self.0.completion() {
            finish(completion.user_data() as usize, completion.result());
            reaped += 1;
        }
        reaped
    }
}

fn is_passing(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(code, Some(Errno::INTR | Errno::AGAIN | Errno::BUSY))
}

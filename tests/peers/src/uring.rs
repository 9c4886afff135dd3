//! The kernel's own driver, through io_uring.
#![expect(unsafe_code, reason = "io_uring takes memory by address")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::ptr;

use anyhow::{Context as _, Result, ensure};
use io_uring::{IoUring, opcode, types};

use crate::{BLOCK, Operation, Queue};

/// How often the kernel is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    OneEach,
    OneABatch,
}

/// A ring and its buffers.
pub(crate) struct Ring {
    ring: IoUring,
    calls: Calls,
    /// Mapped until the process ends.
    buffers: *mut u8,
    _file: File,
}

impl Ring {
    pub(crate) fn open(node: &str, depth: usize, calls: Calls) -> Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(node)
            .context(node.to_owned())?;
        let len = depth * BLOCK;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let buffers = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, -1, 0) };
        ensure!(buffers != libc::MAP_FAILED, "no memory for {depth} buffers");
        let buffers: *mut u8 = buffers.cast();
        let ring = IoUring::new(u32::try_from(depth)?).context("io_uring")?;
        let each: Vec<libc::iovec> = (0..depth)
            .map(|i| libc::iovec {
                iov_base: buffers.wrapping_add(i * BLOCK).cast(),
                iov_len: BLOCK,
            })
            .collect();
        // SAFETY: the buffers stay mapped until the process ends, and with it the ring.
        unsafe { ring.submitter().register_buffers(&each)? };
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Self {
            ring,
            calls,
            buffers,
            _file: file,
        })
    }
}

impl Queue for Ring {
    fn submit(&mut self, operation: Operation, offset: u64, buffer: usize) -> Result<()> {
        let at = self.buffers.wrapping_add(buffer * BLOCK);
        let (file, len, index) = (types::Fixed(0), BLOCK as u32, buffer as u16);
        let entry = match operation {
            Operation::Write => opcode::WriteFixed::new(file, at, len, index)
                .offset(offset)
                .build(),
            Operation::Read => opcode::ReadFixed::new(file, at, len, index)
                .offset(offset)
                .build(),
        };
        // SAFETY: the buffer is registered, and this request's until it comes back.
        unsafe {
            self.ring
                .submission()
                .push(&entry.user_data(buffer as u64))?
        };
        if self.calls == Calls::OneEach {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn wait(&mut self, free: &mut Vec<usize>) -> Result<()> {
        self.ring.submit_and_wait(1)?;
        for completion in self.ring.completion() {
            let result = completion.result();
            ensure!(result == BLOCK as i32, "a request failed: {result}");
            free.push(completion.user_data() as usize);
        }
        Ok(())
    }
}

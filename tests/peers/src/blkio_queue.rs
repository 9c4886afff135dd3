//! libblkio's virtio-blk driver over VFIO.
#![expect(unsafe_code, reason = "libblkio takes memory by address")]

use std::mem::MaybeUninit;
use std::ptr;

use anyhow::{Context as _, Result, ensure};
use blkio::{Blkio, Blkioq, Completion, MemoryRegion, ReqFlags};

use crate::{BLOCK, Operation, Queue};

/// A queue that is polled, and its buffers.
pub(crate) struct Polled {
    queue: Blkioq,
    completions: Vec<MaybeUninit<Completion>>,
    buffers: MemoryRegion,
    /// Owns the function and the buffers.
    _device: Blkio,
}

impl Polled {
    pub(crate) fn open(directory: &str, depth: usize) -> Result<Self> {
        let mut device = Blkio::new("virtio-blk-vfio-pci")?;
        device.set_str("path", directory)?;
        device.connect().context(directory.to_owned())?;
        device.set_i32("num-queues", 0)?;
        device.set_i32("num-poll-queues", 1)?;
        let mut started = device.start()?;
        let queue = started.poll_queues.pop().context("no queue")?;
        let buffers = device.alloc_mem_region(depth * BLOCK)?;
        // SAFETY: the region is so long, and nobody else has it yet.
        unsafe { ptr::write_bytes(buffers.addr as *mut u8, 0xa5, depth * BLOCK) };
        device.map_mem_region(&buffers)?;
        Ok(Self {
            queue,
            completions: (0..depth).map(|_| MaybeUninit::uninit()).collect(),
            buffers,
            _device: device,
        })
    }
}

impl Queue for Polled {
    fn submit(&mut self, operation: Operation, offset: u64, buffer: usize) -> Result<()> {
        let at = self.buffers.addr + buffer * BLOCK;
        let (none, queue) = (ReqFlags::empty(), &mut self.queue);
        match operation {
            Operation::Write => queue.write(offset, at as *const u8, BLOCK, buffer, none),
            Operation::Read => queue.read(offset, at as *mut u8, BLOCK, buffer, none),
        }
        Ok(())
    }

    fn wait(&mut self, free: &mut Vec<usize>) -> Result<()> {
        let done = self.queue.do_io(&mut self.completions, 1, None, None)?;
        for completion in &self.completions[..done] {
            // SAFETY: libblkio has filled in as many as it says.
            let completion = unsafe { completion.assume_init_ref() };
            ensure!(completion.ret == 0, "a request failed: {}", completion.ret);
            free.push(completion.user_data);
        }
        Ok(())
    }
}

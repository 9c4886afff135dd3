#![expect(
    unsafe_code,
    reason = "gives the device side a view of the peer's queue memory, which lies in this process"
)]
//! The vhost-user backend that the peer talks to: just enough of the protocol to learn where the
//! queue is, and a device side that answers every request with OK.

use std::{
    io::{ErrorKind, Read, Write},
    mem,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use virtio_queue::{Queue, QueueT};
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion, mmap::MmapRegionBuilder,
};

const GET_FEATURES: u32 = 1;
const SET_VRING_ADDR: u32 = 9;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const GET_CONFIG: u32 = 24;
const GET_MAX_MEM_SLOTS: u32 = 36;
const ADD_MEM_REG: u32 = 37;

const NEED_REPLY: u32 = 1 << 3;
const REPLY: u32 = 1 << 2;
const VERSION: u32 = 1;

/// PROTOCOL_FEATURES, EVENT_IDX, INDIRECT_DESC and VERSION_1.
const FEATURES: u64 = 1 << 30 | 1 << 29 | 1 << 28 | 1 << 32;
/// MQ, REPLY_ACK, CONFIG and CONFIGURE_MEM_SLOTS.
const PROTOCOL_FEATURES: u64 = 1 | 1 << 3 | 1 << 9 | 1 << 15;

/// What the protocol says of the queue. Addresses are those of this process.
#[derive(Clone, Copy, Default)]
struct Learnt {
    memory: u64,
    memory_len: u64,
    descriptors: u64,
    used: u64,
    available: u64,
}

/// A backend that answers the peer while that sets itself up.
pub(crate) struct Serving {
    path: PathBuf,
    learnt: Arc<Mutex<Learnt>>,
}

/// The device side of the peer's queue.
pub(crate) struct Backend {
    queue: Queue,
    memory: GuestMemoryMmap,
}

impl Backend {
    pub(crate) fn serve() -> Serving {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("zbd-requests-{}-{next}", process::id()));
        let listener = UnixListener::bind(&path).expect("a socket can be made in the temp folder");
        let learnt = Arc::new(Mutex::new(Learnt::default()));
        let learning = Arc::clone(&learnt);
        thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("the peer connects");
            while answer(&mut peer, &learning) {}
        });
        Serving { path, learnt }
    }

    /// Carries out all requests that are available, as a device that is busy meanwhile and then
    /// asks to be notified.
    pub(crate) fn step(&mut self) {
        loop {
            let mut taken = Vec::new();
            while let Some(chain) = self.queue.pop_descriptor_chain(&self.memory) {
                let head = chain.head_index();
                let status = chain
                    .writable()
                    .last()
                    .expect("a request ends in its status");
                let at = GuestAddress(status.addr().0 + u64::from(status.len()) - 1);
                self.memory
                    .write_obj(0u8, at)
                    .expect("the status lies in the queue memory");
                taken.push(head);
            }
            for head in taken {
                self.queue
                    .add_used(&self.memory, head, 1)
                    .expect("the used ring is mapped");
            }
            if !self
                .queue
                .enable_notification(&self.memory)
                .expect("the ring is mapped")
            {
                return;
            }
        }
    }
}

impl Serving {
    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("the temp folder's path is UTF-8")
    }

    pub(crate) fn finish(self, size: u16) -> Backend {
        let learnt = *self.learnt.lock().expect("the backend does not panic");
        let builder = MmapRegionBuilder::new(learnt.memory_len as usize)
            .with_mmap_prot(libc_prot())
            .with_mmap_flags(0);
        // SAFETY: the peer mapped this memory in this process and keeps it for as long as its
        // queue, which the benchmark drops after this backend's last step. The region does not
        // unmap what it did not map.
        let builder = unsafe { builder.with_raw_mmap_pointer(learnt.memory as *mut u8) };
        let region: MmapRegion = builder.build().expect("the region is page-aligned");
        let region = GuestRegionMmap::new(region, GuestAddress(learnt.memory))
            .expect("the region does not wrap");
        let memory = GuestMemoryMmap::from_regions(vec![region]).expect("one region");
        let mut queue = Queue::new(size).expect("a valid size");
        queue.set_size(size);
        let halves = |address: u64| (Some(address as u32), Some((address >> 32) as u32));
        let (low, high) = halves(learnt.descriptors);
        queue.set_desc_table_address(low, high);
        let (low, high) = halves(learnt.available);
        queue.set_avail_ring_address(low, high);
        let (low, high) = halves(learnt.used);
        queue.set_used_ring_address(low, high);
        queue.set_event_idx(true);
        queue.set_ready(true);
        assert!(queue.is_valid(&memory), "the queue lies in the memory");
        Backend { queue, memory }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // The socket has served its purpose; what stays behind is a temporary file.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// PROT_READ | PROT_WRITE.
fn libc_prot() -> i32 {
    3
}

/// Answers one message; false at the end.
fn answer(peer: &mut UnixStream, learnt: &Mutex<Learnt>) -> bool {
    let mut header = [0; 12];
    match peer.read_exact(&mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return false,
        Err(e) => panic!("the peer cannot be read: {e}"),
    }
    let word = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|k| header[i + k]));
    let (request, flags, len) = (word(0), word(4), word(8));
    let mut payload = vec![0; len as usize];
    peer.read_exact(&mut payload)
        .expect("a message is as long as it says");
    let long = |i: usize| {
        let mut bytes = [0; mem::size_of::<u64>()];
        bytes.copy_from_slice(&payload[8 * i..8 * i + 8]);
        u64::from_le_bytes(bytes)
    };
    let mut learnt = learnt.lock().expect("nobody panics with the lock");
    let value = match request {
        GET_FEATURES => Some(FEATURES),
        GET_PROTOCOL_FEATURES => Some(PROTOCOL_FEATURES),
        GET_QUEUE_NUM => Some(1),
        GET_MAX_MEM_SLOTS => Some(8),
        ADD_MEM_REG => {
            // The first region is the queue's.
            if learnt.memory == 0 {
                (learnt.memory_len, learnt.memory) = (long(2), long(3));
            }
            None
        }
        SET_VRING_ADDR => {
            (learnt.descriptors, learnt.used, learnt.available) = (long(1), long(2), long(3));
            None
        }
        _ => None,
    };
    drop(learnt);
    let body = match value {
        Some(value) => value.to_le_bytes().to_vec(),
        None if request == GET_CONFIG => payload,
        None if flags & NEED_REPLY != 0 => 0u64.to_le_bytes().to_vec(),
        None => return true,
    };
    let mut reply = Vec::new();
    for word in [request, VERSION | REPLY, body.len() as u32] {
        reply.extend(word.to_le_bytes());
    }
    reply.extend(body);
    peer.write_all(&reply).is_ok()
}

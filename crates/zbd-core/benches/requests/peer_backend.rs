//! The vhost-user backend that the peer talks to while it is set up: just enough of the protocol to
//! learn where the queue is.

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

use crate::rings::Format;

const GET_FEATURES: u32 = 1;
const SET_VRING_ADDR: u32 = 9;
const GET_PROTOCOL_FEATURES: u32 = 15;
const GET_QUEUE_NUM: u32 = 17;
const GET_CONFIG: u32 = 24;
const GET_MAX_MEM_SLOTS: u32 = 36;

const NEED_REPLY: u32 = 1 << 3;
const REPLY: u32 = 1 << 2;
const VERSION: u32 = 1;

/// PROTOCOL_FEATURES, EVENT_IDX and VERSION_1.
const FEATURES: u64 = 1 << 30 | 1 << 29 | 1 << 32;
const RING_PACKED: u64 = 1 << 34;
/// MQ, REPLY_ACK, CONFIG and CONFIGURE_MEM_SLOTS.
const PROTOCOL_FEATURES: u64 = 1 | 1 << 3 | 1 << 9 | 1 << 15;

/// Where the queue is. Addresses are those of this process.
#[derive(Clone, Copy, Default)]
pub(crate) struct Learnt {
    pub(crate) descriptors: u64,
    pub(crate) device_area: u64,
    pub(crate) driver_area: u64,
}

/// A backend that answers the peer while that sets itself up.
pub(crate) struct Serving {
    path: PathBuf,
    learnt: Arc<Mutex<Learnt>>,
}

impl Serving {
    pub(crate) fn new(format: Format) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("zbd-requests-{}-{next}", process::id()));
        let listener = UnixListener::bind(&path).expect("a socket can be made in the temp folder");
        let learnt = Arc::new(Mutex::new(Learnt::default()));
        let learning = Arc::clone(&learnt);
        let features = match format {
            Format::Split => FEATURES,
            Format::Packed => FEATURES | RING_PACKED,
        };
        thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("the peer connects");
            while answer(&mut peer, features, &learning) {}
        });
        Self { path, learnt }
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("the temp folder's path is UTF-8")
    }

    pub(crate) fn learnt(&self) -> Learnt {
        *self.learnt.lock().expect("the backend does not panic")
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // The socket has served its purpose; what stays behind is a temporary file.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Answers one message; false at the end.
fn answer(peer: &mut UnixStream, features: u64, learnt: &Mutex<Learnt>) -> bool {
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
    let value = match request {
        GET_FEATURES => Some(features),
        GET_PROTOCOL_FEATURES => Some(PROTOCOL_FEATURES),
        GET_QUEUE_NUM => Some(1),
        GET_MAX_MEM_SLOTS => Some(8),
        SET_VRING_ADDR => {
            *learnt.lock().expect("nobody panics with the lock") = Learnt {
                descriptors: long(1),
                device_area: long(2),
                driver_area: long(3),
            };
            None
        }
        _ => None,
    };
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

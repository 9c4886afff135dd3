//! Memory that a device under test is given.
#![expect(
    unsafe_code,
    reason = "the device works on the same memory, so it is accessed through its address"
)]

use std::sync::{
    Arc,
    atomic::{AtomicU16, Ordering},
};

use vfio_virtio::HostMemory;

/// Memory addressed by offset, every access checked.
pub(crate) struct Arena {
    memory: Arc<HostMemory>,
}

impl Arena {
    pub(crate) fn new(len_bytes: usize) -> Self {
        Self {
            memory: Arc::new(HostMemory::new(len_bytes).unwrap()),
        }
    }

    pub(crate) fn memory(&self) -> Arc<HostMemory> {
        Arc::clone(&self.memory)
    }

    fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(offset + len <= self.memory.len_bytes());
        self.memory.as_ptr().wrapping_add(offset)
    }

    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        let target = self.at(offset, bytes.len());
        // SAFETY: the range lies in the mapping, which lives as long as `self`, and `bytes` lies
        // outside of it. The tests write only what the device does not own at the time.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) }
    }

    pub(crate) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let source = self.at(offset, len);
        // SAFETY: as for `write`.
        unsafe { std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), len) }
        bytes
    }

    fn word(&self, offset: usize) -> &AtomicU16 {
        assert!(offset.is_multiple_of(2));
        let word = self.at(offset, 2).cast::<u16>();
        // SAFETY: the word is aligned and in the mapping, which lives as long as the reference, and
        // while there may be one, both sides access it atomically.
        unsafe { AtomicU16::from_ptr(word) }
    }

    pub(crate) fn load(&self, offset: usize) -> u16 {
        self.word(offset).load(Ordering::Acquire)
    }

    pub(crate) fn store(&self, offset: usize, value: u16) {
        self.word(offset).store(value, Ordering::Release);
    }
}

#![expect(
    unsafe_code,
    reason = "gives the device side a second view of the peer's memory, at the same addresses"
)]
//! Memory that the peer and the emulated device share.
//!
//! The peer's vhost-user door tells the device addresses of this process, and maps its queue where
//! the kernel likes; the emulated device reaches what is mapped below 512 GiB, like many an IOMMU.
//! So the peer's mapping is steered down there, and what the device is given is a second view of
//! the same pages, mapped for it at the addresses that the peer uses.

use std::{
    ffi::{c_int, c_void},
    fs::File,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr, slice,
    sync::{Arc, Mutex},
};

use vfio_virtio::{HostMemory, Iova, PciFunction};

/// Where the steered mapping lies, and where the data do.
const QUEUE_AT: u64 = 0x20_0000_0000;
const DATA_AT: u64 = 0x30_0000_0000;
const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// What is to become of the next mapping of a file.
enum Next {
    AsAsked,
    /// It is made at `QUEUE_AT`.
    Steered,
    /// It was: of this file, so long.
    Made(OwnedFd),
}

static NEXT: Mutex<Next> = Mutex::new(Next::AsAsked);

/// libc's own, but for a mapping that is to be steered.
// SAFETY: has libc's signature and does what it does; only where a mapping without an address was
// asked for, which may lie anywhere, it is told a free place.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap64(
    mut at: *mut c_void,
    len: usize,
    protection: c_int,
    mut flags: c_int,
    fd: c_int,
    offset: i64,
) -> *mut c_void {
    if fd >= 0
        && at.is_null()
        && let Ok(mut next) = NEXT.try_lock()
        && matches!(*next, Next::Steered)
    {
        // SAFETY: whoever maps a file holds it open meanwhile.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        if let Ok(file) = file.try_clone_to_owned() {
            at = QUEUE_AT as *mut c_void;
            flags |= libc::MAP_FIXED_NOREPLACE;
            *next = Next::Made(file);
        }
    }
    // SAFETY: what the caller asked for; if an address was added, MAP_FIXED_NOREPLACE leaves
    // alone whatever is there.
    unsafe { libc::syscall(libc::SYS_mmap, at, len, protection, flags, fd, offset) as *mut c_void }
}

/// The data of the peer's requests: one buffer for all of them.
pub(crate) struct Data {
    file: File,
    at: *mut u8,
    len_bytes: usize,
}

impl Drop for Data {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody has a reference to it any more.
        unsafe { libc::munmap(self.at.cast(), self.len_bytes) };
    }
}

/// Runs `set_up`, which makes the peer map its queue's memory.
pub(crate) fn steered<T>(set_up: impl FnOnce() -> T) -> (T, File) {
    *NEXT.lock().expect("nobody panics with the lock") = Next::Steered;
    let done = set_up();
    let mut next = NEXT.lock().expect("nobody panics with the lock");
    match std::mem::replace(&mut *next, Next::AsAsked) {
        Next::Made(file) => (done, file.into()),
        _ => panic!("the peer has mapped no memory"),
    }
}

/// Gives the device the file's pages at the address where the peer has its queue.
pub(crate) fn share_queue(function: &dyn PciFunction, file: &File) {
    share(function, file, QUEUE_AT);
}

impl Data {
    pub(crate) fn new(len_bytes: usize) -> Self {
        // SAFETY: the name is a string that ends in 0.
        let fd = unsafe { libc::memfd_create(c"data".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0, "a file in memory can be made");
        // SAFETY: a new descriptor that nobody else owns.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len_bytes as u64).expect("it can grow");
        let at = DATA_AT as *mut u8;
        map(&file, at, len_bytes, libc::MAP_FIXED_NOREPLACE);
        Self {
            file,
            at,
            len_bytes,
        }
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped for as long as this lives. The device has another view of it, at another
        // address, and copies to and from it only while the peer does nothing; nobody looks at
        // the contents.
        unsafe { slice::from_raw_parts_mut(self.at, self.len_bytes) }
    }

    pub(crate) fn share(&self, function: &dyn PciFunction) {
        share(function, &self.file, DATA_AT);
    }
}

fn share(function: &dyn PciFunction, file: &File, at: u64) {
    let len = file.metadata().expect("an open file").len() as usize;
    let view = HostMemory::new(len).expect("there is memory");
    // What lies beyond the queue's end is mapped too.
    file.set_len(view.len_bytes() as u64).expect("it can grow");
    let place = map(file, view.as_ptr(), view.len_bytes(), libc::MAP_FIXED);
    assert_eq!(place, view.as_ptr());
    function
        .map_dma(Iova(at), Arc::new(view))
        .expect("nothing else is mapped there");
}

/// Maps a file at `at`, shared, until the process ends or something replaces it.
fn map(file: &File, at: *mut u8, len: usize, placing: c_int) -> *mut u8 {
    // SAFETY: `at` is a place where nothing is mapped, which MAP_FIXED_NOREPLACE makes sure of, or
    // the whole of a `HostMemory` that was just made, to which nobody has a reference and whose end
    // unmaps what has taken its place.
    let place = unsafe {
        libc::mmap(
            at.cast(),
            len,
            READ_WRITE,
            libc::MAP_SHARED | placing,
            file.as_raw_fd(),
            0,
        )
    };
    assert!(
        place != libc::MAP_FAILED && ptr::eq(place, at.cast()),
        "{len} bytes cannot be mapped at {at:?}"
    );
    place.cast()
}

//! The real calls, made as system calls so that they cannot end in our own interposers.
#![expect(unsafe_code, reason = "system calls")]

use std::ffi::{CStr, c_int, c_long};
use std::mem::MaybeUninit;

/// Turns a system call's result into libc's convention, which `libc::syscall` keeps already.
macro_rules! syscall {
    ($number:expr $(, $argument:expr)*) => {{
        // SAFETY: the arguments are those of the system call; pointers come either from a live
        // reference of the caller below or from QEMU, which promised them to the libc function that
        // this call stands for. A bad one makes the kernel answer EFAULT.
        unsafe { libc::syscall($number $(, $argument)*) }
    }};
}

/// `openat(2)`.
pub fn openat(dir: c_int, path: &CStr, flags: c_int, mode: libc::mode_t) -> c_int {
    syscall!(libc::SYS_openat, dir, path.as_ptr(), flags, mode) as c_int
}

/// `fstat(2)`; `None` on failure, with `errno` set.
#[must_use]
pub fn fstat(fd: c_int) -> Option<libc::stat64> {
    let mut stat = MaybeUninit::uninit();
    let result = syscall!(libc::SYS_fstat, fd, stat.as_mut_ptr());
    // SAFETY: fstat succeeded and so filled the structure, which on this architecture is libc's.
    (result == 0).then(|| unsafe { stat.assume_init() })
}

/// `stat(2)`, or `lstat(2)`; `None` on failure, with `errno` set.
#[must_use]
pub fn stat(path: &CStr, follow: bool) -> Option<libc::stat64> {
    let mut stat = MaybeUninit::uninit();
    let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
    let result = syscall!(
        libc::SYS_newfstatat,
        libc::AT_FDCWD,
        path.as_ptr(),
        stat.as_mut_ptr(),
        flags
    );
    // SAFETY: the call succeeded and so filled the structure, which on this architecture is libc's.
    (result == 0).then(|| unsafe { stat.assume_init() })
}

/// Is there a file of this name?
#[must_use]
pub fn exists(path: &CStr) -> bool {
    syscall!(libc::SYS_access, path.as_ptr(), libc::F_OK) == 0
}

/// A file in memory with these bytes, read from its start; negative on failure.
#[must_use]
pub fn memory_file(content: &[u8]) -> c_int {
    let fd = syscall!(libc::SYS_memfd_create, c"zbd".as_ptr(), libc::MFD_CLOEXEC) as c_int;
    if fd >= 0 {
        syscall!(libc::SYS_pwrite64, fd, content.as_ptr(), content.len(), 0);
    }
    fd
}

/// `ioctl(2)`.
///
/// # Safety
/// As the libc function.
pub unsafe fn ioctl(fd: c_int, request: libc::c_ulong, argument: *mut libc::c_void) -> c_int {
    syscall!(libc::SYS_ioctl, fd, request, argument) as c_int
}

/// `fallocate(2)`.
pub fn fallocate(fd: c_int, mode: c_int, offset: i64, len: i64) -> c_int {
    syscall!(libc::SYS_fallocate, fd, mode, offset, len) as c_int
}

/// `fsync(2)`.
pub fn fsync(fd: c_int) -> c_int {
    syscall!(libc::SYS_fsync, fd) as c_int
}

/// `fdatasync(2)`.
pub fn fdatasync(fd: c_int) -> c_int {
    syscall!(libc::SYS_fdatasync, fd) as c_int
}

/// `pread64(2)`.
///
/// # Safety
/// As the libc function.
pub unsafe fn pread(fd: c_int, buffer: *mut libc::c_void, len: usize, offset: i64) -> isize {
    result(syscall!(libc::SYS_pread64, fd, buffer, len, offset))
}

/// `pwrite64(2)`.
///
/// # Safety
/// As the libc function.
pub unsafe fn pwrite(fd: c_int, buffer: *const libc::c_void, len: usize, offset: i64) -> isize {
    result(syscall!(libc::SYS_pwrite64, fd, buffer, len, offset))
}

/// `preadv(2)`.
///
/// # Safety
/// As the libc function.
pub unsafe fn preadv(fd: c_int, vectors: *const libc::iovec, count: c_int, offset: i64) -> isize {
    result(syscall!(libc::SYS_preadv, fd, vectors, count, offset, 0))
}

/// `pwritev(2)`.
///
/// # Safety
/// As the libc function.
pub unsafe fn pwritev(fd: c_int, vectors: *const libc::iovec, count: c_int, offset: i64) -> isize {
    result(syscall!(libc::SYS_pwritev, fd, vectors, count, offset, 0))
}

/// Sets `errno` and gives the value that libc functions return on failure.
pub fn fail(errno: c_int) -> c_int {
    // SAFETY: the C library gives every thread a valid place for its errno.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above; nobody else refers to this thread's errno.
    unsafe { place.write(errno) };
    -1
}

fn result(value: c_long) -> isize {
    value as isize
}

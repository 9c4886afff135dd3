//! The libc functions that QEMU 8.1 to 10 uses on its disks' files, interposed.
//!
//! `open64`, `openat64` and `ioctl` take variable arguments in C. Here they take the most that a
//! caller can pass: on x86-64 an argument that was not passed is a register with some value in it,
//! which the kernel ignores in the same cases in which C leaves it out.
#![expect(unsafe_code, reason = "defines functions of the C library by name")]

use std::ffi::{CStr, c_char, c_int, c_ulong, c_void};

use crate::kernel;
use crate::panel::Counter;
use crate::registry::{self, Disk, MAJOR};
use crate::{ioctl as disk_ioctl, sysfs};

/// # Safety
/// As `open(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: libc::mode_t) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat64(libc::AT_FDCWD, path, flags, mode) }
}

/// # Safety
/// As `open(2)`; what fortified programs call for `open` without a mode.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __open64_2(path: *const c_char, flags: c_int) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { openat64(libc::AT_FDCWD, path, flags, 0) }
}

/// # Safety
/// As `openat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(
    dir: c_int,
    path: *const c_char,
    mut flags: c_int,
    mode: libc::mode_t,
) -> c_int {
    // SAFETY: the caller promises a string.
    let path = unsafe { CStr::from_ptr(path) };
    if let Some(answer) = path.to_str().ok().and_then(sysfs::answer) {
        return kernel::memory_file(answer.as_bytes());
    }
    if dir == libc::AT_FDCWD && registry::by_name(path).is_some() {
        // Not every file system knows O_DIRECT, and a disk's own cache is no business of the tests.
        flags &= !libc::O_DIRECT;
    }
    kernel::openat(dir, path, flags, mode)
}

/// # Safety
/// As `fstat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fstat64(fd: c_int, stat: *mut libc::stat64) -> c_int {
    let Some(truth) = kernel::fstat(fd) else {
        return -1;
    };
    // SAFETY: the caller's promise.
    unsafe { stat.write(disguise(truth, registry::by_descriptor(fd))) };
    0
}

/// # Safety
/// As `stat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stat64(path: *const c_char, stat: *mut libc::stat64) -> c_int {
    // SAFETY: the caller promises a string.
    let path = unsafe { CStr::from_ptr(path) };
    let Some(truth) = kernel::stat(path, true) else {
        return -1;
    };
    // SAFETY: the caller's promise.
    unsafe { stat.write(disguise(truth, registry::by_name(path))) };
    0
}

/// # Safety
/// As `lstat(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lstat64(path: *const c_char, stat: *mut libc::stat64) -> c_int {
    // SAFETY: the caller promises a string.
    let path = unsafe { CStr::from_ptr(path) };
    let Some(truth) = kernel::stat(path, false) else {
        return -1;
    };
    // SAFETY: the caller's promise.
    unsafe { stat.write(disguise(truth, registry::by_name(path))) };
    0
}

/// # Safety
/// As `ioctl(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    // musl and some callers pass the request as an int; its upper half means nothing.
    let request = request & 0xffff_ffff;
    let answered = registry::by_descriptor(fd)
        // SAFETY: the caller's promise.
        .and_then(|disk| unsafe { disk_ioctl::answer(fd, disk, request, argument) });
    answered.unwrap_or_else(|| {
        // SAFETY: the caller's promise.
        unsafe { kernel::ioctl(fd, request, argument) }
    })
}

/// # Safety
/// As `pread(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pread64(fd: c_int, buffer: *mut c_void, len: usize, offset: i64) -> isize {
    read(fd, offset, len, || {
        // SAFETY: the caller\'s promise.
        unsafe { kernel::pread(fd, buffer, len, offset) }
    })
}

/// # Safety
/// As `preadv(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn preadv64(
    fd: c_int,
    vectors: *const libc::iovec,
    count: c_int,
    offset: i64,
) -> isize {
    // SAFETY: the caller's promise.
    let len = unsafe { total(vectors, count) };
    read(fd, offset, len, || {
        // SAFETY: the caller\'s promise.
        unsafe { kernel::preadv(fd, vectors, count, offset) }
    })
}

/// # Safety
/// As `pwrite(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(
    fd: c_int,
    buffer: *const c_void,
    len: usize,
    offset: i64,
) -> isize {
    write(fd, offset, len, || {
        // SAFETY: the caller\'s promise.
        unsafe { kernel::pwrite(fd, buffer, len, offset) }
    })
}

/// # Safety
/// As `pwritev(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev64(
    fd: c_int,
    vectors: *const libc::iovec,
    count: c_int,
    offset: i64,
) -> isize {
    // SAFETY: the caller's promise.
    let len = unsafe { total(vectors, count) };
    write(fd, offset, len, || {
        // SAFETY: the caller\'s promise.
        unsafe { kernel::pwritev(fd, vectors, count, offset) }
    })
}

/// # Safety
/// As `fallocate(2)`. Refused on our disks: the write pointers would not hear of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate64(fd: c_int, mode: c_int, offset: i64, len: i64) -> c_int {
    if registry::by_descriptor(fd).is_some() {
        return kernel::fail(libc::EOPNOTSUPP);
    }
    kernel::fallocate(fd, mode, offset, len)
}

/// # Safety
/// As `fsync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    count_flush(fd);
    kernel::fsync(fd)
}

/// # Safety
/// As `fdatasync(2)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    count_flush(fd);
    kernel::fdatasync(fd)
}

fn count_flush(fd: c_int) {
    if let Some(disk) = registry::by_descriptor(fd) {
        disk.panel.count(Counter::Flushes, 1);
    }
}

fn read(fd: c_int, offset: i64, len: usize, read: impl FnOnce() -> isize) -> isize {
    let Some(disk) = registry::by_descriptor(fd) else {
        return read();
    };
    disk.panel.wait();
    disk.panel.count(Counter::Reads, 1);
    if let Err(errno) = disk.zones().check_read(offset as u64, len as u64) {
        return kernel::fail(errno) as isize;
    }
    let result = read();
    disk.panel.count(Counter::ReadBytes, result.max(0) as u64);
    result
}

fn write(fd: c_int, offset: i64, len: usize, write: impl FnOnce() -> isize) -> isize {
    let Some(disk) = registry::by_descriptor(fd) else {
        return write();
    };
    disk.panel.wait();
    let mut zones = disk.zones();
    if let Err(errno) = zones.begin_write(offset as u64, len as u64) {
        disk.panel.count(Counter::RefusedWrites, 1);
        return kernel::fail(errno) as isize;
    }
    let result = write();
    let written = result.max(0) as u64;
    zones.written(offset as u64, written);
    disk.panel.count(Counter::Writes, 1);
    disk.panel.count(Counter::WriteBytes, written);
    result
}

/// # Safety
/// `vectors` must point to `count` of them.
unsafe fn total(vectors: *const libc::iovec, count: c_int) -> usize {
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: the caller's promise; QEMU does not touch the list while the call lasts.
    let vectors = unsafe { std::slice::from_raw_parts(vectors, count) };
    vectors.iter().map(|vector| vector.iov_len).sum()
}

fn disguise(mut stat: libc::stat64, disk: Option<&Disk>) -> libc::stat64 {
    if let Some(disk) = disk {
        stat.st_mode = libc::S_IFBLK | 0o660;
        stat.st_rdev = libc::makedev(MAJOR, disk.minor);
        stat.st_size = 0;
        stat.st_blocks = 0;
    }
    stat
}

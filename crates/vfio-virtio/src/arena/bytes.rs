#![expect(unsafe_code, reason = "makes references to memory of buffers")]
//! The door between buffers and [`Bytes`].
//!
//! # References into DMA memory
//!
//! They exist here and nowhere else: in `Bytes` that [`DmaBuffer::into_bytes`] made. That is a
//! deliberate exception, made because a copy of all that is read would cost more than the request.
//! What holds:
//!
//! - The `Bytes` own the buffer. It is in no request, since a queue takes a buffer by value and
//!   yields it only when the device has returned it or has been reset; and as nobody can take it
//!   out of the `Bytes`, it will be in none. Nothing of this crate writes it from then on.
//! - A buffer that was [lent](DmaArena::lend) from such `Bytes` is read-only: its methods do not
//!   write, and a queue gives it to the device to be read only. It holds the `Bytes`, so it may
//!   overlap others and outlast them.
//! - Every byte of mapped memory has a value, and no other process changes it: the memory is
//!   anonymous and private. What was [registered](crate::RunningDevice::register) and is not, is
//!   copied.
//!
//! What it rests on, and cannot be checked:
//!
//! - **The device writes only where and when it was asked to.** The whole arena is mapped for as
//!   long as the device is open, so a hostile or broken one could change bytes behind a reference,
//!   and that is undefined behaviour. In a virtual machine the device is the hypervisor, which can
//!   write all memory of the machine anyway. On hardware it is the device alone that is trusted
//!   thereby: an IOMMU confines it to the arena. A reset that the device confirms ends its writing;
//!   [`recover_queue`](crate::RunningDevice::recover_queue) names one that breaks this.
//! - **Nobody else drives the device.** The seam ([`PciFunction`](crate::PciFunction)) is safe to
//!   call, and whoever keeps a function and writes its registers past the types of this crate
//!   decides what the device does, and answers for it as for the device.
//!
//! Who does not trust the device reads with [`to_vec`](DmaBuffer::to_vec) or
//! [`read_at`](DmaBuffer::read_at), which assume nothing.

use std::{slice, sync::Arc};

use bytes::Bytes;

use super::{
    DmaArena, DmaBuffer,
    buffer::{Block, Keeper},
};

impl DmaBuffer {
    /// The bytes, without a copy if the buffer [is contiguous](Self::is_contiguous); those of
    /// several segments are copied into one, and so are those of memory that was registered and is
    /// [not this process's alone](crate::HostMemory::from_mmap). The memory goes back to its arena when the last
    /// `Bytes` of it is dropped, which may be after the device was closed; until then it can be
    /// written to the device as it is ([`DmaArena::lend`]).
    ///
    /// The device is trusted not to write them: it was not asked to, but its mapping lasts as long
    /// as it is open, and a device that changes bytes behind a reference makes the program's
    /// behaviour undefined. Read with [`to_vec`](Self::to_vec) or [`read_at`](Self::read_at) what
    /// comes from a device that is not trusted.
    pub fn into_bytes(self) -> Bytes {
        if !self.is_contiguous() || !self.inner().memory.is_private() {
            return self.to_vec().into();
        }
        match self.keeper() {
            // It began with the first of them.
            Some(Keeper::Bytes(bytes)) => bytes.slice(..self.len()),
            Some(Keeper::Whole(_)) | None => Bytes::from_owner(Frozen(self)),
        }
    }
}

impl DmaArena {
    /// A [read-only](DmaBuffer::is_read_only) buffer over `bytes` without a copy, for the device
    /// to read, if they lie in this arena and are contiguous for the device: they came from
    /// [`DmaBuffer::into_bytes`], or are a slice of such. Others are to be copied into a buffer of
    /// [`allocate`](Self::allocate). Nothing is lent of no bytes.
    ///
    /// The buffer holds on to the bytes until it is dropped. It begins where they do, which need
    /// not be at the beginning of a page.
    pub fn lend(&self, bytes: &Bytes) -> Option<DmaBuffer> {
        let len = i32::try_from(bytes.len()).ok()?.cast_unsigned();
        let memory = &self.0.memory;
        let offset = bytes.as_ptr().addr().checked_sub(memory.as_ptr().addr())?;
        if offset.checked_add(bytes.len())? > memory.len_bytes() {
            return None;
        }
        let iova = self.0.placement.range(offset, bytes.len())?;
        let at = memory.as_ptr().wrapping_add(offset);
        let block = Block::new(Arc::clone(&self.0), iova, at, len, len).read_only();
        let keeper = Arc::new(Keeper::Bytes(bytes.clone()));
        Some(DmaBuffer::over_kept(block, keeper))
    }
}

/// A buffer of one segment of which references are made, and which nothing writes any more.
struct Frozen(DmaBuffer);

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory is the buffer's own for as long as `self` owns it, it has a value in
        // every byte, and nothing writes it, as the head of this file argues. Its length is
        // at most 2 GiB. `slices_keep_the_memory` watches that it is not given away meanwhile.
        unsafe { slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}

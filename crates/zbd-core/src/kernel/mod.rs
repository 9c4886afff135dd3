//! The back end for block devices of the kernel.

use std::{path::Path, sync::Arc, time::Duration};

use vfio_virtio::{DmaArena, EventFd};

use crate::{
    Completion, DeviceEvent, DeviceInfo, Error, ErrorKind, OpenOptions, Rejected, Request, Result,
};

/// A queue of a block device of the kernel. There is none yet.
#[derive(Debug)]
pub(crate) enum KernelQueue {}

impl KernelQueue {
    pub(crate) fn open(path: &Path, _options: &OpenOptions) -> Result<Vec<Self>> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "{}: kernel block devices cannot be opened yet; bind the virtio-blk function to vfio-pci (zbd-bench bind) and open it as pci:…",
                path.display()
            ),
        ))
    }

    pub(crate) fn info(&self) -> &Arc<DeviceInfo> {
        match *self {}
    }

    pub(crate) fn memory(&self) -> &DmaArena {
        match *self {}
    }

    pub(crate) fn depth(&self) -> u16 {
        match *self {}
    }

    pub(crate) fn in_flight(&self) -> usize {
        match *self {}
    }

    pub(crate) fn has_room(&self) -> bool {
        match *self {}
    }

    /// How often requests were handed to the kernel.
    pub(crate) fn doorbells(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn submit(
        &mut self,
        _request: Request,
        _token: u64,
        _timeout: Option<Duration>,
    ) -> Result<(), Rejected> {
        match *self {}
    }

    pub(crate) fn commit(&mut self) {
        match *self {}
    }

    pub(crate) fn poll(&mut self) -> Option<Completion> {
        match *self {}
    }

    pub(crate) fn recover(&mut self) -> Result<()> {
        match *self {}
    }

    pub(crate) fn next_event(&mut self) -> Option<DeviceEvent> {
        match *self {}
    }

    pub(crate) fn is_gone(&self) -> Option<&str> {
        match *self {}
    }

    pub(crate) fn attend(&mut self) {
        match *self {}
    }

    /// What is written to at a completion that was asked for.
    pub(crate) fn interrupt(&self) -> &EventFd {
        match *self {}
    }

    /// Asks for an interrupt at the next completion; true if there is nothing to be polled.
    pub(crate) fn arm(&mut self) -> bool {
        match *self {}
    }

    pub(crate) fn disarm(&mut self) {
        match *self {}
    }

    /// How long it is until the time of a request is up.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        match *self {}
    }

    /// How many requests have come back from the kernel.
    pub(crate) fn returned(&self) -> u64 {
        match *self {}
    }

    pub(crate) fn has_expired(&self) -> bool {
        match *self {}
    }
}

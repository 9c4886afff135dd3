//! Reading and writing.

use std::future::Future;

use vfio_virtio::DmaBuffer;

use super::{
    Appended, Driver, ZonedDevice, driver, owned,
    quick::{Detour, Direct, Quick},
};
use crate::{Error, ErrorKind, Request, Result, Sector, ZoneId};

impl<D: Driver> ZonedDevice<D> {
    /// Appends the whole buffer to `zone`. Any number of appends to one zone can be in flight; in
    /// which order they land is up to the device.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: no such zone, a conventional one, or a length that is no
    ///   multiple of the write granularity or exceeds the greatest append.
    /// - [`ErrorKind::InvalidZoneState`]: the data do not fit into what is left of the zone, or it
    ///   is read-only or offline.
    /// - [`ErrorKind::OpenLimit`], [`ErrorKind::ActiveLimit`]: the zone would have to be opened,
    ///   and too many are; the error says which. [`ZoneHandle::reserve`](crate::ZoneHandle::reserve)
    ///   waits instead.
    /// - [`ErrorKind::Protocol`]: the device put the data outside the zone.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    #[inline]
    pub fn append(
        &self,
        zone: ZoneId,
        buffer: DmaBuffer,
    ) -> impl Future<Output = Result<Appended>> + use<'_, D> {
        Direct::new(self, Append { zone, buffer }, Self::append_slowly)
    }

    async fn append_slowly(&self, detour: Detour<Append>) -> Result<Appended> {
        let (zone, error) = match detour {
            Detour::Before(Append { zone, buffer }) => {
                if self.allows_append(zone, &buffer)
                    && let Err(error) = self.admit(zone).await
                {
                    return Err(error.with_buffer(Some(buffer)));
                }
                match self.run(Append { zone, buffer }).await {
                    Ok((sector, buffer)) => return Append::output(sector, buffer),
                    Err(error) => (zone, error),
                }
            }
            Detour::After(zone, error) => (zone, error),
        };
        Err(self.explain(zone, error).await)
    }

    /// Writes the whole buffer from `at` on and gives it back.
    ///
    /// Writes to a sequential zone must begin at its write pointer, so of several in flight all
    /// but the first would fail unless the device happens to take them in order; use
    /// [`append`](Self::append).
    ///
    /// What exceeds the device's [greatest transfer](crate::DeviceInfo::max_transfer) goes in as many
    /// requests as it takes, in a sequential zone one after the other. If one fails, the error says at
    /// which sector.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: not whole blocks, or past the end of the device.
    /// - [`ErrorKind::UnalignedWritePointer`]: not at the write pointer.
    /// - As [`append`](Self::append) besides.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    #[inline]
    pub fn write(
        &self,
        at: Sector,
        buffer: DmaBuffer,
    ) -> impl Future<Output = Result<DmaBuffer>> + use<'_, D> {
        Direct::new(self, Write { at, buffer }, Self::write_slowly)
    }

    async fn write_slowly(&self, detour: Detour<Write>) -> Result<DmaBuffer> {
        match detour {
            Detour::Before(Write { at, buffer }) if self.is_large(&buffer) => {
                self.write_large(at, buffer).await
            }
            detour => self.write_one_slowly(detour).await,
        }
    }

    /// Writes what one request can take.
    pub(super) fn write_one(
        &self,
        at: Sector,
        buffer: DmaBuffer,
    ) -> impl Future<Output = Result<DmaBuffer>> + use<'_, D> {
        Direct::new(self, Write { at, buffer }, Self::write_one_slowly)
    }

    async fn write_one_slowly(&self, detour: Detour<Write>) -> Result<DmaBuffer> {
        let (at, error) = match detour {
            Detour::Before(Write { at, buffer }) => {
                if let Some(zone) = self.limited_zone(at)
                    && self.allows_write(at, &buffer)
                    && let Err(error) = self.admit(zone).await
                {
                    return Err(error.with_buffer(Some(buffer)));
                }
                match self.run(Write { at, buffer }).await {
                    Ok((sector, buffer)) => return Write::output(sector, buffer),
                    Err(error) => (at, error),
                }
            }
            Detour::After(at, error) => (at, error),
        };
        Err(self.explain_at(at, error).await)
    }

    /// Reads `len_bytes` from `at` on into a buffer of the device's DMA memory.
    ///
    /// # Errors
    /// - [`ErrorKind::InvalidRequest`]: not whole blocks, or past the end of the device.
    /// - [`ErrorKind::OutOfMemory`]: there will never be a buffer of that size. One that is in use is
    ///   waited for.
    /// - [`ErrorKind::Medium`]: the device could not read.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn read(&self, at: Sector, len_bytes: usize) -> Result<DmaBuffer> {
        let buffer = self.wait_for_buffer(len_bytes).await?;
        self.read_into(at, buffer).await
    }

    /// Reads the whole buffer from `at` on, in several requests at once where it exceeds the device's
    /// [greatest transfer](crate::DeviceInfo::max_transfer).
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    #[inline]
    pub fn read_into(
        &self,
        at: Sector,
        buffer: DmaBuffer,
    ) -> impl Future<Output = Result<DmaBuffer>> + use<'_, D> {
        Direct::new(self, Read { at, buffer }, Self::read_slowly)
    }

    async fn read_slowly(&self, detour: Detour<Read>) -> Result<DmaBuffer> {
        match detour {
            Detour::Before(Read { at, buffer }) => self.read_large(at, buffer).await,
            Detour::After((), error) => Err(error),
        }
    }

    /// Reads what one request can take.
    pub(super) async fn read_one(&self, at: Sector, buffer: DmaBuffer) -> Result<DmaBuffer> {
        let (_, buffer) = self.run(Read { at, buffer }).await?;
        owned(buffer)
    }

    /// Makes durable what was completed before the call. Does nothing on a device that knows no
    /// flush, where whatever is completed is durable. The mode of the write cache is not asked for:
    /// what was completed before it was switched may still be volatile.
    ///
    /// # Errors
    /// [`ErrorKind::Medium`]: the device could not write what it held.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn flush(&self) -> Result<()> {
        if self.info().volatile_cache {
            self.run(Request::Flush).await?;
        }
        Ok(())
    }

    /// Begins an append if a slot is free and the zone needs no other to be waited for; its end is
    /// awaited with what this returns. Otherwise as [`append`](Self::append).
    ///
    /// # Errors
    /// [`ErrorKind::QueueFull`], and the buffer comes back: all slots are in use, others wait already,
    /// or the device has to be asked which zones are open.
    /// [`ErrorKind::ActiveLimit`], [`ErrorKind::OpenLimit`]: as far as is known, other zones are in the
    /// way; the error says which.
    pub fn try_append(
        &self,
        zone: ZoneId,
        buffer: DmaBuffer,
    ) -> Result<impl Future<Output = Result<Appended>> + use<'_, D>> {
        let end = self.try_run(Some(zone), Request::Append { zone, buffer })?;
        Ok(async move {
            let (sector, buffer) = end.await?;
            Ok(Appended {
                sector,
                buffer: owned(buffer)?,
            })
        })
    }

    /// Begins a write if a slot is free; as [`try_append`](Self::try_append) and
    /// [`write`](Self::write), but that what exceeds one request is refused.
    ///
    /// # Errors
    /// As [`try_append`](Self::try_append).
    pub fn try_write(
        &self,
        at: Sector,
        buffer: DmaBuffer,
    ) -> Result<impl Future<Output = Result<DmaBuffer>> + use<'_, D>> {
        let end = self.try_run(self.limited_zone(at), Request::Write { at, buffer })?;
        Ok(async move { owned(end.await?.1) })
    }

    /// Begins a read if a slot is free; as [`try_append`](Self::try_append) and
    /// [`read_into`](Self::read_into), but that what exceeds one request is refused.
    ///
    /// # Errors
    /// As [`try_append`](Self::try_append).
    pub fn try_read_into(
        &self,
        at: Sector,
        buffer: DmaBuffer,
    ) -> Result<impl Future<Output = Result<DmaBuffer>> + use<'_, D>> {
        let end = self.try_run(None, Request::Read { at, buffer })?;
        Ok(async move { owned(end.await?.1) })
    }

    /// Begins a request that writes to `zone`, if to any, unless something would have to be waited
    /// for.
    fn try_run(
        &self,
        zone: Option<ZoneId>,
        request: Request,
    ) -> Result<impl Future<Output = Result<(Sector, Option<DmaBuffer>)>> + use<'_, D>> {
        let admitted = match zone {
            Some(zone) => self.try_admit(zone, &request),
            None => Ok(true),
        };
        let slot = match admitted {
            Ok(true) => self.driver.try_acquire(),
            Ok(false) => Ok(None),
            Err(error) => Err(error),
        };
        let error = match slot {
            Ok(Some(slot)) => {
                self.driver.submit(&slot, request, self.timeout);
                return Ok(driver::completion(slot));
            }
            Ok(None) => Error::new(
                ErrorKind::QueueFull,
                format!(
                    "{}: the request would have to wait for a slot or for a zone; await those in flight, or use the waiting form",
                    self.info().name
                ),
            ),
            Err(error) => error,
        };
        Err(error.with_buffer(request.into_buffer()))
    }

    /// Appends several buffers to `zone` as one piece; otherwise as [`append`](Self::append). An
    /// error gives them back as one buffer, [joined](DmaBuffer::join).
    ///
    /// # Errors
    /// As [`append`](Self::append), and [`ErrorKind::InvalidRequest`] if there are no buffers or
    /// buffers of another device.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn append_vectored(
        &self,
        zone: ZoneId,
        buffers: Vec<DmaBuffer>,
    ) -> Result<(Sector, Vec<DmaBuffer>)> {
        let done = self.append(zone, joined(buffers)?).await?;
        Ok((done.sector, done.buffer.split().collect()))
    }

    /// Writes several buffers one after the other from `at` on; otherwise as
    /// [`write`](Self::write). An error gives them back as one buffer, [joined](DmaBuffer::join).
    ///
    /// # Errors
    /// As [`append_vectored`](Self::append_vectored).
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn write_vectored(
        &self,
        at: Sector,
        buffers: Vec<DmaBuffer>,
    ) -> Result<Vec<DmaBuffer>> {
        let buffer = self.write(at, joined(buffers)?).await?;
        Ok(buffer.split().collect())
    }

    /// Reads from `at` on into several buffers one after the other; otherwise as
    /// [`read_into`](Self::read_into). An error gives them back as one buffer,
    /// [joined](DmaBuffer::join).
    ///
    /// # Errors
    /// As [`append_vectored`](Self::append_vectored).
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn read_vectored(
        &self,
        at: Sector,
        buffers: Vec<DmaBuffer>,
    ) -> Result<Vec<DmaBuffer>> {
        let buffer = self.read_into(at, joined(buffers)?).await?;
        Ok(buffer.split().collect())
    }
}

struct Append {
    zone: ZoneId,
    buffer: DmaBuffer,
}

struct Write {
    at: Sector,
    buffer: DmaBuffer,
}

struct Read {
    at: Sector,
    buffer: DmaBuffer,
}

impl Quick for Append {
    type Rest = ZoneId;
    type Output = Appended;

    #[inline]
    fn rest(&self) -> ZoneId {
        self.zone
    }

    #[inline]
    fn is_quick<D: Driver>(&self, device: &ZonedDevice<D>) -> bool {
        device.driver.accounts().is_admitted(self.zone)
    }

    #[inline]
    fn output(sector: Sector, buffer: Option<DmaBuffer>) -> Result<Appended> {
        Ok(Appended {
            sector,
            buffer: owned(buffer)?,
        })
    }
}

impl Quick for Write {
    type Rest = Sector;
    type Output = DmaBuffer;

    #[inline]
    fn rest(&self) -> Sector {
        self.at
    }

    #[inline]
    fn is_quick<D: Driver>(&self, device: &ZonedDevice<D>) -> bool {
        let is_admitted = |zone| device.driver.accounts().is_admitted(zone);
        !device.is_large(&self.buffer) && device.limited_zone(self.at).is_none_or(is_admitted)
    }

    #[inline]
    fn output(_: Sector, buffer: Option<DmaBuffer>) -> Result<DmaBuffer> {
        owned(buffer)
    }
}

impl Quick for Read {
    type Rest = ();
    type Output = DmaBuffer;

    #[inline]
    fn rest(&self) {}

    #[inline]
    fn is_quick<D: Driver>(&self, device: &ZonedDevice<D>) -> bool {
        !device.is_large(&self.buffer)
    }

    #[inline]
    fn output(_: Sector, buffer: Option<DmaBuffer>) -> Result<DmaBuffer> {
        owned(buffer)
    }
}

impl From<Append> for Request {
    #[inline(always)]
    fn from(Append { zone, buffer }: Append) -> Self {
        Self::Append { zone, buffer }
    }
}

impl From<Write> for Request {
    #[inline(always)]
    fn from(Write { at, buffer }: Write) -> Self {
        Self::Write { at, buffer }
    }
}

impl From<Read> for Request {
    #[inline(always)]
    fn from(Read { at, buffer }: Read) -> Self {
        Self::Read { at, buffer }
    }
}

/// One buffer of several.
fn joined(buffers: Vec<DmaBuffer>) -> Result<DmaBuffer> {
    let mut buffers = buffers.into_iter();
    let Some(mut all) = buffers.next() else {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            "a vectored request needs at least one buffer",
        ));
    };
    for buffer in buffers {
        if let Err((error, _)) = all.join(buffer) {
            return Err(Error::from(error).with_buffer(Some(all)));
        }
    }
    Ok(all)
}

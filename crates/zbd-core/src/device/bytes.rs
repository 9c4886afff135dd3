//! Reading and writing [`Bytes`].

use bytes::Bytes;
use vfio_virtio::DmaBuffer;

use super::{Driver, ZonedDevice};
use crate::{Result, Sector, ZoneId};

impl<D: Driver> ZonedDevice<D> {
    /// Appends `bytes` to `zone`. Those that lie in the device's memory, because they came from
    /// [`DmaBuffer::into_bytes`], go without a copy; others by way of a buffer of it, which is waited
    /// for. Otherwise as [`append`](Self::append).
    ///
    /// # Errors
    /// As [`append`](Self::append). No buffer comes back: keep a clone of the bytes.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn append_bytes(&self, zone: ZoneId, bytes: Bytes) -> Result<Sector> {
        let buffer = self.for_device(bytes).await?;
        match self.append(zone, buffer).await {
            Ok(done) => Ok(done.sector),
            Err(error) => Err(error.with_buffer(None)),
        }
    }

    /// Writes `bytes` from `at` on; otherwise as [`append_bytes`](Self::append_bytes) and
    /// [`write`](Self::write).
    ///
    /// # Errors
    /// As [`write`](Self::write). No buffer comes back: keep a clone of the bytes.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn write_bytes(&self, at: Sector, bytes: Bytes) -> Result<()> {
        let buffer = self.for_device(bytes).await?;
        match self.write(at, buffer).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.with_buffer(None)),
        }
    }

    /// Reads `len_bytes` from `at` on as [`Bytes`], without a copy: they are the device's memory,
    /// which goes back to it when the last slice is dropped. For many small records, read one large
    /// extent and slice it. See [`DmaBuffer::into_bytes`] for what that trusts the device with.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn read_bytes(&self, at: Sector, len_bytes: usize) -> Result<Bytes> {
        Ok(self.read(at, len_bytes).await?.into_bytes())
    }

    /// The bytes where the device can read them.
    async fn for_device(&self, bytes: Bytes) -> Result<DmaBuffer> {
        if let Some(lent) = self.memory().lend(&bytes) {
            return Ok(lent);
        }
        let mut bounce = self.wait_for_buffer(bytes.len()).await?;
        bounce.copy_from_slice(&bytes);
        Ok(bounce)
    }
}

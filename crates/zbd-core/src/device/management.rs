//! Requests about the device rather than its data.

use super::{Driver, ZonedDevice, owned};
use crate::{
    Lifetime, Request, Result, Sector, SectorCount, Unmap, WriteCache, cache,
    limits::{self, RangeKind},
    parse_id,
};

impl<D: Driver> ZonedDevice<D> {
    /// Tells the device that the data of `len` sectors from `at` on are no longer needed. What is
    /// read from there afterwards is undefined.
    ///
    /// A range that exceeds the device's greatest goes in as many requests as it takes, one after
    /// the other; so it does for [`write_zeroes`](Self::write_zeroes) and
    /// [`secure_erase`](Self::secure_erase).
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the device takes no discard.
    ///   Host-managed devices never do: reset the zone.
    /// - [`ErrorKind::InvalidRequest`](crate::ErrorKind::InvalidRequest): the range is empty, past
    ///   the end of the device, or not [aligned](crate::RangeLimits::alignment). Nothing happened.
    /// - [`ErrorKind::ReadOnly`](crate::ErrorKind::ReadOnly): the device cannot be written.
    /// - [`ErrorKind::Medium`](crate::ErrorKind::Medium): the device failed; any part of the range
    ///   may have been discarded.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`]. Of a range that takes several requests, those that have not been
    /// accepted are not sent.
    pub async fn discard(&self, at: Sector, len: SectorCount) -> Result<()> {
        for (at, len) in limits::pieces(&self.info(), RangeKind::Discard, at, len)? {
            self.run(Request::Discard { at, len }).await?;
        }
        Ok(())
    }

    /// Lets `len` sectors from `at` on read as zeroes. As a write, it needs a
    /// [`flush`](Self::flush) to be durable. Whether sequential zones take it is up to the device:
    /// the specification does not say.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the device cannot do it by
    ///   itself; write zeroes.
    /// - As [`discard`](Self::discard) besides; the range is whole blocks.
    ///
    /// # Cancellation
    /// As [`discard`](Self::discard).
    pub async fn write_zeroes(&self, at: Sector, len: SectorCount, unmap: Unmap) -> Result<()> {
        for (at, len) in limits::pieces(&self.info(), RangeKind::WriteZeroes, at, len)? {
            self.run(Request::WriteZeroes { at, len, unmap }).await?;
        }
        Ok(())
    }

    /// Erases `len` sectors from `at` on beyond recovery. Of a zoned device that is whole zones,
    /// which are empty afterwards.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the device cannot do it.
    /// - As [`discard`](Self::discard) besides.
    ///
    /// # Cancellation
    /// As [`discard`](Self::discard).
    pub async fn secure_erase(&self, at: Sector, len: SectorCount) -> Result<()> {
        for (at, len) in limits::pieces(&self.info(), RangeKind::SecureErase, at, len)? {
            self.run(Request::SecureErase { at, len }).await?;
        }
        Ok(())
    }

    /// The device's ID string, mostly a serial number; empty if it has none. What cannot be printed
    /// is replaced.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the device does not tell.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn id(&self) -> Result<String> {
        let buffer = self.wait_for_buffer(Request::ID_LEN).await?;
        let (_, buffer) = self.run(Request::GetId { buffer }).await?;
        Ok(parse_id(&owned(buffer)?))
    }

    /// How worn the device is.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the device does not tell.
    ///
    /// # Cancellation
    /// See [`ZonedDevice`].
    pub async fn lifetime(&self) -> Result<Lifetime> {
        let buffer = self.wait_for_buffer(Request::LIFETIME_LEN).await?;
        let (_, buffer) = self.run(Request::GetLifetime { buffer }).await?;
        Lifetime::parse(&owned(buffer)?)
    }

    /// The present mode of the device's write cache. Asks the device where that can be switched.
    ///
    /// # Errors
    /// When the device's registers cannot be read.
    pub fn write_cache(&self) -> Result<WriteCache> {
        cache::get(self.driver.device()?.as_deref(), &self.info())
    }

    /// Switches the mode of the device's write cache. When it is writethrough, all that was
    /// completed before the call is durable, and so is whatever is begun after it and completed. The
    /// mode outlives a [`recover`](Self::recover); where the device does not take it up again, that
    /// fails.
    ///
    /// # Errors
    /// - [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): the cache cannot be switched.
    /// - [`ErrorKind::Protocol`](crate::ErrorKind::Protocol): the device stays in the other mode.
    /// - As [`flush`](Self::flush) besides.
    ///
    /// # Cancellation
    /// The mode is switched when the future is first polled; what was completed before may stay
    /// volatile.
    pub async fn set_write_cache(&self, mode: WriteCache) -> Result<()> {
        self.driver.set_write_cache(mode).await?;
        if mode == WriteCache::Writethrough {
            // Switching commits nothing (VIRTIO 1.3, 5.2.6.1).
            self.flush().await?;
        }
        Ok(())
    }
}

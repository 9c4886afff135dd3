//! Operations as data, for those that keep many of them on their way at once.

use vfio_virtio::DmaBuffer;

use super::{Driver, ZonedDevice, driver::Finished};
use crate::{Sector, ZoneId};

/// What can be on its way without a future of its caller.
pub enum Operation {
    Append {
        zone: ZoneId,
        buffer: DmaBuffer,
    },
    Write {
        at: Sector,
        buffer: DmaBuffer,
    },
    Flush,
    Finish(ZoneId),
    Reset(ZoneId),
    /// Ends a zone with a last record, which is made durable first: after a crash the zone may be
    /// full without it.
    Seal {
        zone: ZoneId,
        seal: DmaBuffer,
    },
}

/// Whoever writes this for a driver of which all is known lets the compiler see whether the future
/// may leave its thread.
pub(super) async fn carry_out<D: Driver>(device: ZonedDevice<D>, operation: Operation) -> Finished {
    let done = match operation {
        Operation::Append { zone, buffer } => {
            let appended = device.append(zone, buffer).await?;
            return Ok((appended.sector, Some(appended.buffer)));
        }
        Operation::Write { at, buffer } => {
            let buffer = device.write(at, buffer).await?;
            return Ok((at, Some(buffer)));
        }
        Operation::Seal { zone, seal } => {
            return Box::pin(finish_sealed(&device, zone, seal)).await;
        }
        Operation::Flush => device.flush().await,
        Operation::Finish(zone) => device.zone(zone).finish().await,
        Operation::Reset(zone) => device.zone(zone).reset().await,
    };
    // These are of no place.
    done.map(|()| (Sector(0), None))
}

async fn finish_sealed<D: Driver>(
    device: &ZonedDevice<D>,
    zone: ZoneId,
    seal: DmaBuffer,
) -> Finished {
    let appended = device.append(zone, seal).await?;
    let finished = match device.flush().await {
        Ok(()) => device.zone(zone).finish().await,
        Err(error) => Err(error),
    };
    match finished {
        Ok(()) => Ok((appended.sector, Some(appended.buffer))),
        Err(error) => Err(error.with_buffer(Some(appended.buffer))),
    }
}

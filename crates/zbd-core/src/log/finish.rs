//! Ends a zone before it is full.

use crate::{DmaBuffer, Error, Result, ZoneId, ZonedDevice};

/// Writes a seal behind the last record of a zone and finishes it. The seal has to be durable before:
/// after a crash the zone may be full without it.
pub(super) async fn finish(
    device: &ZonedDevice,
    zone: ZoneId,
    seal: DmaBuffer,
) -> (Option<DmaBuffer>, Result<()>) {
    match device.append(zone, seal).await {
        Ok(appended) => {
            let result = match device.flush().await {
                Ok(()) => device.zone(zone).finish().await,
                Err(error) => Err(error),
            };
            (Some(appended.buffer), result)
        }
        Err(error) => {
            let failure = Error::new(error.kind(), error.to_string());
            (error.into_buffer(), Err(failure))
        }
    }
}

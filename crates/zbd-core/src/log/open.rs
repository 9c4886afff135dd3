//! Makes and opens logs.

use std::{
    collections::VecDeque,
    future::{self, Future},
    hash::{BuildHasher, RandomState},
    ops::Range,
    pin::pin,
    sync::Arc,
};

use super::{
    engine::Engine,
    fence::{self, Claims, Fence, fenced},
    geometry::Geometry,
    options::{LogOptions, OnLoss, RecordId, Recovery},
    record,
    recover::{self, Recovered},
    scan::{Contents, Found, Scanner},
    state::{Entry, LogZone, Phase, Place, State},
};
use crate::{
    DmaBuffer, Driver, Error, ErrorKind, Result, SectorCount, Zone, ZoneId, ZoneState, ZonedDevice,
};

/// Makes a log of empty zones.
pub(super) async fn create<D: Driver>(
    device: &ZonedDevice<D>,
    options: &LogOptions,
) -> Result<Arc<Engine<D>>> {
    let geometry = Geometry::of(device, &options.zones)?;
    let opening = fence::opening_on(device);
    let _opening = lock(device, &opening).await;
    settle(device, &options.zones).await;
    let zones = device.report(options.zones.clone()).await?;
    if let Some(zone) = zones.iter().find(|zone| !is_empty(zone)) {
        return Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "zone {} is {}, and a log is made of empty zones; open the log that is there, or reset the zone if what it holds is not wanted",
                zone.id, zone.state
            ),
        ));
    }
    make(device, options, geometry, &zones).await
}

/// Opens the log that there is, or makes one.
pub(super) async fn open<D: Driver>(
    device: &ZonedDevice<D>,
    options: &LogOptions,
) -> Result<(Arc<Engine<D>>, Recovery)> {
    let geometry = Geometry::of(device, &options.zones)?;
    let opening = fence::opening_on(device);
    let _opening = lock(device, &opening).await;
    let mut scanner = Scanner::new(device, &geometry)?;
    let (zones, identity) = loop {
        let writer = fence::writer_of(device, &options.zones);
        if writer.is_none() {
            settle(device, &options.zones).await;
        }
        let zones = device.report(options.zones.clone()).await?;
        let identity = identify(&mut scanner, &zones).await?;
        match (identity, writer) {
            // It may have gone from zone to zone behind what was looked at.
            (None, Some((other, fence))) => {
                fence.raise();
                end_of::<D>(other, &fence).await;
            }
            (identity, _) => break (zones, identity),
        }
    };
    let Some(identity) = identity else {
        // Refuses what holds anything.
        for zone in &zones {
            check(zone, &scanner.contents(zone).await?, None)?;
        }
        drop(scanner);
        let engine = make(device, options, geometry, &zones).await?;
        let id = options.first_id;
        let recovery = Recovery {
            first_id: id,
            next_id: id,
            ..Recovery::default()
        };
        return Ok((engine, recovery));
    };

    let claims = Claims::of(identity);
    // A copy may be opened on another device.
    let _claiming = claims.opening.lock().await;
    if let Some(before) = claims.fence_off()
        && before.is_on(device)
    {
        end_of::<D>(identity, &before).await;
    }
    settle(device, &options.zones).await;
    // What was read before may have been in the middle of something.
    let zones = device.report(options.zones.clone()).await?;
    let mut found = Vec::new();
    let mut contents = Vec::new();
    let mut recovery = Recovery::default();
    for zone in &zones {
        let mut read = scanner.contents(zone).await?;
        check(zone, &read, Some(identity))?;
        recovery.damaged += read.lost;
        recovery.damaged += read.records.iter().filter(|it| !it.is_intact).count();
        found.append(&mut read.records);
        contents.push(read);
    }
    drop(scanner);
    let recovered = recover::recover(&found)?;
    if options.on_loss == OnLoss::Refuse {
        recovered.check()?;
    }
    let epoch = claims
        .take_epoch(recovered.epoch)
        .ok_or_else(|| Error::new(ErrorKind::LogFull, "the log has used up its epochs"))?;
    recovery.records.clone_from(&recovered.records);
    recovery.first_id = RecordId(recovered.base);
    recovery.next_id = RecordId(recovered.next());
    recovery.dropped = recovered.dropped;

    // What was found may be in the device's cache only, and is durable from here on.
    device.flush().await?;
    let mut zones = log_zones(&geometry, &zones, &contents, &recovered);
    make_room(device, &mut zones, &found, &recovered).await?;
    let seal = device.buffer(geometry.granule)?;
    let state = state(&geometry, identity, epoch, recovered, zones, seal);
    let engine = Arc::new(Engine::new(device, geometry, options.window, state));
    begin(&engine, &claims).await?;
    Ok((engine, recovery))
}

/// Waits for what handles that are gone left on its way: a reset that came late would end what is
/// written to its zone from now on.
async fn settle<D: Driver>(device: &ZonedDevice<D>, zones: &Range<ZoneId>) {
    for zone in zones.start.0..zones.end.0 {
        device.settle(ZoneId(zone)).await;
    }
}

/// Waits for the lock, and polls what logs of this device have on their way meanwhile: whoever has the
/// lock may wait for that, and nobody else may be able to poll it.
async fn lock<'a, D: Driver>(
    device: &ZonedDevice<D>,
    opening: &'a tokio::sync::Mutex<()>,
) -> tokio::sync::MutexGuard<'a, ()> {
    let engines = D::with_log_writers(|writers| writers.on(device));
    let mut waiters: Vec<_> = engines.iter().map(|engine| engine.waiter()).collect();
    let mut locked = pin!(opening.lock());
    future::poll_fn(|cx| {
        let polled = locked.as_mut().poll(cx);
        if polled.is_pending() {
            for (engine, waiter) in engines.iter().zip(&mut waiters) {
                engine.poll(waiter, cx);
            }
        }
        polled
    })
    .await
}

/// Which log the zones belong to, if they hold any record.
async fn identify<D: Driver>(scanner: &mut Scanner<'_, D>, zones: &[Zone]) -> Result<Option<u128>> {
    for zone in zones.iter().filter(|zone| !is_empty(zone)) {
        if let Some(identity) = scanner.identity(zone).await? {
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

/// Waits until a handle that has been fenced has nothing on its way any more.
async fn end_of<D: Driver>(identity: u128, fence: &Arc<Fence>) {
    let engine = D::with_log_writers(|writers| writers.get(identity));
    match engine.filter(|engine| Arc::ptr_eq(&engine.fence, fence)) {
        Some(engine) => engine.quiesce().await,
        None => fence.emptied().await,
    }
}

/// Makes a log of zones that hold nothing.
async fn make<D: Driver>(
    device: &ZonedDevice<D>,
    options: &LogOptions,
    geometry: Geometry,
    zones: &[Zone],
) -> Result<Arc<Engine<D>>> {
    let identity = random_identity();
    let claims = Claims::of(identity);
    let _opening = claims.opening.lock().await;
    let epoch = claims.take_epoch(0).unwrap_or(1);
    let recovered = Recovered {
        base: options.first_id.0,
        ..Recovered::default()
    };
    let contents: Vec<_> = zones.iter().map(|_| Contents::default()).collect();
    let zones = log_zones(&geometry, zones, &contents, &recovered);
    let seal = device.buffer(geometry.granule)?;
    let state = state(&geometry, identity, epoch, recovered, zones, seal);
    let engine = Arc::new(Engine::new(device, geometry, options.window, state));
    begin(&engine, &claims).await?;
    Ok(engine)
}

/// Makes the handle the log's writer, durably, and resets the zones that hold nothing.
async fn begin<D: Driver>(engine: &Arc<Engine<D>>, claims: &Claims) -> Result<()> {
    claims.set_writer(&engine.fence);
    let identity = engine.state().identity;
    D::with_log_writers(|writers| writers.set(identity, engine));
    {
        let mut state = engine.state();
        for zone in 0..state.zones.len() {
            state.settle(zone);
        }
        engine.carry_out(&mut state);
    }
    let base = engine.state().base;
    engine.mark(base).await?;
    match engine.fence.is_raised() {
        true => Err(fenced()),
        false => Ok(()),
    }
}

fn state(
    geometry: &Geometry,
    identity: u128,
    epoch: u64,
    recovered: Recovered,
    zones: Vec<LogZone>,
    seal: DmaBuffer,
) -> State {
    let next = recovered.next();
    let first = geometry.zones.start.0;
    let entries: VecDeque<_> = recovered
        .records
        .iter()
        .map(|record| Entry {
            epoch: record.epoch,
            zone: record.zone.0 - first,
            len: record.len_bytes as u32,
            place: Place::At(record.sector),
        })
        .collect();
    State {
        identity,
        epoch,
        start: next,
        previous: recovered.previous,
        base: recovered.base,
        entries,
        complete: next,
        durable: next,
        is_flushing: false,
        is_marking: false,
        written_mark: None,
        durable_mark: None,
        failure: None,
        reset_failure: None,
        active: zones.iter().position(|zone| zone.phase == Phase::Active),
        zones,
        reserve: geometry.reserve,
        longest: record::granules(geometry.max_payload, geometry.granule),
        max_open: geometry.max_open,
        tasks: Vec::new(),
        seal: Some(seal),
        freed: 0,
    }
}

/// Resets a zone for the mark, if there is none and one is not needed to know what the log is: a
/// reset that was not flushed may have been undone by a crash.
async fn make_room<D: Driver>(
    device: &ZonedDevice<D>,
    zones: &mut [LogZone],
    found: &[Found],
    recovered: &Recovered,
) -> Result<()> {
    let takes_marks = |zone: &LogZone| matches!(zone.phase, Phase::Active | Phase::Empty);
    if zones.iter().any(takes_marks) {
        return Ok(());
    }
    for zone in zones {
        if !matches!(zone.phase, Phase::Closed | Phase::Draining) || zone.last.is_some() {
            continue;
        }
        let others = found.iter().filter(|record| record.zone != zone.id);
        let others: Vec<_> = others.copied().collect();
        if recover::recover(&others)?.is_same(recovered) {
            device.zone(zone.id).reset().await?;
            zone.phase = Phase::Empty;
            zone.room = zone.capacity;
            return Ok(());
        }
    }
    // There is none, which the mark will find out.
    Ok(())
}

/// What each zone is good for.
fn log_zones(
    geometry: &Geometry,
    zones: &[Zone],
    contents: &[Contents],
    recovered: &Recovered,
) -> Vec<LogZone> {
    let granule = geometry.granule as u64;
    let granules = |sectors: SectorCount| sectors.bytes() / granule;
    let mut all: Vec<LogZone> = zones
        .iter()
        .map(|zone| {
            let capacity = granules(zone.capacity);
            let written = zone.written().map_or(capacity, granules);
            let phase = match zone.state {
                ZoneState::ReadOnly | ZoneState::Offline | ZoneState::NotWritePointer => {
                    Phase::Unusable
                }
                ZoneState::Full => Phase::Closed,
                _ if written == 0 => Phase::Empty,
                _ => Phase::Draining,
            };
            LogZone {
                id: zone.id,
                phase,
                capacity,
                room: match phase {
                    Phase::Empty | Phase::Draining => capacity.saturating_sub(written),
                    _ => 0,
                },
                in_flight: 0,
                last: None,
            }
        })
        .collect();
    for record in &recovered.records {
        let zone = &mut all[(record.zone.0 - geometry.zones.start.0) as usize];
        zone.last = zone.last.max(Some(record.id.0));
    }
    // One zone that was begun is written on, best one that has to be kept anyway. The others are
    // finished, and reset if they hold nothing: until then they count as active.
    let has_empty = all.iter().any(|zone| zone.phase == Phase::Empty);
    let can_go_on = |zone: &&mut LogZone, contents: &Contents| {
        zone.phase == Phase::Draining
            && zone.room > 0
            && !contents.is_sealed
            && (zone.last.is_some() || !has_empty)
    };
    let best = all
        .iter_mut()
        .zip(contents)
        .filter(|(zone, contents)| can_go_on(zone, contents))
        .max_by_key(|(zone, _)| (zone.last.is_some(), zone.room));
    if let Some((zone, _)) = best {
        zone.phase = Phase::Active;
    }
    all
}

/// Whether a zone is as good as new.
fn is_empty(zone: &Zone) -> bool {
    match zone.state {
        ZoneState::Empty => true,
        ZoneState::ImplicitlyOpen | ZoneState::ExplicitlyOpen => {
            zone.write_pointer == Some(zone.start)
        }
        _ => false,
    }
}

/// Refuses a zone that holds what is not of the log `identity`.
fn check(zone: &Zone, contents: &Contents, identity: Option<u128>) -> Result<()> {
    let refuse = |what: String| {
        Err(Error::new(
            ErrorKind::InvalidRequest,
            format!(
                "zone {} {what}; give the log other zones, or reset this one if what it holds is not wanted",
                zone.id
            ),
        ))
    };
    let first = contents.records.first().map(|found| found.header.identity);
    match first.or(contents.torn) {
        Some(other) if Some(other) != identity => refuse(match identity {
            Some(identity) => {
                format!("belongs to the log {other:032x}, another one to {identity:032x}")
            }
            None => "holds the beginning of a record and no log".to_owned(),
        }),
        None if contents.has_data => refuse("holds data that are not a log's".to_owned()),
        _ => Ok(()),
    }
}

/// A number that no other log has. The keys of a hasher are the random numbers of the operating
/// system that the standard library has.
fn random_identity() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(std::process::id()));
    // Keys of one thread differ by a counter, which the hash spreads.
    (half() << 64) | half()
}

//! Verification: records that say themselves what they are, written by many tasks, read back and
//! compared with what the device said of them.
//!
//! A run is a sequence of rounds. `plan` says what is done in one, from the seed alone; `write` does
//! it, and `ledger` keeps what the device acknowledged: 24 bytes a record. `check` then compares the
//! device's report and all data with that, and where anything is wrong, `diagnose` finds out what.
//! What is not decided by the seed is the order in which appends in flight at the same time land, and
//! which task writes which record. So the same fault strikes another record when a run is repeated,
//! but in the same round.

mod check;
mod diagnose;
pub(crate) mod finding;
mod ledger;
mod medium;
mod plan;
mod record;
pub(crate) mod settings;
mod shared;
mod write;

use std::{
    pin::pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{runtime, task::LocalSet, time::timeout};
use zbd_core::{AppendSupport, DeviceInfo, DeviceSpec, Zone, ZonedDevice};

use crate::{
    cli::VerifyArgs,
    failure::{During, Failure},
    job::{
        progress::{Progress, Total},
        select,
        stop::Stop,
    },
    report::figures,
};
use check::After;
use finding::Finding;
use ledger::ZoneLedger;
use medium::Medium;
use plan::Limits;
use settings::Settings;
pub(crate) use shared::Counts;
use shared::Shared;

/// How long an interrupted run waits for what is in flight.
const GRACE: Duration = Duration::from_secs(2);
const WATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How data were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writing {
    /// By appends, and some writes.
    Appends,
    /// The same, but the appends are this tool's library's.
    EmulatedAppends,
    /// By writes at the write pointers: the device takes no appends.
    Writes,
}

/// A run and all that is known after it.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) settings: Settings,
    pub(crate) info: Arc<DeviceInfo>,
    pub(crate) writing: Writing,
    /// How many zones were used.
    pub(crate) zones: u32,
    /// How many rounds were begun.
    pub(crate) rounds: u32,
    pub(crate) counts: Counts,
    /// The first few.
    pub(crate) findings: Vec<Finding>,
    pub(crate) findings_total: u64,
    pub(crate) seconds: f64,
    pub(crate) interrupted: bool,
}

/// Verifies a device, which is closed when this returns.
pub(crate) fn run(args: &VerifyArgs) -> Result<Verified, Failure> {
    let opening = |error| Failure::from_device(During::Opening, &error);
    let spec: DeviceSpec = args.device.parse().map_err(opening)?;
    let settings = Settings::resolve(args, &spec)?;
    let medium = Medium::new(spec, settings.queues).map_err(opening)?;
    let device = medium.open().map_err(opening)?;
    let info = device.info();
    let zoned = info.zoned().map_err(opening)?;
    if info.read_only {
        return Err(Failure::device(format!(
            "{} is read-only; verify has to write",
            info.name
        )));
    }
    let append = zoned.append;
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Failure::device(format!("cannot start an async runtime: {error}")))?;
    let local = LocalSet::new();
    let (shared, limits) = runtime.block_on(local.run_until(prepare(settings, device)))?;
    let zones = shared.ledgers.borrow().len() as u32;
    let progress = Progress::new(total(&shared.settings));
    let begun = Instant::now();
    runtime.block_on(local.run_until(drive(&shared, &medium, &limits, &progress)));
    drop(progress);
    // What is left of a stalled run goes with its tasks; its buffers stay with the device.
    drop(local);
    shared.close();
    let findings = shared.findings.take();
    Ok(Verified {
        settings: shared.settings.clone(),
        info,
        writing: match append {
            _ if !limits.appends => Writing::Writes,
            AppendSupport::Emulated => Writing::EmulatedAppends,
            _ => Writing::Appends,
        },
        zones,
        rounds: shared.round.get(),
        counts: *shared.counts.borrow(),
        findings_total: findings.total,
        findings: findings.told(),
        seconds: begun.elapsed().as_secs_f64(),
        interrupted: shared.stop.is_interrupted(),
    })
}

/// Chooses zones and empties them, if that may be.
async fn prepare(settings: Settings, device: ZonedDevice) -> Result<(Rc<Shared>, Limits), Failure> {
    let in_use = |error| Failure::from_device(During::Use, &error);
    let info = device.info();
    let report = device.report(..).await.map_err(in_use)?;
    let zones = settings.select(&info, &report)?;
    let limits = settings.limits(&info, &report, &zones, device.memory().contiguous_len())?;
    if let Some(zone) = zones
        .iter()
        .find(|zone| zone.capacity.0 < limits.unit.into())
    {
        return Err(Failure::device(format!(
            "zone {} of {} has a capacity of {} sectors, less than the {} that are written at least",
            zone.id, info.name, zone.capacity, limits.unit
        )));
    }
    let full = select::not_empty(&zones);
    select::require_consent(
        settings.consent,
        &info.name,
        &full,
        "not empty and would be reset",
    )?;
    // Until here an interrupt ends the process at once.
    let stop = Stop::default();
    stop.listen();
    for zone in full {
        device.zone(zone.id).reset().await.map_err(in_use)?;
    }
    let ledgers = zones.iter().map(|zone: &Zone| ZoneLedger::new(zone));
    let shared = Shared::new(settings, device, ledgers.collect(), stop);
    Ok((Rc::new(shared), limits))
}

/// Runs the rounds, but does not wait for a device that returns nothing once it was interrupted.
async fn drive(shared: &Rc<Shared>, medium: &Medium, limits: &Limits, progress: &Progress) {
    let mut rounds = pin!(rounds(shared, medium, limits));
    let mut interrupted = None;
    let begun = Instant::now();
    while timeout(WATCH_INTERVAL, rounds.as_mut()).await.is_err() {
        show(shared, progress, begun.elapsed());
        if shared.stop.is_interrupted() {
            let since: &Instant = interrupted.get_or_insert_with(Instant::now);
            if since.elapsed() >= GRACE {
                return;
            }
        }
    }
}

/// How much there is to do, as far as that is known.
fn total(settings: &Settings) -> Total {
    match (settings.duration, settings.rounds) {
        (Some(time), _) => Total::Time(time),
        (None, rounds) => Total::Steps(rounds.unwrap_or_default().into()),
    }
}

/// Shows how far it is.
fn show(shared: &Shared, progress: &Progress, elapsed: Duration) {
    if !progress.is_shown() {
        return;
    }
    let round = u64::from(shared.round.get());
    let verified = shared.counts.borrow().records_verified;
    let records = figures::plural(verified, "record");
    let what = format!("round {round}, {records} verified");
    progress.advance(elapsed, round.saturating_sub(1), &what);
}

async fn rounds(shared: &Rc<Shared>, medium: &Medium, limits: &Limits) {
    let zones = shared.ledgers.borrow().len();
    let mut is_fresh = true;
    while !shared.is_over() && shared.settings.rounds != Some(shared.round.get()) {
        let number = shared.round.get() + 1;
        shared.round.set(number);
        let round = plan::round(
            shared.settings.seed,
            number,
            limits,
            &shared.ledgers.borrow(),
        );
        let touched: Vec<usize> = round.scripts.iter().map(|script| script.zone).collect();
        write::carry_out(shared, round.scripts).await;
        if shared.is_ended() {
            return;
        }
        check::zones(shared, touched, After::Writing).await;
        is_fresh = false;
        if round.reopen && !shared.has_failed() && !shared.is_ended() {
            reopen(shared, medium, zones).await;
            is_fresh = true;
        }
        if shared.has_failed() || shared.is_ended() {
            return;
        }
    }
    if !is_fresh && !shared.is_ended() {
        reopen(shared, medium, zones).await;
    }
}

/// Closes the device, opens it again and verifies all zones, those too that were left alone.
async fn reopen(shared: &Rc<Shared>, medium: &Medium, zones: usize) {
    let flushed = match shared.device() {
        Ok(device) => device.flush().await,
        Err(error) => Err(error),
    };
    if let Err(error) = flushed {
        return shared.failed("flush the device", None, &error);
    }
    shared.count(|counts| counts.flushes += 1);
    shared.close();
    match medium.open() {
        Ok(device) => shared.reopened(device),
        Err(error) => return shared.failed("open the device again", None, &error),
    }
    shared.count(|counts| counts.reopens += 1);
    check::zones(shared, (0..zones).collect(), After::Reopening).await;
}

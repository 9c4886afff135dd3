//! Carries out what was planned for a round.

use std::{cell::RefCell, collections::VecDeque, ops::Range, panic::resume_unwind, rc::Rc};

use tokio::task::JoinSet;
use zbd_core::{DmaBuffer, Error, SECTOR_LEN, Sector, ZoneId, ZonedDevice};

use super::{
    finding::{Finding, Kind},
    ledger::{Condition, Record},
    plan::{Script, Step},
    record::SECTOR,
    shared::Shared,
};

/// Carries out all scripts at the same time.
pub(super) async fn carry_out(shared: &Rc<Shared>, scripts: Vec<Script>) {
    let (tasks, zones) = (shared.settings.tasks, scripts.len() as u32);
    let first = |zone: u32| (u64::from(zone) * u64::from(tasks) / u64::from(zones)) as u32;
    let mut set = JoinSet::new();
    for (i, script) in (0..).zip(scripts) {
        // Where there are more zones than tasks, one works on several.
        let tasks = first(i)..first(i + 1).max(first(i) + 1);
        set.spawn_local(perform(Rc::clone(shared), script, tasks));
    }
    all(set).await;
}

/// Waits for all tasks, and panics if one did.
pub(super) async fn all(mut set: JoinSet<()>) {
    while let Some(joined) = set.join_next().await {
        if let Err(error) = joined
            && error.is_panic()
        {
            resume_unwind(error.into_panic());
        }
    }
}

async fn perform(shared: Rc<Shared>, script: Script, tasks: Range<u32>) {
    let place = script.zone;
    let zone = shared.ledgers.borrow()[place].id;
    for step in script.steps {
        if shared.is_over() || shared.has_failed() {
            return;
        }
        let what = match &step {
            Step::Open => format!("open zone {zone}"),
            Step::Close => format!("close zone {zone}"),
            Step::Finish => format!("finish zone {zone}"),
            Step::Reset => format!("reset zone {zone}"),
            Step::Append(_) => format!("append to zone {zone}"),
            Step::Write(_) => format!("write to zone {zone}"),
            Step::Flush => "flush the device".to_owned(),
            Step::Look => format!("report zone {zone}"),
        };
        if let Err(error) = take(&shared, place, zone, step, &tasks).await {
            shared.ledgers.borrow_mut()[place].doubtful = true;
            return shared.failed(&what, Some(zone.0), &error);
        }
    }
}

async fn take(
    shared: &Rc<Shared>,
    place: usize,
    zone: ZoneId,
    step: Step,
    tasks: &Range<u32>,
) -> Result<(), Error> {
    let device = shared.device()?;
    let become_of = |condition| shared.ledgers.borrow_mut()[place].condition = condition;
    match step {
        Step::Open => {
            device.zone(zone).open().await?;
            become_of(Condition::Explicit);
            shared.count(|counts| counts.opens += 1);
        }
        Step::Close => {
            device.zone(zone).close().await?;
            become_of(Condition::Closed);
            shared.count(|counts| counts.closes += 1);
        }
        Step::Finish => {
            device.zone(zone).finish().await?;
            become_of(Condition::Full);
            shared.count(|counts| counts.finishes += 1);
        }
        Step::Reset => {
            device.zone(zone).reset().await?;
            shared.ledgers.borrow_mut()[place].reset();
            shared.count(|counts| counts.resets += 1);
        }
        Step::Flush => {
            device.flush().await?;
            shared.count(|counts| counts.flushes += 1);
        }
        Step::Look => look(shared, &device, place, zone).await?,
        Step::Write(lengths) => {
            for sectors in lengths {
                if shared.is_over() || shared.has_failed() {
                    break;
                }
                write(shared, &device, place, tasks.start, sectors).await?;
            }
        }
        Step::Append(lengths) => append_all(shared, place, lengths, tasks).await,
    }
    Ok(())
}

/// Has all tasks of the zone append, each with as many in flight as it may.
async fn append_all(shared: &Rc<Shared>, place: usize, lengths: Vec<u32>, tasks: &Range<u32>) {
    let most = lengths.len();
    let lengths = Rc::new(RefCell::new(VecDeque::from(lengths)));
    let mut set = JoinSet::new();
    let workers = (0..shared.settings.depth).flat_map(|_| tasks.clone());
    for task in workers.take(most) {
        set.spawn_local(append_some(
            Rc::clone(shared),
            place,
            Rc::clone(&lengths),
            task,
        ));
    }
    all(set).await;
}

async fn append_some(
    shared: Rc<Shared>,
    place: usize,
    lengths: Rc<RefCell<VecDeque<u32>>>,
    task: u32,
) {
    loop {
        if shared.is_over() || shared.has_failed() {
            return;
        }
        let Some(sectors) = lengths.borrow_mut().pop_front() else {
            return;
        };
        if let Err(error) = append(&shared, place, task, sectors).await {
            let mut ledgers = shared.ledgers.borrow_mut();
            let ledger = &mut ledgers[place];
            ledger.doubtful = true;
            let what = format!("append to zone {}", ledger.id);
            return shared.failed(&what, Some(ledger.id.0), &error);
        }
    }
}

async fn append(shared: &Shared, place: usize, task: u32, sectors: u32) -> Result<(), Error> {
    let device = shared.device()?;
    let Some((zone, mut record)) = claim(shared, place, task, sectors) else {
        return Ok(());
    };
    let buffer = filled(shared, &device, place, &record).await?;
    let done = device.append(zone, buffer).await?;
    record.sector = done.sector.0;
    shared.ledgers.borrow_mut()[place].add(record);
    shared.count(|counts| {
        counts.appends += 1;
        counts.bytes_written += u64::from(sectors) * SECTOR_LEN;
    });
    Ok(())
}

/// Writes where everything that was written before ends.
async fn write(
    shared: &Shared,
    device: &ZonedDevice,
    place: usize,
    task: u32,
    sectors: u32,
) -> Result<(), Error> {
    let Some((_, mut record)) = claim(shared, place, task, sectors) else {
        return Ok(());
    };
    let buffer = filled(shared, device, place, &record).await?;
    let at: Sector = shared.ledgers.borrow()[place].write_pointer();
    device.write(at, buffer).await?;
    record.sector = at.0;
    shared.ledgers.borrow_mut()[place].add(record);
    shared.count(|counts| {
        counts.writes += 1;
        counts.bytes_written += u64::from(sectors) * SECTOR_LEN;
    });
    Ok(())
}

/// A record yet to be written; none if there is no room for it. Not every device refuses what does
/// not fit: some put it into the next zone.
fn claim(shared: &Shared, place: usize, task: u32, sectors: u32) -> Option<(ZoneId, Record)> {
    let mut ledgers = shared.ledgers.borrow_mut();
    let ledger = &mut ledgers[place];
    let claimed = ledger.claimed + u64::from(sectors);
    if claimed > ledger.capacity {
        return None;
    }
    ledger.claimed = claimed;
    ledger.sequence += 1;
    let record = Record {
        sector: 0,
        round: shared.round.get(),
        sequence: ledger.sequence,
        task,
        sectors,
    };
    Some((ledger.id, record))
}

async fn filled(
    shared: &Shared,
    device: &ZonedDevice,
    place: usize,
    record: &Record,
) -> Result<DmaBuffer, Error> {
    let mut buffer = device
        .wait_for_buffer(record.sectors as usize * SECTOR)
        .await?;
    let ledgers = shared.ledgers.borrow();
    for index in 0..record.sectors {
        let stamp = ledgers[place].stamp(shared.settings.seed, record, index);
        buffer.write_at(index as usize * SECTOR, &stamp.bytes());
    }
    Ok(buffer)
}

/// Compares the write pointer while other zones are being written to.
async fn look(
    shared: &Shared,
    device: &ZonedDevice,
    place: usize,
    zone: ZoneId,
) -> Result<(), Error> {
    let found = device.zone(zone).barrier().await?;
    shared.count(|counts| counts.zones_reported += 1);
    let expected = {
        let ledgers = shared.ledgers.borrow();
        let ledger = &ledgers[place];
        (ledger.condition != Condition::Full).then(|| ledger.write_pointer())
    };
    if found != expected {
        let say = |pointer: Option<Sector>| match pointer {
            Some(sector) => format!("sector {sector}"),
            None => "nowhere, as of a full zone".to_owned(),
        };
        shared.find(Finding {
            kind: Kind::WritePointer,
            zone: Some(zone.0),
            sector: found.map(|sector| sector.0),
            text: format!(
                "zone {zone}: with nothing in flight the write pointer is {}, and what was \
                 acknowledged ends at {}",
                say(found),
                say(expected)
            ),
            evidence: None,
        });
    }
    Ok(())
}

//! Power cuts at random: what was acknowledged is there, nothing else is invented, nothing that was
//! lost comes back.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use zbd_core::{
    Backend, OpenOptions, Result, ZoneLog, ZonedDevice,
    log::{RecordId, Recovery},
};
use zbd_emu::EmulatedFunction;

use crate::{
    blocking::{block_on, here},
    random::Random,
    rig::{Kind, on_both_kinds, options, payload},
};

/// Zones of 32 granules, so that the log goes round them every few cuts.
const GEOMETRY: &str = "zones=8,zone-size=16k,block-size=512,max-append=4k,queues=1,queue-size=64";

/// A directory for a file of a device. Where there is one in memory, a sync takes no time there.
fn directory() -> tempfile::TempDir {
    match std::fs::metadata("/dev/shm") {
        Ok(_) => tempfile::tempdir_in("/dev/shm").unwrap(),
        Err(_) => tempfile::tempdir().unwrap(),
    }
}

fn power_on<D: Kind>(spec: &str) -> (Arc<EmulatedFunction>, ZonedDevice<D>) {
    let function = Arc::new(EmulatedFunction::new(&spec.parse().unwrap()).unwrap());
    let options = OpenOptions {
        memory_len: 2 << 20,
        ..OpenOptions::default()
    };
    let queues = options
        .open_function(
            Arc::clone(&function) as Arc<_>,
            Backend::Emulated,
            "emu:".to_owned(),
        )
        .unwrap();
    (function, D::of(queues))
}

/// What must be true of the log.
#[derive(Default)]
struct Model {
    /// The records that the log had when it was opened, by their ids: which payload each has.
    alive: BTreeMap<u64, u64>,
    /// The payloads that were offered since, and the ids of those that said theirs.
    offered: BTreeSet<u64>,
    known: BTreeMap<u64, u64>,
    /// Everything below was acknowledged as durable.
    durable: u64,
    /// The trim points that were acknowledged and asked for.
    trimmed: u64,
    trimming: u64,
    last: u64,
}

fn tagged(tag: u64) -> Vec<u8> {
    let mut bytes = tag.to_le_bytes().to_vec();
    bytes.extend(payload(tag, (tag * 37 % 1700) as usize));
    bytes
}

impl Model {
    fn offer(&mut self) -> Vec<u8> {
        self.last += 1;
        self.offered.insert(self.last);
        tagged(self.last)
    }

    fn tell(&mut self, told: Told) {
        match told {
            Told::Written(tag, id) => {
                assert!(self.known.insert(id, tag).is_none(), "two have id {id}");
            }
            Told::Durable(tag, id) => {
                assert!(self.known.insert(id, tag).is_none(), "two have id {id}");
                self.durable = self.durable.max(id + 1);
            }
            Told::Synced(upto) => self.durable = self.durable.max(upto),
            Told::Trimmed(below) => self.trimmed = self.trimmed.max(below),
        }
    }

    /// Compares what was found after a cut, which is the truth from then on.
    fn check<D: Kind>(&mut self, log: &ZoneLog<D>, recovery: &Recovery) {
        let (first, next) = (recovery.first_id.0, recovery.next_id.0);
        assert!(next >= self.durable, "{next} < {}", self.durable);
        let asked = self.trimmed..=self.trimming;
        assert!(asked.contains(&first), "{first} is not in {asked:?}");
        assert!((first..next).eq(recovery.records.iter().map(|record| record.id.0)));
        let mut alive = BTreeMap::new();
        for record in &recovery.records {
            let id = record.id.0;
            let bytes = block_on(log.read(record.id)).unwrap();
            let tag = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(bytes == tagged(tag), "record {id} is not as it was");
            match self.alive.get(&id) {
                Some(known) => assert_eq!(*known, tag, "record {id} is another"),
                None => {
                    assert!(
                        self.offered.remove(&tag),
                        "record {id} came back or is invented"
                    );
                    let known = self.known.get(&id);
                    assert!(known.is_none_or(|known| *known == tag), "record {id}");
                }
            }
            alive.insert(id, tag);
        }
        self.alive = alive;
        self.offered.clear();
        self.known.clear();
        self.durable = next;
        self.trimmed = first;
        self.trimming = first;
    }
}

/// What a future of the log has told.
enum Told {
    Written(u64, u64),
    Durable(u64, u64),
    Synced(u64),
    Trimmed(u64),
}

type Deed<'a> = Pin<Box<dyn Future<Output = Result<Told>> + 'a>>;

fn deed<'a, D: Kind>(log: &'a ZoneLog<D>, model: &mut Model, random: &mut Random) -> Deed<'a> {
    let next = log.next_id().0;
    match random.below(16) {
        0 => Box::pin(async { Ok(Told::Synced(log.sync().await?.0)) }),
        1 | 2 => {
            let below = next.saturating_sub(random.below(25));
            model.trimming = model.trimming.max(below);
            Box::pin(async move {
                log.trim(RecordId(below)).await?;
                Ok(Told::Trimmed(below))
            })
        }
        kind => {
            let bytes = model.offer();
            let tag = model.last;
            Box::pin(async move {
                Ok(match kind {
                    3..6 => Told::Durable(tag, log.append_durable(&bytes).await?.0),
                    _ => Told::Written(tag, log.append(&bytes).await?.0),
                })
            })
        }
    }
}

/// Polls once, as a part of what this thread does.
fn poll_here<T>(future: &mut Pin<Box<dyn Future<Output = T> + '_>>) -> Option<T> {
    match future.as_mut().poll(&mut Context::from_waker(&here())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Writes for a while; nothing that is under way at the end is awaited.
fn work<D: Kind>(log: &ZoneLog<D>, model: &mut Model, random: &mut Random) {
    let mut deeds: Vec<Deed<'_>> = Vec::new();
    for _ in 0..random.below(60) {
        deeds.push(deed(log, model, random));
        for _ in 0..random.below(4) {
            deeds.retain_mut(|deed| match poll_here(deed) {
                Some(Ok(told)) => {
                    model.tell(told);
                    false
                }
                // The log is full: a trim comes.
                Some(Err(error)) => {
                    assert_eq!(error.kind(), zbd_core::ErrorKind::LogFull, "{error}");
                    false
                }
                None => true,
            });
        }
        match random.below(24) {
            0 if !deeds.is_empty() => {
                let at = random.below(deeds.len() as u64) as usize;
                match block_on(deeds.swap_remove(at)) {
                    Ok(told) => model.tell(told),
                    Err(error) => assert_eq!(error.kind(), zbd_core::ErrorKind::LogFull),
                }
            }
            1 => drop(deeds.pop()),
            2 => {
                std::thread::sleep(Duration::from_micros(random.below(200)));
                zbd_core::on_thread_park();
            }
            _ => {}
        }
    }
}

fn cut_and_compare<D: Kind>(cuts: u64, device: &str) {
    let directory = directory();
    let spec = format!(
        "store={}/disk,{GEOMETRY}{device}",
        directory.path().display()
    );
    let mut random = Random::new(cuts);
    let mut model = Model::default();
    let (mut lost, mut more, mut rounds) = (0, 0, 0);
    for cut in 0..cuts {
        let (function, device) = power_on::<D>(&spec);
        let (log, recovery) = block_on(ZoneLog::open(&device, &options())).unwrap();
        lost += model.offered.len();
        more += u64::from(recovery.next_id.0 > model.durable);
        model.check(&log, &recovery);
        work(&log, &mut model, &mut random);
        rounds = log.next_id().0;
        match random.below(20) {
            // The process ends, and the device with it, but not the power.
            0 => {}
            // The log is opened anew, and that cut short.
            1 => {
                let mut opening: Pin<Box<dyn Future<Output = _> + '_>> =
                    Box::pin(async { drop(ZoneLog::open(&device, &options()).await) });
                for _ in 0..random.below(200) {
                    if poll_here(&mut opening).is_some() {
                        break;
                    }
                    zbd_core::on_thread_park();
                }
                function.power_cut(cut);
            }
            _ => function.power_cut(cut),
        }
    }
    // It was a trial of something.
    assert!(lost as u64 > cuts, "{lost} records could have been lost");
    assert!(
        more > cuts / 20,
        "{more} times more was found than was acknowledged"
    );
    assert!(rounds > 2 * cuts, "{rounds} records were kept");
}

on_both_kinds! {
    a_thousand_power_cuts_lose_nothing_acknowledged_and_invent_nothing,
    power_cuts_with_one_open_zone_lose_nothing_acknowledged,
}

fn a_thousand_power_cuts_lose_nothing_acknowledged_and_invent_nothing<D: Kind>() {
    cut_and_compare::<D>(1000, "");
}

fn power_cuts_with_one_open_zone_lose_nothing_acknowledged<D: Kind>() {
    cut_and_compare::<D>(100, ",max-open=1,max-active=1");
}

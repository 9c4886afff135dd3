//! Many appends of many tasks: none lost, none twice, memory flat. In a process of its own, of which
//! nothing else takes memory meanwhile.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use tokio::{runtime::Builder, sync::Barrier};
use zbd_core::{Backend, DmaBuffer, OpenOptions, ZoneId, ZonedDevice};
use zbd_emu::EmulatedFunction;

use crate::in_time::in_time;

#[path = "../harness/in_time.rs"]
mod in_time;

const TASKS: u64 = 64;
const ZONES: u64 = 4;
const DEPTH: u16 = 128;
/// Of a zone: 256 MiB of blocks of 4 KiB.
const BLOCKS: u64 = 1 << 16;
const BLOCK: usize = 4096;
const SECTORS: u64 = 8;

/// The blocks of a zone that have been given out since it was last reset, a bit each.
struct Given(Box<[AtomicU64]>);

impl Given {
    fn new() -> Self {
        Self((0..BLOCKS / 64).map(|_| AtomicU64::new(0)).collect())
    }

    /// A block is given out, which it was not before.
    fn give(&self, block: u64) {
        let bit = 1 << (block % 64);
        let before = self.0[(block / 64) as usize].fetch_or(bit, Ordering::Relaxed);
        assert_eq!(before & bit, 0, "block {block} was given out twice");
    }

    /// How many have been given out. None is from now on.
    fn take(&self) -> u64 {
        let words = self.0.iter();
        let taken = words.map(|word| word.swap(0, Ordering::Relaxed).count_ones());
        taken.map(u64::from).sum()
    }
}

/// What the tasks of one zone share.
struct Zone {
    id: ZoneId,
    given: Given,
    /// Where its tasks meet when it is full.
    meeting: Barrier,
}

/// How much memory this process has in use, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap()
        .parse()
        .unwrap();
    kib * 1024
}

/// Two appends in flight, of which the device has twice as many as there are tasks.
async fn two_appends(device: &ZonedDevice, zone: &Zone, buffers: [DmaBuffer; 2]) -> [DmaBuffer; 2] {
    let start = zone.id.0 as u64 * BLOCKS;
    let [a, b] = buffers;
    let ends = tokio::join!(device.append(zone.id, a), device.append(zone.id, b));
    [ends.0, ends.1].map(|end| {
        let done = end.unwrap();
        assert_eq!(done.sector.0 % SECTORS, 0);
        zone.given.give(done.sector.0 / SECTORS - start);
        done.buffer
    })
}

/// One task: in each of `rounds`, its share of a zone; then the zone is checked, and reset.
async fn work(device: ZonedDevice, zone: Arc<Zone>, rounds: u64, pairs: u64) {
    let buffer = || device.buffer(BLOCK).unwrap();
    let mut buffers = [buffer(), buffer()];
    for _ in 0..rounds {
        for _ in 0..pairs {
            buffers = two_appends(&device, &zone, buffers).await;
        }
        if zone.meeting.wait().await.is_leader() {
            let expected = TASKS / ZONES * pairs * 2;
            assert_eq!(zone.given.take(), expected, "appends were lost");
            let handle = device.zone(zone.id);
            let report = handle.report().await.unwrap();
            assert_eq!(report.written().unwrap().0, expected * SECTORS);
            handle.reset().await.unwrap();
        }
        zone.meeting.wait().await;
    }
}

/// Runs `appends` or a few more; prints what they cost, for those who want to see it.
fn appends_of_tasks(appends: u64) {
    let options = OpenOptions {
        queues: 1,
        queue_size: Some(DEPTH),
        ..OpenOptions::default()
    };
    let config = format!("store=null,zones={ZONES},zone-size=256m,queues=1,ring=split,indirect=on");
    let function = EmulatedFunction::new(&config.parse().unwrap()).unwrap();
    let queues = options
        .open_function(Arc::new(function), Backend::Emulated, "emu:".to_owned())
        .unwrap();
    assert_eq!(queues[0].depth(), DEPTH);
    let device = ZonedDevice::from_queues(queues).unwrap();
    let runtime = Builder::new_multi_thread().build().unwrap();
    // A zone is filled by the tasks that share it, to its last block if there are enough appends.
    let most_pairs = BLOCKS * ZONES / TASKS / 2;
    let mut grown = 0;
    let mut run = |appends: u64| {
        let pairs = most_pairs.min(appends.div_ceil(TASKS * 2));
        let rounds = appends.div_ceil(pairs * TASKS * 2);
        let (begun, before) = (Instant::now(), resident());
        runtime.block_on(async {
            let zones: Vec<_> = (0..ZONES as u32)
                .map(|id| {
                    Arc::new(Zone {
                        id: ZoneId(id),
                        given: Given::new(),
                        meeting: Barrier::new((TASKS / ZONES) as usize),
                    })
                })
                .collect();
            let tasks: Vec<_> = (0..TASKS)
                .map(|task| {
                    let zone = Arc::clone(&zones[(task % ZONES) as usize]);
                    tokio::spawn(work(device.clone(), zone, rounds, pairs))
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
        let (took, done) = (begun.elapsed(), rounds * pairs * TASKS * 2);
        grown = resident().saturating_sub(before);
        println!(
            "{done} appends in {:.2} s: {:.0} a second; resident memory {} KiB, {} KiB more than before",
            took.as_secs_f64(),
            done as f64 / took.as_secs_f64(),
            resident() / 1024,
            grown / 1024
        );
    };
    // What is needed at all is touched by a tenth of them.
    run(appends / 10);
    run(appends);
    assert!(grown <= 1 << 20, "memory has grown by {grown} bytes");
}

#[test]
fn none_of_many_appends_is_lost_or_put_where_another_is() {
    in_time(|| appends_of_tasks(200_000));
}

#[test]
#[ignore = "takes a minute or two; run it with --release"]
fn none_of_ten_million_appends_is_lost_or_put_where_another_is() {
    appends_of_tasks(10_000_000);
}

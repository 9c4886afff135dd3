//! What the device's side of a request costs, without a driver worth the name.
//!
//! `cargo bench -p zbd-emu` prints nanoseconds per request: of the stepped device alone, and of a
//! device with its own thread whose driver only hands the same requests out again and again. For
//! instructions, run the binary with `--once null append` or the like under callgrind with
//! `--toggle-collect='*measured*'`; it then takes as many requests as it says.
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

#[path = "../tests/device/arena.rs"]
mod arena;
#[expect(dead_code, reason = "shared with the tests, which need more")]
#[path = "../tests/device/driver.rs"]
mod driver;

use std::time::{Duration, Instant};

use driver::{APPEND, BASE, DATA, Desc, IN, NEXT, OUT, RESET_ALL, Rig, Shape, TABLE, WRITE};

const DEPTH: u16 = 128;
const BLOCK: u32 = 4096;
/// The parts of a request lie this far apart; its data lie beyond all of them.
const SLOT: usize = 256;
const BUFFERS: usize = DATA + 0x1_0000;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let once = arguments.iter().any(|argument| argument == "--once");
    let wanted = |word: &str| !once || arguments.iter().any(|argument| argument == word);
    for store in ["null", "mem"].into_iter().filter(|store| wanted(store)) {
        for kind in [APPEND, OUT, IN]
            .into_iter()
            .filter(|kind| wanted(name(*kind)))
        {
            stepped(store, kind, once);
        }
    }
    for ring in ["ring=split", "ring=packed", "ring=packed,in-order=on"] {
        if wanted(ring) {
            formats(ring, once);
        }
    }
    if !once {
        for store in ["null", "mem"] {
            threaded(store, APPEND);
            threaded(store, IN);
        }
    }
}

/// Lays `DEPTH` requests out, each with an indirect table of three descriptors.
fn lay_out(rig: &Rig, kind: u32, sector: impl Fn(u16) -> u64) {
    for slot in 0..DEPTH {
        let at = DATA + SLOT * usize::from(slot);
        rig.put_header(at, kind, sector(slot));
        let answer = if kind == APPEND { 9 } else { 1 };
        let data = BUFFERS + BLOCK as usize * usize::from(slot);
        let parts = [
            (at, 16, NEXT),
            (data, BLOCK, NEXT | if kind == IN { WRITE } else { 0 }),
            (at + 16, answer, WRITE),
        ];
        for (i, (offset, len, flags)) in parts.into_iter().enumerate() {
            let desc = Desc {
                address: BASE + offset as u64,
                len,
                flags,
                next: i as u16 + 1,
            };
            rig.arena.write(at + 64 + 16 * i, &desc.bytes());
        }
        let table = Desc {
            address: BASE + (at + 64) as u64,
            len: 48,
            flags: TABLE,
            next: 0,
        };
        rig.set_desc(0, slot, table);
    }
}

fn name(kind: u32) -> &'static str {
    match kind {
        APPEND => "append",
        OUT => "write",
        _ => "read",
    }
}

/// Fills the zones `0..count` of 8 MiB by appends of what lies at `BUFFERS`.
fn fill(rig: &mut Rig, sectors: u64) {
    let mut sector = 0;
    while sector < sectors {
        assert_eq!(rig.request(APPEND, 0, &[1; 65536], 0).status, 0);
        sector += 128;
    }
}

fn stepped(store: &str, kind: u32, once: bool) {
    let mut rig = Rig::ready(&format!("store={store},queues=1,zone-size=8m"));
    let batches: u64 = if once { 10 } else { 4000 };
    if kind == IN {
        fill(&mut rig, 1024);
    }
    let mut best = Duration::MAX;
    let mut total = Duration::ZERO;
    let mut batch_in_zone = 0;
    if kind != OUT {
        lay_out(
            &rig,
            kind,
            |slot| if kind == IN { 8 * u64::from(slot) } else { 0 },
        );
    }
    // Pages of the store are touched once before anything is measured.
    let warm = if once { 16 } else { 64 };
    for batch in 0..warm + batches {
        // Zone 0 holds 2048 blocks.
        if kind != IN && batch_in_zone == 2048 / u64::from(DEPTH) {
            assert_eq!(reset(&mut rig), 0);
            batch_in_zone = 0;
            if kind == APPEND {
                lay_out(&rig, kind, |_| 0);
            }
        }
        if kind == OUT {
            let first = batch_in_zone * u64::from(DEPTH);
            lay_out(&rig, kind, |slot| 8 * (first + u64::from(slot)));
        }
        batch_in_zone += 1;
        for slot in 0..DEPTH {
            rig.offer(0, slot);
        }
        rig.kick(0);
        let begin = Instant::now();
        run(&mut rig, batch < warm);
        let took = begin.elapsed();
        assert_eq!(rig.used_index(0), rig.queues[0].avail);
        assert_eq!(
            rig.arena
                .read(DATA + SLOT + if kind == APPEND { 24 } else { 16 }, 1),
            [0]
        );
        rig.queues[0].used = rig.queues[0].avail;
        if batch >= warm {
            total += took;
            best = best.min(took);
        }
    }
    let requests = (batches * u64::from(DEPTH)) as f64;
    if once {
        println!("stepped {store} {}: {requests} requests", name(kind));
        return;
    }
    println!(
        "stepped  {store:4} {:6} {:6.1} ns a request, best batch {:6.1}",
        name(kind),
        total.as_nanos() as f64 / requests,
        best.as_nanos() as f64 / f64::from(DEPTH),
    );
}

/// Appends of one block each to the null store, in a format of ring.
fn formats(ring: &str, once: bool) {
    let mut rig = Rig::ready(&format!("store=null,queues=1,zone-size=8m,{ring}"));
    let (warm, batches): (u64, u64) = if once { (16, 10) } else { (64, 4000) };
    let mut total = Duration::ZERO;
    let mut best = Duration::MAX;
    for batch in 0..warm + batches {
        // Zone 0 holds 2048 blocks.
        if batch % (2048 / u64::from(DEPTH)) == 0 {
            assert_eq!(rig.command(RESET_ALL, 0), 0);
        }
        for slot in 0..DEPTH {
            let at = DATA + SLOT * usize::from(slot);
            rig.put_header(at, APPEND, 0);
            let data = BUFFERS + BLOCK as usize * usize::from(slot);
            let parts = [(at, 16, 0), (data, BLOCK, 0), (at + 16, 9, WRITE)];
            rig.submit(0, &parts, Shape::Indirect(at + 64));
        }
        rig.kick(0);
        let begin = Instant::now();
        run(&mut rig, batch < warm);
        let took = begin.elapsed();
        while rig.take_used(0).is_some() {}
        assert!(rig.queues[0].outstanding.is_empty());
        assert_eq!(rig.arena.read(DATA + SLOT + 24, 1), [0]);
        if batch >= warm {
            total += took;
            best = best.min(took);
        }
    }
    println!(
        "stepped  null append {:6.1} ns a request, best batch {:6.1}, {ring}",
        total.as_nanos() as f64 / (batches * u64::from(DEPTH)) as f64,
        best.as_nanos() as f64 / f64::from(DEPTH),
    );
}

/// Runs the device, inside or outside of what callgrind collects.
fn run(rig: &mut Rig, warming_up: bool) {
    if warming_up {
        rig.step();
    } else {
        measured(rig);
    }
}

#[inline(never)]
fn measured(rig: &mut Rig) {
    rig.stepper.as_mut().unwrap().run_until_idle();
}

/// Empties all zones, outside of what callgrind collects.
fn reset(rig: &mut Rig) -> u8 {
    rig.put_header(DATA, RESET_ALL, 0);
    rig.lay_out(0, 200, DATA, 0, &[1]);
    rig.offer(0, 200);
    rig.kick(0);
    run(rig, true);
    rig.queues[0].used = rig.queues[0].avail;
    rig.arena.read(DATA + 16, 1)[0]
}

/// The requests in flight are handed out again as soon as they are used.
fn threaded(store: &str, kind: u32) {
    const ZONES: u64 = 16;
    const ZONE_SECTORS: u64 = (64 << 20) / 512;
    // As many as fill half of all zones.
    const REQUESTS: u64 = ZONES * ZONE_SECTORS / 8 / 2;

    // The ring names each slot once, and requests are used in order: it never changes.
    let mut rig = Rig::threaded(&format!(
        "store={store},queues=1,queue-size={DEPTH},zone-size=64m,zones={ZONES}"
    ));
    if kind == IN {
        fill(&mut rig, 1024);
    }
    let mut best = Duration::MAX;
    // The first pass has the store allocate its pages.
    for _ in 0..4 {
        lay_out(&rig, kind, |slot| match kind {
            IN => 8 * u64::from(slot),
            _ => u64::from(slot) % ZONES * ZONE_SECTORS,
        });
        best = best.min(keep_busy(&mut rig, REQUESTS));
        if kind == APPEND {
            assert_eq!(rig.command(RESET_ALL, 0), 0);
        }
    }
    let counters = rig.control.counters();
    println!(
        "threaded {store:4} {:6} {:6.1} ns a request, {:.2} M a second, {:.1} a batch",
        name(kind),
        best.as_nanos() as f64 / REQUESTS as f64,
        REQUESTS as f64 / best.as_secs_f64() / 1e6,
        counters.requests as f64 / counters.batches as f64,
    );
}

/// Has `requests` requests carried out, `DEPTH` of them in flight.
fn keep_busy(rig: &mut Rig, requests: u64) -> Duration {
    let begin = Instant::now();
    for slot in 0..DEPTH {
        rig.offer(0, slot);
    }
    rig.kick(0);
    let mut avail = rig.queues[0].avail;
    let mut used = rig.queues[0].used;
    let mut offered = u64::from(DEPTH);
    let mut done = 0;
    while done < requests {
        let now = rig.used_index(0);
        let new = u64::from(now.wrapping_sub(used));
        if new == 0 {
            std::hint::spin_loop();
            continue;
        }
        used = now;
        done += new;
        let more = new.min(requests - offered);
        if more > 0 {
            offered += more;
            avail = avail.wrapping_add(more as u16);
            rig.set_avail_index(0, avail);
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            let passed = avail.wrapping_sub(rig.avail_event(0)).wrapping_sub(1);
            if u64::from(passed) < more {
                rig.kick(0);
            }
        }
    }
    let took = begin.elapsed();
    rig.queues[0].avail = avail;
    rig.queues[0].used = used;
    took
}

//! The emulated device on its own thread, as a process that uses it sees it.

use std::{
    hint,
    time::{Duration, Instant},
};

use vfio_virtio::DmaBuffer;
use zbd_core::{IoQueue, Request, ZoneAction, ZoneId};

use crate::LEN;

const ZONES: u64 = 4;
/// 64 MiB each.
const BLOCKS_PER_ZONE: u64 = 16384;
const BLOCKS: u64 = ZONES * BLOCKS_PER_ZONE;

/// What appends came to.
struct Appended {
    took: Duration,
    doorbells: u64,
}

/// Prints, for each of `rounds`, appends a second and, of a store that keeps them, copies of the
/// same blocks a second; and requests a doorbell.
pub(crate) fn run(store: &str, depth: u64, rounds: u64) -> Result<(), String> {
    let options = format!("zones={ZONES},zone-size=64m,store={store},queues=1");
    let mut queue = IoQueue::open(&format!("emu:{options}")).map_err(|e| e.to_string())?;
    let mut buffers: Vec<DmaBuffer> = (0..depth)
        .map(|_| queue.buffer(LEN))
        .collect::<Result<_, _>>()
        .map_err(|e| e.to_string())?;
    let mut copies = Copies::new(depth as usize);
    // Pages are touched before anything is measured.
    append(&mut queue, &mut buffers);
    for _ in 0..rounds {
        let done = append(&mut queue, &mut buffers);
        let per_second = |took: Duration| BLOCKS as f64 / took.as_secs_f64();
        let copied = (store == "mem").then(|| per_second(copies.copy()));
        println!(
            "appends {} doorbells {} copies {}",
            per_second(done.took),
            done.doorbells as f64 / BLOCKS as f64,
            copied.unwrap_or(0.0),
        );
    }
    Ok(())
}

/// Fills all zones, with as many appends in flight as there are buffers, and resets them.
fn append(queue: &mut IoQueue, buffers: &mut Vec<DmaBuffer>) -> Appended {
    let doorbells = queue.doorbells();
    let begun = Instant::now();
    let (mut sent, mut done) = (0, 0);
    while done < BLOCKS {
        let before = sent;
        while sent < BLOCKS
            && let Some(buffer) = buffers.pop()
        {
            let zone = ZoneId((sent / BLOCKS_PER_ZONE) as u32);
            let submitted = queue.submit(Request::Append { zone, buffer }, sent);
            assert!(submitted.is_ok(), "there is room");
            sent += 1;
        }
        if sent > before {
            queue.commit();
        }
        match queue.poll() {
            None => hint::spin_loop(),
            Some(first) => {
                let mut next = Some(first);
                while let Some(completion) = next {
                    assert!(completion.result.is_ok(), "{:?}", completion.result);
                    buffers.extend(completion.buffer);
                    done += 1;
                    next = queue.poll();
                }
            }
        }
    }
    let took = begun.elapsed();
    let doorbells = queue.doorbells() - doorbells;
    for zone in 0..ZONES {
        let action = ZoneAction::Reset;
        let zone = ZoneId(zone as u32);
        let submitted = queue.submit(Request::Manage { action, zone }, 0);
        assert!(submitted.is_ok(), "there is room");
        queue.commit();
        let reset = loop {
            if let Some(done) = queue.poll() {
                break done;
            }
        };
        assert!(reset.result.is_ok(), "{:?}", reset.result);
    }
    Appended { took, doorbells }
}

/// The same blocks, copied by this thread from as many buffers.
struct Copies {
    from: Vec<u8>,
    to: Vec<u8>,
}

impl Copies {
    fn new(depth: usize) -> Self {
        let mut this = Self {
            from: vec![0xa5; depth * LEN],
            to: vec![0; BLOCKS as usize * LEN],
        };
        this.copy();
        this
    }

    fn copy(&mut self) -> Duration {
        let begun = Instant::now();
        let from = self.from.chunks_exact(LEN).cycle();
        for (to, from) in self.to.chunks_exact_mut(LEN).zip(from) {
            to.copy_from_slice(hint::black_box(from));
        }
        hint::black_box(&self.to);
        begun.elapsed()
    }
}

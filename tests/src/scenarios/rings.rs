//! Every kind of ring, and every way to wait: the same suite on each. Each run says which features
//! must have been agreed on, so that none tests another ring than its name says.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use zbd_core::{ErrorKind, IoQueue, OpenOptions, WaitPolicy, ZoneId, ZonedDevice};

use super::Context;
use super::driver_append::Job;
use crate::inside::claim::{Claim, block_on, records, records_seen_by_linux};
use crate::inside::record::{Placed, ensure_same};
use crate::inside::suite::{self, Suite, Waiting};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Whether a feature was agreed on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agreed {
    Yes,
    No,
}
use Agreed::{No, Yes};

/// How a disk is driven.
struct Configuration {
    disk: &'static str,
    /// What follows its address in the device string.
    options: &'static str,
    /// Each owned by a thread.
    queues: u16,
    queue_size: Option<u16>,
    waiting: Waiting,
    packed: Agreed,
    in_order: Agreed,
    indirect: Agreed,
    event_idx: Agreed,
}

/// What every device has agreed on for years.
const SPLIT: Configuration = Configuration {
    disk: "split",
    options: "",
    queues: 1,
    queue_size: None,
    waiting: Waiting::Polling,
    packed: No,
    in_order: No,
    indirect: Yes,
    event_idx: Yes,
};

const PACKED: Configuration = Configuration {
    disk: "packed",
    options: ",ring=packed",
    packed: Yes,
    ..SPLIT
};

impl Configuration {
    fn open(&self, claim: &Claim) -> Result<Vec<IoQueue>> {
        let options = OpenOptions {
            queues: self.queues,
            queue_size: self.queue_size,
            wait: match self.waiting {
                Waiting::Polling => WaitPolicy::Poll,
                Waiting::Sleeping => WaitPolicy::Interrupt,
            },
            memory_len: 16 << 20,
            ..OpenOptions::default()
        };
        let spec = format!("{}{}", claim.spec(), self.options);
        let opened = options.open(&spec.parse()?).context(spec)?;
        let info = opened.first().context("no queue")?.info();
        for (feature, agreed) in [
            ("ring_packed", self.packed),
            ("in_order", self.in_order),
            ("indirect_desc", self.indirect),
            ("event_idx", self.event_idx),
        ] {
            let found = info.features.contains(&feature);
            ensure!(found == (agreed == Yes), "{feature}: {:?}", info.features);
        }
        ensure!(info.queues == self.queues, "{info:?}");
        Ok(opened)
    }

    /// Runs the suite on each queue at once, and lets Linux look at what came of it.
    fn run(&self, context: &mut Context) -> Result<()> {
        let geometry = context.geometry(self.disk)?;
        let first = u32::try_from(geometry.conventional)?;
        let claim = context.claim(self.disk)?;
        let mut queues = self.open(&claim)?;
        let start = Instant::now();
        let placed = thread::scope(|scope| {
            let running: Vec<_> = (0..)
                .zip(&mut queues)
                .map(|(index, queue)| {
                    let suite = Suite::new(queue, first + index * suite::ZONES, self.waiting);
                    scope.spawn(move || suite.run(self.disk))
                })
                .collect();
            let mut placed = Vec::new();
            for running in running {
                let done = running.join().map_err(|_| anyhow!("a suite panicked"))?;
                placed.extend(done?);
            }
            anyhow::Ok(placed)
        })?;
        context.metric("suite_seconds", start.elapsed().as_secs_f64());
        drop(queues);

        let mut zones = first + suite::ZONES * u32::from(self.queues);
        let mut placed = placed;
        if self.waiting == Waiting::Polling {
            let start = Instant::now();
            placed.extend(self.append_from_tasks(&claim, zones)?);
            context.metric("tasks_seconds", start.elapsed().as_secs_f64());
            zones += super::driver_append::ZONES;
        }
        let zones: Vec<ZoneId> = (first..zones).map(ZoneId).collect();
        let found = records_seen_by_linux(&claim.give_back()?, &zones)?;
        ensure_same(&placed, &found).context("what Linux reads")
    }

    /// The async door: appends of many tasks to zones from `first_zone` on, read back.
    fn append_from_tasks(&self, claim: &Claim, first_zone: u32) -> Result<Vec<Placed>> {
        let device = ZonedDevice::from_queues(self.open(claim)?)?;
        block_on(async {
            let job = Job {
                depth: 64,
                count: 400,
                first_zone,
            };
            let placed = job.run(&device).await?;
            let zones = ZoneId(first_zone)..ZoneId(first_zone + super::driver_append::ZONES);
            let mut found = Vec::new();
            for zone in device.report(zones).await? {
                found.extend(records(&device, &zone).await?);
            }
            ensure_same(&placed, &found)?;
            Ok(placed)
        })
    }
}

pub(super) fn split(context: &mut Context) -> Result<()> {
    SPLIT.run(context)
}

pub(super) fn split_with_few_slots(context: &mut Context) -> Result<()> {
    let queue_size = Some(8);
    Configuration {
        queue_size,
        ..SPLIT
    }
    .run(context)
}

pub(super) fn split_although_packed_is_offered(context: &mut Context) -> Result<()> {
    Configuration {
        disk: "packed",
        options: ",ring=split",
        ..SPLIT
    }
    .run(context)
}

pub(super) fn split_in_order(context: &mut Context) -> Result<()> {
    Configuration {
        disk: "in-order",
        options: ",ring=split,in-order=on",
        in_order: Yes,
        ..SPLIT
    }
    .run(context)
}

pub(super) fn packed(context: &mut Context) -> Result<()> {
    PACKED.run(context)
}

pub(super) fn packed_with_an_odd_number_of_slots(context: &mut Context) -> Result<()> {
    let queue_size = Some(13);
    Configuration {
        queue_size,
        ..PACKED
    }
    .run(context)
}

pub(super) fn packed_in_order(context: &mut Context) -> Result<()> {
    Configuration {
        disk: "in-order",
        options: ",ring=packed,in-order=on",
        in_order: Yes,
        ..PACKED
    }
    .run(context)
}

pub(super) fn packed_with_nothing_else(context: &mut Context) -> Result<()> {
    Configuration {
        disk: "in-order",
        options: ",ring=packed,in-order=off,indirect=off,event-idx=off",
        indirect: No,
        event_idx: No,
        ..PACKED
    }
    .run(context)
}

pub(super) fn packed_in_order_without_tables(context: &mut Context) -> Result<()> {
    Configuration {
        disk: "in-order",
        options: ",ring=packed,in-order=on,indirect=off",
        in_order: Yes,
        indirect: No,
        ..PACKED
    }
    .run(context)
}

pub(super) fn packed_without_tables_offered(context: &mut Context) -> Result<()> {
    Configuration {
        disk: "direct",
        indirect: No,
        ..PACKED
    }
    .run(context)
}

pub(super) fn packed_without_event_index_offered(context: &mut Context) -> Result<()> {
    Configuration {
        disk: "flags",
        event_idx: No,
        ..PACKED
    }
    .run(context)
}

pub(super) fn split_without_tables(context: &mut Context) -> Result<()> {
    Configuration {
        options: ",indirect=off",
        indirect: No,
        ..SPLIT
    }
    .run(context)
}

pub(super) fn split_without_event_index(context: &mut Context) -> Result<()> {
    Configuration {
        options: ",event-idx=off",
        event_idx: No,
        ..SPLIT
    }
    .run(context)
}

pub(super) fn split_with_nothing_else_offered(context: &mut Context) -> Result<()> {
    Configuration {
        disk: "bare",
        indirect: No,
        event_idx: No,
        ..SPLIT
    }
    .run(context)
}

pub(super) fn two_split_queues_on_two_threads(context: &mut Context) -> Result<()> {
    let queues = 2;
    Configuration { queues, ..SPLIT }.run(context)
}

pub(super) fn two_packed_queues_on_two_threads(context: &mut Context) -> Result<()> {
    let queues = 2;
    Configuration { queues, ..PACKED }.run(context)
}

pub(super) fn interrupt_for_each_queue(context: &mut Context) -> Result<()> {
    for configuration in [SPLIT, PACKED] {
        Configuration {
            queues: 2,
            waiting: Waiting::Sleeping,
            ..configuration
        }
        .run(context)?;
    }
    Ok(())
}

pub(super) fn interrupt_without_event_index(context: &mut Context) -> Result<()> {
    for (disk, configuration) in [("bare", SPLIT), ("flags", PACKED)] {
        Configuration {
            disk,
            waiting: Waiting::Sleeping,
            indirect: if disk == "bare" { No } else { Yes },
            event_idx: No,
            ..configuration
        }
        .run(context)?;
    }
    Ok(())
}

pub(super) fn interrupts_that_queues_share(context: &mut Context) -> Result<()> {
    for disk in ["two-vectors", "one-vector"] {
        Configuration {
            disk,
            queues: 2,
            waiting: Waiting::Sleeping,
            ..SPLIT
        }
        .run(context)
        .context(disk)?;
    }
    Ok(())
}

pub(super) fn device_without_interrupts_is_polled(context: &mut Context) -> Result<()> {
    let disk = "no-vectors";
    let claim = context.claim(disk)?;
    let asking = Configuration {
        disk,
        waiting: Waiting::Sleeping,
        ..SPLIT
    };
    let refused = match asking.open(&claim) {
        Ok(_) => bail!("interrupts of a device that has none"),
        Err(error) => error,
    };
    let refused = refused
        .downcast_ref::<zbd_core::Error>()
        .context("another error")?;
    ensure!(refused.kind() == ErrorKind::Unsupported, "{refused:?}");
    claim.give_back()?;
    Configuration { disk, ..SPLIT }.run(context)
}

/// On the disks that every machine has.
pub(super) fn suite_on_the_disks_of_any_machine(context: &mut Context) -> Result<()> {
    let packed = Configuration {
        disk: "unmerged",
        in_order: Yes,
        ..PACKED
    };
    for configuration in [
        Configuration {
            disk: "main",
            queues: 2,
            ..SPLIT
        },
        Configuration {
            disk: "main",
            options: ",indirect=off",
            waiting: Waiting::Sleeping,
            indirect: No,
            ..SPLIT
        },
        packed,
    ] {
        configuration.run(context).context(configuration.options)?;
        // The next one begins with empty zones, too.
        context.function(configuration.disk)?.freshen()?;
    }
    Ok(())
}

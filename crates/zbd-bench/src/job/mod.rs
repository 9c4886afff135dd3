//! A benchmark job, from the command line to what it measured.

mod appends;
pub(crate) mod control;
pub(crate) mod cpu;
mod latency;
mod memory;
pub(crate) mod outcome;
pub(crate) mod plan;
mod prepare;
mod progress;
mod queue;
mod reads;
pub(crate) mod select;
mod source;
mod spin;
mod stop;
mod tasks;
mod writes;

use std::{
    panic::resume_unwind,
    sync::{Arc, Barrier},
    thread::{self, available_parallelism},
    time::Duration,
};

use zbd_core::{
    Backend, DeviceInfo, DeviceSpec, DmaBuffer, Error, IoQueue, OpenOptions, WaitPolicy,
    ZonedDevice,
};
use zbd_emu::{Control, EmulatedFunction};

use crate::{
    cli::{Api, Op, RunArgs},
    failure::{During, Failure},
};
use cpu::CpuTime;
use outcome::Measured;
use plan::{Job, Length};
use prepare::{Area, Prepared};
use progress::{Counters, Progress};
use source::{Source, share};
use stop::Stop;

/// A job that needs more DMA memory than this opens the device with little first, to see whether
/// its limits allow the job at all.
const MEMORY_AT_ONCE: usize = 64 << 20;
/// A job and all that is known after it.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) job: Job,
    pub(crate) info: Arc<DeviceInfo>,
    pub(crate) measured: Measured,
    pub(crate) fill_seconds: f64,
    pub(crate) cpu: CpuTime,
    /// How often the device has interrupted, if that is known.
    pub(crate) interrupts: Option<u64>,
    /// Whether it was interrupted.
    pub(crate) interrupted: bool,
}

impl Finished {
    /// How many requests succeeded in a second.
    pub(crate) fn iops(&self) -> f64 {
        let seconds = self.measured.time.as_secs_f64();
        if seconds > 0.0 {
            self.measured.ios as f64 / seconds
        } else {
            0.0
        }
    }

    /// How much they moved.
    pub(crate) fn bytes(&self) -> u64 {
        self.measured.ios * u64::from(self.job.block_size)
    }

    /// How many zones they went to.
    pub(crate) fn zones(&self) -> u32 {
        match self.info.zoned {
            Some(_) => self.job.zones,
            None => 0,
        }
    }
}

/// Runs the job. The device is closed when this returns.
pub(crate) fn run(args: &RunArgs) -> Result<Finished, Failure> {
    let opening = |error| Failure::from_device(During::Opening, &error);
    let spec: DeviceSpec = args.device.parse().map_err(opening)?;
    let job = Job::resolve(args, &spec)?;
    let memory_len = memory::len(&job, &spec);
    if memory_len > MEMORY_AT_ONCE {
        let queues = options(&job, MEMORY_AT_ONCE).open(&spec).map_err(opening)?;
        check(&job, &queues)?;
    }
    let (mut queues, control) = open(&options(&job, memory_len), &spec).map_err(opening)?;
    check(&job, &queues)?;
    // Until here an interrupt ends the process at once.
    let stop = Stop::on_interrupt();
    let progress = Progress::new(&job);
    let (info, prepared) = match queues.first_mut() {
        Some(queue) => (
            Arc::clone(queue.info()),
            prepare::prepare(queue, &job, &stop, &progress)?,
        ),
        None => return Err(Failure::device("the device has no queues")),
    };
    let interrupts = || {
        let count = control
            .as_ref()
            .map(|control| control.counters().interrupts);
        // A device that was not told to interrupt does not.
        count.or((!info.interrupts).then_some(0))
    };
    let (before, interrupts_before) = (CpuTime::now(), interrupts());
    let measured = match job.api {
        Api::Queue => on_queues(&job, &spec, queues, &prepared, &stop, &progress),
        Api::Async => on_tasks(&job, queues, &prepared, &stop, &progress),
    }?;
    Ok(Finished {
        cpu: CpuTime::now().since(before),
        interrupts: interrupts()
            .zip(interrupts_before)
            .map(|(now, before)| now - before),
        job,
        info,
        measured,
        fill_seconds: prepared.fill_seconds,
        interrupted: stop.is_interrupted(),
    })
}

/// Opens the device; one that is emulated with a hand on its other side, which counts.
fn open(
    options: &OpenOptions,
    spec: &DeviceSpec,
) -> Result<(Vec<IoQueue>, Option<Control>), Error> {
    let DeviceSpec::Emulated(config) = spec else {
        return Ok((options.open(spec)?, None));
    };
    let function = EmulatedFunction::new(config)?;
    let control = function.control();
    let queues = options.open_function(Arc::new(function), Backend::Emulated, spec.to_string())?;
    Ok((queues, Some(control)))
}

fn check(job: &Job, queues: &[IoQueue]) -> Result<(), Failure> {
    queues
        .first()
        .map_or(Ok(()), |queue| job.check(queue.info()))
}

fn options(job: &Job, memory_len: usize) -> OpenOptions {
    OpenOptions {
        queues: job.queues,
        wait: job.wait,
        memory_len,
        ..OpenOptions::default()
    }
}

/// The job on polled queues, each with a thread of its own.
fn on_queues(
    job: &Job,
    spec: &DeviceSpec,
    queues: Vec<IoQueue>,
    prepared: &Prepared,
    stop: &Stop,
    progress: &Progress,
) -> Result<Measured, Failure> {
    let counters = Counters::new(job.queues);
    let start = Barrier::new(queues.len());
    // The emulated device is a thread, too, and what a queue waits for.
    let crowded = available_parallelism().is_ok_and(|n| n.get() < queues.len());
    let idle = if job.wait != WaitPolicy::Poll {
        queue::Idle::Sleep
    } else if crowded || matches!(spec, DeviceSpec::Emulated(_)) {
        queue::Idle::Yield
    } else {
        queue::Idle::Spin
    };
    let parts = share(job, &prepared.areas, queues.len());
    let mut tasks = Vec::new();
    for (i, (queue, areas)) in queues.iter().zip(&parts).enumerate() {
        tasks.push(queue::Task {
            source: Source::new(job, i, areas),
            buffers: memory::buffers(job, queue, job.depth.into())?,
            batch: job.batch.into(),
            count: count_of(job, i),
            runtime: runtime(job),
            idle,
            stop,
            completed: counters.of(i),
        });
    }
    let mut all = Measured::new();
    thread::scope(|scope| {
        let threads: Vec<_> = queues
            .into_iter()
            .zip(tasks)
            .map(|(mut queue, task)| {
                scope.spawn(|| {
                    start.wait();
                    let measured = queue::drive(&mut queue, task);
                    // The last of them resets the device.
                    drop(queue);
                    measured
                })
            })
            .collect();
        if progress.is_shown() {
            progress.follow(&counters, || threads.iter().all(|t| t.is_finished()));
        }
        for thread in threads {
            match thread.join() {
                Ok(measured) => all.merge(measured),
                Err(panic) => resume_unwind(panic),
            }
        }
    });
    Ok(all)
}

/// The job as tasks.
fn on_tasks(
    job: &Job,
    queues: Vec<IoQueue>,
    prepared: &Prepared,
    stop: &Stop,
    progress: &Progress,
) -> Result<Measured, Failure> {
    let tasks = usize::from(job.depth) * queues.len();
    let sources = task_sources(job, &queues, tasks, &prepared.areas)?;
    let device = ZonedDevice::from_queues(queues)
        .map_err(|error| Failure::from_device(During::Opening, &error))?;
    let counters = Counters::new(1);
    let tasks = tasks::Tasks {
        sources,
        count: match job.length {
            Length::Count(count) => count,
            Length::Runtime(_) => u64::MAX,
        },
        runtime: runtime(job),
        stop,
        completed: counters.of(0),
    };
    thread::scope(|scope| {
        // Progress is shown by this thread, as for queues.
        let thread = scope.spawn(move || tasks::drive(device, tasks));
        if progress.is_shown() {
            progress.follow(&counters, || thread.is_finished());
        }
        match thread.join() {
            Ok(measured) => measured,
            Err(panic) => resume_unwind(panic),
        }
    })
}

/// Sequential writes are one chain of tasks a zone; all else is shared by all tasks.
fn task_sources(
    job: &Job,
    queues: &[IoQueue],
    tasks: usize,
    areas: &[Area],
) -> Result<Vec<(Source, Vec<DmaBuffer>)>, Failure> {
    let Some(queue) = queues.first() else {
        return Ok(Vec::new());
    };
    let zoned = areas.iter().all(|area| area.zone.is_some());
    if job.op == Op::Write && zoned {
        let parts = share(job, areas, tasks.min(areas.len()));
        return parts
            .iter()
            .map(|areas| Ok((Source::new(job, 0, areas), memory::buffers(job, queue, 1)?)))
            .collect();
    }
    Ok(vec![(
        Source::new(job, 0, areas),
        memory::buffers(job, queue, tasks)?,
    )])
}

fn runtime(job: &Job) -> Option<Duration> {
    match job.length {
        Length::Runtime(runtime) => Some(runtime),
        Length::Count(_) => None,
    }
}

/// The share of queue `i` in the requests.
fn count_of(job: &Job, i: usize) -> u64 {
    let queues = u64::from(job.queues);
    match job.length {
        Length::Runtime(_) => u64::MAX,
        Length::Count(count) => count / queues + u64::from((i as u64) < count % queues),
    }
}

//! A benchmark job, from the command line to what it measured.

mod appends;
pub(crate) mod control;
pub(crate) mod cpu;
pub(crate) mod latency;
mod memory;
mod merging;
mod mix;
pub(crate) mod outcome;
mod pace;
pub(crate) mod plan;
mod prepare;
pub(crate) mod progress;
mod queue;
mod reads;
mod rotation;
pub(crate) mod select;
pub(crate) mod series;
mod source;
mod spin;
pub(crate) mod stop;
mod tasks;
mod writes;

use std::{
    panic::resume_unwind,
    sync::{Arc, Barrier, OnceLock},
    thread::{self, available_parallelism},
    time::Duration,
};

use zbd_core::{
    Backend, DeviceInfo, DeviceSpec, DmaBuffer, Error, IoQueue, OpenOptions, WaitPolicy,
    ZonedDevice,
};
use zbd_emu::{Control, EmulatedFunction};

use crate::{
    cli::{Api, JobArgs, Op},
    failure::{During, Failure},
};
use cpu::CpuTime;
use outcome::{Measured, Tally};
use pace::Pace;
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
    /// How many requests the kernel has merged into others, if that is known.
    pub(crate) merged: Option<u64>,
    /// How often the device has interrupted, if that is known.
    pub(crate) interrupts: Option<u64>,
    /// Whether it was interrupted.
    pub(crate) interrupted: bool,
}

impl Finished {
    /// So many, a second.
    pub(crate) fn per_second(&self, n: u64) -> f64 {
        let seconds = self.measured.time.as_secs_f64();
        if seconds > 0.0 {
            n as f64 / seconds
        } else {
            0.0
        }
    }

    /// The kinds of requests, and what was measured of each.
    pub(crate) fn tallies(&self) -> impl Iterator<Item = (Op, &Tally)> {
        let reads = self.measured.reads.as_ref();
        let done = (self.job.op, &self.measured.done);
        std::iter::once(done).chain(reads.map(|reads| (Op::Randread, reads)))
    }

    /// What part of the time zones took that were finished or reset.
    pub(crate) fn management_share(&self) -> f64 {
        let managing = self.measured.management.time().as_secs_f64();
        // Queues manage their zones at the same time.
        let all = self.measured.time.as_secs_f64() + managing;
        if all > 0.0 { managing / all } else { 0.0 }
    }

    /// Fails if a request has.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let errors = &self.measured.errors;
        let Some(first) = &errors.first else {
            return Ok(());
        };
        let total = errors.total();
        let requests = if total == 1 { "request" } else { "requests" };
        Err(Failure::io(format!(
            "{total} {requests} failed and the job was ended, the first: {first}"
        )))
    }

    /// How many zones they went to.
    pub(crate) fn zones(&self) -> u32 {
        match self.info.zoned {
            Some(_) => self.job.zones,
            None => 0,
        }
    }
}

/// By what a job is held while it runs.
struct Hands<'a> {
    stop: &'a Stop,
    progress: &'a Progress,
    /// Called when measuring begins.
    begin: &'a (dyn Fn() + Sync),
}

/// Who shows on the terminal how far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The job itself.
    Here,
    /// Who runs many of them.
    Elsewhere,
}

/// Runs the job. The device is closed when this returns. `stop` is set by Ctrl-C from when the
/// device has been opened.
pub(crate) fn run(
    device: &str,
    args: &JobArgs,
    stop: &Stop,
    shown: Shown,
) -> Result<Finished, Failure> {
    let opening = |error| Failure::from_device(During::Opening, &error);
    let spec: DeviceSpec = device.parse().map_err(opening)?;
    let job = Job::resolve(device, args, &spec)?;
    let memory_len = memory::len(&job, &spec);
    if memory_len > MEMORY_AT_ONCE {
        let queues = options(&job, MEMORY_AT_ONCE).open(&spec).map_err(opening)?;
        check(&job, &queues)?;
    }
    let (mut queues, control) = open(&options(&job, memory_len), &spec).map_err(opening)?;
    check(&job, &queues)?;
    stop.listen();
    let progress = match shown {
        Shown::Here => Progress::new(job.length),
        Shown::Elsewhere => Progress::hidden(),
    };
    let (info, prepared) = match queues.first_mut() {
        Some(queue) => (
            Arc::clone(queue.info()),
            prepare::prepare(queue, &job, stop, &progress)?,
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
    let baseline = OnceLock::new();
    let counts = || Counts {
        cpu: CpuTime::now(),
        interrupts: interrupts(),
        merged: merging::so_far(&spec),
    };
    let begin = || {
        baseline.get_or_init(counts);
    };
    let hands = Hands {
        stop,
        progress: &progress,
        begin: &begin,
    };
    let measured = match job.api {
        Api::Queue => on_queues(&job, &spec, queues, &prepared, &hands),
        Api::Async => on_tasks(&job, queues, &prepared, &hands),
    }?;
    let before = baseline.get().copied().unwrap_or_else(counts);
    let after = counts();
    let since =
        |after: Option<u64>, before| after.zip(before).map(|(after, before)| after - before);
    Ok(Finished {
        cpu: after.cpu.since(before.cpu),
        interrupts: since(after.interrupts, before.interrupts),
        merged: since(after.merged, before.merged),
        job,
        info,
        measured,
        fill_seconds: prepared.fill_seconds,
        interrupted: stop.is_interrupted(),
    })
}

/// What is counted outside of the job.
#[derive(Clone, Copy)]
struct Counts {
    cpu: CpuTime,
    interrupts: Option<u64>,
    merged: Option<u64>,
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
    hands: &Hands<'_>,
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
            source: Source::new(job, areas, (i, queues.len())),
            buffers: memory::buffers(job, queue, job.depth.into())?,
            batch: job.batch.into(),
            pace: job
                .rate
                .map(|rate| Pace::new(rate, i, queues.len(), job.depth.into())),
            ramp: job.ramp,
            count: count_of(job, i, queues.len()),
            runtime: runtime(job),
            idle,
            stop: hands.stop,
            completed: counters.of(i),
            begin: hands.begin,
        });
    }
    let mut all = Measured::of(job);
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
        if hands.progress.is_shown() {
            let ended = || threads.iter().all(|thread| thread.is_finished());
            hands.progress.follow(&counters, ended);
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

/// The job as tasks, on as many threads as it wants.
fn on_tasks(
    job: &Job,
    queues: Vec<IoQueue>,
    prepared: &Prepared,
    hands: &Hands<'_>,
) -> Result<Measured, Failure> {
    let threads = usize::from(job.threads);
    let tasks = usize::from(job.depth) * queues.len();
    if tasks < threads {
        return Err(Failure::usage(format!(
            "--threads {threads}: there are {tasks} tasks, --depth in each of the --queues"
        )));
    }
    let counters = Counters::new(job.threads);
    let mut parts = Vec::new();
    for (i, areas) in share(job, &prepared.areas, threads).iter().enumerate() {
        let tasks = tasks / threads + usize::from(i < tasks % threads);
        parts.push(tasks::Tasks {
            sources: task_sources(job, &queues, i, tasks, areas)?,
            pace: job.rate.map(|rate| {
                let all = rate * u64::from(job.queues);
                Pace::new(part_of(all, i, threads), i, threads, 0)
            }),
            ramp: job.ramp,
            count: count_of(job, i, threads),
            runtime: runtime(job),
            stop: hands.stop,
            completed: counters.of(i),
        });
    }
    let device = ZonedDevice::from_queues(queues)
        .map_err(|error| Failure::from_device(During::Opening, &error))?;
    let doorbells = OnceLock::new();
    let begin = || {
        doorbells.get_or_init(|| device.doorbells());
        (hands.begin)();
    };
    let mut all = Measured::of(job);
    thread::scope(|scope| {
        // Progress is shown by this thread, as for queues.
        let (device, begin) = (&device, &begin);
        let threads: Vec<_> = parts
            .into_iter()
            .map(|tasks| scope.spawn(move || tasks::drive(device, tasks, begin)))
            .collect();
        if hands.progress.is_shown() {
            let ended = || threads.iter().all(|thread| thread.is_finished());
            hands.progress.follow(&counters, ended);
        }
        for thread in threads {
            match thread.join() {
                Ok(measured) => all.merge(measured?),
                Err(panic) => resume_unwind(panic),
            }
        }
        Ok::<(), Failure>(())
    })?;
    let now = device.doorbells();
    all.doorbells = now - doorbells.get().copied().unwrap_or(now);
    Ok(all)
}

/// Sequential writes are one chain of tasks a zone; all else is shared by all tasks of a thread,
/// which is number `part` and has so many.
fn task_sources(
    job: &Job,
    queues: &[IoQueue],
    part: usize,
    tasks: usize,
    areas: &[Area],
) -> Result<Vec<(Source, Vec<DmaBuffer>)>, Failure> {
    let Some(queue) = queues.first() else {
        return Ok(Vec::new());
    };
    let threads = usize::from(job.threads);
    let zoned = areas.iter().all(|area| area.zone.is_some());
    if job.op == Op::Write && zoned {
        let open = job.max_open as usize / threads;
        let parts = share(job, areas, tasks.min(areas.len()).min(open).max(1));
        return parts
            .iter()
            .enumerate()
            .map(|(i, areas)| {
                let part = (part * parts.len() + i, parts.len() * threads);
                Ok((
                    Source::new(job, areas, part),
                    memory::buffers(job, queue, 1)?,
                ))
            })
            .collect();
    }
    Ok(vec![(
        Source::new(job, areas, (part, threads)),
        memory::buffers(job, queue, tasks)?,
    )])
}

fn runtime(job: &Job) -> Option<Duration> {
    match job.length {
        Length::Runtime(runtime) => Some(runtime),
        Length::Count(_) => None,
    }
}

/// The share of part `i` of so many in the requests.
fn count_of(job: &Job, i: usize, parts: usize) -> u64 {
    match job.length {
        Length::Runtime(_) => u64::MAX,
        Length::Count(count) => part_of(count, i, parts),
    }
}

fn part_of(all: u64, i: usize, parts: usize) -> u64 {
    let parts = parts as u64;
    all / parts + u64::from((i as u64) < all % parts)
}

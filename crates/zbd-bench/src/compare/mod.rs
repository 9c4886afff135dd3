//! The same job on several devices, in turns.
//!
//! Every round measures each device once, in the opposite order every other round: what drifts
//! touches all alike, and each round yields a ratio of its own.

mod rebind;
mod stored;
pub(crate) mod verdict;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use zbd_core::{AppendSupport, Backend, DeviceInfo, DeviceSpec};

use crate::{
    cli::{CompareArgs, JobArgs, Op},
    failure::{During, Failure},
    job::{
        self, Finished, Shown,
        plan::Job,
        progress::{Progress, Total},
        stop::Stop,
    },
    spread::Spread,
};
use rebind::Rebinding;

/// How long each measurement takes unless asked for otherwise.
const RUNTIME: Duration = Duration::from_secs(2);

/// What a round found of one device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) iops: f64,
    /// Latencies in nanoseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Processor time for each request, in seconds.
    pub(crate) cpu: f64,
}

impl Round {
    fn of(finished: &Finished) -> Self {
        let tally = &finished.measured.done;
        let cpu = finished.cpu.user + finished.cpu.system;
        Self {
            iops: finished.per_second(finished.measured.ios()),
            p50: tally.latency.percentile(50.0) as f64,
            p99: tally.latency.percentile(99.0) as f64,
            cpu: cpu.as_secs_f64() / finished.measured.ios().max(1) as f64,
        }
    }
}

/// Where the figures of a contestant are from.
#[derive(Debug)]
pub(crate) enum Source {
    /// Measured now; the last of the jobs.
    Measured(Box<Option<Finished>>),
    /// Measured earlier, on such a machine if that is known.
    Stored {
        /// Its kernel and the build of the tool.
        machine: Option<String>,
    },
}

/// Somebody who takes part.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: String,
    pub(crate) source: Source,
    pub(crate) rounds: Vec<Round>,
}

impl Contestant {
    fn new(device: &str) -> Self {
        Self {
            name: device.to_owned(),
            source: Source::Measured(Box::new(None)),
            rounds: Vec::new(),
        }
    }

    pub(crate) fn all_iops(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.iops).collect()
    }

    pub(crate) fn spread(&self, figure: impl Fn(&Round) -> f64) -> Spread {
        Spread::of(self.rounds.iter().map(figure))
    }

    /// The last of its jobs, if it was measured now.
    pub(crate) fn finished(&self) -> Option<&Finished> {
        match &self.source {
            Source::Measured(finished) => finished.as_ref().as_ref(),
            Source::Stored { .. } => None,
        }
    }
}

/// A comparison and what came of it.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) job: Job,
    /// The first is what the others are compared with.
    pub(crate) contestants: Vec<Contestant>,
    pub(crate) interrupted: bool,
    /// Why it ended early, if it did.
    pub(crate) failure: Option<Failure>,
}

impl Compared {
    /// What must be known to read the figures right.
    fn caveats(&self) -> Vec<String> {
        let mut caveats = Vec::new();
        let measured = || self.contestants.iter().filter_map(Contestant::finished);
        for contestant in &self.contestants {
            let Some(finished) = contestant.finished() else {
                continue;
            };
            let zoned = finished.info.zoned.as_ref();
            if self.job.op == Op::Append
                && zoned.is_some_and(|zoned| zoned.append == AppendSupport::Emulated)
            {
                caveats.push(format!(
                    "Appends on {} are emulated, by one write at a time in each zone: the kernel \
                     gives applications no appends.",
                    contestant.name
                ));
            }
        }
        if measured().any(|finished| finished.info.backend == Backend::Emulated) {
            caveats.push(
                "The emulated device takes processor time of this machine, which its figures \
                 include."
                    .to_owned(),
            );
        }
        for contestant in &self.contestants {
            if let Source::Stored { machine } = &contestant.source {
                let machine = machine.as_deref().unwrap_or("a machine it does not name");
                caveats.push(format!(
                    "{} was measured at another time, on {machine}: what has changed since then \
                     touches one side only.",
                    contestant.name
                ));
            }
        }
        if self.job.op == Op::Write && measured().any(|f| f.info.backend == Backend::Vfio) {
            caveats.push(
                "A hypervisor may merge neighbouring writes that come with one doorbell."
                    .to_owned(),
            );
        }
        caveats
    }
}

/// Measures all devices in turn, of which `look` tells what is known.
pub(crate) fn run(
    args: &CompareArgs,
    look: impl Fn(&str) -> Result<Arc<DeviceInfo>, Failure>,
) -> Result<Compared, Failure> {
    let opening = |error| Failure::from_device(During::Opening, &error);
    let specs: Vec<DeviceSpec> = args
        .devices
        .iter()
        .map(|device| device.parse().map_err(opening))
        .collect::<Result<_, _>>()?;
    let job_args = job_args(args);
    let (device, spec) = match (args.devices.first(), specs.first()) {
        (Some(device), Some(spec)) => (device, spec),
        _ => return Err(Failure::usage("name the devices to be compared")),
    };
    let job = Job::resolve(device, &job_args, spec)?;
    let mut contestants = Vec::new();
    if let Some(path) = &args.against {
        contestants.push(stored::read(path, &job)?);
    }
    contestants.extend(args.devices.iter().map(|device| Contestant::new(device)));
    if contestants.len() < 2 {
        return Err(Failure::usage(
            "one device alone cannot be compared; name another, or give --against a report",
        ));
    }
    let rebinding = match args.rebind {
        true => Some(Rebinding::new(&specs)?),
        false => None,
    };
    let turn = |spec| {
        let rebinding = rebinding.as_ref();
        rebinding.map_or(Ok(()), |rebinding| rebinding.turn(spec))
    };
    // All devices can do the job, or nothing is begun.
    for (device, spec) in args.devices.iter().zip(&specs) {
        turn(spec)
            .and_then(|()| look(device))
            .and_then(|info| job.check(&info))
            .map_err(|failure| failure.of_job(device))?;
    }
    let mut compared = Compared {
        job,
        contestants,
        interrupted: false,
        failure: None,
    };
    let stop = Stop::default();
    if rebinding.is_some() {
        // What is handed over goes back even if somebody interrupts.
        stop.listen();
    }
    let stored = compared.contestants.len() - specs.len();
    let progress = Progress::new(Total::Steps(u64::from(args.repeat) * specs.len() as u64));
    let begun = Instant::now();
    let mut done = 0;
    for round in 0..args.repeat {
        let mut turns: Vec<usize> = (0..specs.len()).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for i in turns {
            let contestant = &mut compared.contestants[stored + i];
            progress.advance(begun.elapsed(), done, &contestant.name);
            let finished = turn(&specs[i])
                .and_then(|()| job::run(&args.devices[i], &job_args, &stop, Shown::Elsewhere))
                .and_then(|finished| finished.verdict().map(|()| finished));
            compared.interrupted = stop.is_interrupted();
            match finished {
                // One that was cut short says nothing.
                _ if compared.interrupted => return Ok(compared),
                Ok(finished) => {
                    contestant.rounds.push(Round::of(&finished));
                    contestant.source = Source::Measured(Box::new(Some(finished)));
                }
                // Nothing is known yet that could be printed.
                Err(failure) if done == 0 => return Err(failure.of_job(&contestant.name)),
                Err(failure) => {
                    compared.failure = Some(failure.of_job(&contestant.name));
                    return Ok(compared);
                }
            }
            done += 1;
        }
    }
    Ok(compared)
}

fn job_args(args: &CompareArgs) -> JobArgs {
    let mut job = args.job.clone();
    if job.count.is_none() && job.runtime.is_none() {
        job.runtime = Some(RUNTIME);
    }
    job
}

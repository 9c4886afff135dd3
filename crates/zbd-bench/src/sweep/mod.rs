//! One job over a range of depths, zones, block sizes and queues.
//!
//! Every round measures every point once, and at each point what is compared one right after the
//! other, in the opposite order every other round: so what drifts touches all alike.

pub(crate) mod picture;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use zbd_core::{DeviceInfo, DeviceSpec};

use crate::{
    cli::{JobArgs, Op, SweepArgs},
    failure::{During, Failure},
    job::{
        self, Finished, Shown,
        plan::Job,
        progress::{Progress, Total},
        stop::Stop,
    },
    spread::Spread,
};

/// The depths that are measured unless others are asked for.
const DEPTHS: [u64; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
/// How long each measurement takes unless asked for otherwise.
const RUNTIME: Duration = Duration::from_secs(1);

/// What is different from point to point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) op: Op,
    pub(crate) depth: u64,
    pub(crate) zones: u64,
    pub(crate) block_size: u64,
    pub(crate) queues: u64,
}

/// What one measurement of a point found.
#[derive(Clone, Copy, Debug)]
struct Sample {
    iops: f64,
    p50: f64,
    p99: f64,
    per_doorbell: f64,
}

impl Sample {
    fn of(finished: &Finished) -> Self {
        let tally = &finished.measured.done;
        Self {
            iops: finished.per_second(tally.ios),
            p50: tally.latency.percentile(50.0) as f64,
            p99: tally.latency.percentile(99.0) as f64,
            per_doorbell: match finished.measured.doorbells {
                0 => 0.0,
                doorbells => finished.measured.ios() as f64 / doorbells as f64,
            },
        }
    }
}

/// A point and all that was measured there.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    pub(crate) point: Point,
    samples: Vec<Sample>,
}

impl Measurement {
    /// How often it was measured.
    pub(crate) fn rounds(&self) -> usize {
        self.samples.len()
    }

    pub(crate) fn iops(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.iops))
    }

    /// Half of the requests did not take longer, in nanoseconds.
    pub(crate) fn p50(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.p50))
    }

    /// All but one in a hundred did not take longer, in nanoseconds.
    pub(crate) fn p99(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.p99))
    }

    pub(crate) fn per_doorbell(&self) -> Spread {
        Spread::of(self.samples.iter().map(|sample| sample.per_doorbell))
    }
}

/// A sweep and what came of it.
#[derive(Debug)]
pub(crate) struct Swept {
    pub(crate) device: String,
    pub(crate) info: Arc<DeviceInfo>,
    /// The job at the first point, for what is the same at all of them.
    pub(crate) job: Job,
    pub(crate) rounds: u32,
    pub(crate) measurements: Vec<Measurement>,
    pub(crate) interrupted: bool,
    /// Why it ended early, if it did.
    pub(crate) failure: Option<Failure>,
}

impl Swept {
    /// The measurement of a point like this one.
    pub(crate) fn at(&self, point: Point) -> Option<&Measurement> {
        self.measurements.iter().find(|m| m.point == point)
    }
}

/// Measures everything on the device of which this is known.
pub(crate) fn run(args: &SweepArgs, info: Arc<DeviceInfo>) -> Result<Swept, Failure> {
    let opening = |error| Failure::from_device(During::Opening, &error);
    let spec: DeviceSpec = args.device.parse().map_err(opening)?;
    let points = points(args, &info);
    // Every point is possible, or nothing is begun.
    let mut jobs = Vec::new();
    for point in &points {
        let job = Job::resolve(&args.device, &args_of(args, *point), &spec)?;
        job.check(&info)?;
        jobs.push(job);
    }
    let Some(job) = jobs.into_iter().next() else {
        return Err(Failure::usage("there is nothing to measure"));
    };
    let mut swept = Swept {
        device: args.device.clone(),
        info,
        job,
        rounds: args.repeat,
        measurements: points
            .iter()
            .map(|&point| Measurement {
                point,
                samples: Vec::new(),
            })
            .collect(),
        interrupted: false,
        failure: None,
    };
    let stop = Stop::default();
    let progress = Progress::new(Total::Steps(u64::from(args.repeat) * points.len() as u64));
    let begun = Instant::now();
    let ops = ops(args, &swept.info).len();
    let mut done = 0;
    for round in 0..args.repeat {
        for group in swept.measurements.chunks_mut(ops) {
            let mut group: Vec<&mut Measurement> = group.iter_mut().collect();
            if round % 2 == 1 {
                group.reverse();
            }
            for measurement in group {
                let point = measurement.point;
                progress.advance(begun.elapsed(), done, &describe(point));
                let result = job::run(&args.device, &args_of(args, point), &stop, Shown::Elsewhere);
                match result {
                    // One that was cut short says nothing.
                    Ok(_) if stop.is_interrupted() => {}
                    Ok(finished) => match finished.verdict() {
                        Ok(()) => measurement.samples.push(Sample::of(&finished)),
                        Err(failure) => swept.failure = Some(failure.of_job(&describe(point))),
                    },
                    Err(_) if stop.is_interrupted() => {}
                    Err(failure) => swept.failure = Some(failure.of_job(&describe(point))),
                }
                swept.interrupted = stop.is_interrupted();
                if swept.interrupted || swept.failure.is_some() {
                    swept.measurements.retain(|m| !m.samples.is_empty());
                    return Ok(swept);
                }
                done += 1;
            }
        }
    }
    Ok(swept)
}

fn describe(point: Point) -> String {
    format!("{} at depth {}", point.op.name(), point.depth)
}

fn args_of(args: &SweepArgs, point: Point) -> JobArgs {
    let mut job = args.job.clone();
    job.op = point.op;
    job.depth = point.depth;
    job.zones = point.zones;
    job.block_size = point.block_size;
    job.queues = point.queues;
    job.batch = job.batch.map(|batch| batch.min(point.depth));
    if job.count.is_none() && job.runtime.is_none() {
        job.runtime = Some(RUNTIME);
    }
    job
}

fn ops(args: &SweepArgs, info: &DeviceInfo) -> Vec<Op> {
    if !args.ops.is_empty() {
        return args.ops.clone();
    }
    let appends = info
        .zoned
        .as_ref()
        .is_some_and(|zoned| zoned.max_append.0 > 0);
    match appends {
        true => vec![Op::Append, Op::Write],
        false => vec![Op::Write],
    }
}

/// All points, those that differ only in the operation side by side.
fn points(args: &SweepArgs, info: &DeviceInfo) -> Vec<Point> {
    let or = |list: &[u64], one: u64| match list {
        [] => vec![one],
        list => list.to_vec(),
    };
    let depths = match args.depths.as_slice() {
        [] => DEPTHS
            .into_iter()
            .filter(|&depth| depth <= info.queue_depth.into())
            .collect(),
        depths => depths.to_vec(),
    };
    let mut points = Vec::new();
    for &block_size in &or(&args.block_sizes, args.job.block_size) {
        for &queues in &or(&args.queues_list, args.job.queues) {
            for &zones in &or(&args.zones_list, args.job.zones) {
                for &depth in &depths {
                    for &op in &ops(args, info) {
                        points.push(Point {
                            op,
                            depth,
                            zones,
                            block_size,
                            queues,
                        });
                    }
                }
            }
        }
    }
    points
}

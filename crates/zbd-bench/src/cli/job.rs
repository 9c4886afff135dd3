//! What a measured job is made of, whichever command runs it.

use std::time::Duration;

use clap::{Args, ValueEnum};
use zbd_core::WaitPolicy;

use super::values::{percent, rate, size, time};

/// The options of a job. Where fio has an option that means the same, its name is an alias.
#[derive(Clone, Debug, Args)]
pub(crate) struct JobArgs {
    /// What to do [fio: rw]
    #[arg(long, alias = "rw", value_enum, default_value_t = Op::Append)]
    pub(crate) op: Op,
    /// The length of each request; k, m and g are powers of 1024 [fio: bs]
    #[arg(long, aliases = ["bs", "blocksize", "block_size"], value_name = "SIZE", default_value = "4k", value_parser = size)]
    pub(crate) block_size: u64,
    /// The greatest number of requests in flight in each queue [fio: iodepth]
    #[arg(long, alias = "iodepth", value_name = "N", default_value_t = 32)]
    pub(crate) depth: u64,
    /// How many queues, each with a thread of its own [fio: numjobs]
    #[arg(long, alias = "numjobs", value_name = "N", default_value_t = 1)]
    pub(crate) queues: u64,
    /// How many sequential zones, from the first on, shared out among the queues
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) zones: u64,
    /// For how long [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "count")]
    pub(crate) runtime: Option<Duration>,
    /// Accepted because fio has it: a job with a run time always lasts that long
    #[arg(long, alias = "time_based", hide = true, conflicts_with = "count")]
    pub(crate) time_based: bool,
    /// How many requests, over all queues [fio: number_ios]
    #[arg(long, alias = "number_ios", value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Run for so long first, without measuring [fio: ramp_time]
    #[arg(long, alias = "ramp_time", value_name = "TIME", value_parser = time, default_value = "0")]
    pub(crate) ramp_time: Duration,
    /// Submit so many requests a second in each queue, at fixed times, and count latencies from
    /// those times, however late a request is submitted [fio: rate_iops]
    #[arg(long, alias = "rate_iops", value_name = "N", value_parser = rate)]
    pub(crate) rate_iops: Option<u64>,
    /// Let so many percent of the requests of a writing job be reads of what it has written, at
    /// random [fio: rwmixread]
    #[arg(long, aliases = ["rwmixread", "read_mix"], value_name = "PERCENT", value_parser = percent)]
    pub(crate) read_mix: Option<u8>,
    /// Write to so many zones at a time, over all queues; when one is full the next takes its
    /// place [default: all] [fio: max_open_zones]
    #[arg(long, alias = "max_open_zones", value_name = "N")]
    pub(crate) max_open_zones: Option<u64>,
    /// Finish zones once so many percent of them are written
    #[arg(long, alias = "finish_at", value_name = "PERCENT", value_parser = percent)]
    pub(crate) finish_at: Option<u8>,
    /// When no zone is left to write to, reset all that are full, or only the one that has been
    /// full for longest
    #[arg(long, value_enum, default_value_t = ResetPolicy::All)]
    pub(crate) reset: ResetPolicy,
    /// Refill a queue when this many of its requests are free, with one doorbell [default: 3/4 of
    /// the depth]. What fio calls iodepth_batch_submit and iodepth_batch_complete_min
    #[arg(long, value_name = "N", conflicts_with = "rate_iops")]
    pub(crate) batch: Option<u64>,
    /// How to wait for completions [default: poll with --api queue, which gives the best figures;
    /// adaptive with --api async, whose tasks need the processor, too]
    #[arg(long, value_enum)]
    pub(crate) wait: Option<Wait>,
    /// Polled queues, or async tasks: as many as the depth in each queue. Async sequential writes
    /// have one request in flight in each zone, for more would have to arrive in order
    #[arg(long, value_enum, default_value_t = Api::Queue)]
    pub(crate) api: Api,
    /// How many threads the tasks of --api async run on; polled queues have one each [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<u64>,
    /// Where random reads begin; the same seed reads the same blocks [fio: randseed]
    #[arg(long, alias = "randseed", value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Allow data on a device other than emu: to be destroyed
    #[arg(long)]
    pub(crate) destroy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Op {
    /// Zone appends: the device chooses the sector
    Append,
    /// Sequential writes at the write pointers
    Write,
    /// Sequential reads below the write pointers
    Read,
    /// Random reads below the write pointers
    Randread,
}

impl Op {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Write => "write",
            Self::Read => "read",
            Self::Randread => "randread",
        }
    }

    pub(crate) const fn is_writing(self) -> bool {
        matches!(self, Self::Append | Self::Write)
    }
}

/// Which of the full zones are reset when none is left to write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResetPolicy {
    /// All of them, the oldest first
    All,
    /// The one that has been full for longest
    Oldest,
}

impl ResetPolicy {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Oldest => "oldest",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wait {
    /// Look without end
    Poll,
    /// Look for a while, then sleep until the device interrupts
    Adaptive,
    /// Sleep at once
    Interrupt,
}

impl From<Wait> for WaitPolicy {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Poll => Self::Poll,
            Wait::Adaptive => Self::Adaptive,
            Wait::Interrupt => Self::Interrupt,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Api {
    Queue,
    Async,
}

impl Api {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Async => "async",
        }
    }
}

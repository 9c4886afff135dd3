//! `zbd-bench run`

use std::time::Duration;

use clap::{Args, ValueEnum};
use zbd_core::WaitPolicy;

use super::values::{size, time};

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// The device: emu:, emu:key=value,…, pci:0000:00:01.0 or /dev/…
    #[arg(long, default_value = "emu:")]
    pub(crate) device: String,
    /// What to do
    #[arg(long, value_enum, default_value_t = Op::Append)]
    pub(crate) op: Op,
    /// The length of each request; k, m and g are powers of 1024
    #[arg(long, value_name = "SIZE", default_value = "4k", value_parser = size)]
    pub(crate) block_size: u64,
    /// The greatest number of requests in flight in each queue
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub(crate) depth: u64,
    /// How many queues, each with a thread of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) queues: u64,
    /// How many sequential zones, from the first on, shared out among the queues
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) zones: u64,
    /// For how long [default: 5s]
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "count")]
    pub(crate) runtime: Option<Duration>,
    /// How many requests, over all queues
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Refill a queue when this many of its requests are free, with one doorbell [default: 3/4 of
    /// the depth]. What fio calls iodepth_batch_submit and iodepth_batch_complete_min
    #[arg(long, value_name = "N")]
    pub(crate) batch: Option<u64>,
    /// How to wait for completions [default: poll with --api queue, which gives the best figures;
    /// adaptive with --api async, whose tasks need the processor, too]
    #[arg(long, value_enum)]
    pub(crate) wait: Option<Wait>,
    /// Polled queues, or async tasks: as many as the depth in each queue. Async sequential writes
    /// have one request in flight in each zone, for more would have to arrive in order
    #[arg(long, value_enum, default_value_t = Api::Queue)]
    pub(crate) api: Api,
    /// Where randread begins; the same seed reads the same blocks
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = RunFormat::Text)]
    pub(crate) format: RunFormat,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RunFormat {
    Text,
    Json,
    Fio,
}

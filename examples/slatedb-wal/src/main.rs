//! Runs SlateDB with its log on zones: checks that it survives being killed, and measures it.

mod bench;
mod check;
mod latency;
mod open;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

/// SlateDB with its write-ahead log on the zones of a zoned block device
#[derive(Debug, Parser)]
#[command(name = "slatedb-wal", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure how long a durable put takes, beside SlateDB's own log on a file system
    Bench(BenchArgs),
    /// Write in a process that is killed (SIGKILL), open again, compare with what was acknowledged
    Check(CheckArgs),
    /// Put numbers until killed, and print each when it is durable
    Write(WriteArgs),
    /// Open the database and print how many numbers it holds, which must be all below
    Verify(DatabaseArgs),
}

#[derive(Clone, Debug, Args)]
struct DatabaseArgs {
    /// The device of the log: emu:store=PATH, pci:0000:00:01.0, …; emu: forgets it with the process
    #[arg(long)]
    device: String,
    /// The directory of tables and manifests
    #[arg(long, value_name = "DIRECTORY")]
    tables: PathBuf,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// The device of the log
    #[arg(long, default_value = "emu:")]
    device: String,
    /// Reset the zones of the device first: all that they hold is lost
    #[arg(long)]
    destroy: bool,
    /// The directory of tables, manifests and of SlateDB's own log; a temporary one otherwise
    #[arg(long, value_name = "DIRECTORY")]
    tables: Option<PathBuf>,
    /// How many puts are measured in each round, one after the other
    #[arg(long, value_name = "N", default_value_t = 500)]
    puts: usize,
    /// How many rounds; the logs take turns in each
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: usize,
    /// The length of a value in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    value_len: usize,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// How often the writer is killed
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: u32,
    /// The longest time that it writes before it is killed, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 300)]
    longest: u64,
    /// What chooses the times
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct WriteArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// End after so many puts
    #[arg(long, value_name = "N")]
    puts: Option<u64>,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Bench(args) => bench::run(&args).await,
        Command::Check(args) => {
            let longest = Duration::from_millis(args.longest);
            check::run(&args.database, args.rounds, longest, args.seed).await
        }
        Command::Write(args) => check::write(&args.database, args.puts).await,
        Command::Verify(args) => check::verify(&args).await,
    }
}

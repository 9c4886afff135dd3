//! How long a durable put takes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use slatedb::Db;
use slatedb::config::{FlushOptions, FlushType, Settings};
use slatedb_wal::{ZoneWal, ZoneWalOptions, engine};

use crate::latency::{Percentiles, Spread};
use crate::{BenchArgs, open};

/// Puts before those that are measured.
const WARM_UP: usize = 20;

/// A log that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Log {
    Zones,
    /// SlateDB's own, in an object store on the local file system.
    Objects {
        fsync: bool,
    },
}

const LOGS: [Log; 3] = [
    Log::Zones,
    Log::Objects { fsync: false },
    Log::Objects { fsync: true },
];

impl Log {
    fn name(self) -> &'static str {
        match self {
            Self::Zones => "zones",
            Self::Objects { fsync: false } => "objects, no fsync",
            Self::Objects { fsync: true } => "objects, fsync",
        }
    }
}

pub(crate) async fn run(args: &BenchArgs) -> Result<()> {
    ensure!(
        args.puts > 0 && args.rounds > 0,
        "there is nothing to measure"
    );
    let temporary = tempfile::tempdir()?;
    let tables = args.tables.as_deref().unwrap_or(temporary.path());
    let device = open::device(&args.device)?;
    if args.destroy {
        device.reset_all().await?;
    }
    let bench = Bench {
        zones: ZoneWal::new(device, ZoneWalOptions::default())?,
        tables: tables.to_owned(),
        name: format!("bench-{}", fastrand::u64(..)),
        puts: args.puts,
        value: vec![b'v'; args.value_len],
    };
    let mut results: [Vec<Percentiles>; LOGS.len()] = Default::default();
    for round in 0..args.rounds {
        for (log, results) in LOGS.iter().zip(&mut results) {
            let times = bench.round(*log, round).await;
            results.push(Percentiles::of(times.with_context(|| log.name())?));
        }
    }
    print(args, tables, &results);
    Ok(())
}

struct Bench {
    zones: ZoneWal,
    tables: PathBuf,
    /// Of the databases, which are removed afterwards.
    name: String,
    puts: usize,
    value: Vec<u8>,
}

impl Bench {
    /// The times of one log's puts, in a database that is open for as long.
    async fn round(&self, log: Log, round: usize) -> Result<Vec<Duration>> {
        let name = match log {
            // The log on zones is one database's, through all rounds.
            Log::Zones => format!("{}-zones", self.name),
            Log::Objects { fsync } => format!("{}-objects-{fsync}-{round}", self.name),
        };
        let path = name.as_str().into();
        // Tables are written the same way for all; none is while puts are measured.
        let store = open::store(&self.tables, log != Log::Objects { fsync: false })?;
        let builder = match log {
            Log::Zones => engine::builder(&path, &store, &self.zones, engine::settings()),
            Log::Objects { .. } => Db::builder(path, store).with_settings(Settings {
                garbage_collector_options: None,
                ..engine::settings()
            }),
        };
        let db = builder.build().await?;
        for number in 0..WARM_UP {
            self.put(&db, number).await?;
        }
        let mut times = Vec::with_capacity(self.puts);
        for number in 0..self.puts {
            let begun = Instant::now();
            self.put(&db, number).await?;
            times.push(begun.elapsed());
        }
        db.close().await?;
        Ok(times)
    }

    /// The same calls for each log. The flush is for SlateDB's own, which would wait for its
    /// interval without; the log on zones is at it already.
    async fn put(&self, db: &Db, number: usize) -> Result<()> {
        let put = db.put(format!("{number:016}"), &self.value).await?;
        let flush_type = FlushType::Wal;
        db.flush_with_options(FlushOptions { flush_type }).await?;
        put.await_durable().await?;
        Ok(())
    }
}

fn print(args: &BenchArgs, tables: &Path, results: &[Vec<Percentiles>]) {
    println!(
        "durable puts of {} bytes, one after the other: {} rounds of {}, the logs in turn",
        args.value_len, args.rounds, args.puts
    );
    println!("  zones:   {}", args.device);
    println!("  objects: SlateDB's own log in {}", tables.display());
    println!("\nmicroseconds, median of the rounds (least to greatest):");
    println!("{:18} {:>24} {:>24} {:>24}", "log", "p50", "p90", "p99");
    for (log, results) in LOGS.iter().zip(results) {
        let column = |figure: fn(&Percentiles) -> f64| {
            let spread = Spread::of(results.iter().map(figure));
            let Spread {
                median,
                least,
                greatest,
            } = spread;
            format!("{median:.0} ({least:.0} to {greatest:.0})")
        };
        let (p50, p90, p99) = (column(|r| r.p50), column(|r| r.p90), column(|r| r.p99));
        println!("{:18} {p50:>24} {p90:>24} {p99:>24}", log.name());
    }
    println!("\np50 over that of zones in the same round, median (least to greatest):");
    let [zones, others @ ..] = results else {
        return;
    };
    for (log, others) in LOGS[1..].iter().zip(others) {
        let ratios = others
            .iter()
            .zip(zones)
            .map(|(other, zones)| other.p50 / zones.p50);
        let Spread {
            median,
            least,
            greatest,
        } = Spread::of(ratios);
        println!(
            "{:18} {median:.2} ({least:.2} to {greatest:.2})",
            log.name()
        );
    }
    println!("\nWhat durable means here:");
    println!("  {}", durability(&args.device));
    println!(
        "  objects, no fsync: the local store's default. An acknowledged put survives the process,\n  \
         and a power cut only if the kernel happened to have written the file.\n  \
         objects, fsync: the file and its directory are synced before a put is acknowledged."
    );
    println!(
        "Each put asks for a flush. Without asking, SlateDB's own log would flush every 100 ms by\n\
         default, and a put take that long; the log on zones begins at once in any case."
    );
}

/// What a put to the log on zones survives.
fn durability(device: &str) -> String {
    let what = if device.starts_with("emu:") && !device.contains("store=") {
        "the device is this process's memory, so nothing outlives it. This is what the code\n  \
         costs, not what a disk does"
    } else if device.starts_with("emu:") {
        "the device's flush empties its cache into the file and syncs that"
    } else {
        "a flush of the device, as the device carries it out"
    };
    format!("zones: {what}.")
}

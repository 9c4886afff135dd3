//! Does what was acknowledged outlive a process that is killed?

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use slatedb_wal::workload;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::{DatabaseArgs, open};

/// How many puts the writer has on their way.
const WINDOW: usize = 32;

/// How long a writer may take to open the database and acknowledge a put.
const PATIENCE: Duration = Duration::from_secs(60);

/// Puts numbers, and prints each once it is durable.
pub(crate) async fn write(args: &DatabaseArgs, count: Option<u64>) -> Result<()> {
    let db = open::database(args).await?;
    let from = workload::found(&db).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "from {from}")?;
    let mut broken = None;
    let acknowledged = |number| {
        if let Err(error) = writeln!(out, "{number}") {
            broken = Some(error);
        }
    };
    workload::put(&db, from, count, WINDOW, acknowledged).await?;
    broken.map_or(Ok(()), Err)?;
    db.close().await?;
    Ok(())
}

/// Prints how many numbers there are.
pub(crate) async fn verify(args: &DatabaseArgs) -> Result<()> {
    let db = open::database(args).await?;
    let found = workload::found(&db).await?;
    println!("found {found}");
    db.close().await?;
    Ok(())
}

/// Kills writers, and looks at what they leave. Each is found to have lost nothing by the one after
/// it, and the last by this process.
pub(crate) async fn run(
    args: &DatabaseArgs,
    rounds: u32,
    longest: Duration,
    seed: u64,
) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    // What the database holds: at least, and at the most; of the first round nothing is known.
    let mut expected = 0..=u64::MAX;
    let (mut acknowledged, mut unacknowledged) = (0, 0);
    for round in 1..=rounds {
        let after = longest.mul_f64(random.f64());
        let (from, next) = write_and_kill(args, after)
            .await
            .with_context(|| format!("writer {round}"))?;
        ensure_expected(from, &expected, round - 1)?;
        acknowledged += next - from;
        unacknowledged += from.saturating_sub(*expected.start());
        expected = next..=next + WINDOW as u64;
    }
    let db = open::database(args).await?;
    let found = workload::found(&db).await?;
    ensure_expected(found, &expected, rounds)?;
    unacknowledged += found - expected.start();
    db.close().await?;
    println!(
        "{rounds} kills, {acknowledged} puts acknowledged, all there; {unacknowledged} more, \
         which were on their way"
    );
    Ok(())
}

fn ensure_expected(found: u64, expected: &std::ops::RangeInclusive<u64>, kill: u32) -> Result<()> {
    ensure!(
        found >= *expected.start(),
        "after kill {kill}: {} puts were acknowledged, and {found} are there",
        expected.start()
    );
    ensure!(
        found <= *expected.end(),
        "after kill {kill}: {found} puts are there, and {} were made at the most",
        expected.end()
    );
    Ok(())
}

/// Lets another process write for as long as `after` says, and kills it. Yields how many numbers it
/// found and how many there are with those that it acknowledged.
async fn write_and_kill(args: &DatabaseArgs, after: Duration) -> Result<(u64, u64)> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["write", "--device", &args.device, "--tables"])
        .arg(&args.tables)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let printed = child.stdout.take().context("no pipe")?;
    let mut lines = BufReader::new(printed).lines();
    let begun = timeout(PATIENCE, begin(&mut lines)).await;
    let from = begun.context("it does not begin")??;
    let mut next = from;
    let mut killed = false;
    let end = sleep(after);
    tokio::pin!(end);
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                // A line that was cut off would say less than was acknowledged, never more.
                Some(line) => {
                    let number: u64 = line.parse().with_context(|| line.clone())?;
                    ensure!(number == next, "{number} was acknowledged after {next} puts");
                    next += 1;
                }
                None => break,
            },
            () = &mut end, if !killed => {
                child.start_kill()?;
                killed = true;
            }
        }
    }
    let status = child.wait().await?;
    ensure!(killed, "it ended by itself: {status}");
    Ok((from, next))
}

/// How many numbers the writer found.
async fn begin(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<u64> {
    let first = lines.next_line().await?;
    let first = first.context("it printed nothing, and said why above")?;
    let from = first.strip_prefix("from ").with_context(|| first.clone())?;
    Ok(from.parse()?)
}

//! Processes that a scenario starts beside itself, to share a disk with or to kill: the same
//! program in another role.

use std::io::Write as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use zbd_core::{IoQueue, Request, ZoneId};

use super::record::Record;

/// Appends that [`APPEND`] keeps in flight.
pub const DEPTH: u64 = 32;
/// Opens a device, and prints what came of it: `opened`, or the error's kind and text.
pub const OPEN: &str = "open";
/// Appends records of one unit to zones in turn, and prints the sequence and the sector of each
/// that was acknowledged: a device string, a seed, the zones.
pub const APPEND: &str = "append";

/// The command that starts this program in a role.
///
/// # Errors
/// If the program cannot be found.
pub fn command(role: &str, arguments: &[String]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["beside", role]).args(arguments);
    Ok(command)
}

/// What such a process does.
///
/// # Errors
/// If it cannot.
pub fn main(arguments: &[&str]) -> Result<()> {
    match arguments {
        [OPEN, spec] => {
            match IoQueue::open(spec) {
                Ok(_) => println!("opened"),
                Err(error) => println!("{:?}: {error}", error.kind()),
            }
            Ok(())
        }
        [APPEND, spec, seed, zones @ ..] => {
            let zones: Result<Vec<u32>, _> = zones.iter().map(|zone| zone.parse()).collect();
            append(spec, seed.parse()?, &zones?)
        }
        _ => bail!("no such role: {arguments:?}"),
    }
}

fn append(spec: &str, seed: u64, zones: &[u32]) -> Result<()> {
    let mut queue = IoQueue::open(spec)?;
    let mut sequence = 0;
    loop {
        while (queue.in_flight() as u64) < DEPTH {
            let zone = zones[sequence as usize % zones.len()];
            let record = Record {
                seed,
                sequence,
                zone,
                units: 1,
            };
            let mut buffer = queue.buffer(record.len_bytes())?;
            buffer.copy_from_slice(&record.bytes());
            let zone = ZoneId(zone);
            queue
                .submit(Request::Append { zone, buffer }, sequence)
                .map_err(zbd_core::Error::from)?;
            sequence += 1;
        }
        queue.commit();
        let mut acknowledged = String::new();
        while let Some(done) = queue.poll() {
            let sector = done
                .result
                .with_context(|| format!("append {}", done.token))?;
            acknowledged += &format!("{} {sector}\n", done.token);
        }
        if !acknowledged.is_empty() {
            std::io::stdout().write_all(acknowledged.as_bytes())?;
        }
    }
}

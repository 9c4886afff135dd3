//! The guest's part of `cargo xtask bench --guest`, which builds what this needs:
//!
//! - `guest speed PEERS`: prints `JOB ROUND WHAT VALUE` lines.
//! - `guest instructions PEERS PLUGIN`: prints `JOB ROUND user VALUE` and `JOB ROUND kernel VALUE`,
//!   instructions that the whole guest executed per request.
//!
//! And that of `cargo xtask pictures`:
//!
//! - `guest pictures DIRECTORY`: writes charts and reports there.
//!
//! Without arguments, as `cargo bench` calls it, it says so and does nothing.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result, bail, ensure};
use zbd_tests::guest::boot::{Additions, Boot};
use zbd_tests::guest::machine;
use zbd_tests::scenarios::measure;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => {
            println!("boots a QEMU guest: run `cargo xtask bench --guest`");
            Ok(())
        }
        ["speed", peers] => speed(peers.into()),
        ["instructions", peers, plugin] => instructions(peers.into(), Path::new(plugin)),
        ["pictures", directory] => pictures(Path::new(directory)),
        _ => bail!(
            "usage: guest speed PEERS | guest instructions PEERS PLUGIN | guest pictures DIRECTORY"
        ),
    }
}

fn boot(scenario: &str, additions: &Additions) -> Result<Boot> {
    Boot::carry_out(&machine::bench, vec![scenario.into()], additions)
}

fn speed(peers: PathBuf) -> Result<()> {
    let scenario = "bench::measure::speed";
    let additions = Additions {
        programs: vec![peers],
        arguments: Vec::new(),
    };
    let boot = boot(scenario, &additions)?;
    for (name, value) in boot.metrics(scenario)? {
        let mut parts = name.rsplitn(3, '/');
        let (what, round) = (parts.next(), parts.next());
        let job = parts.next().context("a job's name")?;
        let (round, what) = round.zip(what).context("a round, and what was measured")?;
        println!("{job} {round} {what} {value}");
    }
    Ok(())
}

fn pictures(directory: &Path) -> Result<()> {
    let scenario = "bench::pictures::all";
    let boot = boot(scenario, &Additions::default())?;
    for (name, text) in boot.files(scenario)? {
        fs::write(directory.join(name), text)?;
    }
    Ok(())
}

fn instructions(peers: PathBuf, plugin: &Path) -> Result<()> {
    let scenario = "bench::measure::instructions";
    let counts = plugin.with_extension("counts");
    // A comma in a value is written twice.
    let quoted = |path: &Path| path.display().to_string().replace(',', ",,");
    let additions = Additions {
        programs: vec![peers],
        arguments: vec![
            "-plugin".into(),
            format!("{},out={}", quoted(plugin), quoted(&counts)),
        ],
    };
    boot(scenario, &additions)?.metrics(scenario)?;
    let text = fs::read_to_string(&counts).context("the plugin wrote nothing")?;
    let marks = text.lines().map(Mark::parse).collect::<Result<Vec<_>>>()?;
    let jobs = measure::COUNTED.len() * measure::COUNTED_ROUNDS;
    ensure!(marks.len() == 4 * jobs, "{} marks: {text}", marks.len());
    for (at, marks) in marks.chunks(4).enumerate() {
        let [begin, end, begin_more, end_more] = marks else {
            bail!("marks come by four");
        };
        let order = [begin, end, begin_more, end_more].map(|mark| mark.number);
        ensure!(order == [1, 2, 1, 2], "{text}");
        let job = &measure::COUNTED[at % measure::COUNTED.len()];
        let round = at / measure::COUNTED.len();
        let each = |of: fn(&Mark) -> f64| {
            let some = of(end) - of(begin);
            let more = of(end_more) - of(begin_more);
            (more - some) / f64::from(measure::COUNTED_REQUESTS)
        };
        println!("{} {round} user {}", job.name(), each(|mark| mark.user));
        println!("{} {round} kernel {}", job.name(), each(|mark| mark.kernel));
    }
    Ok(())
}

/// What had been executed when the guest came to a mark.
struct Mark {
    number: u32,
    user: f64,
    kernel: f64,
}

impl Mark {
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.split(' ');
        let mut word = || words.next().with_context(|| line.to_owned());
        Ok(Self {
            number: word()?.parse()?,
            user: word()?.parse()?,
            kernel: word()?.parse()?,
        })
    }
}

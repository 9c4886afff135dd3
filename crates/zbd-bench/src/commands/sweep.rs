//! `zbd-bench sweep`

use std::{env, ffi::OsStr, path::Path};

use crate::{
    chart,
    cli::SweepArgs,
    failure::Failure,
    report::{self, Output},
    sweep::{self, Swept},
};

/// Measures over a range of depths and whatever else, and draws it.
pub(crate) fn sweep(args: &SweepArgs) -> Result<(), Failure> {
    let output = Output::open(args.output.as_deref())?;
    let pictures: Vec<Output> = args
        .plot
        .iter()
        .map(|path| Output::open(Some(path)))
        .collect::<Result<_, _>>()?;
    let info = super::look(&args.device)?;
    let swept = sweep::run(args, info)?;
    output.write(&report::sweep::sweep(&swept, args.format)?)?;
    for (path, file) in args.plot.iter().zip(pictures) {
        draw(&swept, path, file)?;
    }
    match swept.failure {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

/// A page has all charts; a picture has the first, and those beside it have the others.
fn draw(swept: &Swept, path: &Path, file: Output) -> Result<(), Failure> {
    if path.extension() == Some(OsStr::new("html")) {
        let words: Vec<String> = env::args().skip(1).collect();
        let command = format!("zbd-bench {}", words.join(" "));
        let page = swept.page(command, report::sweep::page_table(swept));
        return file.write(&chart::html(&page));
    }
    let mut file = Some(file);
    for (i, chart) in swept.charts().iter().enumerate() {
        let file = match file.take() {
            Some(file) => file,
            None => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                let name = match i {
                    1 => format!("{stem}-latency.svg"),
                    _ => format!("{stem}-{}.svg", i + 1),
                };
                Output::open(Some(&path.with_file_name(name)))?
            }
        };
        file.write(&chart::svg(chart))?;
    }
    Ok(())
}

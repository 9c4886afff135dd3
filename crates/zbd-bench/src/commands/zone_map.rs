//! `zbd-bench zones map`

use std::{
    thread,
    time::{Duration, Instant},
};

use terminal_size::{Height, Width};

use super::zones::named;
use crate::{
    chart::Glyphs,
    cli::MapArgs,
    failure::Failure,
    job::stop::Stop,
    report::{self, Frames, Output},
    zone_map::{self, Look, Map},
};

/// What is taken for a terminal where there is none: a usual one, that is scrolled through.
const NO_TERMINAL: (usize, usize) = (80, 46);

/// How long an interrupt waits to be seen at most.
const NAP: Duration = Duration::from_millis(50);

/// Shows the zones as a picture, once or again and again.
pub(crate) fn map(args: &MapArgs) -> Result<(), Failure> {
    let file = args.svg.as_deref().map(|file| Output::open(Some(file)));
    let file = file.transpose()?;
    let (mut queue, _) = super::open(&args.device)?;
    let Some(interval) = args.watch else {
        let zones = named(&mut queue, &[])?;
        let map = Map {
            info: queue.info(),
            zones: &zones,
        };
        if let Some(file) = file {
            file.write(&zone_map::svg(&map))?;
        }
        let text = zone_map::text(&map, look(args.ascii));
        return report::print(&report::for_stdout(&text));
    };
    let stop = Stop::default();
    stop.listen();
    let mut frames = Frames::new();
    while !stop.is_set() {
        let begun = Instant::now();
        let zones = named(&mut queue, &[])?;
        let map = Map {
            info: queue.info(),
            zones: &zones,
        };
        // A terminal may have changed its size.
        let look = look(args.ascii);
        if !frames.show(&zone_map::text(&map, look), (look.columns, look.lines))? {
            break;
        }
        while !stop.is_set() && begun.elapsed() < interval {
            thread::sleep(NAP.min(interval.saturating_sub(begun.elapsed())));
        }
    }
    Ok(())
}

/// What can be shown here.
fn look(ascii: bool) -> Look {
    let size = terminal_size::terminal_size();
    let (columns, lines) = size.map_or(NO_TERMINAL, |(Width(columns), Height(lines))| {
        (usize::from(columns), usize::from(lines))
    });
    Look {
        glyphs: if ascii {
            Glyphs::Ascii
        } else {
            Glyphs::of_locale()
        },
        columns,
        lines,
    }
}

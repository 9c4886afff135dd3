//! What a report has to say of where it was made.

use std::fs;
use std::process::Command;
use std::thread;

use crate::paths;

/// Prints the commit, the machine, and whether it is busy.
pub(crate) fn print() {
    let first_line = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(paths::root())
            .output();
        let printed = output.ok().filter(|output| output.status.success());
        let printed = printed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        printed.and_then(|text| text.lines().next().map(str::to_owned))
    };
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
    let changed = first_line("git", &["status", "--porcelain", "--untracked-files=no"]);
    println!(
        "commit {}{}",
        or_unknown(first_line("git", &["rev-parse", "--short=12", "HEAD"])),
        changed.map_or("", |_| ", and changes")
    );
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split_once(": "));
    println!(
        "{processors} x {}; Linux {}; {}",
        model.map_or("unknown", |(_, model)| model),
        or_unknown(first_line("uname", &["-r"])),
        or_unknown(first_line("rustc", &["--version"])),
    );
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = load
        .split(' ')
        .next()
        .and_then(|load| load.parse().ok())
        .unwrap_or_default();
    let busy = if load * 2.0 > processors as f64 {
        ": busy, and so times and what depends on them are noise"
    } else {
        ""
    };
    println!("load {load}{busy}");
}

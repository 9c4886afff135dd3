//! Where something was measured, and by which build.

use std::{fs, thread};

use nix::sys::utsname::uname;
use serde::Serialize;

/// The machine and the build of the tool.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MachineRecord {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
    pub(crate) tool: &'static str,
    pub(crate) commit: &'static str,
}

impl MachineRecord {
    /// This machine and this build.
    pub(crate) fn here() -> Self {
        let kernel = uname().map_or_else(
            |_| "unknown".to_owned(),
            |name| {
                let word = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
                format!(
                    "{} {} {}",
                    word(name.sysname()),
                    word(name.release()),
                    word(name.machine())
                )
            },
        );
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            kernel,
            cpu: model(&cpuinfo).unwrap_or("unknown").to_owned(),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            tool: concat!("zbd-bench ", env!("CARGO_PKG_VERSION")),
            commit: env!("ZBD_COMMIT"),
        }
    }

    /// The same as text.
    pub(crate) fn text(&self) -> String {
        let [machine, build] = self.lines();
        format!("{machine}\n{build}\n")
    }

    /// The same in two lines.
    pub(crate) fn lines(&self) -> [String; 2] {
        let cpus = if self.cpus == 1 { "CPU" } else { "CPUs" };
        [
            format!("{}, {} {cpus}: {}", self.kernel, self.cpus, self.cpu),
            format!("{}, commit {}", self.tool, self.commit),
        ]
    }
}

/// What Linux says the processor is.
fn model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    let (_, model) = line.split_once(':')?;
    Some(model.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_named_where_it_is_known() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor\t: 1\n";
        assert_eq!(model(cpuinfo), Some("Some CPU @ 2 GHz"));
        assert_eq!(model("processor\t: 0\n"), None);
    }
}

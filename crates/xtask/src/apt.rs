//! apt with a configuration of our own: the machine's sources, plus Debian's backports, with lists
//! and caches under the target directory. So the machine's own configuration stays as it is.

mod sources;

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use self::sources::Backports;
use crate::paths;
use crate::step::{execute, output};

/// A private apt.
pub(crate) struct Apt {
    directory: PathBuf,
}

/// A version of a package that some suite offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) version: String,
    pub(crate) suite: String,
}

impl Offer {
    /// Is this version `wanted` or newer?
    pub(crate) fn at_least(&self, wanted: &str) -> bool {
        let mut compare = Command::new("dpkg");
        compare.args(["--compare-versions", &self.version, "ge", wanted]);
        compare.status().is_ok_and(|status| status.success())
    }
}

impl Apt {
    /// Lays out the configuration and fetches the package lists.
    pub(crate) fn prepare() -> Result<Self> {
        let apt = Self {
            directory: paths::target()?.join("apt"),
        };
        let sources = apt.directory.join("sources");
        let _ = fs::remove_dir_all(&sources);
        for directory in [
            &sources,
            &apt.directory.join("lists/partial"),
            &apt.archives(),
        ] {
            fs::create_dir_all(directory).with_context(|| format!("{}", directory.display()))?;
        }
        let mut texts = Vec::new();
        for file in configured_sources()? {
            let text = fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
            if let Some(name) = file.file_name() {
                fs::write(sources.join(name), &text)?;
            }
            texts.push(text);
        }
        let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        if let Some(codename) = backported_codename(&system) {
            match sources::backports(&texts, codename) {
                Backports::Configured => {}
                Backports::Stanza(text) => fs::write(sources.join("zbd-backports.sources"), text)?,
                Backports::Line(text) => fs::write(sources.join("zbd-backports.list"), text)?,
                Backports::Unknown => {
                    println!("no source of the suite {codename} to take its backports from");
                }
            }
        }
        println!("fetching package lists");
        execute(apt.command("apt-get").args(["--quiet=2", "update"]))?;
        Ok(apt)
    }

    /// The versions of a package on offer, those of ordinary suites before backports, and of each
    /// the newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<Offer>> {
        let mut offers = parse_madison(&output(
            self.command("apt-cache").args(["madison", package]),
        )?);
        offers.sort_by_key(|offer| offer.suite.ends_with("-backports"));
        Ok(offers)
    }

    /// The packages that one version of a package depends on.
    pub(crate) fn dependencies(&self, package: &str, version: &str) -> Result<Vec<String>> {
        let name = format!("{package}={version}");
        let shown = output(self.command("apt-cache").args(["show", &name]))?;
        let depends = shown
            .lines()
            .find_map(|line| line.strip_prefix("Depends:"))
            .unwrap_or_default();
        Ok(depends
            .split([',', '|'])
            .filter_map(|one| one.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    /// Fetches a package into `directory`, without installing it.
    pub(crate) fn download(&self, package: &str, directory: &Path) -> Result<()> {
        let mut download = self.command("apt-get");
        execute(
            download
                .args(["--quiet=2", "download", package])
                .current_dir(directory),
        )
    }

    /// Installs a package from the suite that offers it.
    pub(crate) fn install(&self, package: &str, offer: &Offer) -> Result<()> {
        let mut install = if is_root()? {
            self.command("apt-get")
        } else if Command::new("sudo")
            .args(["-n", "true"])
            .output()
            .is_ok_and(|o| o.status.success())
        {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "--preserve-env=DEBIAN_FRONTEND", "apt-get"])
                .args(self.options());
            sudo
        } else {
            let options = self.options().join(" ");
            bail!(
                "installing needs root; run this, then try again:\n  sudo apt-get {options} install \
                 --no-install-recommends -t {} {package}",
                offer.suite
            );
        };
        install.args([
            "--quiet=2",
            "--yes",
            "--no-install-recommends",
            "-t",
            &offer.suite,
            "install",
            package,
        ]);
        // What goes wrong is said on the other stream.
        execute(
            install
                .env("DEBIAN_FRONTEND", "noninteractive")
                .stdout(Stdio::null()),
        )
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(self.options()).env("LC_ALL", "C");
        command
    }

    fn options(&self) -> Vec<String> {
        let directory = self.directory.display();
        [
            "Dir::Etc::SourceList=/dev/null".into(),
            format!("Dir::Etc::SourceParts={directory}/sources"),
            format!("Dir::State::Lists={directory}/lists"),
            format!("Dir::Cache={directory}/cache"),
            // The user that apt would otherwise become may have no way into the target directory.
            "APT::Sandbox::User=root".into(),
        ]
        .into_iter()
        .flat_map(|option: String| ["-o".into(), option])
        .collect()
    }

    fn archives(&self) -> PathBuf {
        self.directory.join("cache/archives/partial")
    }
}

/// The source files that this machine's apt reads.
fn configured_sources() -> Result<Vec<PathBuf>> {
    let asked = [
        "shell",
        "LIST",
        "Dir::Etc::SourceList/f",
        "PARTS",
        "Dir::Etc::SourceParts/d",
    ];
    let answer = output(Command::new("apt-config").args(asked))
        .context("this needs apt (Debian, Ubuntu); elsewhere install QEMU 8.1 or newer by hand")?;
    let setting = |name: &str| {
        let value = answer.lines().find_map(|line| line.strip_prefix(name))?;
        Some(PathBuf::from(value.trim_matches('\'')))
    };
    let mut files: Vec<PathBuf> = setting("LIST=")
        .into_iter()
        .filter(|file| file.is_file())
        .collect();
    if let Some(entries) = setting("PARTS=").and_then(|parts| fs::read_dir(parts).ok()) {
        let is_source = |file: &PathBuf| {
            let extension = file.extension().map(|extension| extension.as_bytes());
            matches!(extension, Some(b"list" | b"sources"))
        };
        let mut parts: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(is_source)
            .collect();
        parts.sort();
        files.extend(parts);
    }
    Ok(files)
}

/// The codename of a system that has backports under `CODENAME-backports` and does not configure
/// them from the start: Debian's. From the text of its os-release.
fn backported_codename(system: &str) -> Option<&str> {
    let field = |name: &str| {
        system
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.trim_matches('"')))
    };
    field("VERSION_CODENAME=").filter(|_| field("ID=") == Some("debian"))
}

/// Reads `apt-cache madison`: `package | version | URI suite/component architecture Packages`.
fn parse_madison(text: &str) -> Vec<Offer> {
    let offer = |line: &str| {
        let mut columns = line.split('|').skip(1).map(str::trim);
        let version = columns.next()?.to_owned();
        let mut source = columns.next()?.split_whitespace().rev();
        let suite = source.nth(2)?.split('/').next()?.to_owned();
        line.ends_with(" Packages")
            .then_some(Offer { version, suite })
    };
    text.lines().filter_map(offer).collect()
}

fn is_root() -> Result<bool> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn madison_is_read_as_versions_and_suites() {
        let text = " qemu | 1:10.0 | http://a/debian bookworm-backports/main amd64 Packages\n \
                    qemu | 1:7.2 | http://a/debian bookworm/main amd64 Packages\n \
                    qemu | 1:7.2 | http://a/debian bookworm/main Sources\n";
        let offer = |version: &str, suite: &str| Offer {
            version: version.into(),
            suite: suite.into(),
        };
        assert_eq!(
            parse_madison(text),
            [
                offer("1:10.0", "bookworm-backports"),
                offer("1:7.2", "bookworm")
            ]
        );
    }

    #[test]
    fn only_debian_gets_backports_added() {
        assert_eq!(
            backported_codename("ID=debian\nVERSION_CODENAME=bookworm"),
            Some("bookworm")
        );
        assert_eq!(
            backported_codename("ID=ubuntu\nVERSION_CODENAME=noble"),
            None
        );
        assert_eq!(backported_codename("ID=debian"), None);
    }
}

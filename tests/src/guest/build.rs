//! The parts that a boot needs: kernel, static programs, shim. `cargo xtask` makes them all.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Where the parts lie.
#[derive(Debug, Clone)]
pub struct Parts {
    target: PathBuf,
}

impl Parts {
    /// Builds what there is to build, and finds the rest.
    ///
    /// # Errors
    /// Says what is missing, and how to get it.
    pub fn gather() -> Result<Self> {
        let program = std::env::current_exe()?;
        let target = program
            .ancestors()
            .find(|above| above.join("CACHEDIR.TAG").is_file());
        let target = target
            .context("not started by cargo: use `cargo xtask test`")?
            .to_path_buf();
        let parts = Self { target };
        ensure!(
            parts.kernel().join("version").is_file(),
            "no guest kernel in {}: run `cargo xtask setup`",
            parts.kernel().display()
        );
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["run", "--quiet", "--package", "xtask", "--", "guest-build"]);
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        let built = build.output().context("cannot start cargo")?;
        let errors = String::from_utf8_lossy(&built.stderr);
        ensure!(
            built.status.success(),
            "`cargo xtask guest-build` failed:\n{errors}"
        );
        Ok(parts)
    }

    /// The directory of the unpacked kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.target.join("guest/kernel")
    }

    /// The directory of those modules that are others in a guest without an IOMMU.
    ///
    /// # Errors
    /// If they have not been made for this kernel.
    pub fn unconfined_modules(&self) -> Result<PathBuf> {
        let directory = self.target.join("guest/no-iommu");
        let version = |path: PathBuf| std::fs::read(path.join("version")).ok();
        ensure!(
            version(directory.clone()).is_some_and(|one| Some(one) == version(self.kernel())),
            "no VFIO for a guest without an IOMMU in {}: run `cargo xtask setup`",
            directory.display()
        );
        Ok(directory.join("modules"))
    }

    /// A static program.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.target
            .join("guest-build/x86_64-unknown-linux-gnu/release")
            .join(name)
    }

    /// The storage engine on zones, a static program.
    #[must_use]
    pub fn engine(&self) -> PathBuf {
        self.target
            .join("guest-build/x86_64-unknown-linux-gnu/engine/slatedb-wal")
    }

    /// The zoned-file shim.
    #[must_use]
    pub fn shim(&self) -> PathBuf {
        self.target
            .join("guest-build/release/libzbd_zoned_file_shim.so")
    }

    /// A directory for everything about the boots of one machine.
    #[must_use]
    pub fn run_directory(&self, machine: &str) -> PathBuf {
        self.target.join("guest/runs").join(machine)
    }
}

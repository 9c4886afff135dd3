//! Where things lie.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// The workspace's root: of the workspace whose xtask cargo was asked to run, even where several
/// share a target directory.
pub(crate) fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package
        .unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into())
        .join("../..")
}

/// Cargo's target directory: the one that this very program was built into.
pub(crate) fn target() -> Result<PathBuf> {
    let program = std::env::current_exe().context("cannot find out where xtask lies")?;
    let target = program
        .ancestors()
        .find(|above| above.join("CACHEDIR.TAG").is_file());
    Ok(target
        .context("xtask was not built by cargo: use `cargo xtask`")?
        .to_path_buf())
}

/// What `setup` fetched for the guest.
pub(crate) fn guest() -> Result<PathBuf> {
    Ok(target()?.join("guest"))
}

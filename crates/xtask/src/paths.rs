//! Where things lie.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
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

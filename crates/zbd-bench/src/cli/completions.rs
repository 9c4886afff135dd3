//! `zbd-bench completions`

use clap::Args;
use clap_complete::Shell;

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell that shall complete
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

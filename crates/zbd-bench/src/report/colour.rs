//! Where colours are shown.

use std::io;

use anstream::{AutoStream, ColorChoice, adapter::strip_str};
use anstyle::{AnsiColor, Style};

/// The name of the tool before what has failed.
pub(super) const FAILURE: Style = AnsiColor::Red.on_default().bold();
/// The same before what may be amiss.
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// The text as standard output takes it: with its colours on a terminal, unless NO_COLOR or its
/// like says that they are not wanted.
pub(crate) fn for_stdout(text: &str) -> String {
    if AutoStream::choice(&io::stdout()) == ColorChoice::Never {
        strip_str(text).to_string()
    } else {
        text.to_owned()
    }
}

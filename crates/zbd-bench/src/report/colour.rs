//! Where colours are shown.

use std::io;

use anstream::{AutoStream, ColorChoice, adapter::strip_str};

/// The text as standard output takes it: with its colours on a terminal, unless NO_COLOR or its
/// like says that they are not wanted.
pub(crate) fn for_stdout(text: &str) -> String {
    if AutoStream::choice(&io::stdout()) == ColorChoice::Never {
        strip_str(text).to_string()
    } else {
        text.to_owned()
    }
}

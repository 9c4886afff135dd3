//! What the driver warns of, such as that nothing confines a device, on standard error.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::colour;

/// Prints warnings and errors of the driver from now on, each on one line.
pub(crate) fn show() {
    tracing_subscriber::fmt()
        .with_max_level(Level::WARN)
        // This stream takes colours out where they are not wanted.
        .with_writer(anstream::stderr)
        .with_ansi(false)
        .event_format(Line)
        .init();
}

/// The form in which the tool itself complains.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (style, severity) = match *event.metadata().level() {
            Level::ERROR => (colour::FAILURE, "error"),
            _ => (colour::WARNING, "warning"),
        };
        write!(writer, "{style}zbd-bench: {severity}:{style:#} ")?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

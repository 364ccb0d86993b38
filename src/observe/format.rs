//! Events of the program as lines of the log, with the fields of their exchange.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::exchange;
use super::line::{LogFormat, LogLine};

/// The field of an event that holds its message.
const MESSAGE: &str = "message";

/// Writes events of the program as lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LineFormat {
    pub(crate) format: LogFormat,
    pub(crate) color: bool,
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = LogLine::new(*event.metadata().level(), "");
        event.record(&mut line);
        exchange::add_to(&mut line);
        writer.write_str(&line.render(self.format, self.color))
    }
}

impl Visit for LogLine {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Also the way of `%value`, whose `Debug` is its `Display`.
        let text = format!("{value:?}");
        match field.name() {
            MESSAGE => self.set_message(&text),
            name => self.add(name, text),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            MESSAGE => self.set_message(value),
            name => self.add(name, value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field.name(), value);
    }
}

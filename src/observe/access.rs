//! The access log: a line per request, whatever the level of the log.

use std::net::IpAddr;
use std::time::Duration;

use tracing::Level;

use super::exchange::{ExchangeSpan, micros, millis};
use super::line::{LogFormat, LogLine};
use super::writer;

/// The facts of an answer for its line.
#[derive(Debug)]
pub(crate) struct AccessFacts<'a> {
    pub(crate) span: &'a ExchangeSpan,
    pub(crate) method: &'a str,
    pub(crate) status: u16,
    pub(crate) took: Duration,
    /// Bytes of the answer's body that were sent.
    pub(crate) sent: u64,
    /// `None`: a client on a Unix socket.
    pub(crate) client: Option<IpAddr>,
}

/// Writes the line of an exchange.
pub(crate) fn log(facts: &AccessFacts<'_>, format: LogFormat) {
    let mut line = LogLine::new(Level::INFO, "access");
    line.add("method", facts.method);
    line.add("status", facts.status);
    facts.span.add_access_fields(&mut line);
    line.add("bytes_out", facts.sent);
    line.add("duration_ms", millis(micros(facts.took)));
    line.add("client", facts.client.map(|ip| ip.to_string()));
    writer::write(line.render(format, false));
}

//! `[log]`.

use serde::Serialize;

use super::defaults;
use super::table::TableReader;
use crate::observe::log::{LogFormat, filter, format_or};

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogConfig {
    /// The least level to write, or a filter.
    pub level: String,
    /// The form of the lines.
    pub format: LogFormat,
    /// Writes a line for each request.
    pub access: bool,
}

impl LogConfig {
    /// The format of the access log, if it is switched on.
    ///
    /// # Errors
    /// The environment names an unknown format.
    pub(crate) fn access_format(&self) -> Result<Option<LogFormat>, String> {
        self.access.then(|| format_or(self.format)).transpose()
    }
}

pub(super) fn log(table: &TableReader<'_>) -> LogConfig {
    let level = table.optional::<String>("level");
    if let Some(written) = &level
        && let Err(what) = filter(&written.value)
    {
        table.wrong(written, format!("`level`: {what}"));
    }
    LogConfig {
        level: level.map_or_else(|| defaults::LOG_LEVEL.to_owned(), |level| level.value),
        format: table.choice(
            "format",
            LogFormat::Text,
            &[("text", Some(LogFormat::Text)), ("json", Some(LogFormat::Json))],
        ),
        access: table.flag("access", false),
    }
}

//! `[traces]`.

use serde::Serialize;

use super::backend_url::{BackendUrl, parse_url};
use super::shown;
use super::table::TableReader;
use super::units::SampleShare;

/// `[traces]`
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TracesConfig {
    /// The collector's address; `None`: no traces.
    #[serde(serialize_with = "shown::optional_text")]
    pub otlp: Option<BackendUrl>,
    /// Share of the requests that are traced when their `traceparent` does not decide.
    pub sample: f64,
}

pub(super) fn traces(table: &TableReader<'_>) -> TracesConfig {
    let otlp = table.optional::<String>("otlp").and_then(|written| {
        let parsed = parse_url(&written.value);
        if let Err(what) = &parsed {
            table.wrong(&written, format!("`otlp`, the address of a collector, {what}"));
        }
        parsed.ok()
    });
    let sample = table.optional::<SampleShare>("sample");
    TracesConfig { otlp, sample: sample.map_or(0.0, |written| written.value.0) }
}

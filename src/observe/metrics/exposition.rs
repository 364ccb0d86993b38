//! The written form of the metrics: Prometheus text 0.0.4, or OpenMetrics 1.0 where the client
//! prefers it.

use std::fmt;

use http::HeaderValue;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

/// Form of an exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposition {
    Prometheus,
    OpenMetrics,
}

impl Exposition {
    /// The form that the values of `Accept` ask for: the one with the higher weight; of two equal
    /// ones, and without a preference, the Prometheus text.
    pub(crate) fn accepted<'a>(accept: impl Iterator<Item = &'a HeaderValue>) -> Self {
        let (mut openmetrics, mut prometheus) = (0, 0);
        for line in accept {
            for range in line.to_str().unwrap_or_default().split(',') {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default();
                let weight = parts
                    .find_map(|part| part.strip_prefix("q="))
                    .and_then(|weight| weight.parse::<f32>().ok())
                    .unwrap_or(1.0);
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "a weight has three digits after the point"
                )]
                let weight = (weight.clamp(0.0, 1.0) * 1000.0) as i32;
                if kind.eq_ignore_ascii_case("application/openmetrics-text") {
                    openmetrics = openmetrics.max(weight);
                } else if ["text/plain", "text/*", "*/*"].contains(&kind) {
                    prometheus = prometheus.max(weight);
                }
            }
        }
        if openmetrics > prometheus { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The media type of the form.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    pub(super) fn write(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut written = String::new();
        match self {
            Self::Prometheus => prometheus_text::encode(&mut written, registry)?,
            Self::OpenMetrics => text::encode(&mut written, registry)?,
        }
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_one_with_the_higher_weight() {
        let form =
            |accept: &'static str| Exposition::accepted([HeaderValue::from_static(accept)].iter());
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0",
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4",
            "text/plain;q=0.3, application/openmetrics-text;version=0.0.1;q=0.75,*/*;q=0.1",
        ] {
            assert_eq!(form(accept), Exposition::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/html",
            "application/openmetrics-text;q=0, */*",
            "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.2",
            "application/openmetrics-text;q=x;q=y, text/plain",
        ] {
            assert_eq!(form(accept), Exposition::Prometheus, "{accept}");
        }
        assert_eq!(Exposition::accepted([].iter()), Exposition::Prometheus);
    }
}

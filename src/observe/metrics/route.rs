//! The metrics of a route. All handles are resolved when the configuration is loaded; a request
//! only adds to them.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::PASSED;
use crate::problem::{Disposition, ERROR_HEADER, STATUS};

const ERROR: HeaderName = HeaderName::from_static(ERROR_HEADER);

/// The counters and histograms of a route.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    /// `oncegate_requests_total`, by outcome.
    pub(super) requests: Vec<(&'static str, Counter)>,
    /// `oncegate_prevented_total`.
    pub(super) prevented: Counter,
    /// `oncegate_replays_total`.
    pub(super) replays: Counter,
    /// `oncegate_other_caller_total`.
    pub(super) other_caller: Counter,
    /// `oncegate_request_seconds`.
    pub(super) seconds: Histogram,
}

impl RouteMetrics {
    /// Counts an answer as sent: the slug of `Idempotency-Error`, else the value of
    /// `Idempotency-Status`, else `passed`. Returns the outcome.
    pub(crate) fn answered(&self, headers: &HeaderMap, took: Duration) -> &'static str {
        self.seconds.observe(took.as_secs_f64());
        let status = headers.get(STATUS).map_or(&[][..], |value| value.as_bytes());
        if status == Disposition::Replayed.as_str().as_bytes() {
            self.replays.inc();
            // A replay is no refusal, so the second look is saved.
            return self.count(status);
        }
        let text = match headers.get(ERROR) {
            Some(error) => error.as_bytes(),
            None if status.is_empty() => PASSED.as_bytes(),
            None => status,
        };
        self.count(text)
    }

    /// The outcomes that have occurred, with their counts.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.requests.iter().map(|(outcome, counter)| (*outcome, counter.get()));
        counts.filter(|(_, count)| *count > 0)
    }

    /// Value of `oncegate_prevented_total`.
    pub(crate) fn prevented_count(&self) -> u64 {
        self.prevented.get()
    }

    /// Value of `oncegate_replays_total`.
    pub(crate) fn replay_count(&self) -> u64 {
        self.replays.get()
    }

    /// Counts an answer that was written without an exchange: a head that did not arrive, or was no
    /// HTTP.
    pub(crate) fn refused(&self, slug: &'static str) {
        self.count(slug.as_bytes());
    }

    /// Counts duplicates that were answered without a call to the backend, or items that were not
    /// sent once more.
    pub(crate) fn prevented(&self, count: usize) {
        self.prevented.inc_by(count as u64);
    }

    /// Counts a request whose key and content another caller has used within an hour.
    pub(crate) fn other_caller(&self) {
        self.other_caller.inc();
    }

    fn count(&self, outcome: &[u8]) -> &'static str {
        let found = self.requests.iter().find(|(name, _)| name.as_bytes() == outcome);
        // A value outside the contract would make a series of its own.
        let Some((name, counter)) = found else { return PASSED };
        counter.inc();
        name
    }
}

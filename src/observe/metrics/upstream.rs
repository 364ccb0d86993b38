//! The metrics of an upstream.

use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;

use crate::observe::exchange::{add_upstream_time, begin_call};

/// The histogram of an upstream.
#[derive(Debug, Clone)]
pub(crate) struct UpstreamMetrics {
    /// `oncegate_upstream_seconds`.
    pub(super) seconds: Histogram,
}

/// A call that is timed until it is dropped, so that lost and cancelled calls count as well.
#[derive(Debug)]
pub(crate) struct CallTimer<'a> {
    seconds: &'a Histogram,
    started: Instant,
}

impl UpstreamMetrics {
    /// Starts timing a call.
    pub(crate) fn start(&self) -> CallTimer<'_> {
        begin_call();
        CallTimer { seconds: &self.seconds, started: Instant::now() }
    }
}

impl Drop for CallTimer<'_> {
    fn drop(&mut self) {
        let took = self.started.elapsed();
        self.seconds.observe(took.as_secs_f64());
        add_upstream_time(self.started, took);
    }
}

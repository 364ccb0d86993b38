//! The metrics of the store.

use std::sync::LazyLock;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::MetricConstructor as _;
use prometheus_client::metrics::histogram::Histogram;

use super::labels::{Buckets, StoreOperation};
use crate::observe::exchange::add_store_time;

/// `oncegate_store_commit_batch`. There is one for the process: stores are opened before the
/// gateway, and by commands that have no metrics.
static COMMIT_BATCH: LazyLock<Histogram> = LazyLock::new(|| Buckets::Batch.new_metric());

/// The histogram of the changes in a commit.
pub(super) fn commit_batch() -> Histogram {
    COMMIT_BATCH.clone()
}

/// Records the number of changes that a store makes durable with a single commit.
pub(crate) fn record_commit(changes: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a batch is far below 2^52 changes")]
    COMMIT_BATCH.observe(changes as f64);
}

/// The counters and histograms of the store's operations.
#[derive(Debug)]
pub(crate) struct StoreMetrics {
    /// By [`StoreOperation`], in the order of [`StoreOperation::ALL`].
    pub(super) operations: Vec<(Histogram, Counter)>,
}

impl StoreMetrics {
    /// Records an operation since `started`.
    pub(crate) fn ended(&self, operation: StoreOperation, started: Instant, is_error: bool) {
        let Some((seconds, errors)) = self.operations.get(operation as usize) else { return };
        let took = started.elapsed();
        seconds.observe(took.as_secs_f64());
        let is_change = operation == StoreOperation::Swap;
        add_store_time(started, took, is_change, is_error);
        if is_error {
            errors.inc();
        }
    }
}

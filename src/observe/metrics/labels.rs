//! Names of the metrics and the values of their labels. Values come from the configuration and from
//! this file only, so that no caller and no key ever makes a series of its own.

use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;

use crate::problem::{DISPOSITIONS, SLUGS};

/// The outcome of an answer that carries neither `Idempotency-Error` nor `Idempotency-Status`.
pub(crate) const PASSED: &str = "passed";
/// The route of requests that no route took.
pub(crate) const UNMATCHED: &str = "";

/// All values of the label `reason` of alarms.
pub(crate) const ALARM_REASONS: [&str; 3] = ["several", "gave_up", "contradiction"];

/// Upper bounds of the time that a request or a call to a backend takes, in seconds.
const CALL_SECONDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Upper bounds of the time that an operation of the store takes, in seconds.
const STORE_SECONDS: [f64; 12] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0];
/// Upper bounds of the number of changes in a commit.
const BATCH_CHANGES: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

/// Labels of a series: names from the contract, values from the configuration or the contract.
pub(super) type Labels<const N: usize> = [(&'static str, String); N];
/// Histograms that share their buckets.
pub(super) type HistogramFamily<const N: usize> = Family<Labels<N>, Histogram, Buckets>;

/// Creates the histograms of a family.
#[derive(Debug, Clone, Copy)]
pub(super) enum Buckets {
    Call,
    Store,
    Batch,
}

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        match self {
            Self::Call => Histogram::new(CALL_SECONDS),
            Self::Store => Histogram::new(STORE_SECONDS),
            Self::Batch => Histogram::new(BATCH_CHANGES),
        }
    }
}

/// All values of the label `outcome`, the frequent ones first.
pub(super) fn outcomes() -> Vec<&'static str> {
    let dispositions = DISPOSITIONS.iter().map(|disposition| disposition.as_str());
    let slugs = SLUGS.iter().map(|slug| slug.as_str());
    dispositions.chain([PASSED]).chain(slugs).collect()
}

/// An operation of the store, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoreOperation {
    /// Reading records by their ids.
    Get,
    /// A compare-and-swap.
    Swap,
    /// A listing.
    List,
    /// A message to the other processes.
    Announce,
    /// The document of pinned names.
    Names,
}

impl StoreOperation {
    pub(super) const ALL: [Self; 5] =
        [Self::Get, Self::Swap, Self::List, Self::Announce, Self::Names];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Swap => "swap",
            Self::List => "list",
            Self::Announce => "announce",
            Self::Names => "names",
        }
    }
}

/// Result of a reload of the configuration, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadResult {
    /// The new configuration is in force.
    Ok,
    /// The new configuration was refused, and nothing has changed.
    Refused,
}

impl ReloadResult {
    pub(super) const ALL: [Self; 2] = [Self::Ok, Self::Refused];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
        }
    }
}

//! The count of unknown outcomes in the whole store, for the metrics and the page.
//!
//! The store's index of open records is read on demand, and the result is kept for a time in
//! proportion to the duration of the reading, so that a store with very many unknown outcomes is
//! not read all the time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::idempotency::{Record, State};
use crate::observe::metrics::UnknownFigures;
use crate::store::{ListPosition, Query, Store};

/// Records per read.
const PAGE: usize = 256;
/// Shortest time for which a count is kept.
const SHORTEST: Duration = Duration::from_millis(500);
/// Time for which a count is kept, as a multiple of the time it took.
const FACTOR: u32 = 20;
/// Longest reading; a count that takes longer is given up, and the one before is shown.
const LONGEST: Duration = Duration::from_secs(5);

/// The latest count.
#[derive(Debug, Default)]
pub(super) struct UnknownCount {
    latest: Mutex<Latest>,
}

#[derive(Debug, Default)]
struct Latest {
    figures: UnknownFigures,
    /// End of the time for which the figures are kept.
    until: Option<Instant>,
}

impl UnknownCount {
    /// The figures, read from the store unless a recent count exists.
    pub(super) async fn figures(&self, store: &Arc<dyn Store>) -> UnknownFigures {
        let mut latest = self.latest.lock().await;
        let started = Instant::now();
        if latest.until.is_some_and(|until| started < until) {
            return latest.figures;
        }
        // A store that is away cannot be counted; the figures before are the best there are.
        if let Ok(Some(figures)) = timeout(LONGEST, count(store)).await {
            latest.figures = figures;
        }
        latest.until = Some(Instant::now() + SHORTEST.max(started.elapsed() * FACTOR));
        latest.figures
    }
}

async fn count(store: &Arc<dyn Store>) -> Option<UnknownFigures> {
    let mut figures = UnknownFigures::default();
    let mut after = None;
    loop {
        let query = Query { open: true, after, limit: PAGE, ..Query::default() };
        let page = store.list(query).await.ok()?;
        for (_, record) in &page {
            let since = match &record.state {
                // The backend has the request and decides later; nobody else has to.
                _ if record.is_pending() => continue,
                State::Unknown { since, .. } => *since,
                State::Item { ledger, .. } if ledger.unknown > 0 => item_since(record),
                _ => continue,
            };
            figures.records += 1;
            figures.oldest = Some(figures.oldest.map_or(since, |oldest| oldest.min(since)));
        }
        match page.last() {
            Some((id, record)) if page.len() == PAGE => after = Some(ListPosition::of(id, record)),
            Some(_) | None => return Some(figures),
        }
    }
}

/// The ledger keeps no time of its doubt; the last change is the nearest known.
fn item_since(record: &Record) -> crate::clock::Timestamp {
    record.updated
}

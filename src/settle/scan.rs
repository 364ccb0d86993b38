//! The scan of the open records: finds those with a step to take that stand in no queue of this
//! process.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::idle::{self, IdleRanges};
use super::route::SettleRoutes;
use super::state::Settler;
use crate::idempotency::{Record, RecordId};
use crate::shutdown::Shutdown;
use crate::store::{ListPosition, Query, StoreError};

/// Records of one page of a scan.
const PAGE: usize = 64;
/// Time between two scans of all open records.
pub(super) const SCAN: Duration = Duration::from_secs(15);
/// Pause before another look at records beyond the queue of a route whose backend is down.
const DOWN: Duration = Duration::from_secs(60);
/// Age below which a record is looked at in each scan: its claim may have become visible after
/// those of younger ones, and its outcome changes soon.
const FRESH: Duration = Duration::from_secs(60);

/// A scan of the open records, with what earlier scans have seen.
#[derive(Debug)]
pub(super) struct OpenScan {
    /// The last record that was looked at; `None` between two scans.
    pub(super) cursor: Option<ListPosition>,
    /// Unknown outcomes by route, of routes that this process never had; `None` once they were
    /// counted and logged.
    pub(super) ownerless: Option<BTreeMap<Arc<str>, u64>>,
    /// Removed routes, at the beginning of a scan those that nobody holds, then those without an
    /// open record so far.
    pub(super) unused: HashSet<Arc<str>>,
    /// Parts of the index without a record that is due.
    idle: IdleRanges,
    /// Beginning of the last scan that passed over nothing.
    read_all: Instant,
}

impl Default for OpenScan {
    fn default() -> Self {
        Self {
            cursor: None,
            ownerless: Some(BTreeMap::new()),
            unused: HashSet::new(),
            idle: IdleRanges::default(),
            read_all: Instant::now(),
        }
    }
}

impl OpenScan {
    fn note_ownerless(&mut self, record: &Record, routes: &dyn SettleRoutes) {
        if let Some(counts) = &mut self.ownerless
            && record.is_unknown()
            && !routes.is_configured(&record.route)
        {
            *counts.entry(record.route.clone()).or_default() += 1;
        }
    }

    /// Begins a scan, which reads all records when that is asked for, and now and then while
    /// removed routes may have none left.
    fn begin(&mut self, reads_all: bool, now: Instant) {
        let is_long_ago = self.read_all + idle::LONGEST <= now;
        if reads_all || (!self.unused.is_empty() && is_long_ago) {
            self.idle.clear();
        }
        match self.idle.is_empty() {
            true => self.read_all = now,
            // A record that is passed over may be theirs.
            false => self.unused.clear(),
        }
    }

    /// Ends the scan behind this position; the first scan under a configuration logs the outcomes
    /// that no route settles.
    fn end(&mut self, last: ListPosition) {
        self.cursor = None;
        self.idle.end(last);
        for (route, records) in self.ownerless.take().unwrap_or_default() {
            tracing::warn!(
                %route, records,
                "unknown outcomes belong to a route that is not configured; nothing but an \
                 operator settles them until the route is back"
            );
        }
    }
}

/// The result of a look at a record.
enum Look {
    /// Nothing before this time; `None`: nothing until somebody changes the record.
    Idle(Option<Instant>),
    /// The record has to be looked at in the next scan as well.
    Again,
    /// The record is due, and its queue is full.
    NoRoom,
}

impl Settler {
    /// Looks at the open records behind the scan's cursor, and queues those with a step before the
    /// next scan. Passes over parts in which an earlier scan found nothing due. Stops where the
    /// queue of a backend that works is full. `now` is the time of the scan's beginning.
    pub(super) async fn scan(
        &self,
        (routes, now): (&dyn SettleRoutes, Instant),
        scan: &mut OpenScan,
        shutdown: &Shutdown,
    ) -> Result<(), StoreError> {
        if scan.cursor.is_none() {
            let is_asked = self.forgets(now + SCAN);
            scan.begin(is_asked, now);
        }
        while !shutdown.started() {
            let from = scan.idle.pass(scan.cursor.unwrap_or(ListPosition::NEWEST), now);
            let end = scan.idle.next(from, now);
            let query = Query { open: true, after: Some(from), limit: PAGE, ..Query::default() };
            let mut page = self.store.list(query).await?;
            if page.is_empty() {
                self.forget_routes(&scan.unused);
                scan.end(from);
                return Ok(());
            }
            // What stands behind the beginning of an idle range has been looked at.
            let listed = page.len();
            page.retain(|(id, record)| end.is_none_or(|end| ListPosition::of(id, record) >= end));
            let is_cut = page.len() < listed;
            let (first, last) = match (page.first(), page.last()) {
                (Some((first, newest)), Some((last, oldest))) => {
                    (ListPosition::of(first, newest), ListPosition::of(last, oldest))
                }
                (Some(_) | None, _) => (from, from),
            };
            let last = end.filter(|_| is_cut).unwrap_or(last);
            let (mut due, mut is_idle) = (None, self.is_old(first));
            for (id, record) in page {
                match self.look(routes, scan, (id, record), now) {
                    Look::Idle(None) => {}
                    Look::Idle(Some(at)) => due = Some(due.map_or(at, |due: Instant| due.min(at))),
                    Look::Again => is_idle = false,
                    Look::NoRoom => {
                        scan.cursor = Some(from);
                        return Ok(());
                    }
                }
            }
            if is_idle {
                // Newer records come before the first one.
                let from = if from == ListPosition::NEWEST { first } else { from };
                scan.idle.add((from, last), due, now);
            }
            scan.cursor = Some(last);
            // A scan of many records lets requests pass.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Reports a position that is old enough for no further claims to appear behind it.
    fn is_old(&self, at: ListPosition) -> bool {
        at.first_seen.saturating_add(FRESH) <= self.store.now()
    }

    /// Queues a record that is due before the next scan, or before its part is read again while the
    /// queue has room.
    fn look(
        &self,
        routes: &dyn SettleRoutes,
        scan: &mut OpenScan,
        (id, record): (RecordId, Record),
        now: Instant,
    ) -> Look {
        scan.unused.remove(&record.route);
        let Some(route) = self.route(&record.route) else {
            scan.note_ownerless(&record, routes);
            return Look::Idle(None);
        };
        if !route.has_schedule() {
            return Look::Idle(None);
        }
        if record.is_in_flight() || self.running.contains(&id) {
            return Look::Again;
        }
        let record = self.without_abandoned_step(record);
        match self.delay(&record, &route) {
            None => Look::Idle(None),
            Some(delay) if delay <= SCAN => match route.has_room(now + SCAN) {
                true => {
                    self.enqueue(&route, delay, id);
                    Look::Idle(None)
                }
                // The records of other routes do not wait for a backend that is down.
                false if route.breaker.is_open() => Look::Idle(Some(now + DOWN)),
                false => Look::NoRoom,
            },
            Some(delay) if delay <= idle::LONGEST && route.is_half_empty() => {
                self.enqueue(&route, delay, id);
                Look::Idle(None)
            }
            Some(delay) => Look::Idle(Some(now + (delay - SCAN))),
        }
    }
}

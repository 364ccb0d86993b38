//! The requests in flight in this process: the leader of each key, and its waiting duplicates.
//!
//! The methods are synchronous, so no map entry is ever held across an await.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use tokio::sync::Notify;

use crate::idempotency::id::BuildIdHasher;
use crate::idempotency::{Fingerprint, RecordId, TenantId};
use crate::proxy::reply::Reply;

/// The requests in flight, by record id.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    flights: DashMap<RecordId, Arc<Flight>, BuildIdHasher>,
}

/// A request in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Fingerprint of the leading request.
    pub(crate) fingerprint: Fingerprint,
    progress: Mutex<FlightProgress>,
    /// Signals every change. Almost no flight has waiters, and a signal without waiters is nearly
    /// free.
    changed: Notify,
}

/// Progress of a flight.
#[derive(Debug, Default)]
struct FlightProgress {
    /// Set when the claim is durable. Before, the key may turn out to belong to a different
    /// request.
    claimed: bool,
    /// The reply, once the flight is concluded.
    reply: Option<Reply>,
}

/// Role of a request with a key.
#[derive(Debug)]
pub(crate) enum Admission {
    /// The request leads the flight.
    Lead(Lead),
    /// The request waits for the existing flight.
    Join(Arc<Flight>),
}

/// The right and the duty to conclude a flight. Conclusion or drop ends the wait of the duplicates.
#[derive(Debug)]
pub(crate) struct Lead {
    calls: Arc<InFlight>,
    id: RecordId,
    flight: Arc<Flight>,
}

impl InFlight {
    /// Leads a new flight for `id`, or joins the existing flight.
    pub(crate) fn enter(self: &Arc<Self>, id: RecordId, fingerprint: &Fingerprint) -> Admission {
        match self.flights.entry(id) {
            MapEntry::Occupied(flight) => Admission::Join(flight.get().clone()),
            MapEntry::Vacant(place) => {
                let flight = Arc::new(Flight {
                    fingerprint: fingerprint.clone(),
                    progress: Mutex::default(),
                    changed: Notify::new(),
                });
                place.insert(flight.clone());
                Admission::Lead(Lead { calls: self.clone(), id, flight })
            }
        }
    }

    /// The flight for `id`, if there is one in this process.
    pub(crate) fn flight(&self, id: &RecordId) -> Option<Arc<Flight>> {
        self.flights.get(id).map(|flight| flight.clone())
    }

    /// Returns true if a duplicate has joined the flight for `id`.
    pub(crate) fn is_joined(&self, id: &RecordId) -> bool {
        // Two references belong to the map and the leader.
        self.flights.get(id).is_some_and(|flight| Arc::strong_count(&flight) > 2)
    }
}

impl Flight {
    /// Waits for the reply of the flight.
    pub(crate) async fn concluded(&self) -> Reply {
        self.wait_for(|progress| progress.reply.clone()).await
    }

    /// Returns true once the claim is durable, or false once the flight has ended; the record of an
    /// ended flight is in the store.
    pub(crate) async fn holds_its_key(&self) -> bool {
        self.wait_for(|progress| match progress.reply {
            Some(_) => Some(false),
            None => progress.claimed.then_some(true),
        })
        .await
    }

    /// Waits until `check` returns a value for the progress.
    async fn wait_for<T>(&self, check: impl Fn(&FlightProgress) -> Option<T>) -> T {
        let mut changed = pin!(self.changed.notified());
        loop {
            // Registered before the check, so that no change in between is missed.
            changed.as_mut().enable();
            let found = check(&self.progress());
            if let Some(found) = found {
                return found;
            }
            changed.as_mut().await;
            changed.set(self.changed.notified());
        }
    }

    fn progress(&self) -> MutexGuard<'_, FlightProgress> {
        // The check never modifies the progress, so a poisoned lock is still consistent.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies a change to the progress and notifies the waiters.
    fn update(&self, change: impl FnOnce(&mut FlightProgress)) {
        change(&mut self.progress());
        self.changed.notify_waiters();
    }
}

impl Lead {
    /// The claim is durable.
    pub(crate) fn claimed(&self) {
        self.flight.update(|progress| progress.claimed = true);
    }

    /// Ends the flight with a reply for the joined duplicates. Later requests find the record.
    pub(crate) fn conclude(self, reply: Reply) {
        self.flight.update(|progress| progress.reply = Some(reply));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.calls.flights.remove(&self.id);
        let reply = self.flight.progress().reply.is_some();
        if !reply {
            self.flight.update(|progress| progress.reply = Some(Reply::Abandoned));
        }
    }
}

/// The claims in flight per tenant, up to a limit for each tenant.
#[derive(Debug)]
pub(crate) struct Quota {
    taken: DashMap<TenantId, usize>,
    limit: AtomicUsize,
}

/// A tenant's claim, counted until dropped.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    tenant: TenantId,
}

impl Quota {
    /// A quota of `limit` claims for each tenant.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { taken: DashMap::new(), limit: AtomicUsize::new(limit) })
    }

    /// Changes the limit. Claims above a lowered limit stay.
    pub(crate) fn set(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Takes a claim for `tenant`; `None` when the quota is exhausted.
    pub(crate) fn take(self: &Arc<Self>, tenant: TenantId) -> Option<Share> {
        let mut taken = self.taken.entry(tenant).or_insert(0);
        if *taken >= self.limit.load(Ordering::Relaxed) {
            return None;
        }
        *taken += 1;
        Some(Share { quota: self.clone(), tenant })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let MapEntry::Occupied(mut taken) = self.quota.taken.entry(self.tenant) {
            *taken.get_mut() -= 1;
            if *taken.get() == 0 {
                taken.remove();
            }
        }
    }
}

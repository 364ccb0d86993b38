//! The calls in flight in this process: who leads each, and how duplicates wait for it.
//!
//! Nothing here awaits while it holds a map entry: the maps stay behind these synchronous methods.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::idempotency::id::BuildIdHasher;
use crate::idempotency::{Fingerprint, RecordId, TenantId};
use crate::proxy::reply::Reply;

/// All calls in flight, by record.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    flights: DashMap<RecordId, Arc<Flight>, BuildIdHasher>,
}

/// A call in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Fingerprint of the leading request.
    pub(crate) fingerprint: Fingerprint,
    /// Start of the call.
    pub(crate) started: Instant,
    progress: Mutex<FlightProgress>,
    /// Reply after each change. Nearly always nobody waits, and then it costs next to nothing.
    changed: Notify,
}

/// Progress of a call.
#[derive(Debug, Default)]
struct FlightProgress {
    /// Its claim is durable. Before that the key may turn out to be another request's.
    claimed: bool,
    /// The reply, once the call is concluded.
    told: Option<Reply>,
}

/// Role of a request with a key.
#[derive(Debug)]
pub(crate) enum Admission {
    /// The request runs the call.
    Lead(Lead),
    /// The request waits for the call in flight.
    Join(Arc<Flight>),
}

/// The right and the duty to conclude a flight: whoever joined is told when this is concluded or
/// dropped.
#[derive(Debug)]
pub(crate) struct Lead {
    calls: Arc<InFlight>,
    id: RecordId,
    flight: Arc<Flight>,
}

impl InFlight {
    /// Leads the call for `id`, or joins the one that is in flight.
    pub(crate) fn enter(self: &Arc<Self>, id: RecordId, fingerprint: &Fingerprint) -> Admission {
        match self.flights.entry(id) {
            MapEntry::Occupied(flight) => Admission::Join(flight.get().clone()),
            MapEntry::Vacant(place) => {
                let flight = Arc::new(Flight {
                    fingerprint: fingerprint.clone(),
                    started: Instant::now(),
                    progress: Mutex::default(),
                    changed: Notify::new(),
                });
                place.insert(flight.clone());
                Admission::Lead(Lead { calls: self.clone(), id, flight })
            }
        }
    }

    /// Tells if a duplicate has joined the call for `id`.
    pub(crate) fn is_joined(&self, id: &RecordId) -> bool {
        // One is the map's, one the lead's.
        self.flights.get(id).is_some_and(|flight| Arc::strong_count(&flight) > 2)
    }
}

impl Flight {
    /// Waits for the reply of the call.
    pub(crate) async fn concluded(&self) -> Reply {
        self.known(|progress| progress.told.clone()).await
    }

    /// Whether the key belongs to this call; returns when its claim is durable or it is over. One
    /// that is over has left what it was in the store.
    pub(crate) async fn holds_its_key(&self) -> bool {
        self.known(|progress| match progress.told {
            Some(_) => Some(false),
            None => progress.claimed.then_some(true),
        })
        .await
    }

    /// Waits until `look` finds something in the progress.
    async fn known<T>(&self, look: impl Fn(&FlightProgress) -> Option<T>) -> T {
        let mut changed = pin!(self.changed.notified());
        loop {
            // Listens before it looks, so that a change in between is not missed.
            changed.as_mut().enable();
            let found = look(&self.progress());
            if let Some(found) = found {
                return found;
            }
            changed.as_mut().await;
            changed.set(self.changed.notified());
        }
    }

    fn progress(&self) -> MutexGuard<'_, FlightProgress> {
        // A look that panicked has changed nothing.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever waits how far the call has come.
    fn tell(&self, change: impl FnOnce(&mut FlightProgress)) {
        change(&mut self.progress());
        self.changed.notify_waiters();
    }
}

impl Lead {
    /// The claim is durable.
    pub(crate) fn claimed(&self) {
        self.flight.tell(|progress| progress.claimed = true);
    }

    /// Ends the flight and tells everybody who joined. A request that comes later finds the record.
    pub(crate) fn conclude(self, told: Reply) {
        self.flight.tell(|progress| progress.told = Some(told));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.calls.flights.remove(&self.id);
        let told = self.flight.progress().told.is_some();
        if !told {
            self.flight.tell(|progress| progress.told = Some(Reply::Abandoned));
        }
    }
}

/// The claims each tenant has in flight, up to a limit for each.
#[derive(Debug)]
pub(crate) struct Quota {
    taken: DashMap<TenantId, usize>,
    limit: usize,
}

/// A tenant's claim, counted until dropped.
#[derive(Debug)]
pub(crate) struct Share {
    quota: Arc<Quota>,
    tenant: TenantId,
}

impl Quota {
    /// A quota with this limit for each tenant.
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { taken: DashMap::new(), limit })
    }

    /// Takes one claim for `tenant` if it has one left.
    pub(crate) fn take(self: &Arc<Self>, tenant: TenantId) -> Option<Share> {
        let mut taken = self.taken.entry(tenant).or_insert(0);
        if *taken >= self.limit {
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

//! The calls in flight in this process: who leads each, and how duplicates wait for it.
//!
//! Nothing here awaits while it holds a map entry: the maps stay behind these synchronous methods.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use tokio::sync::watch;
use tokio::time::Instant;

use super::outcome::Told;
use crate::idempotency::record::BuildIdHasher;
use crate::idempotency::{Fingerprint, RecordId, TenantId};

/// All calls in flight, by record.
#[derive(Debug, Default)]
pub struct InFlight {
    flights: DashMap<RecordId, Arc<Flight>, BuildIdHasher>,
}

/// One call in flight.
#[derive(Debug)]
pub struct Flight {
    /// What the leading request is.
    pub fingerprint: Fingerprint,
    /// When it began.
    pub started: Instant,
    told: watch::Sender<Option<Told>>,
}

/// What a request with a key becomes.
#[derive(Debug)]
pub enum Entry {
    /// The one that runs.
    Lead(Lead),
    /// One that waits.
    Join(Arc<Flight>),
}

/// The right and the duty to conclude a flight: whoever joined is told when this is concluded or
/// dropped.
#[derive(Debug)]
pub struct Lead {
    calls: Arc<InFlight>,
    id: RecordId,
    flight: Arc<Flight>,
}

impl InFlight {
    /// Leads the call for `id`, or joins the one that is in flight.
    pub fn enter(self: &Arc<Self>, id: RecordId, fingerprint: &Fingerprint) -> Entry {
        match self.flights.entry(id) {
            MapEntry::Occupied(flight) => Entry::Join(flight.get().clone()),
            MapEntry::Vacant(place) => {
                let flight = Arc::new(Flight {
                    fingerprint: fingerprint.clone(),
                    started: Instant::now(),
                    told: watch::Sender::new(None),
                });
                place.insert(flight.clone());
                Entry::Lead(Lead { calls: self.clone(), id, flight })
            }
        }
    }

    /// How many calls are in flight.
    pub fn len(&self) -> usize {
        self.flights.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.flights.is_empty()
    }
}

impl Flight {
    /// What came of the call; returns when it is concluded.
    pub async fn concluded(&self) -> Told {
        let mut told = self.told.subscribe();
        // The sender lives in `self`, so waiting can only end with a value.
        match told.wait_for(Option::is_some).await {
            Ok(told) => told.clone().unwrap_or(Told::Abandoned),
            Err(_) => Told::Abandoned,
        }
    }
}

impl Lead {
    /// Which record this call is for.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// Ends the flight and tells everybody who joined. A request that comes later finds the record.
    pub fn conclude(self, told: Told) {
        self.flight.told.send_replace(Some(told));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.calls.flights.remove(&self.id);
        self.flight.told.send_if_modified(|told| {
            let abandoned = told.is_none();
            if abandoned {
                *told = Some(Told::Abandoned);
            }
            abandoned
        });
    }
}

/// The claims each tenant has in flight, up to a limit for each.
#[derive(Debug)]
pub struct Quota {
    taken: DashMap<TenantId, usize>,
    limit: usize,
}

/// One claim of a tenant.
#[derive(Debug)]
pub struct Share {
    quota: Arc<Quota>,
    tenant: TenantId,
}

impl Quota {
    /// A quota with this limit for each tenant.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { taken: DashMap::new(), limit })
    }

    /// Takes one claim for `tenant` if it has one left.
    pub fn take(self: &Arc<Self>, tenant: TenantId) -> Option<Share> {
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

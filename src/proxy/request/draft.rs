//! The record of a new claim, before the claim.

use std::sync::Arc;

use crate::idempotency::key::Key;
use crate::idempotency::settling::{KeptValue, Settling};
use crate::idempotency::{Fingerprint, Record, State, TenantId};
use crate::nonce;
use crate::proxy::routing::Route;
use crate::proxy::state::Gateway;

/// Contents of a new record.
pub(crate) struct ClaimDraft<'a> {
    pub(crate) route: &'a Route,
    pub(crate) tenant: TenantId,
    /// Name of the tenant.
    pub(crate) caller: Option<Arc<str>>,
    pub(crate) key: Key,
    pub(crate) subject: Option<[u8; 16]>,
    pub(crate) fingerprint: Fingerprint,
    /// The values that the settlement of a lost answer needs; `None`: the route needs no data.
    pub(crate) values: Option<Vec<KeptValue>>,
}

impl ClaimDraft<'_> {
    /// The record of a new attempt by this process.
    pub(crate) fn into_record(self, gateway: &Gateway) -> Arc<Record> {
        let now = gateway.store.now();
        Arc::new(Record {
            version: first_version(),
            tenant: self.tenant,
            caller: self.caller,
            route: self.route.name.clone(),
            key: self.key.into_string().into(),
            subject: self.subject,
            fingerprint: self.fingerprint,
            first_seen: now,
            updated: now,
            attempts: 1,
            attempt: nonce::bytes(),
            owner: gateway.store.owner(),
            state: State::InFlight,
            settlement_unreported: false,
            history: Vec::new(),
            settling: self.values.map(|values| Box::new(Settling::new(now, values))),
        })
    }
}

/// The version of a new claim: random, so as not to repeat the fencing token of a released claim.
/// The upper bits are left free for increments.
pub(crate) fn first_version() -> u64 {
    nonce::number() >> 8
}

//! The record of an item as a claim writes it.

use std::sync::Arc;

use super::ledger::forgotten;
use super::read::BatchInput;
use crate::clock::Timestamp;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::ledger::{Ledger, LedgerError};
use crate::idempotency::retention::{ExpiryTime, Retention};
use crate::idempotency::settling::Settling;
use crate::idempotency::{Record, State};
use crate::nonce;
use crate::proxy::request::draft::first_version;

/// Fields shared by the records of an attempt.
pub(super) struct ItemDraft<'a> {
    pub(super) now: Timestamp,
    pub(super) expiry: ExpiryTime,
    pub(super) retention: Retention,
    pub(super) attempt: [u8; 16],
    pub(super) owner: [u8; 16],
    pub(super) route: &'a Arc<str>,
}

impl ItemDraft<'_> {
    /// The record of an item with `units` about to be sent. `fingerprint`: that of a new item, or
    /// of another item that takes the id of one of which nothing was ever issued.
    pub(super) fn record(
        &self,
        input: &BatchInput,
        at: usize,
        units: u64,
        existing: Option<&Record>,
        fingerprint: Option<Fingerprint>,
        settling: Option<Box<Settling>>,
    ) -> Result<Record, LedgerError> {
        let (now, attempt, owner) = (self.now, self.attempt, self.owner);
        let kept = existing.filter(|record| !forgotten(record, self.expiry));
        if let Some((record, ledger)) = kept
            .filter(|_| fingerprint.is_none())
            .and_then(|record| Some((record, record.ledger()?)))
        {
            let next = record.with_ledger(ledger.claim(units)?, self.retention, now);
            let attempts = record.attempts.saturating_add(1);
            // A random increment, so that no other claim of the record has the same version: see
            // `withdraw`.
            let version = next.version.wrapping_add(nonce::number() >> 40);
            return Ok(Record { version, attempts, attempt, owner, settling, ..next });
        }
        let item = &input.batch.items[at];
        let ledger = Ledger::new(item.quantity)?.claim(units)?;
        Ok(Record {
            // A jump here as well.
            version: existing.map_or_else(first_version, |old| {
                old.version.wrapping_add(1).wrapping_add(nonce::number() >> 40)
            }),
            tenant: input.tenant,
            caller: input.caller.clone(),
            route: self.route.clone(),
            key: item.key.clone(),
            subject: input.subject,
            fingerprint: fingerprint.ok_or(LedgerError::Broken)?,
            first_seen: kept.map_or(now, |record| record.first_seen),
            updated: now,
            attempts: kept.map_or(0, |record| record.attempts).saturating_add(1),
            attempt,
            owner,
            state: State::item(ledger, self.retention, now),
            settlement_unreported: false,
            history: kept.map(|record| record.history.clone()).unwrap_or_default(),
            settling,
        })
    }
}

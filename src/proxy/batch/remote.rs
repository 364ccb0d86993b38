//! What a batch waits for in other processes: an item that one of them has in flight, or a turn that
//! is another batch's.

use std::sync::Arc;

use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId, State};
use crate::items;
use crate::proxy::Gateway;
use crate::proxy::request::claim::first_version;
use crate::store::Change;
use crate::store::watch::Watch;

/// The record of another process that a batch waits for.
#[derive(Default)]
pub(crate) struct Elsewhere(Option<(RecordId, Nonce, Watch)>);

impl Elsewhere {
    /// Follows this record; `false`: no other process has it in flight.
    pub(crate) fn follow(&mut self, gateway: &Gateway, id: RecordId, owner: Nonce) -> bool {
        if !gateway.store.is_shared() || owner == gateway.store.owner() {
            return false;
        }
        let same = self.0.as_ref().is_some_and(|(at, by, _)| (*at, *by) == (id, owner));
        if !same {
            let watch = gateway.store.watch(id, owner);
            // What changed before the watch began is seen by a look at once.
            watch.look();
            self.0 = Some((id, owner, watch));
        }
        true
    }

    /// Returns when it has changed, or cannot be read: only then is it worth reading the whole batch
    /// again.
    pub(crate) async fn changed(&mut self, gateway: &Gateway) {
        let Some((id, owner, watch)) = &mut self.0 else { return };
        loop {
            watch.changed().await;
            match gateway.store.get(*id).await {
                Ok(Some(record)) if record.owner == *owner && record.is_in_flight() => {}
                Ok(_) | Err(_) => return,
            }
        }
    }
}

/// The turns of a batch: one for each `serialize_by` value, so that batches of several processes go
/// one after the other. Within one process `busy` sees to that, and a store of one process has none.
#[derive(Default)]
pub(crate) struct Turns(Vec<(RecordId, Arc<Record>)>);

impl Turns {
    /// The turns that `batch` needs, as records of the attempt that `like` is a record of.
    pub(crate) fn of(gateway: &Gateway, batch: &items::Batch, like: Option<&Record>) -> Self {
        let (true, Some(like)) = (gateway.store.is_shared(), like) else { return Self::default() };
        let turn = |digest: &[u8; 16]| {
            let key: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            // Names of routes have no colon, so a turn never collides with anything else.
            let id = RecordId::new(&like.tenant, "turn:", &key);
            let (version, state) = (first_version(), State::Turn);
            let history = Vec::new();
            let record = Record {
                version,
                key: key.into(),
                subject: None,
                attempts: 1,
                state,
                history,
                ..like.clone()
            };
            (id, record.into())
        };
        Self(batch.serial.iter().map(turn).collect())
    }

    /// Taking them all.
    pub(crate) fn take(&self) -> impl Iterator<Item = Change> {
        self.0.iter().map(|(id, record)| Change {
            id: *id,
            expect: None,
            put: Some(record.clone()),
        })
    }

    /// Giving them all back.
    pub(crate) fn give_back(&self) -> impl Iterator<Item = Change> {
        self.0.iter().map(|(id, record)| Change {
            id: *id,
            expect: Some(record.version),
            put: None,
        })
    }

    /// Their ids.
    pub(crate) fn ids(&self) -> impl Iterator<Item = RecordId> {
        self.0.iter().map(|(id, _)| *id)
    }

    /// Which turn is at this place among them.
    pub(crate) fn id(&self, at: usize) -> Option<RecordId> {
        self.0.get(at).map(|(id, _)| *id)
    }

    /// Forgets those that are not this batch's any more, from what the store has now.
    pub(crate) fn retain(&mut self, found: &[Option<Record>]) {
        let mut found = found.iter();
        self.0.retain(|(_, own)| {
            let now = found.next().and_then(Option::as_ref);
            now.is_some_and(|now| now.version == own.version && now.attempt == own.attempt)
        });
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// They are given back.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

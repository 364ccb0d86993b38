//! Waiting for other processes: for an item in flight in another process, or for the lock of
//! another process's batch.

use super::ledger::Records;
use super::read::BatchInput;
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;
use crate::proxy::state::Gateway;
use crate::store::watch::Watch;

/// The followed record of another process.
#[derive(Default)]
pub(crate) struct RemoteWait(Option<(RecordId, Nonce, Watch)>);

impl RemoteWait {
    /// Follows the record; returns false if no other process has the record in flight.
    pub(crate) fn follow(&mut self, gateway: &Gateway, id: RecordId, owner: Nonce) -> bool {
        if !gateway.store.is_shared() || owner == gateway.store.owner() {
            return false;
        }
        let same = self.0.as_ref().is_some_and(|(at, by, _)| (*at, *by) == (id, owner));
        if !same {
            let watch = gateway.store.watch(id, owner);
            // A change from before the watch is seen by an immediate check.
            watch.look();
            self.0 = Some((id, owner, watch));
        }
        true
    }

    /// Returns when the record has changed or cannot be read. The whole batch is only read then.
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

/// Follows an item in flight in another process; returns false if no other process is sending the
/// item.
pub(crate) fn follows(
    gateway: &Gateway,
    remote: &mut RemoteWait,
    input: &BatchInput,
    records: &Records,
    item: usize,
) -> bool {
    let owner = records[item].as_deref().map(|record| record.owner);
    owner.is_some_and(|owner| remote.follow(gateway, input.ids[item], owner))
}

//! Waiting for other processes: for an item that another process has in flight, or for a turn that
//! another process's batch has.

use super::ledger::Records;
use super::read::BatchInput;
use crate::idempotency::RecordId;
use crate::idempotency::record::Nonce;
use crate::proxy::state::Gateway;
use crate::store::watch::Watch;

/// The record of another process that a batch waits for.
#[derive(Default)]
pub(crate) struct RemoteWait(Option<(RecordId, Nonce, Watch)>);

impl RemoteWait {
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

/// Follows an item that another process has in flight; `false`: no other process has.
pub(crate) fn follows(
    gateway: &Gateway,
    elsewhere: &mut RemoteWait,
    intake: &BatchInput,
    records: &Records,
    item: usize,
) -> bool {
    let owner = records[item].as_deref().map(|record| record.owner);
    owner.is_some_and(|owner| elsewhere.follow(gateway, intake.ids[item], owner))
}

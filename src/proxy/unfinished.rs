//! Changes that the store did not confirm, and that must be made all the same.
//!
//! A claim that may be durable although nobody acts on it, or an outcome that is known and not
//! recorded, would keep its key in flight for as long as this process lives. So they are tried
//! again until the store has them, or has something else.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;

use crate::idempotency::Record;
use crate::idempotency::record::Nonce;
use crate::places::{Place, Places};
use crate::shutdown::Tasks;
use crate::store::{Change, Store, StoreError, Swap};

/// The pause before the first repetition, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often a lost change is tried again on a store that is asked over a network: what was sent to
/// it before, on a connection that was given up, may arrive and be made yet. About twenty seconds.
const LINGER: u32 = 9;

/// The changes that are tried again, up to a limit.
#[derive(Debug)]
pub(super) struct Unfinished {
    places: Arc<Places>,
    /// Not those that a drain waits for: the store may stay away.
    tasks: Tasks,
}

impl Unfinished {
    pub(super) fn new(limit: usize) -> Self {
        Self { places: Places::new(limit), tasks: Tasks::default() }
    }

    /// Makes the changes, all or none, as soon as the store takes them: the outcome of `attempt`.
    /// Ends with the process; another one, or the next start, makes what is left unknown.
    pub(super) fn finish(&self, store: &Arc<dyn Store>, changes: Vec<Change>, attempt: Nonce) {
        match self.places.take() {
            Some(place) => {
                self.tasks.spawn(insist(Arc::downgrade(store), changes, attempt, place));
            }
            None => tracing::error!(
                "too many changes wait for the store; some records stay in flight until a restart"
            ),
        }
    }
}

async fn insist(store: Weak<dyn Store>, mut changes: Vec<Change>, attempt: Nonce, _place: Place) {
    let mut pause = FIRST_PAUSE;
    let mut lost = 0;
    let mut taken_for_dead = false;
    // Whoever closes the store is not kept from it.
    while let Some(store) = store.upgrade() {
        match store.swap(changes.clone()).await {
            Ok(Swap::Done) => return,
            Ok(Swap::Lost { index, winner }) => {
                let Some(change) = changes.get_mut(index) else { return };
                match met(change, winner.as_deref(), &attempt) {
                    Met::Awaiting => {
                        taken_for_dead = true;
                        continue;
                    }
                    // Its turns were taken from it as well.
                    Met::Nothing if taken_for_dead && changes.len() > 1 => {
                        changes.remove(index);
                        continue;
                    }
                    Met::Made => return,
                    Met::Nothing | Met::Other => {}
                }
                lost += 1;
                if !store.is_shared() || lost == LINGER {
                    let id = changes.get(index).map(|change| change.id);
                    tracing::debug!(record = ?id, "what was unfinished is settled");
                    return;
                }
            }
            Err(StoreError::Corrupt { id, reason }) => {
                tracing::error!(record = ?id, reason, "it stays as it is");
                return;
            }
            Err(StoreError::Unavailable(_)) => {}
        }
        drop(store);
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What a change met that was lost.
enum Met {
    /// What it puts: an earlier try was made after all.
    Made,
    /// Its own attempt, unknown since this process was taken for dead. What this process knows of
    /// the attempt is the truth and settles it; the change fits now.
    Awaiting,
    /// No record, and it would remove one.
    Nothing,
    /// Something else.
    Other,
}

fn met(change: &mut Change, winner: Option<&Record>, attempt: &Nonce) -> Met {
    match (winner, &mut change.put) {
        (None, None) => Met::Nothing,
        (Some(winner), Some(put)) if put == winner => Met::Made,
        (Some(winner), put) if winner.awaits(attempt) => {
            change.expect = Some(winner.version);
            if let Some(put) = put {
                put.version = winner.version.wrapping_add(1);
            }
            Met::Awaiting
        }
        (None | Some(_), _) => Met::Other,
    }
}

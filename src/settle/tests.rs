//! The compare-and-swap loop against a store that answers by a script.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::transition::{Advance, ClaimTransition, MAX_TRIES, Rebase, advance};
use crate::clock::Timestamp;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId, State};
use crate::store::samples::{answer, claim, id, kept_for};
use crate::store::{Change, Identity, NamesDocument, Query, Store, StoreError, StoreFuture, Swap};

/// Answers swaps one after the other and keeps the versions that each swap expected.
#[derive(Debug)]
struct ScriptedStore {
    answers: Mutex<VecDeque<Result<Swap, StoreError>>>,
    expected: Mutex<Vec<Option<u64>>>,
    identity: Identity,
}

impl ScriptedStore {
    fn answering(answers: impl IntoIterator<Item = Result<Swap, StoreError>>) -> Self {
        let identity =
            Identity { store_id: uuid::Uuid::nil(), schema: 1, created: Timestamp::from_millis(0) };
        let answers = Mutex::new(answers.into_iter().collect());
        Self { answers, expected: Mutex::default(), identity }
    }

    fn expected(&self) -> Vec<Option<u64>> {
        self.expected.lock().unwrap().clone()
    }
}

impl Store for ScriptedStore {
    fn get(&self, _: RecordId) -> StoreFuture<'_, Option<Record>> {
        Box::pin(async { Ok(None) })
    }

    fn swap(&self, changes: Vec<Change>) -> StoreFuture<'_, Swap> {
        self.expected.lock().unwrap().extend(changes.iter().map(|change| change.expect));
        let answer = self.answers.lock().unwrap().pop_front();
        Box::pin(async move { answer.expect("a swap beyond the script") })
    }

    fn list(&self, _: Query) -> StoreFuture<'_, Vec<(RecordId, Record)>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1)
    }

    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn owner(&self) -> Nonce {
        [0; 16]
    }

    fn names(&self) -> StoreFuture<'_, Option<NamesDocument>> {
        unreachable!("nobody asks")
    }

    fn swap_names(&self, _: Option<u64>, _: Vec<u8>) -> StoreFuture<'_, bool> {
        unreachable!("nobody asks")
    }

    fn ready(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn lost_to(winner: &Record) -> Result<Swap, StoreError> {
    Ok(Swap::Lost { index: 0, winner: Some(Box::new(winner.clone())) })
}

/// The record of [`claim`] after its process was taken for dead: unknown, one version later.
fn presumed_dead(record: &Record) -> Record {
    record.lost(UnknownReason::ProcessEnded, Timestamp::from_millis(1))
}

fn completion(record: &Record) -> Option<Arc<Record>> {
    let retention = kept_for(
        crate::idempotency::retention::Keep::Forever,
        crate::idempotency::retention::Keep::Forever,
    );
    Some(Arc::new(record.completed(answer(1), retention, Timestamp::from_millis(2))))
}

#[tokio::test]
async fn a_record_that_nobody_changed_is_swapped_once() {
    let store = ScriptedStore::answering([Ok(Swap::Done)]);
    let record = Arc::new(claim(1));
    let mut transition = ClaimTransition::new(id(1), record.clone(), completion);
    assert!(matches!(advance(&store, &mut transition).await, Advance::Done));
    assert_eq!(store.expected(), [Some(record.version)]);
    assert!(matches!(transition.into_record().state, State::Final { .. }));
}

#[tokio::test]
async fn an_attempt_that_was_presumed_dead_settles_its_unknown_record() {
    let record = Arc::new(claim(1));
    let unknown = presumed_dead(&record);
    let store = ScriptedStore::answering([lost_to(&unknown), Ok(Swap::Done)]);
    let mut transition =
        ClaimTransition::new(id(1), record.clone(), completion).with_rebase(Rebase::Answer);
    assert!(matches!(advance(&store, &mut transition).await, Advance::Done));
    assert_eq!(store.expected(), [Some(record.version), Some(unknown.version)]);
}

#[tokio::test]
async fn a_record_of_another_attempt_or_a_decision_stands() {
    let record = Arc::new(claim(1));
    let other = Record { attempt: [7; 16], ..presumed_dead(&record) };
    let decided = Record { version: record.version + 3, ..(*completion(&record).unwrap()).clone() };
    for winner in [&other, &decided] {
        let store = ScriptedStore::answering([lost_to(winner)]);
        let mut transition =
            ClaimTransition::new(id(1), record.clone(), completion).with_rebase(Rebase::Answer);
        assert!(matches!(advance(&store, &mut transition).await, Advance::Lost));
        assert_eq!(transition.winner.as_deref(), Some(winner));
    }
}

#[tokio::test]
async fn without_leave_to_rebase_an_unknown_record_stands() {
    let record = Arc::new(claim(1));
    let unknown = presumed_dead(&record);
    let store = ScriptedStore::answering([lost_to(&unknown)]);
    let mut transition = ClaimTransition::new(id(1), record, completion);
    assert!(matches!(advance(&store, &mut transition).await, Advance::Lost));
    assert_eq!(transition.winner.as_deref(), Some(&unknown));
}

#[tokio::test]
async fn a_swap_of_unknown_fate_is_not_repeated() {
    let store = ScriptedStore::answering([Err(StoreError::Unavailable("no answer".to_owned()))]);
    let mut transition = ClaimTransition::new(id(1), Arc::new(claim(1)), completion);
    assert!(matches!(advance(&store, &mut transition).await, Advance::Indeterminate(_)));
    assert_eq!(store.expected().len(), 1);
}

#[tokio::test]
async fn a_record_that_keeps_changing_ends_the_loop() {
    let record = Arc::new(claim(1));
    let mut winner = presumed_dead(&record);
    let script: Vec<_> = (0..MAX_TRIES)
        .map(|_| {
            winner.version += 1;
            lost_to(&winner)
        })
        .collect();
    let store = ScriptedStore::answering(script);
    let mut transition =
        ClaimTransition::new(id(1), record, completion).with_rebase(Rebase::Answer);
    assert!(matches!(advance(&store, &mut transition).await, Advance::Contended));
    assert_eq!(store.expected().len(), MAX_TRIES);
}

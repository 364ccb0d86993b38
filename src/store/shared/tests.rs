//! Tests of shared stores on an engine in memory that fails on demand.

mod broken_connections;
mod clock_steps;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::commits::{self, CommitQueue};
use super::engine::{
    CasResult, Engine, EngineError, Group, GroupChange, ListedRecord, StoredRecord,
};
use super::message::{EVERYONE, Message};
use super::{SharedStore, Timing};
use crate::clock::{self, Timestamp};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::Nonce;
use crate::idempotency::{Record, RecordId};
use crate::shutdown::{self, Shutdown};
use crate::store::NamesDocument;
use crate::store::codec::{Codec, Head, SCHEMA};
use crate::store::contract::{self, done, lost, put_new, replace};
use crate::store::reaper::{self, EndedOwners};
use crate::store::samples::{self, Random, T0, id};
use crate::store::{Identity, ListPosition, Query, Store, StoreError, Swap};

/// Injected failure of a commit.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// Rejects the commit without a change.
    Reject,
    /// Loses the request: no change, unknown result.
    LoseRequest,
    /// Loses the reply: changed, unknown result.
    LoseReply,
}

/// An engine in memory. Several stores may share one.
#[derive(Debug, Default)]
struct MemoryEngine {
    records: Mutex<BTreeMap<RecordId, Kept>>,
    leases: Mutex<HashMap<Nonce, Timestamp>>,
    ears: Mutex<HashMap<Nonce, mpsc::Sender<Message>>>,
    /// The faults of the next commits, and of all while `away`.
    faults: Mutex<Vec<Fault>>,
    away: Mutex<bool>,
    deaf: Mutex<bool>,
    commits: AtomicUsize,
    groups: AtomicUsize,
    /// The next commit waits here.
    gate: Mutex<Option<Arc<Notify>>>,
    connections: AtomicU32,
    /// Connections below this number cannot be made.
    broken: AtomicUsize,
    names: Mutex<Option<NamesDocument>>,
    /// The steps by which the server's clock was set forward.
    steps: Mutex<Duration>,
}

impl MemoryEngine {
    fn clock(&self) -> Timestamp {
        clock::now().saturating_add(*locked(&self.steps))
    }
}

#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    owner: Option<Nonce>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

impl MemoryEngine {
    fn apply(&self, group: &Group) -> CasResult {
        let mut records = locked(&self.records);
        for (index, row) in group.changes.iter().enumerate() {
            let kept = records.get(&row.id);
            let version = kept.map(|kept| Head::decode(&row.id, &kept.bytes).unwrap().version);
            let own = |put: &StoredRecord| kept.is_some_and(|kept| kept.bytes == put.bytes);
            let again = group.resent && row.put.as_ref().map_or(kept.is_none(), own);
            if version != row.expect && !again {
                return CasResult::Lost { index, winner: kept.map(|kept| kept.bytes.clone()) };
            }
        }
        for GroupChange { id, put, .. } in &group.changes {
            match put {
                Some(put) => {
                    let kept = Kept { bytes: put.bytes.clone(), owner: put.owner };
                    records.insert(*id, kept);
                }
                None => {
                    records.remove(id);
                }
            }
        }
        CasResult::Done
    }

    fn reachable(&self) -> Result<(), EngineError> {
        if *locked(&self.away) {
            return Err(EngineError::Rejected("the server is away".to_owned()));
        }
        Ok(())
    }
}

impl Engine for MemoryEngine {
    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed).max(1) as usize
    }

    async fn commit(
        &self,
        connection: usize,
        groups: &[Group],
    ) -> Result<Vec<CasResult>, EngineError> {
        if connection < self.broken.load(Ordering::Relaxed) {
            return Err(EngineError::Rejected("no connection".to_owned()));
        }
        let gate = locked(&self.gate).take();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        self.reachable()?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.groups.fetch_add(groups.len(), Ordering::Relaxed);
        let fault = locked(&self.faults).pop();
        if fault == Some(Fault::Reject) {
            return Err(EngineError::Rejected("refused".to_owned()));
        }
        if fault == Some(Fault::LoseRequest) {
            return Err(EngineError::Indeterminate("lost".to_owned()));
        }
        let results = groups.iter().map(|group| self.apply(group)).collect();
        tokio::task::yield_now().await;
        match fault {
            Some(Fault::LoseReply) => Err(EngineError::Indeterminate("lost".to_owned())),
            _ => Ok(results),
        }
    }

    async fn read(&self, ids: &[RecordId]) -> Result<Vec<Option<Vec<u8>>>, EngineError> {
        self.reachable()?;
        let records = locked(&self.records);
        Ok(ids.iter().map(|id| Some(records.get(id)?.bytes.clone())).collect())
    }

    async fn list(&self, query: &Query) -> Result<Vec<ListedRecord>, EngineError> {
        self.reachable()?;
        let now = self.clock();
        let leases = locked(&self.leases).clone();
        let dead = |owner: &Nonce| leases.get(owner).is_none_or(|until| *until <= now);
        let records = locked(&self.records);
        let mut found: Vec<(Option<Timestamp>, ListPosition, Vec<u8>)> = Vec::new();
        for (id, kept) in records.iter() {
            let head = Head::decode(id, &kept.bytes).unwrap();
            let abandoned = kept.owner.as_ref().is_some_and(dead);
            if query.selects(id, &head) && (!query.abandoned || abandoned) {
                let at = ListPosition { first_seen: head.first_seen, id: *id };
                found.push((head.expires, at, kept.bytes.clone()));
            }
        }
        match query.expired_at {
            Some(_) => found.sort_by_key(|(expires, at, _)| (*expires, at.id)),
            None => found.sort_by_key(|(_, at, _)| Reverse(*at)),
        }
        found.truncate(query.limit);
        Ok(found.into_iter().map(|(_, at, bytes)| (at, bytes)).collect())
    }

    async fn heartbeat(&self, owner: Nonce, lease: Duration) -> Result<Timestamp, EngineError> {
        self.reachable()?;
        let now = self.clock();
        locked(&self.leases).insert(owner, now.saturating_add(lease));
        Ok(now)
    }

    async fn leave(&self, owner: Nonce) -> Result<(), EngineError> {
        locked(&self.leases).remove(&owner);
        Ok(())
    }

    async fn live_owners(&self, owners: &[Nonce]) -> Result<Vec<Nonce>, EngineError> {
        self.reachable()?;
        let (now, leases) = (self.clock(), locked(&self.leases));
        let alive = |owner: &&Nonce| leases.get(*owner).is_some_and(|until| *until > now);
        Ok(owners.iter().filter(alive).copied().collect())
    }

    async fn names(&self) -> Result<Option<NamesDocument>, EngineError> {
        self.reachable()?;
        Ok(locked(&self.names).clone())
    }

    async fn swap_names(&self, expect: Option<u64>, bytes: &[u8]) -> Result<bool, EngineError> {
        self.reachable()?;
        let mut names = locked(&self.names);
        let fits = names.as_ref().map(|names| names.version) == expect;
        if fits {
            let version = expect.unwrap_or(0) + 1;
            *names = Some(NamesDocument { version, bytes: bytes.to_vec() });
        }
        Ok(fits)
    }

    async fn publish(&self, messages: Vec<(Nonce, Message)>) -> Result<(), EngineError> {
        if !*locked(&self.deaf) {
            let ears = locked(&self.ears);
            for (to, message) in messages {
                for (owner, ear) in ears.iter() {
                    if *owner == to || to == EVERYONE {
                        let _ = ear.try_send(message);
                    }
                }
            }
        }
        Ok(())
    }

    async fn listen(
        self: Arc<Self>,
        owner: Nonce,
        heard: mpsc::Sender<Message>,
        mut end: Shutdown,
    ) {
        locked(&self.ears).insert(owner, heard);
        end.wait().await;
    }
}

const TIMING: Timing = Timing { timeout: Duration::from_secs(20), lease: Duration::from_secs(600) };

async fn open(memory: &Arc<MemoryEngine>, timing: Timing) -> Arc<dyn Store> {
    let store_id = uuid::Uuid::from_bytes([5; 16]);
    let identity = Identity { store_id, schema: SCHEMA, created: T0 };
    SharedStore::start(memory.clone(), identity, Codec::plain(), timing).await.unwrap()
}

async fn temporary() -> Box<Arc<dyn Store>> {
    Box::new(open(&Arc::default(), TIMING).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_passes_the_contract() {
    contract::every_clause(temporary).await;
    let many = || async {
        let memory =
            Arc::new(MemoryEngine { connections: AtomicU32::new(4), ..MemoryEngine::default() });
        Box::new(open(&memory, TIMING).await)
    };
    contract::every_clause(many).await;
}

#[tokio::test]
async fn what_arrives_during_a_commit_shares_the_next() {
    let memory: Arc<MemoryEngine> = Arc::default();
    let store = open(&memory, TIMING).await;
    let gate = Arc::new(Notify::new());
    *locked(&memory.gate) = Some(gate.clone());
    let claims: Vec<_> =
        (0..40).map(|n| store.swap(vec![put_new(id(n), samples::claim(n))])).collect();
    // The lane takes what is there when it first runs; everything else waits behind the gate.
    tokio::task::yield_now().await;
    gate.notify_one();
    for claim in claims {
        assert!(matches!(claim.await, Ok(Swap::Done)));
    }
    assert_eq!(memory.groups.load(Ordering::Relaxed), 40);
    assert!(memory.commits.load(Ordering::Relaxed) <= 2);
}

#[tokio::test]
async fn changes_that_are_about_to_be_asked_for_go_together() {
    const TASKS: u64 = 20;
    let memory: Arc<MemoryEngine> = Arc::default();
    let store = open(&memory, TIMING).await;
    let mut asked = JoinSet::new();
    for n in 0..TASKS {
        let store = store.clone();
        // Some come a turn later than the others, as after an answer on the network.
        asked.spawn(async move {
            if n % 2 == 1 {
                tokio::task::yield_now().await;
            }
            store.swap(vec![put_new(id(n), samples::claim(n))]).await
        });
    }
    while let Some(ended) = asked.join_next().await {
        assert!(matches!(ended.unwrap(), Ok(Swap::Done)));
    }
    assert_eq!(memory.groups.load(Ordering::Relaxed), TASKS as usize);
    assert_eq!(memory.commits.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_commit_that_hangs_holds_up_only_itself_and_the_others_gather() {
    let memory =
        Arc::new(MemoryEngine { connections: AtomicU32::new(2), ..MemoryEngine::default() });
    let store = open(&memory, TIMING).await;
    let gate = Arc::new(Notify::new());
    *locked(&memory.gate) = Some(gate.clone());
    let hanging = store.swap(vec![put_new(id(1000), samples::claim(1000))]);
    tokio::task::yield_now().await;
    let others: Vec<_> =
        (0..10).map(|n| store.swap(vec![put_new(id(n), samples::claim(n))])).collect();
    for other in others {
        assert!(matches!(other.await, Ok(Swap::Done)));
    }
    assert_eq!(memory.commits.load(Ordering::Relaxed), 1, "one commit for all ten");
    assert_eq!(memory.groups.load(Ordering::Relaxed), 10);
    gate.notify_one();
    assert!(matches!(hanging.await, Ok(Swap::Done)));
}

#[tokio::test]
async fn many_go_as_two_groups_and_the_second_does_not_wait_for_a_first_that_hangs() {
    let memory: Arc<MemoryEngine> = Arc::default();
    let queue = Arc::new(CommitQueue::new(2));
    let (end, ended) = shutdown::channel();
    let gate = Arc::new(Notify::new());
    *locked(&memory.gate) = Some(gate.clone());
    let until = Instant::now() + TIMING.timeout;
    let push = |n| {
        let claim = vec![put_new(id(n), samples::claim(n))];
        queue.push(Group::of(&Codec::plain(), claim), until).unwrap()
    };
    let mut asked: Vec<_> = (0..64).map(push).collect();
    let second = asked.split_off(32);
    let mut connections = JoinSet::new();
    for connection in 0..2 {
        connections.spawn(commits::run_connection(
            memory.clone(),
            queue.clone(),
            connection,
            ended.clone(),
        ));
    }
    // The first half is at the gate; the other lane watches the second.
    for answer in second {
        assert_eq!(answer.await.unwrap(), Ok(CasResult::Done));
    }
    assert_eq!(memory.groups.load(Ordering::Relaxed), 32);
    gate.notify_one();
    for answer in asked {
        assert_eq!(answer.await.unwrap(), Ok(CasResult::Done));
    }
    assert_eq!(memory.commits.load(Ordering::Relaxed), 2);
    end.fire();
    connections.join_all().await;
}

async fn check_fault(fault: Fault) {
    let memory: Arc<MemoryEngine> = Arc::default();
    let store = open(&memory, TIMING).await;
    let claim = samples::claim(1);
    *locked(&memory.faults) = vec![fault];
    done(&*store, vec![put_new(id(1), claim.clone())]).await;
    let unknown = claim.lost(UnknownReason::Timeout, T0);
    *locked(&memory.faults) = vec![fault, fault];
    done(&*store, vec![replace(id(1), 1, Some(unknown.clone()))]).await;
    // Somebody else's record is not taken for one's own.
    *locked(&memory.faults) = vec![fault];
    let other = vec![put_new(id(1), Record { attempt: [9; 16], ..samples::claim(1) })];
    assert_eq!(lost(&*store, other).await, (0, Some(unknown.clone())));
    *locked(&memory.faults) = vec![fault];
    done(&*store, vec![replace(id(1), unknown.version, None)]).await;
    assert_eq!(store.get(id(1)).await, Ok(None));
}

#[tokio::test]
async fn a_commit_whose_fate_is_unknown_is_found_out() {
    for fault in [Fault::Reject, Fault::LoseRequest, Fault::LoseReply] {
        check_fault(fault).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_of_many_claimers_exactly_one_wins() {
    let mut random = Random::new();
    let memory =
        Arc::new(MemoryEngine { connections: AtomicU32::new(3), ..MemoryEngine::default() });
    let stores = [open(&memory, TIMING).await, open(&memory, TIMING).await];
    for round in 0..200 {
        *locked(&memory.faults) = (0..random.below(6))
            .map(|_| [Fault::Reject, Fault::LoseRequest, Fault::LoseReply][random.below(3)])
            .collect();
        let mut tasks = JoinSet::new();
        for claimer in 0..8_u8 {
            let store = stores[usize::from(claimer % 2)].clone();
            tasks.spawn(async move {
                let claim = Record { attempt: [claimer; 16], ..samples::claim(round) };
                let more = Record { attempt: [claimer; 16], ..samples::claim(round + 1000) };
                let both = vec![put_new(id(round), claim), put_new(id(round + 1000), more)];
                (claimer, matches!(store.swap(both).await.unwrap(), Swap::Done))
            });
        }
        let won: Vec<u8> = tasks
            .join_all()
            .await
            .into_iter()
            .filter(|(_, won)| *won)
            .map(|(who, _)| who)
            .collect();
        assert_eq!(won.len(), 1, "round {round}");
        for id in [id(round), id(round + 1000)] {
            assert_eq!(stores[0].get(id).await.unwrap().unwrap().attempt, [won[0]; 16]);
        }
    }
}

#[tokio::test]
async fn a_server_that_stays_away_is_an_error_and_what_waited_is_not_sent_later() {
    let memory: Arc<MemoryEngine> = Arc::default();
    let timing = Timing { timeout: Duration::from_millis(200), ..TIMING };
    let store = open(&memory, timing).await;
    *locked(&memory.away) = true;
    let refused = store.swap(vec![put_new(id(1), samples::claim(1))]).await;
    let Err(StoreError::Unavailable(reason)) = refused else { panic!("got {refused:?}") };
    assert!(
        reason.contains("away"),
        "the reason names the cause, not that it took too long: {reason}"
    );
    assert!(matches!(store.get(id(1)).await, Err(StoreError::Unavailable(_))));
    *locked(&memory.away) = false;
    done(&*store, vec![put_new(id(2), samples::claim(2))]).await;
    assert_eq!(store.get(id(1)).await, Ok(None));
}

#[tokio::test]
async fn who_cannot_renew_its_lease_claims_nothing_and_may_still_complete() {
    let memory: Arc<MemoryEngine> = Arc::default();
    let timing = Timing { lease: Duration::from_millis(50), ..TIMING };
    let store = open(&memory, timing).await;
    let epoch = store.epoch();
    assert!(epoch.is_some());
    let claim = samples::claim(1);
    done(&*store, vec![put_new(id(1), claim.clone())]).await;
    let leases = || locked(&memory.leases).clone();
    *locked(&memory.away) = true;
    while store.epoch().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(store.ready().is_err());
    let refused = store.swap(vec![put_new(id(2), samples::claim(2))]).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "got {refused:?}");
    let renewed = leases();
    *locked(&memory.away) = false;
    done(&*store, vec![replace(id(1), 1, Some(claim.lost(UnknownReason::Timeout, T0)))]).await;
    while leases() == renewed || store.epoch().is_none() || store.ready().is_err() {
        tokio::task::yield_now().await;
    }
    assert_ne!(store.epoch(), epoch, "a lapsed lease was renewed as if it had not lapsed");
}

#[tokio::test]
async fn claims_of_a_process_that_left_become_unknown_and_nobody_elses() {
    let memory: Arc<MemoryEngine> = Arc::default();
    let (gone, here) = (open(&memory, TIMING).await, open(&memory, TIMING).await);
    let of = |store: &Arc<dyn Store>, n| Record { owner: store.owner(), ..samples::claim(n) };
    for n in 0..150 {
        done(&*gone, vec![put_new(id(n), of(&gone, n))]).await;
    }
    done(&*here, vec![put_new(id(500), of(&here, 500))]).await;
    let mut ended = EndedOwners::new(Duration::ZERO);
    assert_eq!(reaper::pass(&*here, &mut ended).await, Ok(0));
    gone.leave().await.unwrap();
    assert!(gone.epoch().is_none());
    assert_eq!(reaper::pass(&*here, &mut ended).await, Ok(150));
    let now = here.get(id(7)).await.unwrap().unwrap();
    assert_eq!(now, of(&gone, 7).lost(UnknownReason::ProcessEnded, now.updated));
    assert_eq!(here.get(id(500)).await, Ok(Some(of(&here, 500))));
    assert_eq!(reaper::pass(&*here, &mut ended).await, Ok(0));
}

#[tokio::test]
async fn who_waits_elsewhere_is_woken() {
    let memory: Arc<MemoryEngine> = Arc::default();
    let (ours, other) = (open(&memory, TIMING).await, open(&memory, TIMING).await);
    let claim = Record { owner: ours.owner(), ..samples::claim(1) };
    done(&*ours, vec![put_new(id(1), claim.clone())]).await;
    let mut watch = other.watch(id(1), ours.owner());
    assert!(other.is_shared());
    let unknown = claim.lost(UnknownReason::Timeout, T0);
    done(&*ours, vec![replace(id(1), 1, Some(unknown.clone()))]).await;
    // With messages or without, the change is seen; see `wake` for the messages themselves.
    while other.get(id(1)).await.unwrap() != Some(unknown.clone()) {
        watch.changed().await;
    }
}

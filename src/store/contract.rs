//! Contract of the port, as tests that every backend passes.
//!
//! An engine's tests call [`every_clause`] with a function that gives an empty store each time.

use std::cmp::Reverse;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::codec::Head;
use super::port::{Change, ListPosition, Query, Store, StoreError, Swap};
use super::samples::{self, T0, id};
use crate::clock::Timestamp;
use crate::idempotency::id::IdScheme;
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::retention::Keep;
use crate::idempotency::{Record, RecordId, TenantId};

/// Runs the whole suite, each clause on a store of its own.
pub(crate) async fn every_clause<F, Fut, S>(store: F)
where
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
    S: std::ops::Deref<Target = Arc<dyn Store>>,
{
    what_was_put_is_there_until_it_is_removed(&**store().await).await;
    several_records_are_read_in_the_order_asked_for(&**store().await).await;
    a_change_is_made_only_on_the_version_it_expects(&**store().await).await;
    the_loser_is_told_the_winner(&**store().await).await;
    several_changes_are_made_together_or_not_at_all(&**store().await).await;
    of_many_claimers_exactly_one_wins(&*store().await).await;
    of_many_completions_exactly_one_wins(&*store().await).await;
    a_change_that_nobody_waits_for_is_made(&**store().await).await;
    listings_are_newest_first_and_come_in_pages(&**store().await).await;
    records_of_a_key_are_found_whoever_the_callers_are(&**store().await).await;
    open_records_are_listed_while_they_are_open(&**store().await).await;
    records_are_found_by_their_subject(&**store().await).await;
    expired_records_come_in_the_order_of_their_expiry(&**store().await).await;
    the_store_knows_what_it_is(&**store().await).await;
    random_changes_have_the_effect_they_have_on_a_map(&**store().await).await;
    names_are_replaced_on_the_version_they_have(&**store().await).await;
    of_many_new_names_exactly_one_wins(&*store().await).await;
    only_a_live_process_is_listed_as_alive(&**store().await).await;
}

/// A change that claims an absent record.
pub(crate) fn put_new(id: RecordId, record: Record) -> Change {
    Change { id, expect: None, put: Some(record.into()) }
}

/// A change of a record from one version.
pub(crate) fn replace(id: RecordId, version: u64, put: Option<Record>) -> Change {
    Change { id, expect: Some(version), put: put.map(Arc::new) }
}

/// Swaps, and expects it to be done.
pub(crate) async fn done(store: &dyn Store, changes: Vec<Change>) {
    match store.swap(changes).await {
        Ok(Swap::Done) => {}
        other => panic!("expected the swap to be done, got {other:?}"),
    }
}

/// Swaps, and expects it to be lost; gives the index and the winner.
pub(crate) async fn lost(store: &dyn Store, changes: Vec<Change>) -> (usize, Option<Record>) {
    match store.swap(changes).await {
        Ok(Swap::Lost { index, winner }) => (index, winner.map(|winner| *winner)),
        other => panic!("expected the swap to be lost, got {other:?}"),
    }
}

async fn check_list(store: &dyn Store, query: Query, expected: &[u64]) {
    let page = store.list(query.clone()).await.unwrap();
    let ids: Vec<RecordId> = page.iter().map(|(id, _)| *id).collect();
    let expected: Vec<RecordId> = expected.iter().copied().map(id).collect();
    assert_eq!(ids, expected, "{query:?}");
    for (id, record) in page {
        assert_eq!(store.get(id).await.unwrap(), Some(record));
    }
}

async fn what_was_put_is_there_until_it_is_removed(store: &dyn Store) {
    assert_eq!(store.get(id(1)).await.unwrap(), None);
    for (at, record) in samples::every_state().into_iter().enumerate() {
        let id = id(at as u64);
        done(store, vec![put_new(id, record.clone())]).await;
        assert_eq!(store.get(id).await.unwrap().as_ref(), Some(&record));
        done(store, vec![replace(id, record.version, None)]).await;
        assert_eq!(store.get(id).await.unwrap(), None);
    }
    let all = Query { limit: 100, ..Query::default() };
    check_list(store, all.clone(), &[]).await;
    check_list(store, Query { open: true, ..all.clone() }, &[]).await;
    check_list(store, Query { subject: Some([9; 16]), ..all.clone() }, &[]).await;
    let end = Some(Timestamp::from_millis(u64::MAX));
    check_list(store, Query { expired_at: end, ..all }, &[]).await;
}

async fn several_records_are_read_in_the_order_asked_for(store: &dyn Store) {
    assert_eq!(store.get_many(&[]).await.unwrap(), []);
    let (one, two) = (samples::claim(1), samples::kept(2, 100));
    done(store, vec![put_new(id(1), one.clone()), put_new(id(2), two.clone())]).await;
    let read = store.get_many(&[id(2), id(3), id(1), id(2)]).await.unwrap();
    assert_eq!(read, [Some(two.clone()), None, Some(one), Some(two)]);
}

async fn a_change_is_made_only_on_the_version_it_expects(store: &dyn Store) {
    let claim = samples::claim(1);
    done(store, vec![put_new(id(1), claim.clone())]).await;
    let unknown = claim.lost(UnknownReason::Timeout, T0);
    for wrong in [None, Some(0), Some(2), Some(u64::MAX)] {
        for put in [None, Some(unknown.clone())] {
            let change = Change { id: id(1), expect: wrong, put: put.map(Arc::new) };
            assert_eq!(lost(store, vec![change]).await, (0, Some(claim.clone())));
            assert_eq!(store.get(id(1)).await.unwrap(), Some(claim.clone()));
        }
    }
    done(store, vec![replace(id(1), 1, Some(unknown.clone()))]).await;
    assert_eq!(store.get(id(1)).await.unwrap(), Some(unknown));
    // Versions have no order: a new claim starts anywhere.
    let newer = Record { version: 0, ..samples::claim(1) };
    done(store, vec![replace(id(1), 2, Some(newer))]).await;
    assert_eq!(lost(store, vec![replace(id(2), 1, None)]).await, (0, None));
}

async fn the_loser_is_told_the_winner(store: &dyn Store) {
    let claim = samples::claim(1);
    done(store, vec![put_new(id(1), claim.clone())]).await;
    let other = vec![put_new(id(1), samples::claim(2))];
    assert_eq!(lost(store, other).await, (0, Some(claim.clone())));
    done(store, vec![replace(id(1), 1, None)]).await;
    let late = vec![replace(id(1), 1, Some(claim.lost(UnknownReason::Timeout, T0)))];
    assert_eq!(lost(store, late).await, (0, None));
}

async fn several_changes_are_made_together_or_not_at_all(store: &dyn Store) {
    let claims = |from: u64| (from..from + 5).map(|n| put_new(id(n), samples::claim(n))).collect();
    done(store, claims(10)).await;
    // The last one overlaps.
    assert_eq!(lost(store, claims(6)).await, (4, Some(samples::claim(10))));
    let all = Query { limit: 100, ..Query::default() };
    check_list(store, all.clone(), &[14, 13, 12, 11, 10]).await;
    let mixed = vec![
        replace(id(10), 1, None),
        replace(id(11), 1, Some(samples::kept(11, 10))),
        put_new(id(20), samples::claim(20)),
    ];
    done(store, mixed).await;
    check_list(store, all.clone(), &[20, 14, 13, 12, 11]).await;
    check_list(store, Query { open: true, ..all }, &[20, 14, 13, 12]).await;
}

async fn of_many_claimers_exactly_one_wins(store: &Arc<dyn Store>) {
    for round in 0..20 {
        let mut tasks = JoinSet::new();
        for claimer in 0..64 {
            let store = store.clone();
            tasks.spawn(async move {
                let claim = Record { attempt: [claimer; 16], ..samples::claim(round) };
                let swap = store.swap(vec![put_new(id(round), claim)]).await.unwrap();
                (claimer, swap, store.get(id(round)).await.unwrap())
            });
        }
        let results = tasks.join_all().await;
        let stored = store.get(id(round)).await.unwrap().unwrap();
        let mut wins = 0;
        for (claimer, swap, seen) in results {
            assert_eq!(seen.as_ref(), Some(&stored), "an answer came before its record");
            match swap {
                Swap::Done => {
                    wins += 1;
                    assert_eq!(stored.attempt, [claimer; 16]);
                }
                Swap::Lost { index, winner } => {
                    assert_eq!((index, winner.as_deref()), (0, Some(&stored)));
                }
            }
        }
        assert_eq!(wins, 1, "round {round}");
    }
}

async fn of_many_completions_exactly_one_wins(store: &Arc<dyn Store>) {
    let claim = samples::claim(1);
    done(&**store, vec![put_new(id(1), claim.clone())]).await;
    let mut tasks = JoinSet::new();
    for n in 0..64 {
        let (store, claim) = (store.clone(), claim.clone());
        tasks.spawn(async move {
            let put = match n % 3 {
                0 => None,
                1 => Some(claim.lost(UnknownReason::Status(n), T0)),
                _ => Some(samples::kept(1, usize::from(n))),
            };
            matches!(store.swap(vec![replace(id(1), 1, put)]).await, Ok(Swap::Done))
        });
    }
    let wins = tasks.join_all().await.into_iter().filter(|won| *won).count();
    assert_eq!(wins, 1);
}

async fn a_change_that_nobody_waits_for_is_made(store: &dyn Store) {
    // The future is polled once and dropped, as by a task that was cancelled.
    let mut swap = store.swap(vec![put_new(id(1), samples::claim(1))]);
    let first = std::future::poll_fn(|context| {
        std::task::Poll::Ready(std::future::Future::poll(swap.as_mut(), context))
    });
    let _ = first.await;
    drop(swap);
    // Of two writers the first is first: this one meets what the dropped one put.
    assert_eq!(
        lost(store, vec![put_new(id(1), samples::claim(2))]).await,
        (0, Some(samples::claim(1)))
    );
}

async fn listings_are_newest_first_and_come_in_pages(store: &dyn Store) {
    let later = |millis: u64| T0.saturating_add(Duration::from_millis(millis));
    // Two were claimed at the same time.
    for (n, millis) in [(5, 9), (3, 300), (9, 1), (1, 70_000), (7, 300)] {
        let record = Record { first_seen: later(millis), ..samples::claim(n) };
        done(store, vec![put_new(id(n), record)]).await;
    }
    let page = |after: Option<(u64, u64)>, limit| {
        let at = |(millis, n)| ListPosition { first_seen: later(millis), id: id(n) };
        Query { after: after.map(at), limit, ..Query::default() }
    };
    check_list(store, page(None, 100), &[1, 7, 3, 5, 9]).await;
    check_list(store, page(None, 2), &[1, 7]).await;
    check_list(store, page(Some((300, 7)), 2), &[3, 5]).await;
    check_list(store, page(Some((300, 4)), 2), &[3, 5]).await;
    check_list(store, page(Some((9, 5)), 2), &[9]).await;
    check_list(store, page(Some((1, 9)), 2), &[]).await;
    check_list(store, page(None, 0), &[]).await;
    let since = |millis| Query { since: Some(later(millis)), ..page(None, 100) };
    check_list(store, since(300), &[1, 7, 3]).await;
    check_list(store, since(301), &[1]).await;
    check_list(store, Query { after: Some(samples::at(0)), ..since(0) }, &[]).await;
    // A key that is claimed anew is at its new time only.
    let renewed = Record { version: 2, first_seen: later(400), ..samples::claim(9) };
    done(store, vec![replace(id(9), 1, Some(renewed))]).await;
    check_list(store, page(None, 100), &[1, 9, 7, 3, 5]).await;
}

async fn records_of_a_key_are_found_whoever_the_callers_are(store: &dyn Store) {
    let ids = IdScheme::plain();
    let mut expected = Vec::new();
    for caller in 0..40_u8 {
        let tenant = TenantId::from_bytes([caller.wrapping_mul(37); 16]);
        for key in ["one", "two"] {
            let id = ids.record(&tenant, "", key);
            let first_seen = T0.saturating_add(Duration::from_millis(u64::from(caller % 7)));
            let record = Record { tenant, key: key.into(), first_seen, ..samples::claim(1) };
            done(store, vec![put_new(id, record)]).await;
            expected.push((ListPosition { first_seen, id }, key, tenant));
        }
    }
    expected.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
    let listed = async |query: Query| {
        let page = store.list(query).await.unwrap();
        page.iter().map(|(id, record)| ListPosition::of(id, record)).collect::<Vec<_>>()
    };
    let of = |fits: &dyn Fn(&str, &TenantId) -> bool| {
        let fitting = expected.iter().filter(|(_, key, tenant)| fits(key, tenant));
        fitting.map(|(at, ..)| *at).collect::<Vec<_>>()
    };
    let all = Query { keys: vec![ids.key("one")], limit: 100, ..Query::default() };
    let ones = of(&|key, _| key == "one");
    assert_eq!(listed(all.clone()).await, ones);
    let both = Query { keys: vec![ids.key("one"), ids.key("two")], ..all.clone() };
    assert_eq!(listed(both).await, of(&|_, _| true));
    let third = Query { limit: 3, after: Some(ones[2]), ..all.clone() };
    assert_eq!(listed(third).await, ones[3..6]);
    let shard = Some(TenantId::from_bytes([37; 16]).as_bytes()[0]);
    let of_shard = |key: &str, tenant: &TenantId| key == "one" && tenant.as_bytes()[0] == 37;
    assert_eq!(listed(Query { shard, ..all.clone() }).await, of(&of_shard));
    let none = Query { keys: vec![ids.key("three")], ..all };
    assert_eq!(listed(none).await, []);
    let shard_only = Query { shard, limit: 100, ..Query::default() };
    assert_eq!(listed(shard_only).await, of(&|_, tenant| tenant.as_bytes()[0] == 37));
}

async fn open_records_are_listed_while_they_are_open(store: &dyn Store) {
    for n in 1..=4 {
        done(store, vec![put_new(id(n), samples::claim(n))]).await;
    }
    let open = Query { open: true, limit: 100, ..Query::default() };
    check_list(store, open.clone(), &[4, 3, 2, 1]).await;
    let unknown = samples::claim(2).lost(UnknownReason::Timeout, T0);
    done(store, vec![replace(id(2), 1, Some(unknown.clone()))]).await;
    done(store, vec![replace(id(3), 1, Some(samples::kept(3, 10)))]).await;
    done(store, vec![replace(id(4), 1, None)]).await;
    check_list(store, open.clone(), &[2, 1]).await;
    check_list(store, Query { after: Some(samples::at(2)), ..open.clone() }, &[1]).await;
    let final_ = unknown.completed(samples::answer(1), forever(), T0);
    done(store, vec![replace(id(2), 2, Some(final_))]).await;
    check_list(store, open, &[1]).await;
}

async fn records_are_found_by_their_subject(store: &dyn Store) {
    let with = |n: u64, subject: u8| Record { subject: Some([subject; 16]), ..samples::claim(n) };
    for (n, subject) in [(1, 1), (2, 2), (3, 1), (4, 0xff), (5, 1)] {
        done(store, vec![put_new(id(n), with(n, subject))]).await;
    }
    done(store, vec![put_new(id(6), samples::claim(6))]).await;
    let of = |subject: u8| Query { subject: Some([subject; 16]), limit: 2, ..Query::default() };
    check_list(store, of(1), &[5, 3]).await;
    check_list(store, Query { after: Some(samples::at(3)), ..of(1) }, &[1]).await;
    check_list(store, of(0xff), &[4]).await;
    check_list(store, of(0), &[]).await;
    let completed = with(3, 1).completed(samples::answer(1), forever(), T0);
    done(store, vec![replace(id(3), 1, Some(completed))]).await;
    check_list(store, of(1), &[5, 3]).await;
    check_list(store, Query { open: true, ..of(1) }, &[5, 1]).await;
    done(store, vec![replace(id(5), 1, None)]).await;
    check_list(store, of(1), &[3, 1]).await;
    done(store, vec![replace(id(1), 1, Some(Record { version: 2, ..with(1, 2) }))]).await;
    check_list(store, of(1), &[3]).await;
    check_list(store, of(2), &[2, 1]).await;
}

async fn expired_records_come_in_the_order_of_their_expiry(store: &dyn Store) {
    let after = |millis| Keep::For(Duration::from_millis(millis));
    let due = |n: u64, millis| {
        samples::claim(n).completed(
            samples::answer(1),
            samples::kept_for(after(millis), after(50)),
            T0,
        )
    };
    for (n, millis) in [(1, 300), (2, 100), (3, 200), (4, 100)] {
        done(store, vec![put_new(id(n), due(n, millis))]).await;
    }
    let kept_forever = samples::claim(5).completed(samples::answer(1), forever(), T0);
    done(store, vec![put_new(id(5), kept_forever)]).await;
    done(store, vec![put_new(id(6), samples::claim(6))]).await;
    let at = |millis| Query {
        expired_at: Some(T0.saturating_add(Duration::from_millis(millis))),
        limit: 100,
        ..Query::default()
    };
    check_list(store, at(99), &[]).await;
    check_list(store, at(100), &[2, 4]).await;
    check_list(store, at(250), &[2, 4, 3]).await;
    check_list(store, at(10_000), &[2, 4, 3, 1]).await;
    check_list(store, Query { limit: 1, ..at(10_000) }, &[2]).await;
    // A record that moves to another time is found there only.
    let moved = Record { version: 3, ..due(2, 250) };
    done(store, vec![replace(id(2), 2, Some(moved))]).await;
    check_list(store, at(10_000), &[4, 3, 2, 1]).await;
    done(store, vec![replace(id(4), 2, None)]).await;
    check_list(store, at(10_000), &[3, 2, 1]).await;
    let end = Query { expired_at: Some(Timestamp::from_millis(u64::MAX)), ..at(0) };
    check_list(store, end, &[3, 2, 1]).await;
}

async fn the_store_knows_what_it_is(store: &dyn Store) {
    assert!(!store.identity().store_id.is_nil());
    assert_eq!(store.identity().schema, super::codec::SCHEMA);
    assert_ne!(store.owner(), [0; 16]);
    assert_eq!(store.ready(), Ok::<(), StoreError>(()));
    assert!(store.now() > T0);
}

async fn names_are_replaced_on_the_version_they_have(store: &dyn Store) {
    assert_eq!(store.names().await.unwrap(), None);
    assert!(!store.swap_names(Some(1), b"early".to_vec()).await.unwrap());
    assert_eq!(store.names().await.unwrap(), None);
    let mut expect = None;
    // Bytes that a server could take for something else, and more than one packet.
    for bytes in [b"one".to_vec(), Vec::new(), b"1 \0 \xff\r\n".to_vec(), vec![b'x'; 100_000]] {
        assert!(store.swap_names(expect, bytes.clone()).await.unwrap());
        let names = store.names().await.unwrap().expect("names were pinned");
        assert_eq!(names.bytes, bytes);
        assert!(Some(names.version) > expect, "{names:?} after {expect:?}");
        for stale in [expect, Some(names.version + 1), None] {
            assert!(!store.swap_names(stale, b"late".to_vec()).await.unwrap(), "{stale:?}");
        }
        assert_eq!(store.names().await.unwrap(), Some(names.clone()));
        expect = Some(names.version);
    }
}

async fn of_many_new_names_exactly_one_wins(store: &Arc<dyn Store>) {
    let mut racers = JoinSet::new();
    for racer in 0..8_u8 {
        let store = store.clone();
        racers.spawn(async move { (racer, store.swap_names(None, vec![racer]).await.unwrap()) });
    }
    let won: Vec<u8> = racers
        .join_all()
        .await
        .into_iter()
        .filter(|(_, won)| *won)
        .map(|(racer, _)| racer)
        .collect();
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(store.names().await.unwrap().map(|names| names.bytes), Some(won));
}

async fn only_a_live_process_is_listed_as_alive(store: &dyn Store) {
    let owner = store.owner();
    let alive = store.live_owners(&[[7; 16], owner]).await.unwrap();
    // No other process can have a store open that is not shared.
    let expected = if store.is_shared() { vec![owner] } else { Vec::new() };
    assert_eq!(alive, expected);
    store.leave().await.unwrap();
    assert_eq!(store.live_owners(&[owner]).await.unwrap(), Vec::<[u8; 16]>::new());
}

async fn random_changes_have_the_effect_they_have_on_a_map(store: &dyn Store) {
    let mut random = samples::Random::new();
    let samples = samples::every_state();
    let mut model = std::collections::BTreeMap::<RecordId, Record>::new();
    for _ in 0..1000 {
        let mut changes: Vec<Change> = Vec::new();
        for _ in 0..=random.below(3) {
            let id = id(random.below(12) as u64);
            if changes.iter().any(|change| change.id == id) {
                continue;
            }
            let guess = random.below(4) as u64;
            let expect = match random.below(8) {
                0 => None,
                1 => Some(guess),
                _ => model.get(&id).map(|record| record.version),
            };
            let sample = samples[random.below(samples.len())].clone();
            let version = random.below(4) as u64;
            let subject = [None, Some([1; 16]), Some([2; 16])][random.below(3)];
            let first_seen = T0.saturating_add(Duration::from_millis(random.below(5) as u64));
            let record = Record { version, subject, first_seen, ..sample };
            let put = (random.below(4) > 0).then_some(record);
            changes.push(Change { id, expect, put: put.map(Arc::new) });
        }
        let loser = changes
            .iter()
            .position(|change| model.get(&change.id).map(|record| record.version) != change.expect);
        match (store.swap(changes.clone()).await.unwrap(), loser) {
            (Swap::Done, None) => {
                for change in changes {
                    match change.put {
                        Some(record) => model.insert(change.id, Arc::unwrap_or_clone(record)),
                        None => model.remove(&change.id),
                    };
                }
            }
            (Swap::Lost { index, winner }, Some(at)) => {
                assert_eq!((index, winner.as_deref()), (at, model.get(&changes[at].id)));
            }
            (swap, expected) => panic!("got {swap:?}, the loser should be {expected:?}"),
        }
    }
    for query in random_queries(&mut random) {
        let fits = |(id, record): &(&RecordId, &Record)| query.selects(id, &Head::of(record));
        let mut expected: Vec<_> =
            model.iter().filter(fits).map(|(id, record)| (*id, record.clone())).collect();
        match query.expired_at {
            Some(_) => expected.sort_by_key(|(id, record)| (record.expires(), *id)),
            None => expected.sort_by_key(|(id, record)| Reverse(ListPosition::of(id, record))),
        }
        expected.truncate(query.limit);
        let page = store.list(query.clone()).await.unwrap();
        assert_eq!(page, expected, "{query:?}");
    }
}

/// Queries of every form, with random bounds.
fn random_queries(random: &mut samples::Random) -> Vec<Query> {
    let all = Query { limit: 100, ..Query::default() };
    let end = Timestamp::from_millis(u64::MAX);
    let mut queries = vec![
        Query { expired_at: Some(T0), ..all.clone() },
        Query { expired_at: Some(end), ..all.clone() },
    ];
    for _ in 0..40 {
        let mut time = || T0.saturating_add(Duration::from_millis(random.below(6) as u64));
        let (since, first_seen) = (time(), time());
        let after = ListPosition { first_seen, id: id(random.below(12) as u64) };
        let mut maybe = |of: usize| random.below(of) == 0;
        let (since, after) = (maybe(2).then_some(since), maybe(2).then_some(after));
        let (subject, open, keyed) = (maybe(3), maybe(3), maybe(4));
        let (shard, few) = (maybe(4).then_some(0), maybe(2));
        let limit = if few { 3 } else { 100 };
        // Samples have the same bytes where an id has the digest of its key.
        let keys = if keyed { vec![id(0).key_digest()] } else { Vec::new() };
        let subject = (subject && !keyed).then_some([1; 16]);
        let open = open && !keyed;
        let query = Query { subject, open, keys, shard, since, after, limit, ..Query::default() };
        queries.push(query);
    }
    queries
}

fn forever() -> crate::idempotency::retention::Retention {
    samples::kept_for(Keep::Forever, Keep::Forever)
}

//! The cache holds what the store holds, for a bounded time and in bounded memory.

use super::*;
use crate::store::samples;

const CAPACITY: u64 = 32 << 20;

#[test]
fn only_final_records_with_their_answer_are_kept() {
    let cache = RecordCache::new(CAPACITY);
    for (at, record) in samples::every_state().into_iter().enumerate() {
        let id = samples::id(at as u64);
        let kept = matches!(&record.state, State::Final { answer: Answer::Kept(_), .. })
            && !record.settlement_unreported;
        cache.put(id, record);
        assert_eq!(cache.get(&id).is_some(), kept, "sample {at}");
    }
}

#[test]
fn a_forgotten_record_is_gone() {
    let cache = RecordCache::new(CAPACITY);
    let record = samples::kept(1, 100);
    cache.put(samples::id(1), record.clone());
    assert_eq!(cache.get(&samples::id(1)).map(|known| Record::clone(&known.record)), Some(record));
    cache.forget(&samples::id(1));
    assert!(cache.get(&samples::id(1)).is_none());
}

#[test]
fn what_was_read_before_something_was_dropped_is_not_kept() {
    let cache = RecordCache::new(CAPACITY);
    let before = cache.generation();
    cache.put_read(samples::id(1), samples::kept(1, 100), before);
    assert!(cache.get(&samples::id(1)).is_some());
    cache.forget(&samples::id(2));
    cache.put_read(samples::id(1), samples::kept(1, 100), before);
    assert!(cache.get(&samples::id(1)).is_none());
    cache.put(samples::id(1), samples::kept(1, 100));
    cache.forget_all();
    assert!(cache.get(&samples::id(1)).is_none());
}

#[test]
fn what_was_completed_reads_back_as_it_was_and_leaves_as_the_rest() {
    let (cache, id) =
        (RecordCache::with_time_to_live(CAPACITY, Duration::from_secs(3600)), samples::id(1));
    for (at, record) in samples::every_state().into_iter().enumerate() {
        let id = samples::id(at as u64 + 100);
        let record = Arc::new(record);
        cache.put_completed(id, &record, cache.generation());
        let found = cache.get(&id).map(|known| known.record.clone());
        assert_eq!(found, is_replayable(&record).then_some(record), "sample {at}");
    }
    let record = Arc::new(samples::kept(1, 100));
    cache.put_completed(id, &record, cache.generation());
    let (first, again) = (cache.get(&id).unwrap(), cache.get(&id).unwrap());
    assert!(Arc::ptr_eq(&first, &again), "it is read back once");
    cache.forget(&id);
    assert!(cache.get(&id).is_none());
    cache.put_completed(id, &record, cache.generation() - 1);
    assert!(cache.get(&id).is_none(), "something was dropped since");
    cache.put_completed(id, &Arc::new(samples::kept(1, MAX_ENTRY as usize)), cache.generation());
    assert!(cache.get(&id).is_none(), "it is too large");
    cache.put_completed(
        id,
        &Arc::new(samples::kept(1, MAX_ENTRY as usize * 3 / 4)),
        cache.generation(),
    );
    assert!(cache.get(&id).is_some(), "it fits once");
    let cache = RecordCache::with_time_to_live(CAPACITY, Duration::from_nanos(1));
    cache.put_completed(id, &record, cache.generation());
    assert!(cache.get(&id).is_none(), "it has been there long enough");
}

#[test]
fn what_others_may_purge_stays_for_a_while_only() {
    let cache = RecordCache::with_time_to_live(CAPACITY, Duration::from_secs(3600));
    cache.put(samples::id(1), samples::kept(1, 100));
    assert!(cache.get(&samples::id(1)).is_some());
    let cache = RecordCache::with_time_to_live(CAPACITY, Duration::from_nanos(1));
    cache.put(samples::id(1), samples::kept(1, 100));
    assert!(cache.get(&samples::id(1)).is_none());
}

#[tokio::test]
async fn what_others_announce_is_dropped() {
    let cache = Arc::new(RecordCache::new(CAPACITY));
    let sender = broadcast::Sender::new(1);
    let (announced, slow) = (sender.subscribe(), sender.subscribe());
    for n in 1..4 {
        cache.put(samples::id(n), samples::kept(n, 100));
    }
    sender.send(samples::id(1)).unwrap();
    follow_until_closed(&cache, announced, &sender).await;
    assert!(cache.get(&samples::id(1)).is_none() && cache.get(&samples::id(2)).is_some());
    // Of two, the first is lost to whoever is slow.
    sender.send(samples::id(7)).unwrap();
    sender.send(samples::id(8)).unwrap();
    drop(sender);
    follow(cache.clone(), slow).await;
    assert!(cache.get(&samples::id(2)).is_none());
}

async fn follow_until_closed(
    cache: &Arc<RecordCache>,
    announced: broadcast::Receiver<RecordId>,
    sender: &broadcast::Sender<RecordId>,
) {
    let following = follow(cache.clone(), announced);
    tokio::select! {
        () = following => {}
        () = async {
            while cache.get(&samples::id(1)).is_some() {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    assert!(sender.receiver_count() > 0);
}

#[test]
fn bytes_are_bounded() {
    let cache = RecordCache::new(64 << 10);
    for n in 0..1000 {
        cache.put(samples::id(n), samples::kept(n, 1000));
    }
    assert!(cache.bytes() <= 64 << 10, "{} bytes", cache.bytes());
    assert!(cache.bytes() > 0);
}

#[test]
fn the_newest_are_there_whatever_came_before() {
    let cache = RecordCache::with_time_to_live(CAPACITY, Duration::from_secs(3600));
    let record = samples::kept(1, 1000);
    let fits = CAPACITY / weight(&record) as u64;
    let all = 10 * fits;
    for n in 0..all {
        cache.put(spread(n), record.clone());
    }
    let newest = all - fits / 3..all;
    let there = newest.clone().filter(|n| cache.get(&spread(*n)).is_some()).count() as u64;
    // Parts of the cache are not filled evenly.
    assert!(there * 100 >= (newest.end - newest.start) * 95, "{there} of {newest:?}");
}

/// An id like a digest.
fn spread(n: u64) -> RecordId {
    crate::idempotency::RecordId::new(
        &crate::idempotency::TenantId::from_bytes([1; 16]),
        "",
        &n.to_string(),
    )
}

#[test]
fn an_answer_larger_than_the_cache_is_not_taken() {
    let cache = RecordCache::new(10_000);
    cache.put(samples::id(1), samples::kept(1, 20_000));
    assert!(cache.get(&samples::id(1)).is_none());
}

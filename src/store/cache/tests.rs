//! What is kept is the truth for as long as it is kept.

use super::*;
use crate::store::samples;

#[test]
fn only_final_records_with_their_answer_are_kept() {
    let hot = Hot::new(CAPACITY);
    for (at, record) in samples::every_state().into_iter().enumerate() {
        let id = samples::id(at as u64);
        let kept = matches!(&record.state, State::Final { answer: Answer::Kept(_), .. })
            && !record.settlement_unreported;
        hot.put(id, record);
        assert_eq!(hot.get(&id).is_some(), kept, "sample {at}");
    }
}

#[test]
fn a_forgotten_record_is_gone() {
    let hot = Hot::new(CAPACITY);
    let record = samples::kept(1, 100);
    hot.put(samples::id(1), record.clone());
    assert_eq!(hot.get(&samples::id(1)).map(|known| Record::clone(&known.record)), Some(record));
    hot.forget(&samples::id(1));
    assert!(hot.get(&samples::id(1)).is_none());
}

#[test]
fn what_was_read_before_something_was_dropped_is_not_kept() {
    let hot = Hot::new(CAPACITY);
    let before = hot.dropped();
    hot.put_unless_dropped(samples::id(1), samples::kept(1, 100), before);
    assert!(hot.get(&samples::id(1)).is_some());
    hot.forget(&samples::id(2));
    hot.put_unless_dropped(samples::id(1), samples::kept(1, 100), before);
    assert!(hot.get(&samples::id(1)).is_none());
    hot.put(samples::id(1), samples::kept(1, 100));
    hot.forget_all();
    assert!(hot.get(&samples::id(1)).is_none());
}

#[test]
fn what_was_completed_reads_back_as_it_was_and_leaves_as_the_rest() {
    let (hot, id) = (Hot::for_a_while(CAPACITY, Duration::from_secs(3600)), samples::id(1));
    for (at, record) in samples::every_state().into_iter().enumerate() {
        let id = samples::id(at as u64 + 100);
        let record = Arc::new(record);
        hot.put_completed(id, &record, hot.dropped());
        let found = hot.get(&id).map(|known| known.record.clone());
        assert_eq!(found, is_replayable(&record).then_some(record), "sample {at}");
    }
    let record = Arc::new(samples::kept(1, 100));
    hot.put_completed(id, &record, hot.dropped());
    let (first, again) = (hot.get(&id).unwrap(), hot.get(&id).unwrap());
    assert!(Arc::ptr_eq(&first, &again), "it is read back once");
    hot.forget(&id);
    assert!(hot.get(&id).is_none());
    hot.put_completed(id, &record, hot.dropped() - 1);
    assert!(hot.get(&id).is_none(), "something was dropped since");
    hot.put_completed(id, &Arc::new(samples::kept(1, MAX_ENTRY as usize)), hot.dropped());
    assert!(hot.get(&id).is_none(), "it is too large");
    hot.put_completed(id, &Arc::new(samples::kept(1, MAX_ENTRY as usize * 3 / 4)), hot.dropped());
    assert!(hot.get(&id).is_some(), "it fits once");
    let hot = Hot::for_a_while(CAPACITY, Duration::from_nanos(1));
    hot.put_completed(id, &record, hot.dropped());
    assert!(hot.get(&id).is_none(), "it has been there long enough");
}

#[test]
fn what_others_may_purge_stays_for_a_while_only() {
    let hot = Hot::for_a_while(CAPACITY, Duration::from_secs(3600));
    hot.put(samples::id(1), samples::kept(1, 100));
    assert!(hot.get(&samples::id(1)).is_some());
    let hot = Hot::for_a_while(CAPACITY, Duration::from_nanos(1));
    hot.put(samples::id(1), samples::kept(1, 100));
    assert!(hot.get(&samples::id(1)).is_none());
}

#[tokio::test]
async fn what_others_announce_is_dropped() {
    let hot = Arc::new(Hot::new(CAPACITY));
    let sender = broadcast::Sender::new(1);
    let (announced, slow) = (sender.subscribe(), sender.subscribe());
    for n in 1..4 {
        hot.put(samples::id(n), samples::kept(n, 100));
    }
    sender.send(samples::id(1)).unwrap();
    follow_until_closed(&hot, announced, &sender).await;
    assert!(hot.get(&samples::id(1)).is_none() && hot.get(&samples::id(2)).is_some());
    // Of two, the first is lost to whoever is slow.
    sender.send(samples::id(7)).unwrap();
    sender.send(samples::id(8)).unwrap();
    drop(sender);
    follow(hot.clone(), slow).await;
    assert!(hot.get(&samples::id(2)).is_none());
}

async fn follow_until_closed(
    hot: &Arc<Hot>,
    announced: broadcast::Receiver<RecordId>,
    sender: &broadcast::Sender<RecordId>,
) {
    let following = follow(hot.clone(), announced);
    tokio::select! {
        () = following => {}
        () = async {
            while hot.get(&samples::id(1)).is_some() {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    assert!(sender.receiver_count() > 0);
}

fn merged(hot: &Hot, body: Vec<u8>, holds_until: Option<Timestamp>) -> Arc<Merged> {
    let (body, dropped) = (body.into(), hot.dropped());
    Arc::new(Merged { status: 200, body, kept_until: holds_until, holds_until, dropped })
}

#[test]
fn the_answer_of_a_batch_holds_until_some_of_it_may_be_gone() {
    let (hot, name) = (Hot::new(CAPACITY), samples::id(1));
    let later = samples::T0.saturating_add(std::time::Duration::from_millis(1));
    hot.put_merged(name, merged(&hot, b"[]".to_vec(), Some(later)));
    let kept = hot.merged(&name, samples::T0).expect("not due");
    assert_eq!(&*kept.body, b"[]");
    assert!(hot.merged(&name, later).is_none());
    assert!(hot.get(&name).is_none(), "it is no record");
    hot.put_merged(name, merged(&hot, b"[]".to_vec(), None));
    assert!(hot.merged(&name, later).is_some());
    hot.forget(&samples::id(2));
    assert!(hot.merged(&name, later).is_none(), "it may be made of what was dropped");
    hot.put(name, samples::kept(1, 10));
    assert!(hot.merged(&name, later).is_none(), "it is no batch");
    hot.put_merged(samples::id(3), merged(&hot, vec![b' '; MAX_ENTRY as usize], None));
    assert!(hot.merged(&samples::id(3), later).is_none(), "it is too large");
}

#[test]
fn bytes_are_bounded() {
    let hot = Hot::new(64 << 10);
    for n in 0..1000 {
        hot.put(samples::id(n), samples::kept(n, 1000));
    }
    assert!(hot.bytes() <= 64 << 10, "{} bytes", hot.bytes());
    assert!(hot.bytes() > 0);
}

#[test]
fn the_newest_are_there_whatever_came_before() {
    let hot = Hot::for_a_while(CAPACITY, Duration::from_secs(3600));
    let record = samples::kept(1, 1000);
    let fits = CAPACITY / weight(&record) as u64;
    let all = 10 * fits;
    for n in 0..all {
        hot.put(spread(n), record.clone());
    }
    let newest = all - fits / 3..all;
    let there = newest.clone().filter(|n| hot.get(&spread(*n)).is_some()).count() as u64;
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
    let hot = Hot::new(10_000);
    hot.put(samples::id(1), samples::kept(1, 20_000));
    assert!(hot.get(&samples::id(1)).is_none());
}

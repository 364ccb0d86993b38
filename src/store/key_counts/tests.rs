use std::time::Duration;

use super::*;
use crate::clock::Timestamp;

fn id(shard: u8, number: u8) -> RecordId {
    let mut bytes = [number; 16];
    bytes[0] = shard;
    RecordId::from_bytes(bytes)
}

/// The position of an id that was claimed at a time.
fn at(first_seen: u64, id: RecordId) -> ListPosition {
    ListPosition { first_seen: Timestamp::from_millis(first_seen), id }
}

fn count(counts: &KeyCounts, shard: u8, page: &[TenantId]) {
    counts.begin(shard);
    counts.page(page.iter().copied(), at(1, id(shard, 0)));
    counts.finish(Duration::ZERO);
}

#[test]
fn a_caller_is_limited_by_its_own_additions_until_it_was_counted() {
    let counts = KeyCounts::new(Some(3));
    let caller = TenantId::from_bytes([7; 16]);
    counts.reserve(&caller, &[id(7, 0)]).unwrap().keep(&[id(7, 0)]);
    counts.reserve(&caller, &[id(7, 1), id(7, 2)]).unwrap().keep(&[id(7, 1), id(7, 2)]);
    assert_eq!(counts.reserve(&caller, &[id(7, 3)]).unwrap_err(), QuotaFull);
    assert_eq!(counts.next_wanted(), Some(7));
    assert_eq!(counts.next_wanted(), None);
    // A first count that missed a claim does not open the limit; a later one is believed.
    count(&counts, 7, &[caller; 2]);
    assert_eq!(counts.reserve(&caller, &[id(7, 3)]).unwrap_err(), QuotaFull);
    count(&counts, 7, &[caller; 2]);
    // Reservations are counted until they are dropped or kept.
    let room = counts.reserve(&caller, &[id(7, 8)]).unwrap();
    assert_eq!(counts.reserve(&caller, &[id(7, 9)]).unwrap_err(), QuotaFull);
    drop(room);
    counts.reserve(&caller, &[id(7, 9)]).unwrap().keep(&[id(7, 9)]);
    assert!(counts.reserve(&caller, &[id(7, 10)]).is_err());
    counts.removed(&caller, &at(1, id(7, 0)));
    assert!(counts.reserve(&caller, &[id(7, 10), id(7, 11)]).is_err());
    assert!(counts.reserve(&caller, &[id(7, 10)]).is_ok());
}

#[test]
fn changes_during_a_count_are_counted_once() {
    let counts = KeyCounts::new(Some(4));
    let (caller, other) = (TenantId::from_bytes([7; 16]), TenantId::from_bytes([8; 16]));
    drop(counts.reserve(&caller, &[id(7, 1)]));
    counts.begin(7);
    counts.page([caller, caller, other].into_iter(), at(5, id(7, 5)));
    // Behind the position, so that the count would miss the one and has seen the other.
    counts.reserve(&caller, &[id(7, 2)]).unwrap().keep(&[id(7, 2)]);
    counts.removed(&caller, &at(6, id(7, 1)));
    // Before the position: the next page does not have it any more.
    counts.removed(&caller, &at(4, id(7, 9)));
    counts.page([].into_iter(), at(1, id(7, 3)));
    counts.finish(Duration::ZERO);
    assert!(counts.reserve(&caller, &[id(7, 3), id(7, 4)]).is_ok());
    assert!(counts.reserve(&caller, &[id(7, 3), id(7, 4), id(7, 6)]).is_err());
}

#[test]
fn without_a_limit_nothing_is_counted() {
    let counts = KeyCounts::new(None);
    let caller = TenantId::from_bytes([7; 16]);
    counts.reserve(&caller, &[id(7, 1)]).unwrap().keep(&[id(7, 1)]);
    assert_eq!((counts.next_wanted(), counts.is_on()), (None, false));
}

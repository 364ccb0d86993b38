use std::time::Duration;

use super::*;

fn id(shard: u8, number: u8) -> RecordId {
    let mut bytes = [number; 16];
    bytes[0] = shard;
    RecordId::from_bytes(bytes)
}

fn count(counts: &KeyCounts, shard: u8, pages: &[&[(RecordId, TenantId)]]) {
    counts.begin(shard);
    for page in pages {
        counts.page(page.iter().copied(), page.last().unwrap().0);
    }
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
    let found: Vec<_> = (0..2).map(|number| (id(7, number), caller)).collect();
    count(&counts, 7, &[&found]);
    assert_eq!(counts.reserve(&caller, &[id(7, 3)]).unwrap_err(), QuotaFull);
    count(&counts, 7, &[&found]);
    // Reservations are counted until they are dropped or kept.
    let room = counts.reserve(&caller, &[id(7, 8)]).unwrap();
    assert_eq!(counts.reserve(&caller, &[id(7, 9)]).unwrap_err(), QuotaFull);
    drop(room);
    counts.reserve(&caller, &[id(7, 9)]).unwrap().keep(&[id(7, 9)]);
    assert!(counts.reserve(&caller, &[id(7, 10)]).is_err());
    counts.removed(&caller, &id(7, 0));
    assert!(counts.reserve(&caller, &[id(7, 10), id(7, 11)]).is_err());
    assert!(counts.reserve(&caller, &[id(7, 10)]).is_ok());
}

#[test]
fn changes_during_a_count_are_counted_once() {
    let counts = KeyCounts::new(Some(4));
    let (caller, other) = (TenantId::from_bytes([7; 16]), TenantId::from_bytes([8; 16]));
    drop(counts.reserve(&caller, &[id(7, 1)]));
    counts.begin(7);
    counts.page([(id(7, 1), caller), (id(7, 5), other)].into_iter(), id(7, 5));
    // Behind the position, so that the count would miss the one and has seen the other.
    counts.reserve(&caller, &[id(7, 2)]).unwrap().keep(&[id(7, 2)]);
    counts.removed(&caller, &id(7, 1));
    // Before the position: the next page has it.
    counts.reserve(&caller, &[id(7, 9)]).unwrap().keep(&[id(7, 9)]);
    counts.page([(id(7, 9), caller), (id(8, 1), caller)].into_iter(), id(8, 1));
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

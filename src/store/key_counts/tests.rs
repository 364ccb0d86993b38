use std::time::Duration;

use super::*;
use crate::clock::Timestamp;

fn id(shard: u8, number: u8) -> RecordId {
    let mut bytes = [number; 16];
    bytes[0] = shard;
    RecordId::from_bytes(bytes)
}

/// The position of a record: the ids of these tests rise with time.
fn at(id: RecordId) -> ListPosition {
    let number = u64::from(id.as_bytes()[1]);
    ListPosition { first_seen: Timestamp::from_millis(number), id }
}

fn count(counts: &KeyCounts, shard: u8, pages: &[&[(RecordId, TenantId)]]) {
    counts.begin(shard);
    for page in pages {
        counts.page(page, at(page.last().unwrap().0));
    }
    counts.finish(Duration::ZERO);
}

#[test]
fn a_caller_is_limited_by_its_own_additions_until_it_was_counted() {
    let counts = KeyCounts::new(Some(3));
    let caller = TenantId::from_bytes([7; 16]);
    counts.reserve(&caller, &[id(7, 0)]).unwrap().keep(&[at(id(7, 0))]);
    counts.reserve(&caller, &[id(7, 1), id(7, 2)]).unwrap().keep(&[at(id(7, 1)), at(id(7, 2))]);
    assert_eq!(counts.reserve(&caller, &[id(7, 3)]).unwrap_err(), QuotaFull);
    assert_eq!(counts.next_wanted(), Some(7));
    assert_eq!(counts.next_wanted(), None);
    // A count is believed: another process has removed one.
    let found: Vec<_> = (0..2).map(|number| (id(7, number), caller)).collect();
    count(&counts, 7, &[&found]);
    // Reservations are counted until they are dropped or kept.
    let room = counts.reserve(&caller, &[id(7, 8)]).unwrap();
    assert_eq!(counts.reserve(&caller, &[id(7, 9)]).unwrap_err(), QuotaFull);
    drop(room);
    counts.reserve(&caller, &[id(7, 9)]).unwrap().keep(&[at(id(7, 9))]);
    assert!(counts.reserve(&caller, &[id(7, 10)]).is_err());
    counts.removed(&caller, &at(id(7, 0)));
    assert!(counts.reserve(&caller, &[id(7, 10), id(7, 11)]).is_err());
    assert!(counts.reserve(&caller, &[id(7, 10)]).is_ok());
}

/// A change of a key around the page that may hold it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Reserve,
    /// The claim is durable, and the process does not know yet.
    Store,
    Keep,
    Lose,
    /// The expiry task has removed the record.
    Remove,
    /// The page is read.
    Read,
    /// The page is added.
    Page,
    Finish,
}

/// Every order in which the claim or the removal of a key, and a count that meets it, can happen.
#[test]
fn changes_during_a_count_are_counted_once_in_every_order() {
    use Step::*;
    let pass = [Read, Page, Finish];
    for (events, is_stored, expected) in [
        (&[Reserve, Store, Keep][..], false, 1),
        (&[Reserve, Lose], true, 1),
        (&[Reserve, Lose], false, 0),
        (&[Remove], true, 0),
        (&[Reserve, Store, Keep, Remove], false, 0),
    ] {
        let mut orders = Vec::new();
        interleave(events, &pass, &mut Vec::new(), &mut orders);
        for order in orders {
            let left = run_order(&order, is_stored);
            assert_eq!(left, expected, "{order:?} of a key that was stored: {is_stored}");
        }
    }
}

fn interleave(one: &[Step], other: &[Step], before: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    if one.is_empty() && other.is_empty() {
        found.push(before.clone());
    }
    for (first, second) in [(one, other), (other, one)] {
        if let Some((step, rest)) = first.split_first() {
            before.push(*step);
            interleave(rest, second, before, found);
            before.pop();
        }
    }
}

/// The keys of the caller by the counts in the end.
fn run_order(order: &[Step], is_stored: bool) -> u64 {
    let counts = KeyCounts::new(Some(10));
    let (caller, key) = (TenantId::from_bytes([7; 16]), id(7, 5));
    if is_stored {
        counts.reserve(&caller, &[key]).unwrap().keep(&[at(key)]);
    } else {
        drop(counts.reserve(&caller, &[key]));
    }
    let (mut stored, mut room, mut read) = (is_stored, None, Vec::new());
    counts.begin(7);
    for step in order {
        match step {
            Step::Reserve => room = Some(counts.reserve(&caller, &[key]).unwrap()),
            Step::Store => stored = true,
            Step::Keep => room.take().unwrap().keep(&[at(key)]),
            Step::Lose => drop(room.take()),
            Step::Remove => {
                stored = false;
                counts.removed(&caller, &at(key));
            }
            Step::Read => read.extend(stored.then_some((key, caller))),
            Step::Page => counts.page(&read, at(id(7, 1))),
            Step::Finish => counts.finish(Duration::ZERO),
        }
    }
    drop(room);
    let tally = lock(&counts.tally);
    assert_eq!(format!("{tally:?}"), format!("{:?}", Tally::default()));
    lock(&counts.callers.get(&caller).unwrap().keys).stored
}

#[test]
fn without_a_limit_nothing_is_counted() {
    let counts = KeyCounts::new(None);
    let caller = TenantId::from_bytes([7; 16]);
    counts.reserve(&caller, &[id(7, 1)]).unwrap().keep(&[at(id(7, 1))]);
    assert_eq!((counts.next_wanted(), counts.is_on()), (None, false));
}

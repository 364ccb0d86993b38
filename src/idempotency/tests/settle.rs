//! Table tests of what operators decide.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::claimed;
use crate::clock::Timestamp;
use crate::idempotency::fingerprint::Fingerprint;
use crate::idempotency::history::{HistoryEvent, MAX_BY, MAX_HISTORY, MAX_WHY, Note, NoteError};
use crate::idempotency::ledger::{ItemOutcome, Ledger};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::{Expiry, StoredResponse};
use crate::idempotency::retention::{Keep, Retention};
use crate::idempotency::settle::{Settlement, SettlementError};
use crate::idempotency::*;

const T0: Timestamp = Timestamp::from_millis(1_000_000);
const HOUR: Keep = Keep::For(Duration::from_secs(3600));
const DAY: Keep = Keep::For(Duration::from_secs(86_400));
const KEPT: Retention = Retention { answer: HOUR, tombstone: DAY };

fn at(seconds: u64) -> Timestamp {
    T0.saturating_add(Duration::from_secs(seconds))
}

fn prints(digest: u8) -> Fingerprint {
    super::prints([digest; 32])
}

fn claim() -> Record {
    Record { first_seen: T0, updated: T0, ..claimed() }
}

fn item(requested: u64, sent: u64) -> Record {
    let ledger = Ledger::new(requested).unwrap().claim(sent).unwrap();
    claim().with_ledger(ledger, KEPT, T0)
}

fn response() -> Arc<StoredResponse> {
    Arc::new(StoredResponse { status: 201, headers: Vec::new(), body: Bytes::from_static(b"{}") })
}

fn note(why: &str) -> Note {
    Note::new("ann".to_owned(), why.to_owned()).unwrap()
}

fn settle(record: &Record, how: &Settlement) -> Result<Record, SettlementError> {
    record.settled(how, note("looked"), KEPT, at(100))
}

fn every_settling() -> [Settlement; 3] {
    [Settlement::Executed(response()), Settlement::Issued(None), Settlement::NotExecuted]
}

#[test]
fn executed_is_final_from_the_settling_on_and_told_as_recovered_once() {
    let unknown = claim().lost(UnknownReason::Timeout, T0);
    let settled = settle(&unknown, &Settlement::Executed(response())).unwrap();
    assert_eq!((settled.version, settled.updated), (unknown.version + 1, at(100)));
    let State::Final { completed, expires, .. } = &settled.state else { panic!("{settled:?}") };
    assert_eq!((*completed, *expires), (at(100), Some(at(3700))));
    let recovered = |record: &Record| match decide(Some(record), &prints(1), at(101)) {
        Decision::Replay { response, recovered, .. } => (response.status, recovered),
        other => panic!("{other:?}"),
    };
    assert_eq!(recovered(&settled), (201, true));
    let reply = settled.settlement_reported();
    assert_eq!(recovered(&reply), (201, false));
    assert_eq!((reply.version, &reply.history), (settled.version + 1, &settled.history));
    let entry = &settled.history[0];
    assert_eq!((entry.at, entry.what, entry.attempt), (at(100), HistoryEvent::Executed, 1));
    assert_eq!((entry.note.by(), entry.note.why()), ("ann", "looked"));
}

#[test]
fn not_executed_frees_the_key_and_keeps_who_when_and_why() {
    let unknown = claim().lost(UnknownReason::Timeout, T0);
    let released = settle(&unknown, &Settlement::NotExecuted).unwrap();
    // Also for another request, and for ever after.
    for (digest, now) in [(1, at(101)), (9, at(101)), (9, at(1_000_000))] {
        let replacing = Some(released.version);
        assert_eq!(decide(Some(&released), &prints(digest), now), Decision::Forward { replacing });
    }
    assert!(!released.awaits(&[2; 16]) && !released.is_in_flight());
    assert_eq!(released.expired(at(86_499)), Expiry::Keep);
    assert_eq!(released.expired(at(86_500)), Expiry::Forget);

    let mut again = Record { fingerprint: prints(9), updated: at(200), ..claim() };
    again.renew(Some(&released), u64::MAX);
    assert!(again.version > released.version);
    assert_eq!((again.attempts, again.first_seen), (2, T0));
    assert_eq!(again.history, released.history);
    // What was never carried out either time frees the key again, with its history.
    let freed = again.freed(KEPT, at(300)).unwrap();
    assert_eq!((freed.expires(), freed.history), (Some(at(86_700)), released.history.clone()));
    assert!(matches!(freed.state, State::Released { .. }));
    assert_eq!(claim().freed(KEPT, at(300)), None);
}

#[test]
fn a_claim_takes_nothing_from_a_record_that_counts_as_absent() {
    let unknown = claim().lost(UnknownReason::Timeout, T0);
    let released = settle(&unknown, &Settlement::NotExecuted).unwrap();
    let tombstone = claim().completed(Answer::NotRetained { status: 200 }, KEPT, T0);
    let mut again = Record { updated: at(1_000_000), ..claim() };
    for before in [Some(&released), Some(&tombstone), None] {
        again.renew(before, 1 << 50);
        assert_eq!((again.attempts, again.first_seen), (1, at(1_000_000)));
        assert!(again.history.is_empty());
    }
    let mut one = claim();
    one.renew(Some(&released), 1 << 40);
    let mut other = claim();
    other.renew(Some(&released), 2 << 40);
    assert_ne!(one.version, other.version, "a withdrawal would take the other's claim");
}

#[test]
fn a_released_key_is_kept_as_long_as_an_answer_or_a_tombstone_would_be() {
    let unknown = claim().lost(UnknownReason::Timeout, T0);
    let expires = |answer, tombstone| {
        let kept = Retention { answer, tombstone };
        unknown.settled(&Settlement::NotExecuted, note(""), kept, T0).unwrap().expires()
    };
    assert_eq!(expires(HOUR, DAY), DAY.end(T0));
    assert_eq!(expires(DAY, Keep::For(Duration::ZERO)), DAY.end(T0));
    assert_eq!(expires(Keep::Forever, HOUR), None);
    assert_eq!(expires(HOUR, Keep::Forever), None);
}

#[test]
fn only_what_is_unknown_can_be_settled() {
    let unknown = claim().lost(UnknownReason::Timeout, T0);
    let known = unknown.completed(Answer::NotRetained { status: 200 }, KEPT, T0);
    let Expiry::Bury(tombstone) = known.expired(at(3600)) else { panic!("due") };
    let released = settle(&unknown, &Settlement::NotExecuted).unwrap();
    let turn = Record { state: State::SerializeLock, ..claim() };
    let done = settle(&item(2, 2).lost(UnknownReason::Timeout, T0), &Settlement::Issued(None));
    let table = [
        (claim(), SettlementError::InFlight),
        (turn, SettlementError::InFlight),
        (known, SettlementError::Known),
        (*tombstone, SettlementError::Known),
        (released, SettlementError::Known),
    ];
    for (record, error) in &table {
        for how in every_settling() {
            assert_eq!(settle(record, &how).unwrap_err(), *error, "{:?}", record.state);
        }
    }
    for (record, error) in
        [(item(2, 2), SettlementError::InFlight), (done.unwrap(), SettlementError::Known)]
    {
        assert_eq!(settle(&record, &Settlement::Issued(None)).unwrap_err(), error);
        assert_eq!(settle(&record, &Settlement::NotExecuted).unwrap_err(), error);
        let executed = Settlement::Executed(response());
        assert_eq!(settle(&record, &executed).unwrap_err(), SettlementError::Kind);
    }
    assert_eq!(settle(&unknown, &Settlement::Issued(None)).unwrap_err(), SettlementError::Kind);
}

#[test]
fn the_unknown_units_of_an_item_are_issued_or_missing() {
    let unknown = item(5, 3).lost(UnknownReason::Timeout, T0);
    let units = |how: &Settlement| {
        let settled = settle(&unknown, how).unwrap();
        let ledger = settled.ledger().unwrap();
        ledger.check().unwrap();
        assert!(!settled.awaits(&settled.attempt), "a late answer would undo the decision");
        (ledger.fulfilled, ledger.unknown, ledger.remaining(), settled.history[0].units)
    };
    assert_eq!(units(&Settlement::Issued(None)), (3, 0, 2, Some(3)));
    assert_eq!(units(&Settlement::Issued(Some(1))), (1, 0, 4, Some(1)));
    assert_eq!(units(&Settlement::NotExecuted), (0, 0, 5, None));
    for wrong in [0, 4, u64::MAX] {
        let error = SettlementError::Units { unknown: 3 };
        assert_eq!(settle(&unknown, &Settlement::Issued(Some(wrong))).unwrap_err(), error);
    }
    // Complete now: its retention begins.
    let complete = settle(&item(2, 2).lost(UnknownReason::Timeout, T0), &Settlement::Issued(None));
    assert_eq!(complete.unwrap().expires(), Some(at(3700)));
}

#[test]
fn a_purge_leaves_a_tombstone_until_the_record_would_have_been_forgotten() {
    let answered = claim().completed(Answer::Kept(response()), KEPT, T0);
    let purged = answered.purged(note(""), at(10)).unwrap().unwrap();
    let expires = Some(at(3600 + 86_400));
    assert_eq!(purged.state, State::Tombstone { status: 201, completed: T0, expires });
    assert_eq!(decide(Some(&purged), &prints(1), at(11)), Decision::Expired);
    assert!(matches!(decide(Some(&purged), &prints(2), at(11)), Decision::Reused { .. }));
    assert_eq!(purged.purged(note(""), at(20)), Ok(None), "it is gone already");
    let unknown = claim().lost(UnknownReason::Timeout, T0);
    let released = settle(&unknown, &Settlement::NotExecuted).unwrap();
    for (record, error) in [
        (claim(), SettlementError::InFlight),
        (unknown, SettlementError::Unknown),
        (released, SettlementError::NoAnswer),
        (item(2, 2), SettlementError::InFlight),
        (item(2, 2).lost(UnknownReason::Timeout, T0), SettlementError::Unknown),
    ] {
        assert_eq!(record.purged(note(""), at(10)), Err(error));
    }
}

#[test]
fn a_purged_item_keeps_its_quantities() {
    let issued = |units| ItemOutcome::Issued {
        units,
        appended: Vec::new(),
        row: Some("{\"code\":1}".into()),
        closed: false,
    };
    for (units, expires) in [(2, Some(at(3600 + 86_400))), (1, None)] {
        let ledger = item(2, 2).ledger().unwrap().complete(&issued(units)).unwrap();
        let record = item(2, 2).with_ledger(ledger, KEPT, T0);
        let purged = record.purged(note(""), at(10)).unwrap().unwrap();
        let ledger = purged.ledger().unwrap();
        assert_eq!((ledger.fulfilled, ledger.remaining(), &ledger.row), (units, 2 - units, &None));
        assert_eq!(purged.expires(), expires);
        assert_eq!(purged.purged(note(""), at(20)), Ok(None));
    }
}

#[test]
fn a_history_is_bounded_and_keeps_the_latest() {
    let mut record = claim().lost(UnknownReason::Timeout, T0);
    for round in 0..MAX_HISTORY + 3 {
        let note = note(&round.to_string());
        record = record.settled(&Settlement::NotExecuted, note, KEPT, at(1)).unwrap();
        record = record.lost(UnknownReason::Timeout, T0);
    }
    let why: Vec<&str> = record.history.iter().map(|entry| entry.note.why()).collect();
    assert_eq!((why.len(), why[0], why[MAX_HISTORY - 1]), (MAX_HISTORY, "3", "18"));
}

#[test]
fn notes_are_bounded_and_hold_no_control_characters() {
    let check = |by: &str, why: &str, wanted: Result<(), NoteError>| {
        let reply = Note::new(by.to_owned(), why.to_owned()).map(drop);
        assert_eq!(reply, wanted, "{by:?} {why:?}");
    };
    check("ann", "", Ok(()));
    check(&"é".repeat(MAX_BY), &"é".repeat(MAX_WHY), Ok(()));
    for by in ["", "  ", "a\nb", "a\u{7f}", &"x".repeat(MAX_BY + 1)] {
        check(by, "", Err(NoteError::By));
    }
    for why in ["a\tb", "a\0", "\u{85}", &"x".repeat(MAX_WHY + 1)] {
        check("ann", why, Err(NoteError::Why));
    }
}

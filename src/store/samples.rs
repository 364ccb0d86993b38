//! Records and reproducible random numbers for tests.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::clock::Timestamp;
use crate::idempotency::fingerprint::{Fingerprint, MemberDigest, RuleId};
use crate::idempotency::history::{HistoryEntry, HistoryEvent, MAX_HISTORY, Note};
use crate::idempotency::ledger::{Doubt, Envelope, ItemOutcome, KeptRow, Ledger, OutcomeList};
use crate::idempotency::outcome::UnknownReason;
use crate::idempotency::record::StoredResponse;
use crate::idempotency::retention::{Keep, Retention};
use crate::idempotency::settle::Settlement;
use crate::idempotency::settling::{KeptValue, Schedule, Settling, Sightings};
use crate::idempotency::{Answer, Record, RecordId, State, TenantId};
use crate::store::ListPosition;

/// The time at which samples are claimed.
pub(crate) const T0: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// An id, sorted by `n`.
pub(crate) fn id(n: u64) -> RecordId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    // The rest is as different as in a digest.
    bytes[8..].copy_from_slice(&Random::seeded(n).next().to_be_bytes());
    RecordId::from_bytes(bytes)
}

/// ListPosition of the sample with an id.
pub(crate) fn at(n: u64) -> ListPosition {
    ListPosition { first_seen: T0, id: id(n) }
}

/// A claim in flight, version 1.
pub(crate) fn claim(n: u64) -> Record {
    let member = |name: &str| MemberDigest { name: name.into(), digest: [n as u8; 4] };
    Record {
        version: 1,
        tenant: TenantId::from_bytes([1; 16]),
        caller: None,
        route: "redeem".into(),
        key: format!("key-{n}").into(),
        subject: None,
        fingerprint: Fingerprint {
            digest: [n as u8; 32],
            verbatim: [n as u8 ^ 0x40; 32],
            rule: RuleId::from_bytes([5; 8]),
            members: vec![member("qr"), member("outlet")].into(),
        },
        first_seen: T0,
        updated: T0,
        attempts: 1,
        attempt: [2; 16],
        owner: [3; 16],
        state: State::InFlight,
        settlement_unreported: false,
        history: Vec::new(),
        settling: None,
    }
}

/// Retention of a sample.
pub(crate) fn kept_for(answer: Keep, tombstone: Keep) -> Retention {
    Retention { answer, tombstone }
}

/// A final record, version 2, with a body of `size` bytes, kept for an hour and buried for another.
pub(crate) fn kept(n: u64, size: usize) -> Record {
    let hour = Keep::For(Duration::from_secs(3600));
    claim(n).completed(answer(size), kept_for(hour, hour), T0)
}

/// An answer with a body of `size` bytes.
pub(crate) fn answer(size: usize) -> Answer {
    let header = |name: &'static str, value: &[u8]| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
    };
    Answer::Kept(Arc::new(StoredResponse {
        status: 201,
        headers: vec![
            header("content-type", b"application/json"),
            header("date", b"Tue, 14 Nov 2023 22:13:20 GMT"),
            header("x-odd", b"\xff\xfe"),
        ],
        body: vec![b'b'; size].into(),
    }))
}

/// A record in each state.
pub(crate) fn every_state() -> Vec<Record> {
    let forever = kept_for(Keep::Forever, Keep::Forever);
    let brief = kept_for(Keep::For(Duration::from_millis(5)), Keep::For(Duration::new(9, 7)));
    let mut with_subject = kept(9, 10);
    with_subject.subject = Some([9; 16]);
    let mut records = vec![
        claim(1),
        kept(2, 0),
        kept(3, 600),
        with_subject,
        claim(4).completed(answer(70_000), forever, T0),
        claim(5).completed(Answer::NotRetained { status: 200 }, brief, T0),
    ];
    let reasons = [
        UnknownReason::Status(503),
        UnknownReason::Timeout,
        UnknownReason::ConnectionLost,
        UnknownReason::Truncated,
        UnknownReason::Upgraded,
        UnknownReason::ProcessEnded,
        UnknownReason::NotRecorded,
        UnknownReason::BadResponse,
        UnknownReason::Pending(202),
        UnknownReason::AlreadyDone(402),
    ];
    records.extend(reasons.map(|reason| claim(6).lost(reason, T0)));
    for expires in [None, Some(T0), Some(Timestamp::from_millis(u64::MAX))] {
        let state = State::Tombstone { status: 204, completed: T0, expires };
        records.push(Record { state, ..claim(7) });
    }
    records.push(Record { state: State::SerializeLock, ..claim(9) });
    records.extend(items());
    records.extend(settled());
    records.extend(settling());
    records
}

/// Records with data for a settlement: claimed, lost, pending, and an open item.
pub(crate) fn settling() -> Vec<Record> {
    let value = |name: &str, json: &str| KeptValue { name: name.into(), json: json.into() };
    let values = vec![value("/metadata", "\"receipt:1\""), value("path:code", "\"A\"")];
    let claim = Record { settling: Some(Box::new(Settling::new(T0, values))), ..claim(13) };
    let Answer::Kept(response) = answer(20) else { unreachable!("samples are kept") };
    let mut busy = claim.lost(UnknownReason::Timeout, T0);
    let step =
        |what, times| HistoryEntry { at: T0, what, times, attempt: 1, units: None, note: note() };
    busy.history = vec![
        step(HistoryEvent::Probe, 300),
        step(HistoryEvent::Resend, 1),
        step(HistoryEvent::Reversal, 2),
        step(HistoryEvent::Contradiction, 1),
        step(HistoryEvent::Reopened, 1),
    ];
    if let Some(settling) = &mut busy.settling {
        settling.schedule = Schedule {
            next: Some(T0),
            last: Some(T0),
            running: true,
            tries: 3,
            absent: Some(Sightings { count: 2, last: T0 }),
            resent: 1,
            reversing: true,
            gave_up: true,
            several: true,
        };
    }
    let pending = claim.lost_with(UnknownReason::Pending(202), Some(response), T0);
    let mut item = items().swap_remove(2);
    item.settling.clone_from(&claim.settling);
    vec![claim, busy, pending, item]
}

/// Records of items: fresh, in flight, unknown, partial, complete, closed, and with its rows gone.
pub(crate) fn items() -> Vec<Record> {
    let hour = Keep::For(Duration::from_secs(3600));
    let kept = kept_for(hour, hour);
    let fresh = Ledger::new(3).expect("units");
    let flying = fresh.claim(3).expect("free");
    let rows = |units: u64, closed| ItemOutcome::Issued {
        units,
        appended: vec![OutcomeList {
            at: "/vendor".to_owned(),
            elements: (0..units).map(|unit| unit.to_string()).collect(),
        }],
        row: Some("{\"vendor\":[]}".into()),
        closed,
    };
    let partial = flying.complete(&rows(2, false)).expect("in flight");
    let again = partial.claim(1).expect("free");
    let lost = again.lose(UnknownReason::Status(503)).expect("in flight");
    let unknown = ItemOutcome::Unknown { doubt: Doubt::Declared, row: Some("{}".to_owned()) };
    let said = again.complete(&unknown).expect("in flight");
    let complete = again.complete(&rows(1, false)).expect("in flight");
    let closed = again.complete(&rows(0, true)).expect("in flight");
    let envelope = Envelope {
        at: T0,
        status: 207,
        body: "{\"ok\":true,\"rows\":[]}".to_owned(),
        headers: vec![("x-trace".to_owned(), b"caf\xe9".to_vec()), ("x-empty".to_owned(), vec![])],
    };
    let enveloped = Ledger { envelope: Some(envelope.into()), ..complete.clone() };
    let placed = |array: Option<&str>, group: Option<&str>| Ledger {
        row: Some(KeptRow {
            text: "{}".to_owned(),
            array: array.map(str::to_owned),
            group: group.map(str::to_owned),
        }),
        ..complete.clone()
    };
    let failed = placed(Some("/failed"), None);
    let grouped = placed(None, Some("{\"lines\":[]}"));
    let states = [
        &flying, &partial, &again, &lost, &said, &complete, &closed, &enveloped, &failed, &grouped,
    ];
    let mut records: Vec<Record> =
        states.into_iter().map(|ledger| claim(8).with_ledger(ledger.clone(), kept, T0)).collect();
    let forever = kept_for(Keep::Forever, Keep::Forever);
    records.push(claim(8).with_ledger(complete.clone(), forever, T0));
    let ledger = Box::new(complete.bare());
    let state = State::Item { ledger, expires: Some(T0), tombstone: None };
    records.push(Record { state, ..claim(8) });
    records
}

/// A note of a settlement.
pub(crate) fn note() -> Note {
    Note::new("ann".to_owned(), "the books have it \u{2713}".to_owned()).expect("a note")
}

/// Records that operators have decided about: executed and not yet told, told, purged, released for
/// a time and for ever, claimed again, with a history that is full, and items.
pub(crate) fn settled() -> Vec<Record> {
    let hour = Keep::For(Duration::from_secs(3600));
    let (kept, forever) = (kept_for(hour, hour), kept_for(Keep::Forever, hour));
    let unknown = claim(10).lost(UnknownReason::Timeout, T0);
    let Answer::Kept(response) = answer(20) else { unreachable!("samples are kept") };
    let settle = |record: &Record, how: Settlement, retention| {
        record.settled(&how, note(), retention, T0).expect("unknown")
    };
    let executed = settle(&unknown, Settlement::Executed(response), kept);
    let reply = executed.settlement_reported();
    let purged = reply.purged(note(), T0).expect("final").expect("an answer");
    let released = settle(&unknown, Settlement::NotExecuted, kept);
    let mut again = claim(11);
    again.renew(Some(&released), 5);
    let mut full = unknown.clone();
    for _ in 0..MAX_HISTORY {
        full = settle(&full, Settlement::NotExecuted, kept).lost(UnknownReason::Timeout, T0);
    }
    let ledger = Ledger::new(3).and_then(|ledger| ledger.claim(3)).expect("units");
    let item = claim(12).with_ledger(ledger, kept, T0).lost(UnknownReason::Truncated, T0);
    let issued = settle(&item, Settlement::Issued(Some(2)), kept);
    let missing = settle(&item, Settlement::NotExecuted, kept);
    let for_ever = settle(&unknown, Settlement::NotExecuted, forever);
    vec![executed, reply, purged, released, for_ever, again, full, issued, missing]
}

/// Random numbers from a seed that is printed, and taken from `ONCEGATE_TEST_SEED` when set.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        let given = std::env::var("ONCEGATE_TEST_SEED").ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| crate::clock::now().as_millis());
        println!("ONCEGATE_TEST_SEED={seed}");
        Self(seed)
    }

    /// From this seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (SplitMix64).
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

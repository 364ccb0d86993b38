//! A store that fails at the worst moments: whatever it does, nothing is sent without a claim,
//! nothing is sent twice, and nothing stays in flight.

mod house;
mod sealed;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::ledger::as_reported;
use crate::clock::Timestamp;
use crate::idempotency::ledger::{ItemOutcome, Ledger, OutcomeList};
use crate::idempotency::retention::Keep;
use crate::store::samples::{T0, claim, kept_for};
use crate::store::{Query, Store as _};
use house::{Act, House, WAIT_LIMIT};

/// More refusals than a test has time for.
const STAYS_AWAY: [Act; 1000] = [Act::Refused; 1000];

#[tokio::test]
async fn a_claim_that_is_not_made_sends_nothing_and_leaves_nothing() {
    let house = House::start().await;
    house.acts(&[Act::Refused]);
    house.send("+65", &["a", "b"]).await.is(503, "rejected", "store-unavailable");
    assert_eq!(house.calls(), 0);
    assert_eq!(house.settled(&["a", "b"]).await, [None, None]);
    house.send("+65", &["a", "b"]).await.is(200, "executed", "");
    assert_eq!(house.calls(), 1);
}

#[tokio::test]
async fn a_claim_that_is_made_and_not_confirmed_sends_nothing_and_is_taken_back() {
    let house = House::start().await;
    house.send("+65", &["old"]).await.is(200, "executed", "");
    house.acts(&[Act::Unconfirmed]);
    house.send("+65", &["a", "old", "b"]).await.is(503, "rejected", "store-unavailable");
    assert_eq!(house.calls(), 1, "nothing was sent");
    assert_eq!(house.settled(&["a", "old", "b"]).await, [None, Some((1, 0)), None]);
    house.send("+65", &["a", "old", "b"]).await.is(200, "executed", "");
    assert_eq!(house.calls(), 2);
}

#[tokio::test]
async fn a_claim_that_cannot_even_be_taken_back_is_unknown_after_a_restart() {
    let house = House::start().await;
    house.acts(&[Act::Unconfirmed]);
    house.acts(&STAYS_AWAY);
    house.send("+65", &["a", "b"]).await.is(503, "rejected", "store-unavailable");
    let house = house.restarted().await;
    assert_eq!(house.settled(&["a", "b"]).await, [Some((0, 1)), Some((0, 1))]);
    house.send("+65", &["a", "b"]).await.is(409, "unknown", "outcome-unknown");
    assert_eq!(house.calls(), 0);
    // The customer's other items are not held up.
    house.send("+65", &["a", "c"]).await.is(409, "unknown", "outcome-unknown");
    assert_eq!(house.settled(&["a", "c"]).await, [Some((0, 1)), Some((1, 0))]);
    assert_eq!(house.calls(), 1);
}

#[tokio::test]
async fn a_panic_after_the_claim_leaves_its_items_unknown_and_nothing_held() {
    let house = House::start().await;
    house.acts(&[Act::Honest, Act::Panic]);
    house.send("+65", &["a", "b"]).await.is(502, "unknown", "outcome-unknown");
    assert_eq!(house.calls(), 1);
    assert_eq!(house.settled(&["a", "b"]).await, [Some((0, 1)), Some((0, 1))]);
    house.send("+65", &["a", "b"]).await.is(409, "unknown", "outcome-unknown");
    assert_eq!(house.calls(), 1, "what is unknown is not sent again");
    // Neither the customer nor the place among the claims is taken any more.
    house.send("+65", &["c"]).await.is(200, "executed", "");
    let house = house.restarted().await;
    house.send("+65", &["a", "b"]).await.is(409, "unknown", "outcome-unknown");
    house.send("+65", &["c"]).await.is(200, "replayed", "");
    assert_eq!(house.calls(), 2);
}

#[tokio::test]
async fn an_outcome_that_is_not_recorded_is_told_and_recorded_when_the_store_is_back() {
    let house = House::start().await;
    house.acts(&[Act::Honest, Act::Refused, Act::Refused]);
    let reported = house.send("+65", &["a", "b"]).await;
    reported.is(200, "unrecorded", "");
    assert_eq!(
        reported.body.matches("\"code\":200").count(),
        3,
        "the merged answer: {}",
        reported.body
    );
    assert_eq!(house.settled(&["a", "b"]).await, [Some((1, 0)), Some((1, 0))]);
    house.send("+65", &["a", "b"]).await.is(200, "replayed", "");
    assert_eq!(house.calls(), 1);
}

#[tokio::test]
async fn an_outcome_that_is_never_recorded_is_unknown_after_a_restart() {
    let house = House::start().await;
    house.acts(&[Act::Honest]);
    house.acts(&STAYS_AWAY);
    house.send("+65", &["a", "b"]).await.is(200, "unrecorded", "");
    let house = house.restarted().await;
    assert_eq!(house.settled(&["a", "b"]).await, [Some((0, 1)), Some((0, 1))]);
    house.send("+65", &["a", "b"]).await.is(409, "unknown", "outcome-unknown");
    assert_eq!(house.calls(), 1);
}

#[tokio::test]
async fn an_outcome_that_is_recorded_and_not_confirmed_is_not_overwritten() {
    let house = House::start().await;
    house.acts(&[Act::Honest, Act::Unconfirmed]);
    house.send("+65", &["a"]).await.is(200, "unrecorded", "");
    let house = house.restarted().await;
    assert_eq!(house.settled(&["a"]).await, [Some((1, 0))]);
    house.send("+65", &["a"]).await.is(200, "replayed", "");
    assert_eq!(house.calls(), 1);
}

#[tokio::test]
async fn an_outcome_is_not_given_up_because_its_records_cannot_be_read_for_a_moment() {
    let house = House::start().await;
    house.acts(&[Act::Honest, Act::Overtaken]);
    house.send("+65", &["a", "b"]).await.is(200, "unrecorded", "");
    let recorded = async {
        while house.settled(&["a", "b"]).await != [Some((1, 0)), Some((1, 0))] {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(WAIT_LIMIT, recorded).await.expect("what the answer said is recorded");
    house.send("+65", &["a", "b"]).await.is(200, "replayed", "");
    assert_eq!(house.calls(), 1);
}

#[tokio::test]
async fn whose_lease_ends_before_the_request_could_be_sent_sends_nothing() {
    let house = House::start().await;
    // It is looked at before the claim, after it, and when there is a connection.
    for (looks, status, disposition, error) in [
        (1, 503, "rejected", "store-unavailable"),
        (2, 502, "not-executed", "upstream-unreachable"),
    ] {
        house.lease_ends_after(looks);
        house.send("+65", &["a"]).await.is(status, disposition, error);
        assert_eq!(house.calls(), 0);
        assert_eq!(house.settled(&["a"]).await, [None]);
    }
    house.lease_ends_after(3);
    house.send("+65", &["a"]).await.is(200, "executed", "");
    // Over the connection that is there now.
    house.lease_ends_after(2);
    house.send("+65", &["b"]).await.is(502, "not-executed", "upstream-unreachable");
    house.send("+65", &["b"]).await.is(200, "executed", "");
    assert_eq!(house.calls(), 2);
}

#[tokio::test]
async fn a_claim_of_a_changed_item_that_is_not_confirmed_sends_nothing() {
    let house = House::start().await;
    // The customer is a shared member: another one makes another item.
    house.send("+65", &["sold-out"]).await.is(200, "executed", "");
    assert_eq!(house.settled(&["sold-out"]).await, [Some((0, 0))]);
    // The first swap of a batch is one for new items, and loses.
    for (act, left) in [(Act::Refused, Some((0, 0))), (Act::Unconfirmed, None)] {
        house.acts(&[Act::Honest, act]);
        let reported = house.send("+66", &["sold-out"]).await;
        reported.is(503, "rejected", "store-unavailable");
        assert_eq!(house.calls(), 1, "nothing was sent");
        assert_eq!(house.settled(&["sold-out"]).await, [left], "{act:?}");
    }
    house.send("+66", &["sold-out"]).await.is(200, "executed", "");
    assert_eq!(house.settled(&["sold-out"]).await, [Some((0, 0))]);
    // Once its outcome is unknown, the item stays as it is.
    house.acts(&[Act::Honest, Act::Honest, Act::Panic]);
    house.send("+67", &["sold-out"]).await.is(502, "unknown", "outcome-unknown");
    assert_eq!(house.settled(&["sold-out"]).await, [Some((0, 1))]);
    house.send("+66", &["sold-out"]).await.is(422, "rejected", "key-reused");
    house.send("+67", &["sold-out"]).await.is(409, "unknown", "outcome-unknown");
    assert_eq!(house.calls(), 3);
}

#[tokio::test]
async fn the_items_of_a_batch_are_found_by_its_subject() {
    let house = House::start().await;
    house.send("+65", &["a", "b"]).await.is(200, "executed", "");
    house.send("+66", &["c"]).await.is(200, "executed", "");
    // One that stays unknown.
    house.acts(&[Act::Honest, Act::Panic]);
    house.send("+65", &["d"]).await.is(502, "unknown", "outcome-unknown");
    house.settled(&["d"]).await;
    let found = async |customer: &str, open: bool| {
        let subject = Some(crate::idempotency::id::subject_digest(customer));
        let query = Query { subject, open, limit: 10, ..Query::default() };
        let page = house.store.list(query).await.unwrap();
        let mut keys: Vec<String> =
            page.into_iter().map(|(_, record)| record.key.to_string()).collect();
        keys.sort_unstable();
        keys
    };
    assert_eq!(found("+65", false).await, ["a", "b", "d"]);
    assert_eq!(found("+65", true).await, ["d"]);
    assert_eq!(found("+66", false).await, ["c"]);
    assert_eq!(found("+67", false).await, [""; 0]);
}

#[tokio::test]
async fn the_answer_of_a_done_batch_is_its_callers_alone_and_ends_with_its_records() {
    let house = House::start().await;
    house.send("+65", &["a", "b"]).await.is(200, "executed", "");
    let reported = house.send("+65", &["a", "b"]).await;
    reported.is(200, "replayed", "");
    let again = house.send("+65", &["a", "b"]).await;
    again.is(200, "replayed", "");
    assert_eq!(again.body, reported.body);
    // The same bytes from somebody else, or about something else, are another batch.
    house.send_as("other till", "/issue", "+65", &["a", "b"]).await.is(200, "executed", "");
    house.send_as("till", "/brief/1", "+65", &["a", "b"]).await.is(200, "executed", "");
    let other_shop = house.send_as("till", "/brief/2", "+65", &["a", "b"]).await;
    assert_ne!(other_shop.disposition, "replayed", "{other_shop:?}");
    // The periods of its records end while it is asked for again and again.
    let calls = house.calls();
    let runs_twice = async {
        while house.calls() < calls + 2 {
            let reported = house.send_as("till", "/brief/3", "+65", &["c"]).await;
            assert_eq!(reported.status, 200, "{reported:?}");
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(WAIT_LIMIT, runs_twice).await.expect("the id is new in the end");
}

#[test]
fn what_has_expired_is_told_as_it_will_be_kept_before_the_sweeper_has_been_there() {
    let hour = Keep::For(Duration::from_secs(3600));
    let retention = kept_for(hour, hour);
    let issued = ItemOutcome::Issued {
        units: 1,
        appended: vec![OutcomeList { at: "/codes".to_owned(), elements: vec!["1".to_owned()] }],
        row: Some("{}".into()),
        closed: false,
    };
    let ledger = Ledger::new(1).unwrap().claim(1).unwrap().conclude(&issued).unwrap();
    let record = Arc::new(claim(1).with_ledger(ledger, retention, T0));
    let records = vec![Some(record.clone()), None];
    let end = record.expires().unwrap();
    let before = as_reported(&records, Timestamp::from_millis(end.as_millis() - 1).into());
    assert_eq!(*before, records);
    let after = as_reported(&records, end.into());
    let reported = after[0].as_deref().unwrap();
    assert_eq!(reported.expires(), hour.end(end));
    let ledger = reported.ledger().unwrap();
    assert_eq!((ledger.fulfilled, ledger.outcomes.len(), &ledger.row), (1, 0, &None));
    assert_eq!(after[1], None);
}

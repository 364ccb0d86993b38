//! What backends are known to answer, and what must be made of it.

use super::*;

/// What became of an item: units issued and whether it is closed, or why nobody knows.
type Fate = Result<(u64, bool), Doubt>;

fn fates(joined: &BatchOutcome) -> Vec<Option<Fate>> {
    let fate = |outcome: &ItemOutcome| match outcome {
        ItemOutcome::Issued { units, closed, .. } => Ok((*units, *closed)),
        ItemOutcome::Unknown { doubt, .. } => Err(*doubt),
    };
    joined.outcomes.iter().map(|outcome| outcome.as_ref().map(fate)).collect()
}

/// Two of reward 1 as `a`, two of reward 2 as `b`.
const TWO: &str = r#"{"rewards":[{"requestId":"a","rewardId":1,"quantity":2},{"requestId":"b","rewardId":"2","quantity":2}]}"#;
/// Two of reward 1 twice.
const ALIKE: &str = r#"{"rewards":[{"requestId":"a","rewardId":1,"quantity":2},{"requestId":"b","rewardId":1,"quantity":2}]}"#;

#[track_caller]
fn check_with(mode: &ItemsMode, body: &str, status: u16, answer: &str, expected: &[Fate]) {
    let call = Books::default().claim(mode, body).unwrap();
    let response =
        BackendResponse { status, headers: HeaderView::Lines(&[]), body: answer.as_bytes() };
    let joined = join(&mode.rules, &mode.outcome, &call.batch, &call.plan, &response);
    let expected: Vec<Option<Fate>> = expected.iter().copied().map(Some).collect();
    assert_eq!(fates(&joined), expected, "{answer}");
}

#[track_caller]
fn check(body: &str, status: u16, answer: &str, expected: &[Fate]) {
    check_with(&capillary(), body, status, answer, expected);
}

/// Checks one row for an item of two units.
#[track_caller]
fn check_row(row: &str, expected: Fate) {
    let body = r#"{"rewards":[{"requestId":"a","rewardId":1,"quantity":2}]}"#;
    check(body, 200, &format!(r#"{{"rewards":[{{"requestId":"a",{row}}}]}}"#), &[expected]);
}

fn issued(units: u64) -> Fate {
    Ok((units, false))
}

#[test]
fn a_partial_issue_counts_under_any_status_and_whatever_the_top_says() {
    let answer = r#"{"status":{"success":true,"code":200},"rewards":[{"status":{"success":false,"code":8010},"requestId":"a","quantity":"1"},{"status":{"success":true,"code":200},"requestId":"b","quantity":2}]}"#;
    for status in [200, 400, 500, 503] {
        check(TWO, status, answer, &[issued(1), issued(2)]);
        check(TWO, status, &answer.replacen("true", "false", 1), &[issued(1), issued(2)]);
    }
}

#[test]
fn counts_may_be_strings_and_arrays_null() {
    check_row(r#""quantity":"2","intouch":null,"vendor":null"#, issued(2));
    check_row(r#""quantity":"2.00""#, issued(2));
    check_row(r#""quantity":0,"intouch":[],"vendor":null"#, issued(0));
    check_row(r#""quantity":null,"intouch":[{}],"vendor":[{}]"#, issued(2));
    check_row(r#""quantity":2,"intouch":[{}],"vendor":[],"promotions":[{}]"#, issued(2));
}

#[test]
fn a_count_that_cannot_be_or_differs_is_unknown() {
    for count in ["-1", "1.5", "\"x\"", "\"\"", "true", "[]", "1e1", "99999999999999999999999"] {
        check_row(&format!("\"quantity\":{count}"), Err(Doubt::Contradicting));
    }
    check_row(r#""quantity":2,"intouch":[{}]"#, Err(Doubt::Contradicting));
    check_row(r#""quantity":1,"intouch":[]"#, Err(Doubt::Contradicting));
    check_row(r#""quantity":1,"intouch":{}"#, Err(Doubt::Contradicting));
    check_row(r#""quantity":3"#, Err(Doubt::OverIssued));
    check_row(r#""intouch":[1,2,3]"#, Err(Doubt::OverIssued));
    check_row(r#""status":{"success":true,"code":200}"#, Err(Doubt::CountMissing));
}

#[test]
fn coupons_weigh_more_than_a_failure_and_a_failure_more_than_a_bare_count() {
    check_row(r#""status":{"success":false,"code":8003},"quantity":"1","intouch":[{}]"#, issued(1));
    check_row(r#""status":{"success":false},"intouch":[{},{}]"#, issued(2));
    check_row(r#""status":{"code":8003},"quantity":2"#, Err(Doubt::Contradicting));
    check_row(r#""status":{"code":8003},"quantity":2,"intouch":[]"#, Err(Doubt::Contradicting));
}

#[test]
fn codes_decide_where_nothing_is_counted() {
    for code in ["8003", "\"8004\"", "12005", "10004"] {
        check_row(&format!(r#""status":{{"code":{code}}},"quantity":null"#), issued(0));
    }
    check_row(r#""status":{"code":"1010"},"quantity":0"#, Err(Doubt::Declared));
    check_row(r#""status":{"code":1010},"quantity":1,"intouch":[1]"#, Err(Doubt::Declared));
    check_row(r#""status":{"code":7777}"#, Err(Doubt::CountMissing));
}

#[test]
fn a_final_code_closes_an_item() {
    let mut mode = capillary();
    mode.rules.response.finals = mode.rules.response.retry.clone();
    let body = r#"{"rewards":[{"requestId":"a","quantity":2}]}"#;
    let answer =
        r#"{"rewards":[{"requestId":"a","status":{"code":12005},"quantity":1,"intouch":[1]}]}"#;
    check_with(&mode, body, 200, answer, &[Ok((1, true))]);
    let mut books = Books::default();
    let call = books.claim(&mode, body).unwrap();
    books.complete(&mode, &call, 200, answer);
    let call = books.claim(&mode, body).unwrap();
    assert_eq!(call.upstream, None);
    assert_eq!(books.replay(&mode, &call).fulfillment, rules::Fulfillment::Partial);
}

#[test]
fn an_answer_without_rows_is_a_refusal_only_where_its_status_may_be_believed() {
    let none = [issued(0), issued(0)];
    let refusal = r#"{"status":{"success":false,"code":8003},"rewards":null}"#;
    check(TWO, 200, refusal, &none);
    check(TWO, 400, r#"{"error":"no such customer"}"#, &none);
    check(TWO, 401, "who are you?", &none);
    check(TWO, 429, "", &none);
    let status = |status| {
        let doubt = Doubt::Lost(crate::idempotency::outcome::UnknownReason::Status(status));
        [Err(doubt), Err(doubt)]
    };
    for code in [500, 502, 503, 504, 408, 409] {
        check(TWO, code, refusal, &status(code));
        check(TWO, code, r#"{"message":"Endpoint request timed out"}"#, &status(code));
    }
    let unreadable = [Err(Doubt::Unreadable), Err(Doubt::Unreadable)];
    for answer in [
        "",
        "<html>",
        "null",
        "[]x",
        r#""ok""#,
        r#"{"rewards":{}}"#,
        r#"{"rewards":"2"}"#,
        r#"{"status":{"success":true},"rewards":null}"#,
        r#"{"status":{"code":1010},"rewards":null}"#,
        r#"{"rewards":null,"rewards":null}"#,
    ] {
        check(TWO, 200, answer, &unreadable);
    }
    check(TWO, 200, r#"{"rewards":[]}"#, &[Err(Doubt::Missing), Err(Doubt::Missing)]);
}

#[test]
fn rows_find_their_items_by_id_in_any_order() {
    check(
        TWO,
        200,
        r#"{"rewards":[{"requestId":"b","quantity":2},{"requestId":"a","quantity":1}]}"#,
        &[issued(1), issued(2)],
    );
    // Another rewardId in the row does not matter: the id is the item's.
    check(
        TWO,
        200,
        r#"{"rewards":[{"requestId":"b","rewardId":1,"quantity":2},{"requestId":"a","rewardId":9,"quantity":1}]}"#,
        &[issued(1), issued(2)],
    );
    check(
        TWO,
        200,
        r#"{"rewards":[{"requestId":"a","quantity":1}]}"#,
        &[issued(1), Err(Doubt::Missing)],
    );
    check(
        TWO,
        200,
        r#"{"rewards":[{"requestId":"a","quantity":1},{"requestId":"a","quantity":1}]}"#,
        &[Err(Doubt::Duplicated), Err(Doubt::Missing)],
    );
    // A row of nobody: what has its own id stands, the rest does not.
    check(
        TWO,
        200,
        r#"{"rewards":[{"requestId":"a","quantity":1},{"requestId":"x","quantity":1}]}"#,
        &[issued(1), Err(Doubt::Missing)],
    );
    check(
        TWO,
        200,
        r#"{"rewards":[{"requestId":"x","quantity":1},{"rewardId":2,"quantity":1}]}"#,
        &[Err(Doubt::Missing), Err(Doubt::Missing)],
    );
}

#[test]
fn rows_without_ids_are_told_by_a_member_or_by_their_place() {
    check(
        TWO,
        200,
        r#"{"rewards":[{"rewardId":2,"quantity":2},{"rewardId":"1","quantity":1}]}"#,
        &[issued(1), issued(2)],
    );
    check(
        TWO,
        200,
        r#"{"rewards":[{"rewardId":2,"quantity":2}]}"#,
        &[Err(Doubt::Missing), issued(2)],
    );
    check(
        ALIKE,
        200,
        r#"{"rewards":[{"rewardId":1,"quantity":1},{"rewardId":1,"quantity":2}]}"#,
        &[issued(1), issued(2)],
    );
    check(
        ALIKE,
        200,
        r#"{"rewards":[{"rewardId":1,"quantity":1}]}"#,
        &[Err(Doubt::Missing), Err(Doubt::Missing)],
    );
    check(
        ALIKE,
        200,
        r#"{"rewards":[{"requestId":null,"quantity":1},{"requestId":"b","quantity":2}]}"#,
        &[issued(1), issued(2)],
    );
    // At its place stands an item of another reward.
    check(
        ALIKE,
        200,
        r#"{"rewards":[{"rewardId":1,"quantity":1},{"rewardId":7,"quantity":2}]}"#,
        &[issued(1), Err(Doubt::Missing)],
    );
    check(
        TWO,
        200,
        r#"{"rewards":[null,{"requestId":"b","quantity":0}]}"#,
        &[Err(Doubt::CountMissing), issued(0)],
    );
}

#[test]
fn places_are_counted_in_what_was_sent() {
    let mode = currency();
    let body =
        r#"[{"uniqueId":"a","value":1},{"uniqueId":"b","value":2},{"uniqueId":"c","value":3}]"#;
    let mut books = Books::default();
    let call = books.claim(&mode, body).unwrap();
    let answer =
        r#"{"data":[{"status":"SUCCESS","n":1},{"status":"FAILED"},{"status":"REJECTED"}]}"#;
    let (joined, answer) = books.complete(&mode, &call, 200, answer);
    assert_eq!(fates(&joined), [Some(issued(1)), Some(issued(0)), Some(issued(0))]);
    assert_eq!(
        text(&answer),
        r#"{"data":[{"status":"SUCCESS","n":1},{"status":"FAILED"},{"status":"REJECTED"}]}"#
    );
    let call = books.claim(&mode, body).unwrap();
    assert_eq!(
        call.upstream.as_deref(),
        Some(r#"[{"uniqueId":"b","value":2},{"uniqueId":"c","value":3}]"#)
    );
    let answer = r#"{"data":[{"status":"PENDING"},{"status":"SUCCESS","n":3}]}"#;
    let (joined, answer) = books.complete(&mode, &call, 200, answer);
    assert_eq!(fates(&joined), [None, Some(Err(Doubt::CountMissing)), Some(issued(1))]);
    assert_eq!(
        (answer.status, text(&answer)),
        (
            409,
            r#"{"data":[{"status":"SUCCESS","n":1},{"status":"UNKNOWN"},{"status":"SUCCESS","n":3}]}"#
        )
    );
    check_with(&mode, body, 200, r#"{"data":[{"status":"SUCCESS"}]}"#, &[Err(Doubt::Missing); 3]);
}

#[test]
fn what_is_indivisible_is_all_or_nothing() {
    let body = r#"{"rewards":[{"requestId":"a","quantity":5,"indivisible":true}]}"#;
    let answer = |units: u64| format!(r#"{{"rewards":[{{"requestId":"a","quantity":{units}}}]}}"#);
    for (units, fate) in [(0, issued(0)), (5, issued(5)), (3, Err(Doubt::Divided))] {
        check(body, 200, &answer(units), &[fate]);
    }
    let (mode, mut books) = (capillary(), Books::default());
    let call = books.claim(&mode, body).unwrap();
    books.complete(&mode, &call, 200, &answer(0));
    let call = books.claim(&mode, body).unwrap();
    assert_eq!(call.upstream.as_deref(), Some(body));
    books.lose(&call);
    let entry = books.entries.get_mut("a").unwrap();
    let found = ItemOutcome::Issued { units: 2, appended: Vec::new(), row: None, closed: false };
    entry.1 = entry.1.settle(&found).unwrap();
    assert_eq!(books.claim(&mode, body).unwrap().upstream, None);
}

#[test]
fn one_item_is_one_row() {
    let (mode, mut books) = (single(), Books::default());
    let body = r#"{"requestId":"a","rewardId":1,"quantity":2,"mobile":"1"}"#;
    let call = books.claim(&mode, body).unwrap();
    assert_eq!(call.upstream.as_deref(), Some(body));
    let row = r#"{"status":{"success":true,"code":200},"rewardId":1,"requestedQuantity":"2","quantity":"1","intouch":[{"c":1.10}]}"#;
    let (_, answer) = books.complete(&mode, &call, 200, row);
    assert_eq!(
        text(&answer),
        r#"{"status":{"success":false,"code":8010,"message":"Reward issued partially"},"rewardId":1,"requestedQuantity":"2","quantity":"1","intouch":[{"c":1.10}]}"#
    );
    let call = books.claim(&mode, body).unwrap();
    assert_eq!(call.upstream, Some(body.replace("\"quantity\":2", "\"quantity\":1")));
    books.complete(&mode, &call, 200, &row.replace("\"2\"", "\"1\""));
    let call = books.claim(&mode, body).unwrap();
    assert_eq!(call.upstream, None);
    assert_eq!(
        text(&books.replay(&mode, &call)),
        r#"{"status":{"success":true,"code":200,"message":"Reward issued successfully"},"rewardId":1,"requestedQuantity":"2","quantity":"2","intouch":[{"c":1.10},{"c":1.10}]}"#
    );
    // The bulk route of the same ledger knows the id, and finds nothing changed.
    let bulk = example(include_str!("../../../config/single-reward.toml"), 0);
    assert_eq!(bulk.ledger, mode.ledger);
    let listed = r#"{"mobile":"1","rewards":[{"rewardId":1,"quantity":2,"requestId":"a"}]}"#;
    assert_eq!(books.claim(&bulk, listed).unwrap().upstream, None);
    check_with(&mode, body, 200, r#"{"requestId":"x","quantity":2}"#, &[Err(Doubt::Missing)]);
    check_with(&mode, body, 200, "{}", &[Err(Doubt::CountMissing)]);
    check_with(&mode, body, 200, r#"{"status":{"code":8004}}"#, &[issued(0)]);
    check_with(&mode, body, 401, r#"{"message":"who?"}"#, &[issued(0)]);
    check_with(&mode, body, 404, r#"{"message":"no such customer"}"#, &[issued(0)]);
    for status in [200, 409, 500] {
        let answer = r#"{"message":"no such customer"}"#;
        check_with(&mode, body, status, answer, &[Err(Doubt::CountMissing)]);
    }
}

#[test]
fn a_refusal_of_the_whole_batch_goes_on_as_it_came_when_there_is_nothing_to_add() {
    let (mode, mut books) = (capillary(), Books::default());
    let call = books.claim(&mode, TWO).unwrap();
    let refusal = "{ \"status\":{\"success\":false,\"code\":8003,\"message\":\"no such customer\"},\n\"rewards\":null }";
    let (joined, answer) = books.complete(&mode, &call, 400, refusal);
    assert_eq!(
        (joined.shape, answer.status, text(&answer)),
        (ResponseShape::Refused, 400, refusal)
    );
    assert!(books.entries.values().all(|(_, entry)| entry.is_blank()));
    let call = books.claim(&mode, TWO).unwrap();
    books.complete(
        &mode,
        &call,
        200,
        r#"{"rewards":[{"requestId":"a","quantity":2},{"requestId":"b","quantity":1}]}"#,
    );
    let call = books.claim(&mode, TWO).unwrap();
    let (_, answer) = books.complete(&mode, &call, 400, refusal);
    let reply = value(&answer);
    assert_eq!((answer.status, &reply["status"]["code"]), (400, &serde_json::json!(8010)));
    assert_eq!(reply["rewards"][0]["quantity"], 2);
    assert_eq!(reply["rewards"][1]["quantity"], 1);
}

#[test]
fn refusals_are_written_in_the_words_of_the_backend() {
    let render = capillary().rules.render;
    let (status, body) = refusal(render.mismatch.as_ref().unwrap());
    assert_eq!(status, Some(422));
    assert_eq!(
        body,
        r#"{"status":{"success":false,"code":10003,"message":"Payload does not match the requestId"}}"#
    );
    assert_eq!(refusal(render.duplicate.as_ref().unwrap()).0, Some(400));
    assert!(refusal(render.parallel.as_ref().unwrap()).1.contains("10004"));
    assert!(currency().rules.render.mismatch.is_none());
}

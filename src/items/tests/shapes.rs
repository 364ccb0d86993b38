//! Shapes of batches beside the plain list with ids: exact texts up and down.

use std::sync::Arc;

use super::*;
use crate::idempotency::outcome::UnknownReason;
use rules::Fulfillment;

/// Successes and failures in arrays of their own.
const TWO_ARRAYS: &str = r#"at = "/Entries"
    id = "/Id"
    [route.items.response]
    at = ["/Successful", "/Failed"]
    match = ["id:/Id"]
    issued = { all = { array = "/Successful" } }
    retry = { array = "/Failed" }
    [route.items.render]
    unknown = { item = { "/Code" = "Unknown" } }"#;

/// Orders with lines, up and down.
const ORDERS: &str = r#"at = "/orders/*/lines"
    id = "/line"
    quantity = "/units"
    [route.items.response]
    match = ["id:/line"]
    issued = { count = "/units" }"#;

/// Failures only.
const FAILURES: &str = r#"at = "/rows"
    id = "/insertId"
    [route.items.response]
    at = "/insertErrors"
    match = ["index:/index"]
    all_issued = { status = "2xx", pointer = "/kind", equals = "inserted" }
    retry = { array = "/insertErrors" }
    [route.items.render]
    unknown = { item = { "/errors" = [{ reason = "unknown" }] } }"#;

/// Items without ids.
const POSITIONS: &str = r#"at = "/messages"
    id = "position"
    batch = "header:x-batch"
    [route.items.response]
    match = ["position"]
    issued = { all = { pointer = "/ok", equals = true } }
    retry = { pointer = "/ok", equals = false }"#;

/// A ledger that a test sends batches through.
pub(super) struct Till {
    pub(super) mode: ItemsMode,
    pub(super) books: Books,
    key: Option<&'static str>,
    calls: u64,
}

impl Till {
    pub(super) fn new(rules: &str) -> Self {
        Self { mode: mode_of(rules), books: Books::default(), key: None, calls: 0 }
    }

    fn keyed(rules: &str) -> Self {
        Self { key: Some("B"), ..Self::new(rules) }
    }

    /// Sends a batch; `sent` is what must go upstream, `answer` what the backend answers with
    /// `status`. Gives the client's status and text.
    #[track_caller]
    pub(super) fn call(
        &mut self,
        body: &str,
        sent: &str,
        (status, answer): (u16, &str),
    ) -> (u16, String) {
        let call = self.books.claim_of(&self.mode, self.key, body).unwrap();
        assert_eq!(call.upstream.as_deref(), Some(sent));
        let (joined, reply) = self.books.complete(&self.mode, &call, status, answer);
        if let Some(body) = joined.envelope(answer.as_bytes(), 1 << 16) {
            self.calls += 1;
            let envelope = serde_json::json!({
                "at": self.calls, "status": status, "body": body, "headers": [],
            });
            let envelope: Arc<Envelope> = Arc::new(serde_json::from_value(envelope).unwrap());
            for (at, _) in call.plan.sent() {
                let entry = self.books.entries.get_mut(&*call.batch.items[at].key).unwrap();
                entry.1.envelope = Some(envelope.clone());
            }
        }
        (reply.status, text(&reply).to_owned())
    }

    /// Sends a batch whose answer is lost.
    pub(super) fn lose(&mut self, body: &str) {
        let call = self.books.claim_of(&self.mode, self.key, body).unwrap();
        assert!(call.upstream.is_some());
        self.books.lose(&call);
    }

    /// Sends a batch of which nothing goes upstream.
    #[track_caller]
    pub(super) fn replay(&mut self, body: &str) -> (u16, String) {
        let call = self.books.claim_of(&self.mode, self.key, body).unwrap();
        assert_eq!(call.upstream, None);
        let reply = self.books.replay(&self.mode, &call);
        (reply.status, text(&reply).to_owned())
    }

    #[track_caller]
    fn refused(&mut self, body: &str) {
        let refused = self.books.claim_of(&self.mode, self.key, body).map(|call| call.upstream);
        assert!(matches!(refused, Err(BatchDecision::Reused { .. })), "{refused:?}");
    }
}

pub(super) fn reply(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

#[test]
fn rows_go_back_into_the_array_they_stood_in() {
    let mut till = Till::new(TWO_ARRAYS);
    let three = r#"{"Entries":[{"Id":"1"},{"Id":"2"},{"Id":"3"}]}"#;
    let answer = r#"{"Failed":[{"Id":"2","Code":"Throttled"}],"Successful":[{"Id":"3","m":9},{"Id":"1","m":8}],"x":1}"#;
    assert_eq!(
        till.call(three, three, (200, answer)),
        reply(
            200,
            r#"{"Failed":[{"Id":"2","Code":"Throttled"}],"Successful":[{"Id":"1","m":8},{"Id":"3","m":9}],"x":1}"#
        )
    );
    // An item that was issued after all loses its old row.
    let answer = r#"{"Successful":[{"Id":"2","m":7}],"x":2}"#;
    assert_eq!(
        till.call(three, r#"{"Entries":[{"Id":"2"}]}"#, (200, answer)),
        reply(200, r#"{"Successful":[{"Id":"1","m":8},{"Id":"2","m":7},{"Id":"3","m":9}],"x":2}"#)
    );
    assert_eq!(
        till.replay(three),
        reply(200, r#"{"Successful":[{"Id":"1","m":8},{"Id":"2","m":7},{"Id":"3","m":9}],"x":2}"#)
    );
}

#[test]
fn an_unknown_item_never_stands_in_an_array_that_means_success() {
    let mut till = Till::new(TWO_ARRAYS);
    let two = r#"{"Entries":[{"Id":"1"},{"Id":"2"}]}"#;
    // A row is missing.
    assert_eq!(
        till.call(two, two, (200, r#"{"Successful":[{"Id":"1"}],"Failed":[]}"#)),
        reply(409, r#"{"Successful":[{"Id":"1"}],"Failed":[{"Id":"2","Code":"Unknown"}]}"#)
    );
    // One stands in both.
    let three = r#"{"Entries":[{"Id":"3"}]}"#;
    let both = r#"{"Successful":[{"Id":"3"}],"Failed":[{"Id":"3"}]}"#;
    assert_eq!(
        till.call(three, three, (200, both)),
        reply(409, r#"{"Successful":[],"Failed":[{"Id":"3","Code":"Unknown"}]}"#)
    );
    // The answer is lost, and then an operator finds it executed.
    let four = r#"{"Entries":[{"Id":"4"}]}"#;
    till.lose(four);
    let (status, text) = till.replay(four);
    assert_eq!(status, 409);
    assert_eq!(text, r#"{"Successful":[],"Failed":[{"Id":"4","Code":"Unknown"}]}"#);
    let entry = &mut till.books.entries.get_mut("4").unwrap().1;
    let (units, appended, row, closed) = (1, Vec::new(), None, false);
    *entry = entry.settle(&ItemOutcome::Issued { units, appended, row, closed }).unwrap();
    assert_eq!(till.replay(four), reply(200, r#"{"Successful":[{"Id":"4"}],"Failed":[]}"#));
}

#[test]
fn an_answer_without_any_of_its_arrays_is_none_and_one_that_is_no_array_neither() {
    for answer in [r#"{"ok":true}"#, r#"{"Successful":{},"Failed":[{"Id":"1"}]}"#, "[]"] {
        let mut till = Till::new(TWO_ARRAYS);
        let one = r#"{"Entries":[{"Id":"1"}]}"#;
        let call = till.books.claim(&till.mode, one).unwrap();
        let (joined, _) = till.books.complete(&till.mode, &call, 200, answer);
        assert_eq!(joined.shape, ResponseShape::Unreadable, "{answer}");
        assert_eq!(till.books.entries["1"].1.unknown, 1);
    }
}

#[test]
fn an_answer_that_lists_failures_reports_the_rest_as_issued() {
    let mut till = Till::new(FAILURES);
    let three = r#"{"rows":[{"insertId":"a"},{"insertId":"b"},{"insertId":"c"}]}"#;
    let answer = r#"{"kind":"inserted","insertErrors":[{"index":1,"errors":[{"reason":"busy"}]}]}"#;
    assert_eq!(till.call(three, three, (200, answer)), reply(200, answer));
    // The index of the row is that of this request, not of what was sent.
    let two = r#"{"rows":[{"insertId":"b"},{"insertId":"d"}]}"#;
    let answer = r#"{"kind":"inserted","insertErrors":[{"index":0,"errors":[]}]}"#;
    assert_eq!(till.call(two, two, (200, answer)), reply(200, answer));
    let sent = r#"{"rows":[{"insertId":"b"}]}"#;
    assert_eq!(
        till.call(three, sent, (200, answer)),
        reply(200, r#"{"kind":"inserted","insertErrors":[{"index":1,"errors":[]}]}"#)
    );
    // All is well, and no array says so.
    let answer = r#"{"kind":"inserted"}"#;
    assert_eq!(till.call(three, sent, (200, answer)), reply(200, answer));
    assert_eq!(till.replay(three), reply(200, answer));
}

#[test]
fn a_list_of_failures_that_names_nobody_leaves_the_rest_unknown() {
    for rows in
        [r#"{"index":7}"#, r#"{"index":"x"}"#, r#"{"errors":[]}"#, r#"{"index":0},{"index":0}"#]
    {
        let mut till = Till::new(FAILURES);
        let two = r#"{"rows":[{"insertId":"a"},{"insertId":"b"}]}"#;
        let answer = format!(r#"{{"kind":"inserted","insertErrors":[{rows}]}}"#);
        let (status, text) = till.call(two, two, (200, &answer));
        assert_eq!(status, 409, "{rows}: {text}");
        assert_eq!(till.books.entries["a"].1.unknown, 1, "{rows}");
    }
    // A proxy's status proves nothing, and neither does an answer that is cut off.
    let one = r#"{"rows":[{"insertId":"a"}]}"#;
    for (status, answer) in [(503, r#"{"kind":"inserted"}"#), (200, r#"{"kind":"inserted""#)] {
        let mut till = Till::new(FAILURES);
        till.call(one, one, (status, answer));
        assert_eq!(till.books.entries["a"].1.unknown, 1, "{answer}");
    }
}

#[test]
fn a_group_with_nothing_left_is_left_out_and_comes_back_in_the_answer() {
    let mut till = Till::new(ORDERS);
    let both = r#"{"orders":[ {"no":1,"lines":[{"line":"a","units":2},{"line":"b","units":1}]}, {"no":2,"lines":[ {"line":"c","units":3} ]} ],"shop":7}"#;
    let answer = r#"{"orders":[{"no":1,"ref":"x","lines":[{"line":"a","units":2},{"line":"b","units":1}]},{"no":2,"ref":"y","lines":[{"line":"c","units":1}]}],"ok":1}"#;
    assert_eq!(till.call(both, both, (200, answer)), reply(200, answer));
    let sent = r#"{"orders":[ {"no":2,"lines":[ {"line":"c","units":2} ]} ],"shop":7}"#;
    let answer = r#"{"orders":[{"no":2,"ref":"z","lines":[{"line":"c","units":2}]}],"ok":2}"#;
    let merged = r#"{"orders":[{"no":1,"ref":"x","lines":[{"line":"a","units":2},{"line":"b","units":1}]},{"no":2,"ref":"z","lines":[{"line":"c","units":3}]}],"ok":2}"#;
    assert_eq!(till.call(both, sent, (200, answer)), reply(200, merged));
    let (status, text) = till.replay(both);
    assert_eq!(
        (status, text.contains(r#""ref":"z","lines":[{"line":"c","units":3}]"#)),
        (200, true)
    );
}

#[test]
fn lines_leave_their_group_one_by_one() {
    let mut till = Till::new(ORDERS);
    let all =
        r#"{"orders":[{"lines":[{"line":"a"},{"line":"b"},{"line":"c"}]},{"lines":[]},{"no":3}]}"#;
    let answer = r#"{"orders":[{"lines":[{"line":"a","units":0},{"line":"b","units":1},{"line":"c","units":0}]}]}"#;
    till.call(all, all, (200, answer));
    let sent = r#"{"orders":[{"lines":[{"line":"a"},{"line":"c"}]},{"lines":[]},{"no":3}]}"#;
    let answer = r#"{"orders":[{"lines":[{"line":"a","units":1},{"line":"c","units":1}]}]}"#;
    let (_, text) = till.call(all, sent, (200, answer));
    let rows = r#"[{"line":"a","units":1},{"line":"b","units":1},{"line":"c","units":1}]"#;
    assert_eq!(text, format!(r#"{{"orders":[{{"lines":{rows}}}]}}"#));
    till.replay(all);
}

#[test]
fn the_members_of_its_group_may_not_change_under_a_line() {
    let one = r#"{"orders":[{"no":1,"lines":[{"line":"a"}]},{"no":2,"lines":[{"line":"b"}]}]}"#;
    let mut till = Till::new(ORDERS);
    till.lose(one);
    till.refused(&one.replace("\"no\":2", "\"no\":3"));
    // Another order beside it is no change of this one.
    let more = one.replace("}]}]}", "}]},{\"no\":3,\"lines\":[{\"line\":\"c\"}]}]}");
    assert!(till.books.claim(&till.mode, &more).is_ok());
    let mut till = Till::new(&ORDERS.replacen("[route", "shared = [\"/orders/*/no\"]\n[route", 1));
    let one = one.replace("\"no\":1", "\"no\":1,\"sent\":1");
    till.lose(&one);
    assert!(till.books.claim(&till.mode, &one.replace("\"sent\":1", "\"sent\":2")).is_ok());
    till.refused(&one.replace("\"no\":1", "\"no\":9"));
}

#[test]
fn a_map_has_its_ids_as_names() {
    let mut till = Till::new(
        "at = \"/charges\"\nmap = true\nquantity = \"/units\"\n[route.items.response]\n\
         issued = { count = \"/charged\" }",
    );
    let body = r#"{"charges": { "a" : {"units":2}, "b\u0021":{"units":1} , "c":{}}}"#;
    let answer = r#"{"charges":{"c":{"charged":1},"a":{"charged":1},"b!":{"charged":0}},"t":1}"#;
    let merged = r#"{"charges":{"a":{"charged":1},"b!":{"charged":0},"c":{"charged":1}},"t":1}"#;
    assert_eq!(till.call(body, body, (200, answer)), reply(200, merged));
    let sent = r#"{"charges": { "a" : {"units":1}, "b\u0021":{"units":1}}}"#;
    let answer = r#"{"charges":{"b!":{"charged":1}},"t":2}"#;
    let (status, text) = till.call(body, sent, (200, answer));
    assert_eq!(status, 409);
    assert_eq!(
        text,
        r#"{"charges":{"a":{"charged":1},"b!":{"charged":1},"c":{"charged":1}},"t":2}"#
    );
    for (body, error) in [
        (r#"{"charges":[{"units":2}]}"#, BatchError::NoItems),
        (r#"{"charges":{}}"#, BatchError::NoItems),
        (r#"{"charges":{"a":1}}"#, BatchError::NotAnObject { item: 0 }),
        (r#"{"charges":{"":{}}}"#, BatchError::IdMissing { item: 0 }),
        (r#"{"charges":{"a":{},"\u0061":{}}}"#, BatchError::DuplicateMember),
    ] {
        assert_eq!(read_batch(&till.mode.rules, &request(body)).unwrap_err(), error, "{body}");
    }
}

#[test]
fn items_without_ids_are_told_by_their_places_in_the_same_batch() {
    let mut till = Till::keyed(POSITIONS);
    let body = r#"{"messages":[{"t":"x"},{"t":"y"},{"t":"x"}]}"#;
    let answer = r#"{"messages":[{"ok":true,"n":1},{"ok":false},{"ok":true,"n":2}]}"#;
    assert_eq!(till.call(body, body, (200, answer)), reply(200, answer));
    // Another number of items, and another item where one was issued.
    till.refused(r#"{"messages":[{"t":"x"},{"t":"y"}]}"#);
    till.refused(r#"{"messages":[{"t":"x"},{"t":"y"},{"t":"z"}]}"#);
    // Another item in the place of one of which nothing was issued.
    let changed = body.replace("\"y\"", "\"z\"");
    let answer = r#"{"messages":[{"ok":true,"n":3}]}"#;
    let merged = r#"{"messages":[{"ok":true,"n":1},{"ok":true,"n":3},{"ok":true,"n":2}]}"#;
    let sent = r#"{"messages":[{"t":"z"}]}"#;
    assert_eq!(till.call(&changed, sent, (200, answer)), reply(200, merged));
    till.refused(body);
    // Another batch has other items.
    till.key = Some("C");
    assert_eq!(till.call(body, body, (200, r#"{"messages":[]}"#)).0, 409);
}

#[test]
fn a_shorter_batch_is_another_batch_even_where_nothing_was_issued_for_its_items() {
    let mut till = Till::keyed(POSITIONS);
    let body = r#"{"messages":[{"t":"x"},{"t":"y"}]}"#;
    till.call(body, body, (200, r#"{"messages":[{"ok":false},{"ok":true}]}"#));
    till.refused(r#"{"messages":[{"t":"x"}]}"#);
    till.refused(r#"{"messages":[{"t":"z"}]}"#);
}

#[test]
fn keys_of_two_batches_never_meet() {
    let rules = mode_of(POSITIONS).rules;
    let body = r#"{"messages":[{"t":"x"}]}"#;
    let key = |batch| {
        let request = BatchRequest { batch: Some(batch), ..request(body) };
        read_batch(&rules, &request).unwrap().items[0].key.to_string()
    };
    assert_eq!(key("a/b"), "/a~1b/0");
    assert_ne!(key("a~1b"), key("a/b"));
}

#[test]
fn only_an_item_of_which_nothing_was_ever_issued_may_change() {
    let mode = capillary();
    let body = r#"{"rewards":[{"requestId":"a","rewardId":1,"quantity":2}]}"#;
    let changed = body.replace("\"rewardId\":1", "\"rewardId\":2");
    let row = |count: u64| {
        format!(r#"{{"rewards":[{{"requestId":"a","rewardId":1,"quantity":{count}}}]}}"#)
    };
    for (answer, may_change) in [(Some(row(0)), true), (Some(row(1)), false), (None, false)] {
        let mut books = Books::default();
        let call = books.claim(&mode, body).unwrap();
        assert!(books.claim(&mode, &changed).is_err(), "it is in flight");
        match &answer {
            Some(answer) => drop(books.complete(&mode, &call, 200, answer)),
            None => books.lose(&call),
        }
        let sent = books.claim(&mode, &changed).map(|call| call.upstream);
        assert_eq!(sent.is_ok(), may_change, "{answer:?}");
        if may_change {
            assert_eq!(sent.unwrap().as_deref(), Some(changed.as_str()));
            assert_eq!(books.entries["a"].1.row, None, "the row was another item's");
        }
    }
}

#[test]
fn a_job_is_answered_as_it_came_and_again_from_the_ledger() {
    let rules = r#"at = "/events"
        id = "/id"
        [route.items.response]
        all_issued = { status = 202 }"#;
    let body = r#"{"events":[{"id":"a"},{"id":"b"}]}"#;
    for answer in [r#"{"job":"J1"}"#, "", "accepted", "[]"] {
        let mut till = Till::new(rules);
        assert_eq!(till.call(body, body, (202, answer)), reply(202, answer), "{answer:?}");
        assert_eq!(till.books.entries["b"].1.fulfilled, 1);
    }
    // Another status, or an answer that says both.
    let both = format!(
        "{rules}\nnot_issued = {{ status = 202, pointer = \"/job\", absent_or_null = true }}"
    );
    for (rules, status, answer) in [
        (rules, 200, r#"{"job":"J1"}"#),
        (rules, 500, r#"{"job":"J1"}"#),
        (both.as_str(), 202, r#"{"error":1}"#),
    ] {
        let mut till = Till::new(rules);
        till.call(body, body, (status, answer));
        assert_eq!(till.books.entries["a"].1.unknown, 1, "{status} {answer}");
    }
}

#[test]
fn elements_that_are_no_rows_stay_beside_the_rows() {
    let rules = r#"at = "/items"
        id = "/id"
        [route.items.response]
        at = ""
        row = { pointer = "/success", one_of = [true, false] }
        match = ["id:/id"]
        issued = { all = { pointer = "/success", equals = true } }
        retry = { pointer = "/success", equals = false }"#;
    let body = r#"{"items":[{"id":"a"},{"id":"b"}]}"#;
    let mut till = Till::new(rules);
    let answer = r#"[{"warning":1},{"id":"b","success":true},{"id":"a","success":false}]"#;
    assert_eq!(
        till.call(body, body, (200, answer)),
        reply(200, r#"[{"id":"a","success":false},{"id":"b","success":true},{"warning":1}]"#)
    );
    // An array without any row is an answer without rows.
    for (status, unknown) in [(401, 0), (200, 1)] {
        let mut till = Till::new(rules);
        till.call(body, body, (status, r#"[{"errorCode":"INVALID_SESSION_ID"}]"#));
        assert_eq!(till.books.entries["a"].1.unknown, unknown, "{status}");
    }
}

#[test]
fn correlation_ids_are_those_of_the_request_at_hand() {
    let rules = r#"at = "/requests"
        id = "/ref"
        [route.items.response]
        at = "/responses"
        match = ["id:/ref"]
        echo = ["/id"]
        issued = { all = { pointer = "/status", equals = 202 } }
        retry = { pointer = "/status", equals = 429 }
        [route.items.render]
        unknown = { item = { "/status" = 500 } }"#;
    let mut till = Till::new(rules);
    let first = r#"{"requests":[{"id":"1","ref":"x"},{"id":"2","ref":"y"},{"id":"3","ref":"z"}]}"#;
    let answer =
        r#"{"responses":[{"id":"1","ref":"x","status":202},{"id":"2","ref":"y","status":429}]}"#;
    let rows = r#"{"id":"1","ref":"x","status":202},{"id":"2","ref":"y","status":429},{"ref":"z","id":"3","status":500}"#;
    assert_eq!(
        till.call(first, first, (200, answer)),
        reply(409, &format!(r#"{{"responses":[{rows}]}}"#))
    );
    let second = r#"{"requests":[{"id":"1","ref":"y"},{"id":7,"ref":"x"}]}"#;
    let answer = r#"{"responses":[{"id":"1","ref":"y","status":202}]}"#;
    assert_eq!(
        till.call(second, r#"{"requests":[{"id":"1","ref":"y"}]}"#, (200, answer)),
        reply(
            200,
            r#"{"responses":[{"id":"1","ref":"y","status":202},{"id":"7","ref":"x","status":202}]}"#
        )
    );
}

#[test]
fn a_failed_row_does_not_outlive_its_failure() {
    // The rows have no arrays that tell, and an operator finds the item executed.
    let (mode, mut books) = (capillary(), Books::default());
    let body = r#"{"rewards":[{"requestId":"a","rewardId":1}]}"#;
    let call = books.claim(&mode, body).unwrap();
    let failed = r#"{"rewards":[{"requestId":"a","error":"busy","status":{"code":8003}}]}"#;
    books.complete(&mode, &call, 200, failed);
    let call = books.claim(&mode, body).unwrap();
    books.lose(&call);
    let entry = &mut books.entries.get_mut("a").unwrap().1;
    assert!(matches!(entry.doubt, Some(Doubt::Lost(UnknownReason::Timeout))));
    let (units, appended, row, closed) = (1, Vec::new(), None, false);
    *entry = entry.settle(&ItemOutcome::Issued { units, appended, row, closed }).unwrap();
    let call = books.claim(&mode, body).unwrap();
    let reply = books.replay(&mode, &call);
    assert_eq!(reply.fulfillment, Fulfillment::Complete);
    assert!(!text(&reply).contains("busy"), "{}", text(&reply));
}

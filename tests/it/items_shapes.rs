//! Batches of every shape, against backends of their kind: what goes up, what comes down, what a
//! retry sends, and what an answer that is lost leaves.

use serde_json::{Value, json};

use crate::support::{Act, AdminClient, Backend, Gate, Gateway, Request, Response, Setup, answer};

/// A gateway with one batch API, whose `[route.items]` begins with these lines.
struct Api {
    backend: Backend,
    gateway: Gateway,
}

impl Api {
    fn start(rules: &str) -> Self {
        let backend = Backend::start();
        let route = format!(
            "name = \"batch\"\nmethods = [\"POST\"]\npath = \"/batch\"\nmode = \"items\"\n\
             [route.items]\n{rules}"
        );
        let gateway = AdminClient::guard(Setup::before(&backend)).route(&route).start();
        Self { backend, gateway }
    }

    fn send(&self, body: &Value) -> Response {
        Request::new("POST", "/batch").json(&body.to_string()).send(self.gateway.addr)
    }

    fn send_as(&self, key: &str, body: &Value) -> Response {
        let request = Request::new("POST", "/batch").header("idempotency-key", key);
        request.json(&body.to_string()).send(self.gateway.addr)
    }

    fn answers(&self, status: u16, body: &Value) {
        self.backend.always(answer(status, &body.to_string()));
    }

    /// What arrived last.
    fn sent(&self) -> Value {
        serde_json::from_str(&self.backend.last().text()).unwrap()
    }
}

/// Messages with ids of their batch alone; successes and failures in arrays of their own.
const QUEUE: &str = r#"at = "/Entries"
    id = "/Id"
    batch = "header:Idempotency-Key"
    [route.items.response]
    at = ["/Successful", "/Failed"]
    match = ["id:/Id"]
    issued = { all = { array = "/Successful" } }
    retry = { array = "/Failed", pointer = "/SenderFault", equals = false }
    final = { array = "/Failed", pointer = "/SenderFault", equals = true }
    [route.items.render]
    unknown = { item = { "/Code" = "OutcomeUnknown" } }"#;

#[test]
fn a_queue_with_two_arrays_of_results() {
    let api = Api::start(QUEUE);
    let entry = |id: &str| json!({ "Id": id, "MessageBody": format!("m{id}") });
    let three = json!({ "QueueUrl": "q", "Entries": [entry("1"), entry("2"), entry("3")] });
    let busy = json!({ "Id": "2", "Code": "Throttled", "SenderFault": false });
    let broken = json!({ "Id": "3", "Code": "Invalid", "SenderFault": true });
    let sent_one = json!({ "Id": "1", "MessageId": "a" });
    api.answers(200, &json!({ "Successful": [sent_one], "Failed": [busy, broken] }));
    let reply = api.send_as("B1", &three);
    reply.is(200, "executed", "");
    assert_eq!(reply.json(), json!({ "Successful": [sent_one], "Failed": [busy, broken] }));
    assert_eq!(api.backend.last().header("idempotency-key"), None, "no hop may retry on its own");
    // Only what may still succeed goes up; it leaves the array of failures.
    let sent_two = json!({ "Id": "2", "MessageId": "b" });
    api.answers(200, &json!({ "Successful": [sent_two] }));
    let reply = api.send_as("\"B1\"", &three);
    assert_eq!(api.sent(), json!({ "QueueUrl": "q", "Entries": [entry("2")] }));
    let merged = json!({ "Successful": [sent_one, sent_two], "Failed": [broken] });
    assert_eq!(reply.json(), merged);
    let reply = api.send_as("B1", &three);
    reply.is(200, "replayed", "");
    assert_eq!(reply.json(), merged);
    // The ids belong to their batch.
    api.answers(200, &json!({ "Successful": [{ "Id": "1", "MessageId": "c" }], "Failed": [] }));
    let one = json!({ "QueueUrl": "q", "Entries": [{ "Id": "1", "MessageBody": "other" }] });
    api.send_as("B2", &one).is(200, "executed", "");
    api.send_as("B1", &one).is(422, "rejected", "key-reused");
    api.send(&one).is(400, "rejected", "key-missing");
    assert_eq!(api.backend.calls(), 3);
}

#[test]
fn an_unknown_message_is_never_listed_as_sent() {
    let api = Api::start(QUEUE);
    let two = json!({ "Entries": [{ "Id": "1" }, { "Id": "2" }] });
    let sent_one = json!({ "Id": "1", "MessageId": "a" });
    api.answers(200, &json!({ "Successful": [sent_one], "Failed": [] }));
    let reply = api.send_as("B", &two);
    reply.is(409, "unknown", "outcome-unknown");
    let unknown = json!({ "Id": "2", "Code": "OutcomeUnknown" });
    let merged = json!({ "Successful": [sent_one], "Failed": [unknown] });
    assert_eq!(reply.json(), merged);
    // It stays so, also after a restart, until an operator has looked.
    let Api { backend, gateway } = api;
    let api = Api { backend, gateway: gateway.killed_and_restarted() };
    let reply = api.send_as("B", &two);
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(reply.json(), merged);
    AdminClient::of(&api.gateway).settle("/B/2", "executed");
    let reply = api.send_as("B", &two);
    reply.is(200, "replayed", "");
    assert_eq!(reply.json(), json!({ "Successful": [sent_one, { "Id": "2" }], "Failed": [] }));
    assert_eq!(api.backend.calls(), 1);
}

/// Rows are inserted, and failures alone are listed, by their index.
const INSERTS: &str = r#"at = "/rows"
    id = "/insertId"
    [route.items.response]
    at = "/insertErrors"
    match = ["index:/index"]
    all_issued = { status = "2xx", pointer = "/kind", equals = "bigquery#tableDataInsertAllResponse" }
    not_issued = { status = 400, pointer = "/error", present = true }
    retry = { array = "/insertErrors", pointer = "/errors/0/reason", equals = "stopped" }
    final = { array = "/insertErrors", pointer = "/errors/0/reason", equals = "invalid" }
    [route.items.render]
    unknown = { item = { "/errors" = [{ reason = "unknown" }] } }"#;

const INSERTED: &str = "bigquery#tableDataInsertAllResponse";

#[test]
fn an_insert_that_lists_its_failures_only() {
    let api = Api::start(INSERTS);
    let rows = |ids: &[&str]| {
        let rows: Vec<Value> = ids.iter().map(|id| json!({ "insertId": id, "json": {} })).collect();
        json!({ "rows": rows })
    };
    let error =
        |index: usize, reason: &str| json!({ "index": index, "errors": [{ "reason": reason }] });
    let (stopped, invalid) = (error(2, "stopped"), error(1, "invalid"));
    api.answers(200, &json!({ "kind": INSERTED, "insertErrors": [stopped, invalid] }));
    let reply = api.send(&rows(&["a", "b", "c"]));
    reply.is(200, "executed", "");
    // In the order of the request.
    assert_eq!(reply.json(), json!({ "kind": INSERTED, "insertErrors": [invalid, stopped] }));
    // The index of what was sent is another than that of what the client sent.
    api.answers(200, &json!({ "kind": INSERTED, "insertErrors": [error(0, "stopped")] }));
    let reply = api.send(&rows(&["a", "b", "c"]));
    assert_eq!(api.sent(), rows(&["c"]));
    assert_eq!(reply.json()["insertErrors"], json!([error(1, "invalid"), error(2, "stopped")]));
    api.answers(200, &json!({ "kind": INSERTED }));
    let reply = api.send(&rows(&["c", "a"]));
    reply.is(200, "executed", "");
    assert_eq!((api.sent(), reply.json()), (rows(&["c"]), json!({ "kind": INSERTED })));
    let reply = api.send(&rows(&["a", "c"]));
    reply.is(200, "replayed", "");
    assert_eq!(reply.json(), json!({ "kind": INSERTED }));
    // A refusal of the whole, and an answer of somebody else.
    let refusal = json!({ "error": { "code": 400 } });
    api.answers(400, &refusal);
    let reply = api.send(&rows(&["d"]));
    reply.is(400, "executed", "");
    assert_eq!(reply.json(), refusal);
    api.backend.always(answer(200, "<html>please log in</html>"));
    let reply = api.send(&rows(&["d"]));
    reply.is(200, "unknown", "");
    assert_eq!(reply.text(), "<html>please log in</html>");
    let reply = api.send(&rows(&["a", "d"]));
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(
        reply.json()["insertErrors"],
        json!([{ "index": 1, "errors": [{ "reason": "unknown" }] }])
    );
    assert_eq!(api.backend.calls(), 5);
}

/// A batch of calls, told apart by an id that each batch gives anew.
const CALLS: &str = r#"at = "/requests"
    id = "/body/reference"
    same = ["/url", "/body"]
    shared = []
    [route.items.response]
    at = "/responses"
    match = ["member:/id"]
    echo = ["/id"]
    issued = { all = { pointer = "/status", class = "2xx" } }
    retry = { pointer = "/status", one_of = [429, 503] }
    final = { pointer = "/status", class = "4xx", unless = { pointer = "/status", equals = 429 } }
    [route.items.render]
    unknown = { item = { "/status" = 504 } }
    partial = { http = 200 }"#;

#[test]
fn a_batch_of_calls_with_correlation_ids() {
    let api = Api::start(CALLS);
    let call = |id: &str, reference: &str| json!({ "id": id, "method": "POST", "url": "/gifts", "body": { "reference": reference } });
    let row = |id: &str, status: u16| json!({ "id": id, "status": status, "body": {} });
    api.answers(200, &json!({ "responses": [row("2", 429), row("1", 201), row("3", 404)] }));
    let reply = api.send(&json!({ "requests": [call("1", "x"), call("2", "y"), call("3", "z")] }));
    reply.is(200, "executed", "");
    assert_eq!(reply.json()["responses"], json!([row("1", 201), row("2", 429), row("3", 404)]));
    // The same calls in another order, under other ids.
    api.answers(200, &json!({ "responses": [row("1", 202)] }));
    let reply = api.send(&json!({ "requests": [call("1", "y"), call("2", "z"), call("3", "x")] }));
    assert_eq!(api.sent(), json!({ "requests": [call("1", "y")] }));
    assert_eq!(reply.json()["responses"], json!([row("1", 202), row("2", 404), row("3", 201)]));
    let reply = api.send(&json!({ "requests": [call("9", "x"), call("7", "y")] }));
    reply.is(200, "replayed", "");
    assert_eq!(reply.json()["responses"], json!([row("9", 201), row("7", 202)]));
    // A lost answer.
    api.backend.always(Act::reset());
    api.send(&json!({ "requests": [call("1", "w")] })).is(502, "unknown", "outcome-unknown");
    let reply = api.send(&json!({ "requests": [call("1", "x"), call("2", "w")] }));
    reply.is(409, "unknown", "outcome-unknown");
    let unknown = json!({ "id": "2", "status": 504 });
    assert_eq!(reply.json()["responses"], json!([row("1", 201), unknown]));
    assert_eq!(api.backend.calls(), 3);
}

/// Transfers whose answer has rows beside members that the client needs.
const TRANSFERS: &str = r#"at = "/transfers"
    id = "/reference"
    [route.items.response]
    at = "/data"
    match = ["id:/reference"]
    issued = { all = { pointer = "/status", one_of = ["success", "pending", "received"] } }
    retry = { pointer = "/status", equals = "failed" }
    not_issued = { status = 400, pointer = "/status", equals = false }"#;

#[test]
fn bulk_transfers_keep_what_stands_beside_their_rows() {
    let api = Api::start(TRANSFERS);
    let transfer = |reference: &str| json!({ "amount": 5, "reference": reference });
    let two = json!({ "source": "balance", "transfers": [transfer("t1"), transfer("t2")] });
    let row = |reference: &str, status: &str| json!({ "reference": reference, "status": status });
    // The whole batch is refused, and corrected under the same references.
    let refusal = json!({ "status": false, "message": "amount too low" });
    api.answers(400, &refusal);
    let reply = api.send(&two);
    reply.is(400, "executed", "");
    assert_eq!(reply.json(), refusal);
    let corrected = json!({ "source": "balance", "transfers": [
        { "amount": 50, "reference": "t1" }, { "amount": 50, "reference": "t2" },
    ] });
    let beside = |rows: &[Value]| json!({ "status": true, "message": "queued", "data": rows });
    api.answers(200, &beside(&[row("t1", "received"), row("t2", "failed")]));
    let reply = api.send(&corrected);
    reply.is(200, "executed", "");
    assert_eq!(api.sent(), corrected);
    // One of which nothing was issued may change once more; the other may not.
    let changed = |at: usize| {
        let mut changed = corrected.clone();
        changed["transfers"][at]["amount"] = json!(60);
        changed
    };
    api.send(&changed(0)).is(422, "rejected", "key-reused");
    api.answers(200, &beside(&[row("t2", "pending")]));
    let reply = api.send(&changed(1));
    reply.is(200, "executed", "");
    assert_eq!(api.sent()["transfers"], json!([{ "amount": 60, "reference": "t2" }]));
    let merged = beside(&[row("t1", "received"), row("t2", "pending")]);
    assert_eq!(reply.json(), merged);
    let reply = api.send(&changed(1));
    reply.is(200, "replayed", "");
    assert_eq!(reply.json(), merged);
    api.send(&corrected).is(422, "rejected", "key-reused");
    assert_eq!(api.backend.calls(), 3);
}

#[test]
fn an_item_whose_answer_was_lost_may_not_change() {
    let api = Api::start(TRANSFERS);
    let one = json!({ "transfers": [{ "amount": 5, "reference": "t1" }] });
    let other = json!({ "transfers": [{ "amount": 6, "reference": "t1" }] });
    api.backend.always(Act::reset());
    api.send(&one).is(502, "unknown", "outcome-unknown");
    api.send(&other).is(422, "rejected", "key-reused");
    // An operator knows that nothing was issued.
    AdminClient::of(&api.gateway).settle("t1", "not-executed");
    api.answers(200, &json!({ "data": [{ "reference": "t1", "status": "success" }] }));
    api.send(&other).is(200, "executed", "");
    api.send(&one).is(422, "rejected", "key-reused");
    assert_eq!(api.backend.calls(), 2);
    let history = &AdminClient::of(&api.gateway).show("t1")["history"];
    assert_eq!(history[0]["what"], "not-executed", "{history}");
}

/// Orders with lines, up and down.
const ORDERS: &str = r#"at = "/orders/*/lines"
    id = "/line"
    quantity = "/units"
    [route.items.response]
    match = ["id:/line"]
    issued = { count = "/issued" }
    requested = "/units""#;

#[test]
fn orders_with_lines() {
    let api = Api::start(ORDERS);
    let line = |line: &str, units: u64| json!({ "line": line, "units": units });
    let order = |number: u64, lines: &[Value]| json!({ "order": number, "lines": lines });
    let both = json!({ "shop": 7, "orders": [
        order(1, &[line("a", 2), line("b", 1)]), order(2, &[line("c", 3)]),
    ] });
    let row = |line: &str, units: u64, issued: u64| json!({ "line": line, "units": units, "issued": issued });
    api.answers(
        200,
        &json!({ "ok": true, "orders": [
        { "order": 1, "receipt": "r1", "lines": [row("a", 2, 2), row("b", 1, 1)] },
        { "order": 2, "receipt": "r2", "lines": [row("c", 3, 1)] },
    ] }),
    );
    api.send(&both).is(200, "executed", "");
    // The order with nothing left is left out, and stands in the answer all the same.
    api.answers(
        200,
        &json!({ "ok": true, "orders": [
        { "order": 2, "receipt": "r3", "lines": [row("c", 2, 2)] },
    ] }),
    );
    let reply = api.send(&both);
    reply.is(200, "executed", "");
    assert_eq!(api.sent(), json!({ "shop": 7, "orders": [order(2, &[line("c", 2)])] }));
    let merged = json!({ "ok": true, "orders": [
        { "order": 1, "receipt": "r1", "lines": [row("a", 2, 2), row("b", 1, 1)] },
        { "order": 2, "receipt": "r3", "lines": [row("c", 3, 3)] },
    ] });
    assert_eq!(reply.json(), merged);
    let Api { backend, gateway } = api;
    let api = Api { backend, gateway: gateway.restarted() };
    let reply = api.send(&both);
    reply.is(200, "replayed", "");
    assert_eq!(reply.json(), merged);
    // An order of other lines is no change of these, a line of another order is one.
    let moved = json!({ "shop": 7, "orders": [order(2, &[line("a", 2)])] });
    api.send(&moved).is(422, "rejected", "key-reused");
    let twice =
        json!({ "shop": 7, "orders": [order(1, &[line("d", 1)]), order(2, &[line("d", 1)])] });
    api.send(&twice).is(400, "rejected", "duplicate-item");
    for body in
        [json!({ "orders": {} }), json!({ "orders": [{ "lines": 1 }] }), json!({ "orders": [] })]
    {
        api.send(&body).is(400, "rejected", "body-invalid");
    }
    assert_eq!(api.backend.calls(), 2);
}

/// A map of charges and a map of results.
const CHARGES: &str = r#"at = "/charges"
    map = true
    quantity = "/points"
    [route.items.response]
    at = "/results"
    issued = { count = "/charged" }
    retry = { pointer = "/error", present = true }"#;

#[test]
fn a_map_of_charges() {
    let api = Api::start(CHARGES);
    let body = json!({ "shop": 7, "charges": { "a/1": { "points": 5 }, "b": { "points": 2 } } });
    let busy = json!({ "error": "busy" });
    api.answers(200, &json!({ "results": { "b": busy, "a/1": { "charged": 3 } }, "ok": true }));
    let reply = api.send(&body);
    reply.is(200, "executed", "");
    let rest = json!({ "shop": 7, "charges": { "a/1": { "points": 2 }, "b": { "points": 2 } } });
    api.answers(200, &json!({ "results": { "a/1": { "charged": 2 }, "b": { "charged": 2 } } }));
    let reply = api.send(&body);
    assert_eq!(api.sent(), rest);
    let merged = json!({ "results": { "a/1": { "charged": 5 }, "b": { "charged": 2 } } });
    assert_eq!(reply.json(), merged);
    let reply = api.send(&body);
    reply.is(200, "replayed", "");
    assert_eq!(reply.json(), merged);
    api.send(&json!({ "shop": 7, "charges": { "b": { "points": 3 } } })).is(
        422,
        "rejected",
        "key-reused",
    );
    api.send(&json!({ "shop": 7, "charges": [] })).is(400, "rejected", "body-invalid");
    api.backend.always(Act::reset());
    api.send(&json!({ "shop": 7, "charges": { "c": {} } })).is(502, "unknown", "outcome-unknown");
    assert_eq!(api.backend.calls(), 3);
}

/// A bulk call that answers with a job.
const JOBS: &str = r#"at = "/events"
    id = "/id"
    [route.items.response]
    all_issued = { status = 202, header = { name = "location", present = true } }
    not_issued = { status = 400 }"#;

#[test]
fn a_job_that_takes_everything() {
    let api = Api::start(JOBS);
    let events = |ids: &[&str]| json!({ "events": ids.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>() });
    let job = |body: &str| Act::whole(202, &[("location", "/jobs/1")], body.as_bytes());
    api.backend.always(job(""));
    let reply = api.send(&events(&["a", "b"]));
    reply.is(202, "executed", "");
    assert_eq!(reply.header("location").as_deref(), Some("/jobs/1"));
    let reply = api.send(&events(&["a", "b"]));
    reply.is(202, "replayed", "");
    assert_eq!(
        (reply.text(), reply.header("location").as_deref()),
        (String::new(), Some("/jobs/1"))
    );
    // Only what is new goes up.
    api.backend.always(job(r#"{"job":2}"#));
    let reply = api.send(&events(&["a", "c"]));
    reply.is(202, "executed", "");
    assert_eq!((api.sent(), reply.text()), (events(&["c"]), r#"{"job":2}"#.to_owned()));
    // Without the sign of a job nothing is known; refused, nothing was issued.
    api.answers(202, &json!({}));
    api.send(&events(&["d"])).is(202, "unknown", "");
    let reply = api.send(&events(&["a", "d"]));
    reply.is(409, "unknown", "outcome-unknown");
    assert_eq!(reply.json()["events"], json!([{ "id": "d" }]), "{reply:?}");
    api.answers(400, &json!({ "error": "no" }));
    api.send(&events(&["e"])).is(400, "executed", "");
    api.backend.always(job(""));
    api.send(&events(&["e"])).is(202, "executed", "");
    assert_eq!(api.backend.calls(), 5);
}

/// Items without ids.
const POSITIONS: &str = r#"at = ""
    id = "position"
    batch = "header:X-Batch"
    [route.items.response]
    at = ""
    row = { pointer = "/success", one_of = [true, false] }
    match = ["position"]
    issued = { all = { pointer = "/success", equals = true } }
    retry = { pointer = "/success", equals = false }"#;

#[test]
fn items_without_ids_in_a_batch_with_a_key() {
    let api = Api::start(POSITIONS);
    let send = |key: &str, body: &Value| {
        let request = Request::new("POST", "/batch").header("x-batch", key);
        request.json(&body.to_string()).send(api.gateway.addr)
    };
    let body = json!([{ "to": "x" }, { "to": "y" }, { "to": "x" }]);
    let (done, failed) = (json!({ "success": true }), json!({ "success": false }));
    api.answers(200, &json!([done, failed, done]));
    send("B", &body).is(200, "executed", "");
    assert_eq!(api.backend.last().header("x-batch").as_deref(), Some("B"));
    send("B", &json!([{ "to": "x" }, { "to": "y" }])).is(422, "rejected", "key-reused");
    let swapped = send("B", &json!([{ "to": "y" }, { "to": "x" }, { "to": "x" }]));
    swapped.is(422, "rejected", "key-reused");
    // The refusal of a session that has ended is no row.
    api.answers(401, &json!([{ "errorCode": "INVALID_SESSION_ID" }]));
    send("B", &body).is(401, "not-executed", "");
    api.answers(200, &json!([done]));
    let reply = send("B", &body);
    assert_eq!((api.sent(), reply.json()), (json!([{ "to": "y" }]), json!([done, done, done])));
    send("B", &body).is(200, "replayed", "");
    send("C", &json!([{ "to": "x" }])).is(200, "executed", "");
    for key in ["", "a b"] {
        send(key, &body).is(400, "rejected", "key-invalid");
    }
    assert_eq!(api.backend.calls(), 4);
}

#[test]
fn another_place_of_the_batchs_key_is_a_change_of_names() {
    let backend = Backend::start();
    let route = |batch: &str| {
        format!(
            "name = \"batch\"\nmethods = [\"POST\"]\npath = \"/batch\"\nmode = \"items\"\n\
             [route.items]\nat = \"/list\"\nid = \"/id\"\n{batch}\n[route.items.response]\n\
             match = [\"id:/id\"]\nissued = {{ count = \"/n\" }}"
        )
    };
    let setup = Setup::before(&backend).route(&route("batch = \"header:X-Batch\""));
    let mut gateway = setup.start();
    gateway.stop();
    for other in ["", "batch = \"query:batch\""] {
        let changed = setup.clone().replacing("batch = \"header:X-Batch\"", other);
        let Err(refused) = changed.try_start() else { panic!("{other:?} is the same name") };
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("[route.items] batch: header"), "{refused:?}");
    }
}

#[test]
fn the_contract_and_the_check_name_the_shape() {
    let api = Api::start(QUEUE);
    let contract = Request::get("/.well-known/idempotency").header("accept", "application/json");
    let contract = contract.send(api.gateway.addr).json();
    let route = contract["routes"].as_array().unwrap().iter().find(|it| it["name"] == "batch");
    let items = &route.unwrap()["items"];
    assert_eq!(items["batch"], "header:idempotency-key", "{items}");
    assert_eq!((&items["id"], &items["map"]), (&json!("/Id"), &json!(false)));
}

#[test]
fn batches_of_one_value_of_a_header_or_the_path_run_one_at_a_time() {
    let backend = Backend::start();
    let route = "name = \"batch\"\nmethods = [\"POST\"]\npath = \"/shops/{shop}\"\nmode = \"items\"\n\
         duplicates.wait = \"0s\"\n[route.items]\nat = \"/list\"\nid = \"/id\"\n\
         serialize_by = [\"path:shop\", \"header:x-till\"]\n[route.items.response]\n\
         match = [\"id:/id\"]\nissued = { count = \"/n\" }";
    let gateway = Setup::before(&backend).route(route).start();
    let gate = Gate::default();
    let held = gate.clone();
    backend.script(move |_| answer(200, r#"{"list":[]}"#).after(&held));
    let batch = |shop: &str, till: &str, id: &str| {
        let body = json!({ "list": [{ "id": id }] }).to_string();
        Request::new("POST", &format!("/shops/{shop}")).header("x-till", till).json(&body)
    };
    let mut first = batch("1", "a", "x").begin(gateway.addr);
    backend.wait_calls(1);
    for (shop, till) in [("1", "b"), ("2", "a")] {
        let refused = batch(shop, till, &format!("{shop}{till}")).send(gateway.addr);
        refused.is(409, "in-progress", "request-in-progress");
    }
    let mut other = batch("2", "b", "y").begin(gateway.addr);
    backend.wait_calls(2);
    let twice = batch("3", "c", "z").header("x-till", "d").send(gateway.addr);
    twice.is(400, "rejected", "request-invalid");
    gate.open();
    first.read();
    other.read();
    assert_eq!(backend.calls(), 2);
}

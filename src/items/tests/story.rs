//! The worked example: R1 is worth 5 points, R2 10, two of each, the same request every time.

use super::*;
use serde_json::json;

const BODY: &str = r#"{ "mobile": "6591234567", "rewards": [ {"rewardId":1,"quantity":2,"requestId":"a"} , {"rewardId":2,"quantity":2,"requestId":"b"} ], "notes": "\u00e9", "big": 12345678901234567890, "price": 1.10 }"#;

/// Issues up to what each reward's limit leaves, as the published samples write it.
fn backend(sent: &str, issued: &mut [u64; 2], limits: [u64; 2], points: &mut u64) -> String {
    let sent: serde_json::Value = serde_json::from_str(sent).unwrap();
    let rows: Vec<_> = sent["rewards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| {
            let reward = item["rewardId"].as_u64().unwrap();
            let at = usize::try_from(reward).unwrap() - 1;
            let wanted = item["quantity"].as_u64().unwrap();
            let units = wanted.min(limits[at] - issued[at]);
            let coupons: Vec<_> = (0..units)
                .map(|unit| json!({"couponCode": format!("R{reward}-{}", issued[at] + unit)}))
                .collect();
            issued[at] += units;
            *points += units * [5, 10][at];
            json!({
                "status": {"success": units == wanted, "code": if units == wanted { 200 } else { 8010 }},
                "rewardId": reward, "requestedQuantity": wanted.to_string(),
                "quantity": units.to_string(), "requestId": item["requestId"],
                "intouch": coupons, "promotions": [], "vendor": null,
            })
        })
        .collect();
    json!({"status": {"success": true, "code": 200}, "rewards": rows}).to_string()
}

#[test]
fn three_calls_finish_what_is_missing_and_a_fourth_sends_nothing() {
    let mode = capillary();
    let mut books = Books::default();
    let (mut issued, mut points) = ([0, 0], 0);
    let quantities = |answer: &BatchAnswer| {
        let value = value(answer);
        let rows = value["rewards"].as_array().unwrap();
        rows.iter().map(|row| row["quantity"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let calls = [
        (BODY.to_owned(), [1, 1], 15, ["1", "1"], 8010),
        (BODY.replace("\"quantity\":2", "\"quantity\":1"), [1, 2], 25, ["1", "2"], 8010),
        (
            BODY.replace(r#" , {"rewardId":2,"quantity":2,"requestId":"b"}"#, "")
                .replace("\"quantity\":2", "\"quantity\":1"),
            [9, 9],
            30,
            ["2", "2"],
            200,
        ),
    ];
    for (upstream, limits, total, quantity, code) in calls {
        let call = books.claim(&mode, BODY).unwrap();
        assert_eq!(call.upstream.as_deref(), Some(upstream.as_str()));
        let answer = backend(&upstream, &mut issued, limits, &mut points);
        let (_, answer) = books.complete(&mode, &call, 200, &answer);
        assert_eq!(points, total);
        assert_eq!(quantities(&answer), quantity);
        let reply = value(&answer);
        assert_eq!(reply["status"]["code"], code);
        assert_eq!(reply["rewards"][0]["requestedQuantity"], "2");
        assert_eq!((answer.status, reply["rewards"][1]["vendor"].is_null()), (200, true));
    }
    let call = books.claim(&mode, BODY).unwrap();
    assert_eq!(call.upstream, None);
    let answer = books.replay(&mode, &call);
    let reply = value(&answer);
    assert_eq!((answer.status, answer.fulfillment), (200, rules::Fulfillment::Complete));
    assert_eq!(quantities(&answer), ["2", "2"]);
    assert_eq!(
        reply["rewards"][0]["intouch"],
        json!([{"couponCode":"R1-0"},{"couponCode":"R1-1"}])
    );
    assert_eq!(
        reply["rewards"][1]["intouch"],
        json!([{"couponCode":"R2-0"},{"couponCode":"R2-1"}])
    );
}

#[test]
fn a_lost_answer_holds_its_items_and_lets_others_go_on() {
    let mode = capillary();
    let mut books = Books::default();
    let first = r#"{"mobile":"1","rewards":[{"rewardId":1,"requestId":"a","quantity":3}]}"#;
    let call = books.claim(&mode, first).unwrap();
    assert_eq!(books.claim(&mode, first).unwrap_err(), BatchDecision::InFlight { item: 0 });
    books.lose(&call);
    let both = r#"{"mobile":"1","rewards":[{"rewardId":1,"requestId":"a","quantity":3},{"rewardId":2,"requestId":"b"}]}"#;
    let call = books.claim(&mode, both).unwrap();
    assert_eq!(
        call.upstream.as_deref(),
        Some(r#"{"mobile":"1","rewards":[{"rewardId":2,"requestId":"b"}]}"#)
    );
    let (_, answer) = books.complete(
        &mode,
        &call,
        200,
        r#"{"rewards":[{"rewardId":2,"requestId":"b","quantity":1,"intouch":[7]}]}"#,
    );
    assert_eq!(answer.status, 409);
    assert_eq!(
        text(&answer),
        r#"{"rewards":[{"requestId":"a","rewardId":1,"requestedQuantity":3,"quantity":0,"status":{"success":false,"code":1010,"message":"Outcome not known yet, do not issue again"}},{"rewardId":2,"requestId":"b","quantity":1,"intouch":[7],"requestedQuantity":1,"status":{"success":true,"code":200,"message":"Reward issued successfully"}}],"status":{"success":false,"code":1010,"message":"Outcome not known yet, do not issue again"}}"#
    );
    // Somebody looked: two of the three were issued, so one is still to send.
    let entry = books.entries.get_mut("a").unwrap();
    let found = ItemOutcome::Issued { units: 2, appended: Vec::new(), row: None, closed: false };
    entry.1 = entry.1.settle(&found).unwrap();
    let call = books.claim(&mode, both).unwrap();
    assert!(call.upstream.unwrap().contains(r#""requestId":"a","quantity":1"#));
}

#[test]
fn a_delta_shows_what_this_call_issued() {
    let mut mode = capillary();
    mode.rules.view = rules::QuantityView::Delta;
    let mut books = Books::default();
    let body = r#"{"rewards":[{"rewardId":1,"requestId":"a","quantity":2}]}"#;
    let row = |n: &str, coupons: &str| {
        format!(r#"{{"rewards":[{{"requestId":"a","quantity":{n},"intouch":{coupons}}}]}}"#)
    };
    for (coupons, code) in [("[1.10]", 8010), ("[2]", 200)] {
        let call = books.claim(&mode, body).unwrap();
        let (_, answer) = books.complete(&mode, &call, 200, &row("1", coupons));
        assert!(text(&answer).contains(&format!(r#""quantity":1,"intouch":{coupons}"#)));
        assert_eq!(value(&answer)["status"]["code"], code);
    }
    let call = books.claim(&mode, body).unwrap();
    let answer = books.replay(&mode, &call);
    assert!(text(&answer).contains(r#""quantity":0,"intouch":[]"#), "{}", text(&answer));
}

#[test]
fn what_the_gateway_does_not_own_keeps_its_text() {
    let mode = capillary();
    let mut books = Books::default();
    let body = "{\n  \"z\": 1.10,\"rewards\" : [\n    { \"quantity\" : 5, \"requestId\" : 900719925474099312345, \"x\":\"\\u0041\" },\n    {\"requestId\":\"b\",\"quantity\":1}\n  ], \"a\": 1e400 }";
    let call = books.claim(&mode, body).unwrap();
    assert_eq!(call.upstream.as_deref(), Some(body));
    let answered = r#"{ "t" : 1.10, "rewards" : [ {"requestId":900719925474099312345,"quantity":"2","intouch":[ {"n": 12345678901234567890.10} ,"\u00e9"],"own": 1E+2}, {"requestId":"b","quantity":1,"promotions":[{}], "k":[ 1 ]}] , "u":"\/"}"#;
    let (_, answer) = books.complete(&mode, &call, 200, answered);
    let status = |code, success: bool, message| {
        format!(r#""status":{{"success":{success},"code":{code},"message":"{message}"}}"#)
    };
    let partial = status(8010, false, "Reward issued partially");
    assert_eq!(
        text(&answer),
        format!(
            r#"{{ "t" : 1.10, "rewards" : [{{"requestId":900719925474099312345,"quantity":"2","intouch":[{{"n": 12345678901234567890.10}},"\u00e9"],"own": 1E+2,"requestedQuantity":5,{partial}}},{{"requestId":"b","quantity":1,"promotions":[{{}}], "k":[ 1 ],"requestedQuantity":1,{}}}] , "u":"\/",{partial}}}"#,
            status(200, true, "Reward issued successfully"),
        )
    );
    let call = books.claim(&mode, body).unwrap();
    assert_eq!(
        call.upstream.unwrap(),
        body.replace("\"quantity\" : 5", "\"quantity\" : 3")
            .replace(",\n    {\"requestId\":\"b\",\"quantity\":1}", "")
    );
}

#[test]
fn all_that_was_issued_is_told_however_long_the_lists_have_grown() {
    let mode = capillary();
    let body = r#"{"rewards":[{"requestId":"a","quantity":2}]}"#;
    let call = Books::default().claim(&mode, body).unwrap();
    let list = |at: &str, elements: Vec<String>| OutcomeList { at: at.to_owned(), elements };
    // More values than a text may have that is read.
    let many: Vec<String> = (0..=crate::json::MAX_VALUES).map(|n| n.to_string()).collect();
    for row in [
        r#"{"requestId":"a","quantity":2,"vendor":[],"promotions":[],"x":1}"#,
        r#"{"requestId":"a","quantity":2,"vendor":[],"promotions":[]}"#,
        r#"{"requestId":"a","vendor":[],"x":1}"#,
        r#"{"requestId":"a"}"#,
    ] {
        let entry = Ledger {
            fulfilled: 2,
            outcomes: vec![
                list("/vendor", many.clone()),
                list("/promotions", vec!["\"last\"".to_owned()]),
            ],
            row: Some(row.into()),
            ..Ledger::new(2).unwrap()
        };
        let answer = render(&mode.rules, &call.batch, &[&entry], None);
        let reply = &value(&answer)["rewards"][0];
        assert_eq!(reply["vendor"].as_array().unwrap().len(), many.len(), "{row}");
        assert_eq!(reply["promotions"], serde_json::json!(["last"]), "{row}");
        assert_eq!(
            (&reply["quantity"], &reply["requestedQuantity"]),
            (&2.into(), &2.into()),
            "{row}"
        );
        assert_eq!(reply["status"]["code"], 200, "{row}");
    }
}

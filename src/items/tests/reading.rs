//! Bodies: what is taken, what is refused, and what counts as the same item.

use super::*;
use crate::idempotency::Fingerprint;
use crate::items::list_path::ListPath;
use crate::json::ParseError;

#[track_caller]
fn check(mode: &ItemsMode, body: &str, expected: BatchError) {
    let shown = &body[..body.len().min(200)];
    assert_eq!(read_batch(&mode.rules, &request(body)).unwrap_err(), expected, "{shown}");
}

#[test]
fn what_cannot_be_claimed_is_refused() {
    let mode = capillary();
    let list = |items: &str| format!("{{\"rewards\":[{items}]}}");
    check(&mode, "", BatchError::NotJson(ParseError::Syntax { at: 0 }));
    check(&mode, "[1", BatchError::NotJson(ParseError::Syntax { at: 2 }));
    check(&mode, &"[".repeat(1_000_000), BatchError::NotJson(ParseError::TooDeep));
    for body in ["{}", "[]", "1", r#"{"rewards":null}"#, r#"{"rewards":{}}"#, r#"{"rewards":[]}"#] {
        check(&mode, body, BatchError::NoItems);
    }
    check(
        &mode,
        r#"{"rewards":[{"requestId":"a","x":{"y":1,"y":1}}]}"#,
        BatchError::DuplicateMember,
    );
    check(&mode, &list("5"), BatchError::NotAnObject { item: 0 });
    check(&mode, &list("[]"), BatchError::NotAnObject { item: 0 });
    for item in ["{}", r#"{"requestId":null}"#, r#"{"requestId":""}"#] {
        check(
            &mode,
            &list(&format!(r#"{{"requestId":"a"}},{item}"#)),
            BatchError::IdMissing { item: 1 },
        );
    }
    for id in ["true", "[]", "{}", &format!("\"{}\"", "x".repeat(batch::MAX_ID + 1))] {
        check(&mode, &list(&format!("{{\"requestId\":{id}}}")), BatchError::IdInvalid { item: 0 });
    }
    for second in [r#""1""#, "1", r#""\u0031""#] {
        let items = format!(r#"{{"requestId":1}},{{"requestId":{second}}}"#);
        check(&mode, &list(&items), BatchError::DuplicateItem { first: 0, item: 1 });
    }
    for quantity in [
        "0",
        "-1",
        "-0",
        "1.5",
        "1.0",
        "\"2\"",
        "1e3",
        "true",
        "null",
        "[]",
        "1000001",
        "99999999999999999999999999",
    ] {
        let item = format!(r#"{{"requestId":"a","quantity":{quantity}}}"#);
        check(&mode, &list(&item), BatchError::Quantity { item: 0, most: 1_000_000 });
    }
    let many = |count: usize| {
        let items: Vec<String> = (0..count).map(|at| format!("{{\"requestId\":{at}}}")).collect();
        list(&items.join(","))
    };
    check(&mode, &many(10_000), BatchError::TooMany { most: 1000 });
    let batch = read_batch(&mode.rules, &request(&many(1000))).unwrap();
    assert_eq!((batch.items.len(), batch.items[999].quantity), (1000, 1));
    check(&single(), r#"[{"requestId":"a"}]"#, BatchError::NoItems);
    check(&currency(), r#"{"uniqueId":"a"}"#, BatchError::NoItems);
}

fn first_print(mode: &ItemsMode, request: &BatchRequest<'_>) -> Fingerprint {
    let document = Document::parse(request.body).unwrap();
    let (batch, digests) = Batch::read(&mode.rules, request, &document).unwrap();
    batch.fingerprint(&digests, 0).unwrap()
}

#[track_caller]
fn check_same(mode: &ItemsMode, one: &str, other: &str, differing: &[&str]) {
    let of = |body: &str| first_print(mode, &request(body));
    let (one_print, other_print) = (of(one), of(other));
    assert_eq!(one_print.differing(&other_print), differing, "{one} and {other}");
    assert_eq!(one_print.digest == other_print.digest, differing.is_empty());
    assert_eq!(read_batch(&mode.rules, &request(one)).unwrap().items[0].digest, one_print.digest);
}

#[test]
fn a_changed_item_is_told_by_its_members() {
    let mode = capillary();
    let body = r#"{"mobile":"1","notes":"x","rewards":[{"requestId":"a","rewardId":1,"quantity":2,"z":1}]}"#;
    check_same(&mode, body, body, &[]);
    check_same(&mode, body, &body.replace("\"z\":1", "\"z\":2").replace("\"x\"", "\"y\""), &[]);
    check_same(
        &mode,
        body,
        r#"{"rewards":[{"quantity":2 ,"rewardId":1,"requestId":"a"},{"requestId":"b"}],"mobile":"\u0031"}"#,
        &[],
    );
    check_same(&mode, body, &body.replace(":2", ":3"), &["quantity"]);
    check_same(
        &mode,
        body,
        &body.replace("\"mobile\":\"1\"", "\"mobile\":\"2\",\"brand\":1"),
        &["/brand", "/mobile"],
    );
    check_same(&mode, body, &body.replace("\"rewardId\":1", "\"rewardId\":1.0"), &["rewardId"]);
    let (of_array, body) = (currency(), r#"[{"uniqueId":"a","value":1}]"#);
    check_same(&of_array, body, r#"[{"value":1, "uniqueId":"a"}]"#, &[]);
    check_same(&of_array, body, r#"[{"uniqueId":"a","value":2,"n":null}]"#, &["n", "value"]);
    // Without a list of shared members, all of the body counts but the items.
    let mut mode = capillary();
    mode.rules.shared = None;
    check_same(
        &mode,
        r#"{"k":1,"rewards":[{"requestId":"a"}]}"#,
        r#"{"rewards":[{"requestId":"a"},{"requestId":"b"}],"k":1}"#,
        &[],
    );
    check_same(
        &mode,
        r#"{"k":1,"rewards":[{"requestId":"a"}]}"#,
        r#"{"k":2,"rewards":[{"requestId":"a"}]}"#,
        &["/k"],
    );
    let tenant = tenant();
    let of = |id| {
        let parameters = [("id", id)];
        let request = BatchRequest {
            tenant: &tenant,
            parameters: &parameters,
            batch: None,
            body: body.as_bytes(),
        };
        first_print(&of_array, &request)
    };
    assert_eq!(of("5").differing(&of("6")), ["{id}"]);
}

#[test]
fn a_changed_item_refuses_the_whole_batch_before_anything_else() {
    let (mode, mut books) = (capillary(), Books::default());
    let body = r#"{"rewards":[{"requestId":"a"},{"requestId":"b","quantity":2}]}"#;
    books.claim(&mode, body).unwrap();
    assert_eq!(books.claim(&mode, body).unwrap_err(), BatchDecision::InFlight { item: 0 });
    let changed = body.replace(":2", ":3");
    assert_eq!(books.claim(&mode, &changed).unwrap_err(), BatchDecision::Reused { item: 1 });
}

#[test]
fn batches_of_one_customer_share_a_digest() {
    let mode = capillary();
    let serial = |members: &str| {
        let body = format!(r#"{{{members}"rewards":[{{"requestId":"a"}}]}}"#);
        read_batch(&mode.rules, &request(&body)).unwrap().serial
    };
    assert!(serial("").is_empty());
    assert!(serial(r#""mobile":null,"#).is_empty());
    let both = serial(r#""email":"e","mobile":65,"#);
    assert_eq!(both.len(), 2);
    assert!(both.contains(&serial(r#""mobile":"65","#)[0]));
    assert!(!both.contains(&serial(r#""mobile":"66","#)[0]));
    assert!(!both.contains(&serial(r#""email":"65","#)[0]));
}

#[test]
fn an_entry_survives_its_encoding_and_refuses_what_does_not_add_up() {
    let outcome = ItemOutcome::Issued {
        units: 1,
        appended: vec![OutcomeList { at: "/x".into(), elements: vec!["1.10".into()] }],
        row: Some("{}".into()),
        closed: false,
    };
    let entry = Ledger::new(3).unwrap().claim(3).unwrap().complete(&outcome).unwrap();
    let bytes = postcard::to_stdvec(&entry).unwrap();
    assert!(bytes.len() < 32, "{} bytes", bytes.len());
    assert_eq!(postcard::from_bytes::<Ledger>(&bytes).unwrap(), entry);
    assert_eq!((entry.remaining(), elements(&entry.outcomes, "/x")), (2, &["1.10".to_owned()][..]));
    assert_eq!(Ledger::new(0), Err(LedgerError::Units));
    assert_eq!(entry.claim(3), Err(LedgerError::Units));
    assert_eq!(entry.claim(0), Err(LedgerError::Units));
    assert_eq!(entry.complete(&outcome), Err(LedgerError::Idle));
    assert_eq!(entry.settle(&outcome), Err(LedgerError::Idle));
    let claimed = entry.claim(1).unwrap();
    assert_eq!(claimed.claim(1), Err(LedgerError::Busy));
    assert_eq!(claimed.release().unwrap(), entry);
    let over = ItemOutcome::Issued { units: 2, appended: Vec::new(), row: None, closed: false };
    assert_eq!(claimed.complete(&over), Err(LedgerError::Units));
    let broken = Ledger { fulfilled: 4, ..entry.clone() };
    assert_eq!(broken.claim(1), Err(LedgerError::Broken));
    assert!(Ledger { unknown: u64::MAX, ..entry }.check().is_err());
}

#[test]
fn tries_that_issue_nothing_do_not_grow_an_entry_without_end() {
    let idle = ItemOutcome::Issued {
        units: 0,
        appended: vec![OutcomeList { at: "/x".into(), elements: vec!["1".repeat(1000)] }],
        row: None,
        closed: false,
    };
    let mut entry = Ledger::new(1).unwrap();
    for _ in 0..1000 {
        entry = entry.claim(1).unwrap().complete(&idle).unwrap();
    }
    assert!(
        elements(&entry.outcomes, "/x").len() * 1000
            <= crate::idempotency::ledger::MAX_IDLE_BYTES + 1000
    );
}

#[test]
fn an_item_of_the_same_bytes_is_the_same_item_under_any_rules() {
    let base = capillary();
    let all_pointers = |names: &[&str]| {
        Some(names.iter().map(|name| crate::json::Pointer::parse(name).unwrap()).collect())
    };
    let with = |change: &dyn Fn(&mut ItemRules)| {
        let mut mode = base.clone();
        change(&mut mode.rules);
        mode.rules = mode.rules.finished();
        mode
    };
    let modes = [
        base.clone(),
        with(&|rules| rules.same = None),
        with(&|rules| rules.same = all_pointers(&["/rewardId"])),
        with(&|rules| rules.shared = None),
        with(&|rules| rules.shared = Some(vec![ListPath::parse("/mobile").unwrap()])),
    ];
    let body = r#"{"mobile":"1","sent":1,"rewards":[{"requestId":"a","rewardId":1,"quantity":2}]}"#;
    let changed = [
        body.replace(r#""rewardId":1"#, r#""rewardId":2"#),
        body.replace(r#""mobile":"1""#, r#""mobile":"2""#),
        body.replace(r#""quantity":2"#, r#""quantity":3"#),
    ];
    for (at, earlier) in modes.iter().enumerate() {
        for (to, later) in modes.iter().enumerate() {
            let first = first_print(earlier, &request(body));
            let again = first_print(later, &request(body));
            assert!(first.is_same_request(&again), "rules {at} and {to}");
            assert_eq!(first.rule == again.rule, at == to, "rules {at} and {to}");
            for other in &changed {
                let other = first_print(later, &request(other));
                assert!(!first.is_same_request(&other), "rules {at} and {to}");
                assert!(at == to || first.differing(&other).is_empty());
            }
            let mut books = Books::default();
            let call = books.claim(earlier, body).unwrap();
            books.lose(&call);
            assert!(books.claim(later, body).is_ok());
            let refused = books.claim(later, &changed[0]).map(|call| call.plan).unwrap_err();
            assert_eq!(refused, BatchDecision::Reused { item: 0 });
        }
    }
}

//! Rows that could be read in two ways, and rows that are no longer true: what the random test of all
//! shapes has found.

use super::shapes::{Till, reply};
use super::*;

/// Failures only, found by their ids.
const FAILURES: &str = r#"at = "/rows"
    id = "/id"
    [route.items.response]
    at = "/errors"
    match = ["id:/id"]
    all_issued = { status = "2xx", pointer = "/kind", equals = "taken" }
    retry = { pointer = "/code", equals = "busy" }"#;

fn issued(units: u64) -> ItemOutcome {
    ItemOutcome::Issued { units, appended: Vec::new(), row: None, closed: false }
}

#[test]
fn a_failure_that_names_two_items_lets_none_pass_for_issued() {
    let two = r#"{"rows":[{"id":"a"},{"id":"b"}]}"#;
    for row in [
        r#"{"id":"a","id":"b","code":"busy"}"#,
        r#"{"id":"a","code":"busy","code":"busy"}"#,
        r#"{"id":"a","code":"busy","id":"b"}"#,
    ] {
        let mut till = Till::new(FAILURES);
        let answer = format!(r#"{{"kind":"taken","errors":[{row}]}}"#);
        till.call(two, two, (200, &answer));
        let unknown = ["a", "b"].map(|id| till.books.entries[id].1.unknown);
        assert_eq!(unknown, [1, 1], "{row}");
    }
}

#[test]
fn an_element_that_names_its_sign_twice_is_no_remark_beside_the_rows() {
    let rules = FAILURES.replace("retry", "row = { pointer = \"/code\", present = true }\nretry");
    let one = r#"{"rows":[{"id":"a"}]}"#;
    for row in [r#"{"id":"a","code":"busy","code":"ok"}"#, r#"{"id":"a","code":1,"code":null}"#] {
        let mut till = Till::new(&rules);
        till.call(one, one, (200, &format!(r#"{{"kind":"taken","errors":[{row}]}}"#)));
        assert_eq!(till.books.entries["a"].1.unknown, 1, "{row}");
    }
    let mut till = Till::new(&rules);
    till.call(one, one, (200, r#"{"kind":"taken","errors":[{"id":"a"}]}"#));
    assert_eq!(till.books.entries["a"].1.fulfilled, 1, "it is no row");
}

#[test]
fn maps_in_groups_are_answered_in_groups() {
    let mut till = Till::new(
        "at = \"/shops/*/charges\"\nmap = true\nquantity = \"/units\"\n[route.items.response]\n\
         issued = { count = \"/charged\" }",
    );
    let body = r#"{"shops":[{"no":1,"charges":{"a":{"units":2},"b":{"units":1}}},{"no":2,"charges":{"c":{"units":1}}}]}"#;
    let answer = r#"{"shops":[{"ref":"x","charges":{"b":{"charged":1},"a":{"charged":1}}},{"ref":"y","charges":{"c":{"charged":1}}}],"t":1}"#;
    let merged = r#"{"shops":[{"ref":"x","charges":{"a":{"charged":1},"b":{"charged":1}}},{"ref":"y","charges":{"c":{"charged":1}}}],"t":1}"#;
    assert_eq!(till.call(body, body, (200, answer)), reply(200, merged));
    let sent = r#"{"shops":[{"no":1,"charges":{"a":{"units":1}}}]}"#;
    let answer = r#"{"shops":[{"ref":"z","charges":{"a":{"charged":1}}}],"t":2}"#;
    let merged = r#"{"shops":[{"ref":"z","charges":{"a":{"charged":2},"b":{"charged":1}}},{"ref":"y","charges":{"c":{"charged":1}}}],"t":2}"#;
    assert_eq!(till.call(body, sent, (200, answer)), reply(200, merged));
    assert_eq!(till.replay(body), reply(200, merged));
}

#[test]
fn an_unknown_item_of_a_job_is_named() {
    let mut till = Till::new(
        "at = \"/events\"\nid = \"/id\"\n[route.items.response]\nall_issued = { status = 202 }",
    );
    let one = r#"{"events":[{"id":"a"}]}"#;
    till.lose(one);
    let two = r#"{"events":[{"id":"b"},{"id":"a"}]}"#;
    let answer = till.call(two, r#"{"events":[{"id":"b"}]}"#, (202, r#"{"job":"J"}"#));
    assert_eq!(answer, reply(409, r#"{"job":"J","events":[{"id":"a"}]}"#));
}

#[test]
fn what_is_settled_as_issued_is_answered_as_json_where_no_row_says_so() {
    let mut till = Till::new(FAILURES);
    let one = r#"{"rows":[{"id":"a"}]}"#;
    till.lose(one);
    let entry = &mut till.books.entries.get_mut("a").unwrap().1;
    *entry = entry.settle(&issued(1)).unwrap();
    assert_eq!(till.replay(one), reply(200, "{}"));
}

#[test]
fn a_complete_item_has_no_row_of_its_last_failure() {
    let mut till = Till::new(
        "at = \"/l\"\nid = \"/id\"\nquantity = \"/n\"\n[route.items.response]\nmatch = [\"id:/id\"]\n\
         issued = { count = \"/n\" }\nretry = { pointer = \"/code\", equals = \"busy\" }",
    );
    let body = r#"{"l":[{"id":"a","n":2}]}"#;
    let sent = r#"{"l":[{"id":"a","n":1}]}"#;
    till.call(body, body, (200, r#"{"l":[{"id":"a","n":1,"code":"part"}]}"#));
    let busy = r#"{"l":[{"id":"a","n":0,"code":"busy"}]}"#;
    let shown = r#"{"l":[{"id":"a","n":1,"code":"busy"}]}"#;
    assert_eq!(till.call(body, sent, (200, busy)), reply(200, shown));
    till.lose(body);
    let entry = &mut till.books.entries.get_mut("a").unwrap().1;
    *entry = entry.settle(&issued(1)).unwrap();
    assert_eq!(till.replay(body), reply(200, r#"{"l":[{"id":"a","n":2}]}"#));
}

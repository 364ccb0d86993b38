//! Shapes of batches: what is read, and what is refused with what to write.

use super::batches::items_mode;
use super::{ROUTE, read};
use crate::items::rules::{ArrayMeaning, ItemId, ListKind};

/// `[route.items]` and `[route.items.response]` of a route, each with these lines.
fn text(items: &str, response: &str) -> String {
    format!("{ROUTE}mode = \"items\"\n[route.items]\n{items}\n[route.items.response]\n{response}\n")
}

/// Lines of a plain batch.
const ITEMS: &str = "at = \"/list\"\nid = \"/id\"";
const ROWS: &str = "match = [\"id:/id\"]\nissued = { count = \"/n\" }";

#[track_caller]
fn refused(items: &str, response: &str, expected: &str) {
    let message = match read(&text(items, response)) {
        Ok(_) => "nothing".to_owned(),
        Err(mistakes) => mistakes.to_string(),
    };
    assert!(
        message.contains(expected),
        "{items}\n{response}\nexpected: {expected}\ntold: {message}"
    );
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn every_shape_is_read() {
    let read = |items: &str, response: &str| {
        read(&text(items, response)).unwrap_or_else(|mistakes| panic!("{mistakes}"))
    };
    let config = read(
        "at = \"/e\"\nid = \"position\"\nbatch = \"header:X-Batch\"",
        "at = [\"/ok\", \"/bad\", \"/skipped\"]\nmatch = [\"index:/index\"]\n\
         issued = { all = { array = \"/ok\" } }\nretry = { array = \"/bad\" }\n\
         final = [{ array = \"/skipped\" }]\necho = [\"/ref\"]\nrow = { pointer = \"/index\", present = true }\n\
         all_issued = { status = 202 }",
    );
    let mode = items_mode(&config);
    assert_eq!(mode.rules.id, ItemId::ListPosition);
    assert_eq!(mode.batch_place().as_deref(), Some("header:x-batch"));
    let failure = ArrayMeaning::Failure;
    assert_eq!(mode.rules.response.meanings, [ArrayMeaning::Success, failure, failure]);
    let shown = config.describe();
    for line in [
        "items         array at /e, at most 1000",
        "id            the position, in batches with the same number of items",
        "rows          array at /ok (issued); array at /bad (not issued, or unknown)",
        "matched by    the index at /index of what was sent",
        "issued        all when { array = \"/ok\" }",
        "all issued    { status = 202 }",
        "echo          /ref",
    ] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    let config = read(
        "at = \"/orders/*/lines\"\nid = \"/id\"\nshared = [\"/shop\", \"/orders/*/no\"]",
        ROWS,
    );
    assert!(items_mode(&config).rules.response.at[0].is_grouped());
    assert!(
        config.describe().contains("array at /orders/*/lines, at most"),
        "{}",
        config.describe()
    );
    let config = read("at = \"/map\"\nmap = true", "issued = { count = \"/n\" }");
    let rules = &items_mode(&config).rules;
    assert_eq!(
        (&rules.id, rules.kind, rules.response.kind),
        (&ItemId::Name, ListKind::Map, ListKind::Map)
    );
    // A job: no row is ever read.
    read(ITEMS, "all_issued = { status = 202, header = { name = \"location\", present = true } }");
}

#[test]
fn what_no_answer_could_ever_say_is_refused() {
    for (items, response, expected) in [
        ("at = \"/o/*\"\nid = \"/id\"", ROWS, "the path names the array itself"),
        ("at = \"/o/*/p/*/q\"\nid = \"/id\"", ROWS, "not groups within groups"),
        ("at = \"/l\"\nid = \"/*/id\"", ROWS, "can never match"),
        (
            "at = \"/l\"\nid = \"/id\"\nmap = true",
            "issued = { count = \"/n\" }",
            "the names are the ids; remove `id`",
        ),
        (
            "at = \"/l\"\nmap = true\nsingle = true",
            "issued = { count = \"/n\" }",
            "exclude each other",
        ),
        (
            "at = \"/l\"\nid = \"position\"",
            "match = [\"position\"]\nissued = { count = \"/n\" }",
            "needs `batch`",
        ),
        (
            "at = \"/l\"\nid = \"position\"\nbatch = \"query:batch\"",
            ROWS,
            "no row can name one; use \"index:/pointer\"",
        ),
        ("at = \"/l\"\nid = \"/id\"\nbatch = \"header:authorization\"", ROWS, "a credential"),
        ("at = \"/l\"\nid = \"/id\"\nbatch = \"xml:/a\"", ROWS, "the body of a batch is JSON"),
        ("at = \"/l\"\nid = \"/id\"\nbatch = [\"/a\", \"/b\"]", ROWS, "`batch` is one place"),
        (
            "at = \"/o/*/l\"\nid = \"/id\"\nshared = [\"/p/*/x\"]",
            ROWS,
            "do not stand in such groups",
        ),
    ] {
        refused(items, response, expected);
    }
    for (response, expected) in [
        (
            "at = \"/o/*/l\"\nmatch = [\"id:/id\"]\nissued = { count = \"/n\" }",
            "a row could not go back into its group",
        ),
        (
            "at = [\"/a\", \"/a/b\"]\nmatch = [\"id:/id\"]\nissued = { count = \"/n\" }",
            "one place of rows is inside another",
        ),
        (
            "at = [\"/a\", \"/b\"]\nmatch = [\"position\"]\nissued = { count = \"/n\" }",
            "no common order",
        ),
        ("at = []\nmatch = [\"id:/id\"]\nissued = { count = \"/n\" }", "`at` is empty"),
        (
            "map = true\nmatch = [\"id:/id\"]\nissued = { count = \"/n\" }",
            "found by their names; remove `match`",
        ),
        (
            "map = true\nrow = { status = 200 }\nissued = { count = \"/n\" }",
            "`row` tells the elements of an array apart",
        ),
        (
            "match = [\"id:/id\"]\nissued = { count = \"/n\" }\nretry = { array = \"/bad\" }",
            "`array = \"/bad\"` in `retry` is no place of rows",
        ),
        (
            "match = [\"id:/id\"]\nissued = { count = \"/n\" }\nall_issued = { status = 200, array = \"/list\" }",
            "unknown key `array`",
        ),
        (
            "match = [\"index:/a\", \"index:/b\"]\nissued = { count = \"/n\" }",
            "`match` names two indexes",
        ),
        ("match = [\"id:/id\"]\nissued = { count = \"/n\" }\necho = [\"/id\"]", "`echo` names /id"),
    ] {
        refused(ITEMS, response, expected);
    }
}

//! Matchers: as they are written, and every mistake with what to write instead.

use super::mistakes::check;
use super::{request_mode, route_with};
use crate::idempotency::outcome::Verdict;

/// The matchers of `[route.outcome]`, shown as they are written.
fn shown(lists: &str) -> Vec<(String, Verdict)> {
    let config = route_with(&format!("[route.outcome]\n{lists}\n"));
    let outcome = &request_mode(&config).outcome;
    outcome.matchers().iter().map(|(matcher, verdict)| (matcher.to_string(), *verdict)).collect()
}

#[test]
fn every_part_of_a_matcher_is_read() {
    let lists = r#"
        final = ["2xx", "4xx", { status = 500, pointer = "/code", equals = 704 }]
        retry = [429, { status = "2xx", pointer = "/error/code", one_of = ["BUSY", 9], contains = "B", unless = { contains = "done" } },
                      { header = { name = "Server", equals = "envoy", contains = "v" }, pointer = "/status", class = "4xx" }]
        unknown = { header = "x-partial", present = true, unless = [{ pointer = "/a", absent_or_null = true }, { status = 201 }] }
    "#;
    let expected = [
        (r#"{ status = 500, pointer = "/code", equals = "704" }"#, Verdict::Final),
        (
            r#"{ status = "2xx", pointer = "/error/code", one_of = ["BUSY", "9"], contains = "B", unless = { contains = "done" } }"#,
            Verdict::Released,
        ),
        (
            r#"{ header = { name = "server", equals = "envoy", contains = "v" }, pointer = "/status", class = "4xx" }"#,
            Verdict::Released,
        ),
        (
            r#"{ header = { name = "x-partial", present = true }, unless = [{ pointer = "/a", absent_or_null = true }, { status = 201 }] }"#,
            Verdict::Unknown,
        ),
    ];
    let expected: Vec<(String, Verdict)> =
        expected.map(|(text, verdict)| (text.to_owned(), verdict)).to_vec();
    assert_eq!(shown(&lists.replace(",\n                     ", ", ")), expected);
}

#[test]
fn a_mistake_in_a_matcher_says_what_to_write() {
    for (matcher, what) in [
        (
            r#"{ pointer = "/a/*/b", equals = 1 }"#,
            "`pointer`: \"/a/*/b\" can never match: a JSON pointer has no \"*\"; write \"/a\" for all of it, or \"/a/0/b\" for one element",
        ),
        (
            r#"{ pointer = "/a", one_of = ["4xx"] }"#,
            "`one_of` compares texts, and no value is \"4xx\"; for all numbers of this class write class = \"4xx\"",
        ),
        (
            r#"{ pointer = "/a", equals = "5xx" }"#,
            "`equals` compares texts, and no value is \"5xx\"; for all numbers of this class write class = \"5xx\"",
        ),
        (
            r#"{ pointer = "/a", class = 404 }"#,
            "`route.outcome.retry.class` is an integer, but must be a class of numbers such as \"4xx\"",
        ),
        (
            r#"{ pointer = "/a", class = "404" }"#,
            "`route.outcome.retry.class`: \"404\" is not a class of numbers; write \"4xx\" for 400 to 499",
        ),
        (
            r#"{ pointer = "/a", present = false }"#,
            "`present` can only be true; for the contrary write absent_or_null = true",
        ),
        (
            r#"{ pointer = "/a", equals = 1, present = true }"#,
            "`equals` and `present` exclude each other; keep one of them",
        ),
        (
            r#"{ pointer = "/a" }"#,
            "a matcher's `pointer` goes with one of `equals`, `one_of`, `class`, `present`, `absent_or_null` and `contains`",
        ),
        (
            r#"{ equals = 1 }"#,
            "`equals` tests the value of a place; name the place, as pointer = \"/error/code\"",
        ),
        (
            r#"{ xml = "//a", equals = 1 }"#,
            "`xml`: \"//a\": a name between two \"/\" is empty; write each element's name",
        ),
        (r#"{ query = "a", equals = 1 }"#, "`query` has no use here: an answer has no query"),
        (
            r#"{ pointer = "/a", xml = "/b", equals = 1 }"#,
            "a matcher tests one place, and `xml` is a second; keep one",
        ),
        (r#"{ form = "", equals = 1 }"#, "`form` is empty; write the name"),
        (
            "{}",
            "a matcher needs a part: `status`, `contains`, or a place such as `pointer` with `equals`, `one_of`, `class`, `present` or `absent_or_null`",
        ),
        (
            r#"{ contains = "" }"#,
            "`contains` is empty, so that every text would match; name a text",
        ),
        (r#"{ header = "x a", equals = 1 }"#, "`header`: \"x a\" is not the name of a header"),
        (r#"{ header = { equals = "a" } }"#, "a matcher's `header` needs its `name`"),
        (
            r#"{ header = { name = "a" } }"#,
            "a matcher's `header` needs one of `equals`, `one_of`, `present`, `absent_or_null` and `contains`",
        ),
        (
            r#"{ header = "a", pointer = "/a", equals = 1 }"#,
            "a matcher tests one place, and `pointer` is a second; write the header with its own test, as header = { name = \"…\", equals = \"…\" }",
        ),
        (
            r#"{ status = 200 }"#,
            "`retry` names a success without saying what else the answer holds, but a client that saw a success must never run again",
        ),
        (
            r#"{ status = 99, contains = "a" }"#,
            "`route.outcome.retry.status`: 99 is not the status of an answer (200 to 599)",
        ),
        (
            r#"{ pointer = "/a", equal = 1 }"#,
            "unknown key `equal` in `route.outcome.retry`; did you mean `equals`?",
        ),
    ] {
        let config = format!("{}[route.outcome]\nretry = [{matcher}]\n", super::ROUTE);
        let mistakes = super::read(&config).expect_err(matcher);
        let messages: Vec<&str> =
            mistakes.list.iter().map(|mistake| mistake.what.as_str()).collect();
        assert_eq!(messages, [what], "{matcher}");
        assert_eq!(mistakes.list[0].at.map(|(line, _)| line), Some(10), "{matcher}");
    }
}

#[test]
fn one_matcher_stands_in_one_list() {
    check(
        "[route.outcome]\nretry = [{ contains = \"a\" }]\nunknown = [{ contains = \"a\" }]\n",
        &["11:12: `unknown` has a matcher that stands in another list already"],
    );
}

#[test]
fn batches_take_matchers_of_answers_and_items_of_values() {
    check(
        "mode = \"items\"\nprofile = \"capillary\"\n[route.outcome]\nretry = [{ contains = \"a\" }]\n[route.items]\nindivisible = { header = \"a\", equals = 1 }\n",
        &[
            "14:26: `header` has no use here: rows and items are JSON values; name a member with `pointer`",
        ],
    );
}

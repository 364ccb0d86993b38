//! Table tests of matchers.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::json::Pointer;

fn at(pointer: &str) -> Pointer {
    Pointer::parse(pointer).unwrap()
}

fn texts(texts: &[&str]) -> ValueTest {
    ValueTest::OneOf(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn member(pointer: &str, test: ValueTest) -> Matcher {
    Matcher::member(at(pointer), test)
}

fn header(name: &'static str, test: ValueTest) -> Matcher {
    let place = MatchPlace::Header(HeaderName::from_static(name));
    Matcher { conditions: vec![Condition { place, test }], ..Matcher::default() }
}

fn truth(matcher: &Matcher, status: u16, body: &str) -> Truth {
    let headers = HeaderMap::from_iter([
        (HeaderName::from_static("server"), HeaderValue::from_static("envoy")),
        (HeaderName::from_static("x-code"), HeaderValue::from_static("429")),
    ]);
    let body = ParsedBody::new(body.as_bytes());
    let body = MatchBody::Whole(&body);
    matcher.truth(&MatchInput::answer(status, HeaderView::Map(&headers), body))
}

#[test]
fn a_member_is_tested_as_text_and_numbers_by_their_value() {
    use Truth::{No, Undecided, Yes};
    let body = r#"{"a":"x","n":7.0,"t":true,"z":null,"s":"7","c":404,"d":"503",
                   "l":[{"m":1}],"o":{"k":"deep text"},"twice":1,"twice":2}"#;
    for (pointer, test, expected) in [
        ("/a", texts(&["y", "x"]), Yes),
        ("/a", texts(&["X"]), No),
        ("/n", texts(&["7"]), Yes),
        ("/n", texts(&["7.1"]), No),
        ("/s", texts(&["7"]), Yes),
        ("/s", texts(&["7.0"]), No),
        ("/t", texts(&["true"]), Yes),
        ("/z", texts(&["null"]), No),
        ("/z", ValueTest::Present, No),
        ("/z", ValueTest::AbsentOrNull, Yes),
        ("/a", ValueTest::Present, Yes),
        ("/a", ValueTest::AbsentOrNull, No),
        ("/o", ValueTest::Present, Yes),
        ("/absent", ValueTest::AbsentOrNull, Yes),
        ("/absent", texts(&["x"]), No),
        ("/a/deeper", ValueTest::AbsentOrNull, Yes),
        ("/c", ValueTest::Class(4), Yes),
        ("/c", ValueTest::Class(5), No),
        ("/d", ValueTest::Class(5), Yes),
        ("/n", ValueTest::Class(7), No),
        ("/l/0/m", texts(&["1"]), Yes),
        ("/l/1", ValueTest::AbsentOrNull, Yes),
        ("/l/m", ValueTest::AbsentOrNull, Undecided),
        ("/l/m", ValueTest::Present, Undecided),
        ("/l/m", texts(&["1"]), Undecided),
        ("/o", ValueTest::Contains("deep t".to_owned()), Yes),
        ("/a", ValueTest::Contains("deep".to_owned()), No),
        ("/twice", texts(&["1"]), Undecided),
        ("/twice", ValueTest::AbsentOrNull, Undecided),
    ] {
        let matcher = member(pointer, test);
        assert_eq!(truth(&matcher, 200, body), expected, "{matcher}");
    }
}

#[test]
fn all_parts_must_hold_and_none_of_unless() {
    let body = r#"{"error":{"code":"busy"},"ok":false}"#;
    let busy = || member("/error/code", texts(&["busy"]));
    let of_status = |status| Matcher { status: Some(status), ..busy() };
    for (matcher, expected) in [
        (of_status(StatusPattern::Exact(200)), true),
        (of_status(StatusPattern::Class(2)), true),
        (of_status(StatusPattern::Class(4)), false),
        (Matcher { unless: vec![member("/ok", texts(&["false"]))], ..busy() }, false),
        (Matcher { unless: vec![member("/ok", texts(&["true"]))], ..busy() }, true),
        (Matcher { contains: Some("busy".to_owned()), ..Matcher::default() }, true),
        (Matcher { contains: Some("idle".to_owned()), ..busy() }, false),
        (Matcher { array: Some(at("/a")), ..busy() }, false),
        (header("server", texts(&["envoy"])), true),
        (header("server", texts(&["nginx"])), false),
        (header("x-absent", ValueTest::AbsentOrNull), true),
        (header("x-code", ValueTest::Class(4)), true),
    ] {
        assert_eq!(truth(&matcher, 200, body) == Truth::Yes, expected, "{matcher}");
    }
}

#[test]
fn an_unreadable_body_decides_nothing_not_even_an_exception() {
    let absent = || member("/error", ValueTest::AbsentOrNull);
    let without_error = Matcher {
        unless: vec![member("/error", ValueTest::Present)],
        ..header("server", texts(&["envoy"]))
    };
    for body in ["<html>", "{\"error\":", "", "[1]", "{\"error\":1,\"error\":null}"] {
        assert_eq!(truth(&absent(), 200, body), Truth::Undecided, "{body}");
        assert_eq!(truth(&without_error, 200, body), Truth::Undecided, "{body}");
    }
    assert_eq!(truth(&without_error, 200, "{}"), Truth::Yes);
    // A part that does not hold settles the matter, whatever the rest is.
    let of_404 = Matcher { status: Some(StatusPattern::Exact(404)), ..absent() };
    assert_eq!(truth(&of_404, 200, "<html>"), Truth::No);
    let unseen = MatchInput::answer(200, HeaderView::Lines(&[]), MatchBody::Unseen);
    assert_eq!(absent().truth(&unseen), Truth::Undecided);
}

#[test]
fn numbers_are_the_same_in_any_spelling() {
    for (one, other, same) in [
        ("7", "7", true),
        ("7", "7.00", true),
        ("70e-1", "7", true),
        ("-0", "0", true),
        ("0.0", "0", true),
        ("1e3", "1000", true),
        ("12345678901234567890", "12345678901234567891", false),
        ("7", "-7", false),
        ("07", "7", false),
        ("", "", false),
        ("1.", "1", false),
        ("1e", "1", false),
        ("1e99999999999", "1e99999999999", false),
        ("x", "x", false),
    ] {
        assert_eq!(same_number(one, other), same, "{one} {other}");
        assert_eq!(same_number(other, one), same, "{other} {one}");
    }
}

#[test]
fn a_matcher_is_shown_as_it_is_written() {
    let matcher = Matcher {
        status: Some(StatusPattern::Exact(200)),
        unless: vec![header("server", texts(&["a", "b"])), member("/z", ValueTest::Class(4))],
        ..member("/error/code", texts(&["\"busy\""]))
    };
    assert_eq!(
        matcher.to_string(),
        r#"{ status = 200, pointer = "/error/code", equals = "\"busy\"", unless = [{ header = { name = "server", one_of = ["a", "b"] } }, { pointer = "/z", class = "4xx" }] }"#
    );
}

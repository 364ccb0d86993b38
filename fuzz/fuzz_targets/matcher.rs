//! Matchers decide about any message, and two of which one is the other's exception never both hold.
#![no_main]

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use oncegate::json::Pointer;
use oncegate::matcher::{
    Condition, HeaderView, MatchBody, MatchInput, MatchPlace, Matcher, ParsedBody, ValueTest,
};
use oncegate::xml::XmlPath;

fuzz_target!(|bytes: &[u8]| {
    let (text, body) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(0));
    let text = String::from_utf8_lossy(text).into_owned();
    let headers = HeaderMap::new();
    let body = ParsedBody::new(body.get(1..).unwrap_or_default());
    let view = HeaderView::Map(&headers);
    let input = MatchInput::request(view, Some(&text), MatchBody::Whole(&body));
    let places = [
        MatchPlace::Pointer(Pointer::parse("/a/0/b").expect("a pointer")),
        MatchPlace::Xml(XmlPath::parse("/a/@b").expect("a path")),
        MatchPlace::Form("a".to_owned()),
        MatchPlace::Query("a".to_owned()),
    ];
    let tests = [
        ValueTest::OneOf(vec![text.clone()]),
        ValueTest::Class(4),
        ValueTest::Present,
        ValueTest::AbsentOrNull,
        ValueTest::Contains(text.clone()),
    ];
    for place in &places {
        for test in &tests {
            let condition = Condition { place: place.clone(), test: test.clone() };
            let matcher = Matcher { conditions: vec![condition], ..Matcher::default() };
            let contrary = Matcher { unless: vec![matcher.clone()], ..Matcher::default() };
            assert!(!(matcher.matches(&input) && contrary.matches(&input)), "{matcher}");
        }
        let of = |test| Matcher {
            conditions: vec![Condition { place: place.clone(), test }],
            ..Matcher::default()
        };
        let (present, absent) = (of(ValueTest::Present), of(ValueTest::AbsentOrNull));
        assert!(!(present.matches(&input) && absent.matches(&input)), "{present}");
    }
});

//! Every field is encoded for its place, and nothing else is a field.

use super::*;
use crate::clock::Timestamp;

const ALL: FieldScope =
    FieldScope { record: true, body: true, row: true, answer: true, names: &["detail"] };

/// Values of a fixed record.
struct Sample;

impl FieldValues for Sample {
    fn value(&self, field: &Field) -> Option<FieldValue> {
        let json = |text: &str| Some(FieldValue::Json(text.to_owned()));
        match field.to_string().as_str() {
            "key" => Some(FieldValue::Text("k/1 \"é\"".to_owned())),
            "/qr" => json("\"rsg:a\\nb/..\""),
            "/amount" => json("12.50"),
            "/none" => json("null"),
            "/dots" => json("\"..\""),
            "/empty" => json("\"\""),
            "/object" => json("{\"a\":[1]}"),
            "path:code" => Some(FieldValue::Text("A&B".to_owned())),
            "header:x-id" => Some(FieldValue::Text("plain".to_owned())),
            "row:/id" => json("7"),
            "answer:/id" => json("\"job\""),
            "body:/mobile" => json("\"+65\""),
            "detail" => Some(FieldValue::Text("a \"b\"".to_owned())),
            _ => None,
        }
    }

    fn time(&self, base: TimeBase) -> Option<Timestamp> {
        Some(Timestamp::from_millis(match base {
            TimeBase::FirstSeen => 1_700_000_000_000,
            TimeBase::DispatchedAt => 1_700_000_100_500,
            TimeBase::Now => 1_700_000_200_000,
        }))
    }
}

fn rendered(text: &str, syntax: TemplateSyntax) -> Result<String, RenderError> {
    Template::parse(text, syntax, &ALL).expect("a template").render(&Sample)
}

fn check(text: &str, syntax: TemplateSyntax, expected: &str) {
    assert_eq!(rendered(text, syntax).as_deref(), Ok(expected), "{text}");
}

#[test]
fn values_are_encoded_for_their_place() {
    check("/v1/{/qr}/x", TemplateSyntax::Path, "/v1/rsg%3Aa%0Ab%2F../x");
    check("/v1?k={key}&a={/amount}", TemplateSyntax::Path, "/v1?k=k%2F1%20%22%C3%A9%22&a=12.50");
    check("/v1?e={/empty}", TemplateSyntax::Path, "/v1?e=");
    check("id={header:x-id}; {/amount}", TemplateSyntax::Header, "id=plain; 12.50");
    check("{\"k\":\"{key}\"}", TemplateSyntax::Json, "{\"k\":\"k/1 \\\"é\\\"\"}");
    check(
        "{\"a\":{/amount},\"o\":{/object}}",
        TemplateSyntax::Json,
        "{\"a\":12.50,\"o\":{\"a\":[1]}}",
    );
    check(
        "{\"n\":{/none},\"k\":{key}}",
        TemplateSyntax::Json,
        "{\"n\":null,\"k\":\"k/1 \\\"é\\\"\"}",
    );
    check("{\"s\":\"#{/amount}\"}", TemplateSyntax::Json, "{\"s\":\"#12.50\"}");
    check("[{row:/id},{answer:/id},{body:/mobile}]", TemplateSyntax::Json, "[7,\"job\",\"+65\"]");
    check("<a b=\"{path:code}\"/>", TemplateSyntax::Xml, "<a b=\"A&amp;B\"/>");
    check("code={path:code}", TemplateSyntax::Form, "code=A%26B");
    check("{detail}!", TemplateSyntax::Text, "a \"b\"!");
    check("{pointer:/amount}", TemplateSyntax::Text, "12.50");
}

#[test]
fn times_have_offsets_and_formats() {
    check("{first_seen}", TemplateSyntax::Text, "2023-11-14T22:13:20.000Z");
    check("{dispatched_at-2m|unix}", TemplateSyntax::Text, "1699999980");
    check("{dispatched_at+1h30m|unix_ms}", TemplateSyntax::Text, "1700005500500");
    check("{now|date}", TemplateSyntax::Text, "2023-11-14");
    check(
        "{\"t\":{now|unix},\"d\":{now}}",
        TemplateSyntax::Json,
        "{\"t\":1700000200,\"d\":\"2023-11-14T22:16:40.000Z\"}",
    );
    let early = Template::parse("{first_seen-99999d|unix}", TemplateSyntax::Text, &ALL);
    assert_eq!(early.expect("a template").render(&Sample).as_deref(), Ok("0"));
}

#[test]
fn a_brace_that_begins_no_field_is_text() {
    for text in ["{}", "{", "}", "{ key }", "{1}", "a{b", "{\"a\": 1}", "{{", "{a b}"] {
        check(text, TemplateSyntax::Text, text);
    }
    check("{{key}}", TemplateSyntax::Form, "{k%2F1%20%22%C3%A9%22}");
}

#[test]
fn a_name_that_is_no_field_is_refused() {
    let error = |text: &str, scope: &FieldScope| {
        Template::parse(text, TemplateSyntax::Text, scope).expect_err(text)
    };
    for text in ["{keys}", "{foo}", "{cookie:a}", "{first_seen2}"] {
        assert!(matches!(error(text, &ALL), TemplateError::Unknown(_)), "{text}");
    }
    for text in ["{now-2x}", "{now+}", "{now|iso}", "{/a~2}", "{row:id}", "{header:}", "{xml:A}"] {
        assert!(matches!(error(text, &ALL), TemplateError::Field(..)), "{text}");
    }
    let none = FieldScope::default();
    for text in ["{key}", "{/a}", "{now}", "{row:/a}", "{answer:/a}", "{body:/a}", "{path:a}"] {
        assert!(matches!(error(text, &none), TemplateError::OutOfScope(_)), "{text}");
    }
    assert!(matches!(error("{detail}", &none), TemplateError::Unknown(_)));
}

#[test]
fn a_text_is_valid_in_its_syntax() {
    let error = |text, syntax| Template::parse(text, syntax, &ALL).expect_err(text);
    assert_eq!(error("{\"a\":{/a}", TemplateSyntax::Json), TemplateError::NotJson);
    assert_eq!(error("{\"a\":x{/a}}", TemplateSyntax::Json), TemplateError::NotJson);
    for path in ["v1", "//host/x", "/a b", "/a#b", "http://x/", ""] {
        assert_eq!(error(path, TemplateSyntax::Path), TemplateError::NoPath, "{path}");
    }
}

#[test]
fn a_value_that_cannot_stand_in_its_place_is_not_sent() {
    let unfit = |text: &str, syntax| {
        assert!(matches!(rendered(text, syntax), Err(RenderError::Unfit(_))), "{text}");
    };
    unfit("/v1/{/dots}/x", TemplateSyntax::Path);
    unfit("/v1/{/empty}", TemplateSyntax::Path);
    unfit("/v1/{/none}", TemplateSyntax::Path);
    unfit("{/qr}", TemplateSyntax::Header);
    unfit("{key}", TemplateSyntax::Header);
    unfit("{/empty}", TemplateSyntax::Header);
    unfit("{/none}", TemplateSyntax::Text);
    assert_eq!(
        rendered("/x/{/missing}", TemplateSyntax::Path),
        Err(RenderError::Absent("/missing".to_owned()))
    );
}

#[test]
fn fields_name_the_places_whose_values_are_kept() {
    let text = "{\"a\":{/qr},\"b\":{body:/mobile},\"c\":\"{path:code}{key}{now}{row:/id}\"}";
    let template = Template::parse(text, TemplateSyntax::Json, &ALL).expect("a template");
    let kept: Vec<String> = template.fields().filter_map(Field::kept_name).collect();
    assert_eq!(kept, ["/qr", "body:/mobile", "path:code"]);
    assert_eq!(template.as_str(), text);
}

#[test]
fn whatever_the_value_is_the_text_stays_one_of_its_syntax() {
    struct Any(String);
    impl FieldValues for Any {
        fn value(&self, _: &Field) -> Option<FieldValue> {
            Some(FieldValue::Text(self.0.clone()))
        }
        fn time(&self, _: TimeBase) -> Option<Timestamp> {
            None
        }
    }
    let json = Template::parse("{\"a\":\"x{/a}y\",\"b\":{/a}}", TemplateSyntax::Json, &ALL);
    let json = json.expect("a template");
    let path = Template::parse("/a/{/a}/b?c={/a}", TemplateSyntax::Path, &ALL).expect("one");
    let mut seed = 7u64;
    for _ in 0..2000 {
        let mut text = String::new();
        for _ in 0..seed % 9 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let choices = ['"', '\\', '/', '?', '#', '%', '.', '\n', '\0', 'a', 'é', '{', '}', '&'];
            text.push(choices[(seed >> 33) as usize % choices.len()]);
        }
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let values = Any(text.clone());
        let body = json.render(&values).expect("JSON takes any text");
        let read: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(read["a"], format!("x{text}y"));
        assert_eq!(read["b"], text);
        if let Ok(target) = path.render(&values) {
            assert_eq!(target.matches('/').count(), 3, "{target}");
            assert!(target.is_ascii() && target.starts_with("/a/"), "{target}");
        }
    }
}

//! Bodies in the forms in which they are compared.

use http::{HeaderMap, HeaderValue};

use super::{fingerprint, pointers};
use crate::idempotency::fingerprint::{
    BodyCompare, ComparedBody, FingerprintRules, RequestParts, Select, Selection,
};
use crate::idempotency::{Fingerprint, TenantId};
use crate::place::BodyForms;

const FORM: &str = "application/x-www-form-urlencoded";

/// A body and the headers that describe it.
#[derive(Clone, Copy)]
struct Sent<'a> {
    media: &'static str,
    query: Option<&'a str>,
    body: &'a str,
}

impl<'a> Sent<'a> {
    fn form(body: &'a str) -> Self {
        Self { media: FORM, query: None, body }
    }

    fn under(self, rules: &FingerprintRules) -> Fingerprint {
        let headers = HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            HeaderValue::from_str(self.media).unwrap(),
        )]);
        let tenant = TenantId::from_bytes([1; 16]);
        let parts = RequestParts {
            method: "POST",
            path: "/v1",
            query: self.query,
            headers: &headers,
            tenant: &tenant,
            body: self.body.as_bytes(),
            compared: ComparedBody::Ignored,
            is_decoded: false,
        };
        fingerprint(rules, &parts)
    }
}

fn by_media_type() -> FingerprintRules {
    FingerprintRules::new(BodyCompare::ByMediaType, Select::All, Vec::new())
}

fn fields(names: &[&str]) -> Selection {
    let fields = names.iter().map(|name| (*name).to_owned()).collect();
    Selection { pointers: Vec::new(), fields }
}

#[track_caller]
fn check(rules: &FingerprintRules, one: Sent<'_>, other: Sent<'_>, differing: Option<&[&str]>) {
    let (one, other) = (one.under(rules), other.under(rules));
    assert_eq!(one.is_same_request(&other), differing.is_none());
    assert_eq!(one.differing(&other), differing.unwrap_or_default());
}

#[test]
fn fields_of_a_form_stand_in_any_order_and_equal_names_keep_theirs() {
    let rules = by_media_type();
    let first = Sent::form("qr=rsg%3A1&amount=5&tag=a&tag=b");
    check(&rules, first, Sent::form("tag=a&amount=5&tag=b&qr=rsg:1"), None);
    check(&rules, first, Sent::form("tag=b&amount=5&tag=a&qr=rsg:1"), Some(&["tag"]));
    check(&rules, first, Sent::form("tag=a&amount=6&qr=rsg:1"), Some(&["amount", "tag"]));
    check(&rules, Sent::form("a=b&c="), Sent::form("c&a=b"), None);
    check(&rules, Sent::form("a=b"), Sent::form("a=b&a="), Some(&["a"]));
    // A form that cannot be read is compared byte for byte.
    check(&rules, Sent::form("a=%&b=1"), Sent::form("b=1&a=%"), Some(&[]));
}

#[test]
fn fields_of_a_form_are_excluded_or_included_by_name() {
    let first = Sent::form("qr=1&sent_at=5&token=x");
    let rule = |select| FingerprintRules::new(BodyCompare::Form, select, Vec::new());
    let excluding = rule(Select::Exclude(fields(&["sent_at", "token"])));
    check(&excluding, first, Sent::form("token=y&qr=1"), None);
    check(&excluding, first, Sent::form("token=y&qr=2"), Some(&["qr"]));
    let including = rule(Select::Include(fields(&["qr", "amount"])));
    check(&including, first, Sent::form("qr=1&free=2"), None);
    check(&including, first, Sent::form("qr=1&amount="), Some(&["amount"]));
    // A list for one form of body leaves the others whole.
    let json = |body| Sent { media: "application/json", query: None, body };
    let mixed = Selection { fields: vec!["qr".to_owned()], ..Selection::default() };
    let rules = FingerprintRules::new(BodyCompare::ByMediaType, Select::Include(mixed), vec![]);
    check(&rules, json(r#"{"qr":1,"x":1}"#), json(r#"{"qr":1,"x":2}"#), Some(&["x"]));
    let pointer = Select::Include(pointers(&["/qr"]));
    let rules = FingerprintRules::new(BodyCompare::ByMediaType, pointer, vec![]);
    check(&rules, Sent::form("qr=1&x=1"), Sent::form("qr=1&x=2"), Some(&["x"]));
}

#[test]
fn parts_of_a_form_are_compared_whatever_their_boundary() {
    let rules = by_media_type();
    let text = |boundary: &str, amount: &str| {
        format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"amount\"\r\n\r\n{amount}\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"photo\"; filename=\"a.png\"\r\n\
             Content-Type: image/png\r\n\r\n\u{1}\r\n--\r\n\r\n--{boundary}--\r\n"
        )
    };
    let (a, b, c) = (text("aaa", "5"), text("----b", "5"), text("----b", "6"));
    let first = Sent { media: "multipart/form-data; boundary=aaa", query: None, body: &a };
    let other = |body| Sent { media: "multipart/form-data; boundary=\"----b\"", query: None, body };
    check(&rules, first, other(&b), None);
    check(&rules, first, other(&c), Some(&["amount"]));
    let renamed = b.replace("a.png", "b.png");
    check(&rules, first, other(&renamed), Some(&["photo"]));
    let cut = b.replace("----b--\r\n", "");
    // A body without its end has no parts to be compared.
    check(&rules, first, other(&cut), Some(&[]));
    // A part that other readers call by another name is not left out by its name.
    let left_out = Select::Exclude(fields(&["photo"]));
    let excluding = FingerprintRules::new(BodyCompare::Multipart, left_out, Vec::new());
    for disposition in [
        "form-data; x=\"a\\\"; name=photo; y=\"; name=\"amount\"",
        "form-data; name=\"photo\"; name=\"amount\"",
        "form-data; name=\"photo\"; name*=utf-8''amount",
        "form-data; name=\"photo\"\r\nContent-Disposition: form-data; name=\"amount\"",
        "form-data;\r\n name=\"amount\"",
    ] {
        let [five, six] = [&a, &a.replace("\r\n5\r\n", "\r\n6\r\n")]
            .map(|text| text.replacen("form-data; name=\"amount\"", disposition, 1));
        let six = Sent { body: &six, ..first };
        check(&excluding, Sent { body: &five, ..first }, six, Some(&[]));
    }
    let photo = Select::Exclude(fields(&["photo"]));
    let excluding = FingerprintRules::new(BodyCompare::Multipart, photo, Vec::new());
    check(&excluding, first, other(&renamed), None);
}

#[test]
fn xml_is_compared_by_its_elements_and_attributes() {
    let xml = |body| Sent { media: "text/xml; charset=utf-8", query: None, body };
    let rules = by_media_type();
    let first = xml("<r id='1' at='2'>\n  <qr>rsg:1</qr>\n  <amount cur='SGD'>5</amount>\n</r>");
    let same = xml("<r at=\"2\" id=\"1\"><qr>rsg:1</qr><amount cur='SGD' >5</amount></r>");
    check(&rules, first, same, None);
    let other = xml("<r at='2' id='2'><qr>rsg:1</qr><amount cur='EUR'>5</amount></r>");
    check(&rules, first, other, Some(&["amount", "id"]));
    check(&rules, xml("<r>"), xml("<r >"), Some(&[]));
}

#[test]
fn a_rule_may_ignore_the_body_or_take_its_bytes() {
    let (one, other) = (Sent::form("a=1&b=2"), Sent::form("b=2&a=1"));
    let rule = |body| FingerprintRules::new(body, Select::All, Vec::new());
    check(&rule(BodyCompare::Raw), one, other, Some(&[]));
    check(&rule(BodyCompare::Ignore), one, Sent::form("anything"), None);
    check(&rule(BodyCompare::Ignore), one, Sent { media: "text/xml", ..one }, Some(&[]));
}

#[test]
fn parameters_of_the_query_are_excluded_by_name() {
    let rules = by_media_type().excluding_query(vec!["token".to_owned(), "ts".to_owned()]);
    let with = |query| Sent { query, ..Sent::form("a=1") };
    let first = with(Some("a=1&token=x&b=2"));
    check(&rules, first, with(Some("ts=9&a=1&b=2&tok%65n=y")), None);
    check(&rules, first, with(Some("b=2&a=1")), Some(&[]));
    check(&rules, with(Some("token=x")), with(None), None);
    // The bytes as received are kept beside, under any rule.
    let (one, again) = (first.under(&rules), first.under(&by_media_type()));
    assert_eq!(one.verbatim, again.verbatim);
    assert_ne!(one.verbatim, with(Some("a=1&b=2")).under(&rules).verbatim);
}

#[test]
fn a_body_without_its_coding_is_the_body() {
    let rules = by_media_type();
    let tenant = TenantId::from_bytes([1; 16]);
    let mut headers =
        HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(FORM))]);
    let plain = Sent::form("a=1&b=2").under(&rules);
    headers.insert(http::header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let of = |body: &[u8], decoded: Option<&[u8]>| {
        let forms = BodyForms::new(&headers, decoded.unwrap_or(body));
        let is_decoded = decoded.is_some();
        let parts = RequestParts {
            method: "POST",
            path: "/v1",
            query: None,
            headers: &headers,
            tenant: &tenant,
            body,
            compared: rules.body.of(&headers, &forms, is_decoded),
            is_decoded,
        };
        rules.preimage(&parts).fingerprint(&tenant)
    };
    let one = of(b"coded", Some(b"b=2&a=1"));
    assert!(one.is_same_request(&plain));
    assert_ne!(one.verbatim, plain.verbatim);
    assert!(one.is_same_request(&of(b"coded otherwise", Some(b"a=1&b=2"))));
    // What cannot be decoded is compared as it came.
    let coded = of(b"a=1&b=2", None);
    assert!(!coded.is_same_request(&plain) && !coded.is_same_request(&of(b"b=2&a=1", None)));
}

#[test]
fn of_many_members_only_those_that_surely_differ_are_named() {
    let rules = by_media_type();
    let body = |changed: &str| {
        let members: Vec<_> = (0..80).map(|at| format!("\"m{at:02}\":1")).collect();
        format!("{{{changed}{}}}", members.join(","))
    };
    let all = body("");
    let against = |other: &str, differing: &[&str]| {
        let json = |body| Sent { media: "application/json", query: None, body };
        check(&rules, json(&all), json(other), Some(differing));
    };
    // The digest of m63 was kept of the first body only.
    against(&body("\"a\":1,"), &["a"]);
    against(&all.replace("\"m05\":1", "\"m05\":2"), &["m05"]);
    against(&all.replace("\"m05\":1,", ""), &["m05"]);
    // Nothing is kept of the last ones.
    against(&body("\"z\":1,"), &[]);
    against(&all.replace("\"m70\":1", "\"m70\":2"), &[]);
}

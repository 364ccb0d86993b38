//! Changed rules: a byte-identical request is the same request under any two rules, and another
//! request never is.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{fingerprint, fingerprint_rules, pointers};
use crate::idempotency::fingerprint::{
    BodyCompare, ComparedBody, FingerprintRules, RequestParts, Select,
};
use crate::idempotency::{Fingerprint, TenantId};

/// Rules that differ from each other in one part.
fn rules() -> Vec<FingerprintRules> {
    let with = |body, headers: &[&'static str]| {
        let headers = headers.iter().map(|name| HeaderName::from_static(name)).collect();
        FingerprintRules::new(body, Select::All, headers)
    };
    vec![
        fingerprint_rules(Select::All),
        fingerprint_rules(Select::Exclude(pointers(&["/t"]))),
        fingerprint_rules(Select::Exclude(pointers(&["/t", "/u"]))),
        fingerprint_rules(Select::Include(pointers(&["/qr"]))),
        fingerprint_rules(Select::Include(pointers(&["/qr", "/t"]))),
        with(BodyCompare::Json, &[]),
        with(BodyCompare::Raw, &[]),
        with(BodyCompare::Form, &[]),
        with(BodyCompare::Multipart, &[]),
        with(BodyCompare::Xml, &[]),
        fingerprint_rules(Select::All).excluding_query(vec!["token".to_owned()]),
        with(BodyCompare::ByMediaType, &["x-shop"]),
        with(BodyCompare::Raw, &["x-shop", "x-till"]),
    ]
}

struct Sent {
    path: &'static str,
    query: Option<&'static str>,
    media: &'static str,
    tenant: u8,
    body: &'static str,
}

impl Sent {
    fn under(&self, rules: &FingerprintRules) -> Fingerprint {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(self.media));
        headers.insert("x-shop", HeaderValue::from_static("1"));
        let tenant = TenantId::from_bytes([self.tenant; 16]);
        let parts = RequestParts {
            method: "POST",
            path: self.path,
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

/// Requests that differ in a part which every rule compares.
fn requests() -> Vec<Sent> {
    let body = r#"{"qr":"A1","t":1,"u":2}"#;
    let sent = || Sent { path: "/v1", query: None, media: "application/json", tenant: 1, body };
    vec![
        sent(),
        Sent { body: r#"{"qr":"A2","t":1,"u":2}"#, ..sent() },
        Sent { body: r#"["A1"]"#, ..sent() },
        Sent { body: "{\"qr\":", ..sent() },
        Sent { body: "", ..sent() },
        Sent { path: "/v2", ..sent() },
        Sent { query: Some("a=1"), ..sent() },
        Sent { media: "application/x+json", ..sent() },
        Sent { media: "text/plain", ..sent() },
        Sent { tenant: 2, ..sent() },
    ]
}

#[test]
fn the_same_bytes_are_the_same_request_under_any_two_rules() {
    let (rules, requests) = (rules(), requests());
    for (at, earlier) in rules.iter().enumerate() {
        for (to, later) in rules.iter().enumerate() {
            for (first, one) in requests.iter().enumerate() {
                for (second, other) in requests.iter().enumerate() {
                    let (one, other) = (one.under(earlier), other.under(later));
                    let what = format!("rules {at} and {to}, requests {first} and {second}");
                    assert_eq!(one.is_same_request(&other), first == second, "{what}");
                    if first == second || at != to {
                        assert_eq!(one.differing(&other), [""; 0], "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn under_one_rule_a_compared_header_tells_requests_apart_and_under_two_it_may_not() {
    let rules = rules();
    let one = requests()[0].under(&rules[11]);
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-shop", HeaderValue::from_static("2"));
    let tenant = TenantId::from_bytes([1; 16]);
    let body = requests()[0].body.as_bytes();
    let parts = RequestParts {
        method: "POST",
        path: "/v1",
        query: None,
        headers: &headers,
        tenant: &tenant,
        body,
        compared: ComparedBody::Ignored,
        is_decoded: false,
    };
    let other = fingerprint(&rules[11], &parts);
    assert_eq!(one.verbatim, other.verbatim);
    assert!(!one.is_same_request(&other));
    // Whether the header differed when another rule made the record is not known any more.
    assert!(requests()[0].under(&rules[0]).is_same_request(&other));
}

#[test]
fn a_rule_is_the_same_rule_in_any_spelling() {
    let rule = |select, headers: &[&'static str]| {
        let headers = headers.iter().map(|name| HeaderName::from_static(name)).collect();
        let rules = FingerprintRules::new(BodyCompare::ByMediaType, select, headers);
        requests()[0].under(&rules)
    };
    let exclude = |list: &[&str]| Select::Exclude(pointers(list));
    let include = |list: &[&str]| Select::Include(pointers(list));
    for (one, other) in [
        (rule(exclude(&["/t", "/u"]), &[]), rule(exclude(&["/u", "/t"]), &[])),
        (rule(include(&["/t", "/qr"]), &[]), rule(include(&["/qr", "/t"]), &[])),
        (rule(exclude(&[]), &[]), rule(Select::All, &[])),
        (rule(Select::All, &["x-a", "x-b"]), rule(Select::All, &["x-b", "x-a"])),
    ] {
        assert_eq!(one, other);
    }
    let all: Vec<_> = rules().iter().map(|rules| requests()[0].under(rules).rule).collect();
    for (at, rule) in all.iter().enumerate() {
        assert!(!all[..at].contains(rule), "rule {at}");
    }
}

//! Comparing a request with the exact bytes of an earlier one.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::idempotency::TenantId;
use crate::idempotency::fingerprint::{
    BodyCompare, ComparedBody, FingerprintRules, MAX_VERBATIM, RequestParts, Select, Verbatim,
};

struct Sent {
    method: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    headers: HeaderMap,
    tenant: TenantId,
    body: Vec<u8>,
}

impl Sent {
    fn parts(&self) -> RequestParts<'_> {
        RequestParts {
            method: self.method,
            path: self.path,
            query: self.query,
            headers: &self.headers,
            tenant: &self.tenant,
            body: &self.body,
            compared: ComparedBody::Raw(&self.body),
            is_decoded: false,
        }
    }
}

/// Requests that differ from each other in one part, or in where one part ends and the next begins;
/// the first two do not differ.
fn requests() -> Vec<Sent> {
    let sent = |media: Option<&'static str>, more: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        if let Some(media) = media {
            headers.insert("content-type", HeaderValue::from_static(media));
        }
        for (name, value) in more {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let body = br#"{"qr":"A1"}"#.to_vec();
        let tenant = TenantId::from_bytes([7; 16]);
        Sent { method: "POST", path: "/v1/redeem", query: None, headers, tenant, body }
    };
    let json = || sent(Some("application/json"), &[]);
    let body = |body: &[u8]| Sent { body: body.to_vec(), ..json() };
    vec![
        json(),
        sent(Some("Application/JSON; charset=utf-8"), &[]),
        sent(Some("application/jso"), &[]),
        sent(None, &[]),
        sent(Some("application/json"), &[("content-encoding", "gzip")]),
        sent(Some("application/json"), &[("x-shop", "")]),
        sent(Some("application/json"), &[("x-shop", "a")]),
        sent(Some("application/json"), &[("x-shop", "A")]),
        sent(Some("application/json"), &[("x-shop", "a"), ("x-shop", "a")]),
        Sent { method: "PUT", ..json() },
        Sent { path: "/v1/redee", ..json() },
        Sent { path: "/v1/redeem/", ..json() },
        Sent { query: Some(""), ..json() },
        Sent { query: Some("a"), ..json() },
        Sent { tenant: TenantId::from_bytes([8; 16]), ..json() },
        body(b""),
        body(br#"{"qr":"A2"}"#),
        body(br#"{"qr":"A1"} "#),
        body(br#"{"qr":"A1""#),
        body(&[b'x'; 2 * MAX_VERBATIM]),
        body(&[b'y'; 2 * MAX_VERBATIM]),
    ]
}

#[test]
fn comparing_says_what_writing_down_and_comparing_says() {
    let headers = vec![HeaderName::from_static("x-shop")];
    let select = Select::All;
    let rules = FingerprintRules::new(BodyCompare::ByMediaType, select, headers);
    let requests = requests();
    let mut kinds = [0, 0];
    for (at, first) in requests.iter().enumerate() {
        let known = rules.verbatim(&first.parts());
        kinds[usize::from(matches!(known, Verbatim::Digest(_)))] += 1;
        for (other, later) in requests.iter().enumerate() {
            let same = rules.is_verbatim(&later.parts(), &known);
            assert_eq!(same, rules.verbatim(&later.parts()) == known, "{at}, {other}");
            assert_eq!(same, at == other || at + other == 1, "{at}, {other}");
        }
        let Verbatim::Text(mut text) = known else { continue };
        for place in 0..text.len() {
            text[place] ^= 0x20;
            let changed = Verbatim::Text(text.clone());
            assert!(!rules.is_verbatim(&first.parts(), &changed), "{at}, byte {place}");
            text[place] ^= 0x20;
        }
    }
    assert_eq!(kinds, [19, 2]);
}

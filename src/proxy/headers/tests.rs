//! Tables: which heads are refused, and what each side gets of the other's headers.

use std::net::{IpAddr, Ipv4Addr};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, StatusCode, Version};

use crate::proxy::peer::ClientAddress;

use super::check::{HeadError, check_request_head, nominates};
use super::{Forwarding, downstream_headers, stored_headers, upstream_headers};

pub(super) fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

pub(super) fn lines(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), std::str::from_utf8(value.as_bytes()).unwrap()))
        .collect();
    // Stable: lines of one name keep their order.
    lines.sort_by_key(|(name, _)| *name);
    lines
}

fn head(method: &str, target: &str, version: Version, headers: &[(&str, &str)]) -> Parts {
    let request = Request::builder().method(method).uri(target).version(version).body(()).unwrap();
    let mut parts = request.into_parts().0;
    parts.headers = map(headers);
    parts
}

pub(super) fn check(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    expected: Result<(), HeadError>,
) {
    let head = head(method, target, Version::HTTP_11, headers);
    assert_eq!(check_request_head(&head), expected, "{method} {target} {headers:?}");
}

#[test]
fn exactly_one_host_that_names_a_host_is_needed() {
    for host in ["a", "a.example", "a.example:80", "127.0.0.1:8080", "[::1]", "[::1]:80", "a:"] {
        check("GET", "/", &[("host", host)], Ok(()));
    }
    for host in [
        "", ":80", "a b", "a/b", "u@a", "a:b", "a:99999", "a:123456", "[::1", "[x]", "[::1]x",
        "a%2e", "a,b@c", "a\\b",
    ] {
        check("GET", "/", &[("host", host)], Err(HeadError::Host));
    }
    check("GET", "/", &[], Err(HeadError::Host));
    check("GET", "/", &[("host", "a"), ("host", "a")], Err(HeadError::Host));
    let old = head("GET", "/", Version::HTTP_10, &[]);
    assert_eq!(check_request_head(&old), Ok(()));
}

#[test]
fn the_only_transfer_encoding_is_one_line_of_chunked() {
    let with = |value| [("host", "a"), ("transfer-encoding", value)];
    check("POST", "/", &with("chunked"), Ok(()));
    check("POST", "/", &with("Chunked"), Ok(()));
    for value in
        ["gzip, chunked", "chunked, chunked", "identity", "", "chunked;x=y", "\u{b}chunked"]
    {
        if HeaderValue::from_bytes(value.as_bytes()).is_ok() {
            check("POST", "/", &with(value), Err(HeadError::TransferEncoding));
        }
    }
    let twice = [("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
    check("POST", "/", &twice, Err(HeadError::TransferEncoding));
    let old = head("POST", "/", Version::HTTP_10, &with("chunked"));
    assert_eq!(check_request_head(&old), Err(HeadError::TransferEncoding));
}

#[test]
fn a_content_length_is_one_number_and_stands_alone() {
    let with = |value| [("host", "a"), ("content-length", value)];
    check("POST", "/", &with("0"), Ok(()));
    check("POST", "/", &with("12"), Ok(()));
    for value in ["", "-1", "+1", "1, 1", "0x10", "1 2", "99999999999999999999"] {
        check("POST", "/", &with(value), Err(HeadError::ContentLength));
    }
    let twice = [("host", "a"), ("content-length", "1"), ("content-length", "1")];
    check("POST", "/", &twice, Err(HeadError::ContentLength));
    let both = [("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")];
    check("POST", "/", &both, Err(HeadError::ContentLength));
}

#[test]
fn a_target_has_the_form_that_fits_its_method_and_host() {
    let host = [("host", "a.example")];
    check("GET", "http://a.example/x", &host, Ok(()));
    check("GET", "http://A.EXAMPLE/x", &host, Ok(()));
    check("OPTIONS", "*", &host, Ok(()));
    check("GET", "http://b.example/x", &host, Err(HeadError::Target));
    check("GET", "http://u@a.example/x", &host, Err(HeadError::Target));
    check("GET", "ftp://a.example/x", &host, Err(HeadError::Target));
    check("GET", "*", &host, Err(HeadError::Target));
    check("GET", "a.example:80", &host, Err(HeadError::Target));
    check("CONNECT", "a.example:80", &host, Err(HeadError::Method));
    check("TRACE", "/", &host, Err(HeadError::Method));
    assert_eq!(HeadError::Method.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[test]
fn the_only_expectation_is_100_continue() {
    check("POST", "/", &[("host", "a"), ("expect", "100-Continue")], Ok(()));
    check("POST", "/", &[("host", "a"), ("expect", "magic")], Err(HeadError::Expect));
    assert_eq!(HeadError::Expect.status(), StatusCode::EXPECTATION_FAILED);
}

#[test]
fn connection_cannot_nominate_what_the_backend_must_see() {
    let with = |value| [("host", "a"), ("connection", value)];
    for value in ["close", "keep-alive, upgrade", "x-private, , te", ""] {
        check("POST", "/", &with(value), Ok(()));
    }
    for value in ["Host", "close, Content-Length", "content-type", "AUTHORIZATION", "x,cookie "] {
        check("POST", "/", &with(value), Err(HeadError::Nomination));
    }
    let key = HeaderName::from_static("idempotency-key");
    assert!(nominates(&map(&with("close, Idempotency-Key")), &key));
    assert!(!nominates(&map(&with("close, x-idempotency-key")), &key));
}

pub(super) fn from(ip: IpAddr) -> ClientAddress {
    ClientAddress { ip: Some(ip), is_trusted: false, is_secure: false }
}

pub(super) fn forwarding() -> Forwarding<'static> {
    Forwarding {
        client: from(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))),
        version: Version::HTTP_11,
        request_id: Some(HeaderValue::from_static(ID)),
        hidden: &[],
        keyed: false,
    }
}

pub(super) const ID: &str = "00000000-0000-0000-0000-000000000007";

#[test]
fn hop_by_hop_headers_and_framing_do_not_go_upstream() {
    let client = map(&[
        ("host", "shop.example"),
        ("connection", "close, X-Private"),
        ("connection", "x-other"),
        ("x-private", "1"),
        ("x-other", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("proxy-connection", "keep-alive"),
        ("te", "trailers"),
        ("trailer", "x-sum"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("content-length", "3"),
        ("expect", "100-continue"),
        ("authorization", "Bearer x"),
        ("accept-encoding", "gzip"),
        ("idempotency-key", "k"),
        ("traceparent", "00-1-2-01"),
        ("x-multi", "1"),
        ("x-multi", "2"),
    ]);
    let sent = upstream_headers(client, &forwarding());
    assert_eq!(sent.keys().next().unwrap(), "host");
    assert_eq!(
        lines(&sent),
        [
            ("accept-encoding", "gzip"),
            ("authorization", "Bearer x"),
            ("host", "shop.example"),
            ("idempotency-key", "k"),
            ("traceparent", "00-1-2-01"),
            ("via", "1.1 oncegate"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-proto", "http"),
            ("x-multi", "1"),
            ("x-multi", "2"),
            ("x-request-id", ID),
        ]
    );
}

#[test]
fn a_keyed_request_goes_up_without_its_key_and_asks_for_no_compression() {
    let client = map(&[("host", "a"), ("idempotency-key", "k"), ("accept-encoding", "gzip")]);
    let key = HeaderName::from_static("idempotency-key");
    let sent =
        upstream_headers(client, &Forwarding { hidden: &[key], keyed: true, ..forwarding() });
    assert_eq!(sent.get("idempotency-key"), None);
    assert_eq!(sent.get_all("accept-encoding").iter().collect::<Vec<_>>(), ["identity"]);
}

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

fn date() -> HeaderValue {
    HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT")
}

#[test]
fn a_backend_cannot_speak_as_the_gateway_or_set_its_framing() {
    let backend = map(&[
        ("content-type", "application/json"),
        ("content-length", "2"),
        ("connection", "keep-alive, x-private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("trailer", "x-sum"),
        ("upgrade", "h2c"),
        ("idempotency-status", "replayed"),
        ("idempotency-error", "key-reused"),
        ("idempotency-expires", "x"),
        ("idempotency-replayed", "true"),
        ("idempotent-replayed", "true"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
    ]);
    let sent = downstream_headers(backend, Some(&REPLAYED), false, Version::HTTP_11, date);
    assert_eq!(
        lines(&sent),
        [
            ("content-type", "application/json"),
            ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("idempotent-replayed", "true"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("via", "1.1 oncegate"),
        ]
    );
}

#[test]
fn the_length_of_a_body_that_is_not_sent_is_kept_once_and_so_is_the_backends_date() {
    let backend = map(&[("content-length", "5"), ("content-length", "5"), ("date", "then")]);
    let sent = downstream_headers(backend, None, true, Version::HTTP_10, date);
    assert_eq!(lines(&sent), [("content-length", "5"), ("date", "then"), ("via", "1.0 oncegate")]);
}

#[test]
fn a_replay_keeps_each_line_in_order_as_bytes_without_what_was_for_one_client() {
    let mut sent = map(&[
        ("link", "<a>"),
        ("set-cookie", "a=1"),
        ("www-authenticate", "Basic"),
        ("proxy-authenticate", "Basic"),
        ("idempotency-status", "executed"),
        ("date", "then"),
        ("link", "<b>"),
    ]);
    sent.append("x-name", HeaderValue::from_bytes(b"caf\xe9").unwrap());
    let expected: [(&'static str, &[u8]); 4] =
        [("link", b"<a>"), ("link", b"<b>"), ("date", b"then"), ("x-name", b"caf\xe9")];
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap())
        })
        .collect();
    assert_eq!(stored_headers(&sent), expected);
}

#[test]
fn every_address_is_written_as_the_standard_writes_it() {
    let check = |client: IpAddr, expected: String| {
        let forwarding = Forwarding { client: from(client), ..forwarding() };
        let sent = upstream_headers(map(&[("host", "a")]), &forwarding);
        assert_eq!(sent.get("x-forwarded-for").unwrap().to_str().unwrap(), expected);
    };
    for octet in 0..=255 {
        for octets in [[octet, 0, 10, 255], [9, octet, 99, octet], [100, 1, 200, octet]] {
            let address = Ipv4Addr::from(octets);
            check(IpAddr::V4(address), address.to_string());
            check(IpAddr::V6(address.to_ipv6_mapped()), address.to_string());
        }
    }
    for text in ["::1", "2001:db8::7", "2001:db8:1111:2222:3333:4444:5555:6666"] {
        check(text.parse().unwrap(), text.to_owned());
    }
}

#[test]
fn the_host_goes_first_and_everything_else_keeps_its_lines() {
    let client = map(&[
        ("accept", "a"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("cookie", "one"),
        ("host", "h"),
        ("cookie", "two"),
    ]);
    let sent = upstream_headers(client, &forwarding());
    assert_eq!(sent.keys().next().unwrap(), "host");
    assert_eq!(sent.get_all("cookie").iter().collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(sent.get("accept").unwrap(), "a");
    assert!(!sent.contains_key("x-hop") && !sent.contains_key("connection"));
}

//! Tables: the gateway as a hop between other proxies.

use http::Version;

use super::check::HeadError;
use super::tests::{ID, check, forwarding, from, lines, map};
use super::{ClientAddress, Forwarding, upstream_headers};

const CLAIMS: [(&str, &str); 10] = [
    ("host", "a:80"),
    ("x-forwarded-for", "203.0.113.1"),
    ("x-forwarded-for", "198.51.100.2"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "shop.example"),
    ("x-forwarded-port", "443"),
    ("x-real-ip", "203.0.113.1"),
    ("forwarded", "for=203.0.113.1"),
    ("via", "1.0 old"),
    ("x-request-id", "mine"),
];

#[test]
fn forwarding_headers_of_a_client_are_not_believed() {
    let client = ClientAddress { is_secure: true, ..from("::ffff:192.0.2.7".parse().unwrap()) };
    let forwarding =
        Forwarding { client, version: Version::HTTP_10, request_id: None, ..forwarding() };
    let sent = upstream_headers(map(&CLAIMS), &forwarding);
    assert_eq!(
        lines(&sent),
        [
            ("host", "a:80"),
            ("via", "1.0 old, 1.0 oncegate"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "a:80"),
            ("x-forwarded-proto", "https"),
            ("x-request-id", "mine"),
        ]
    );
}

#[test]
fn forwarding_headers_of_a_trusted_proxy_are_kept_and_extended() {
    let client = ClientAddress {
        ip: Some("2001:db8::7".parse().unwrap()),
        is_trusted: true,
        is_secure: false,
    };
    let sent =
        upstream_headers(map(&CLAIMS), &Forwarding { client, request_id: None, ..forwarding() });
    assert_eq!(
        lines(&sent),
        [
            ("forwarded", "for=203.0.113.1, for=\"[2001:db8::7]\";proto=http;host=\"a:80\""),
            ("host", "a:80"),
            ("via", "1.0 old, 1.1 oncegate"),
            ("x-forwarded-for", "203.0.113.1, 198.51.100.2, 2001:db8::7"),
            ("x-forwarded-host", "shop.example"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-proto", "https"),
            ("x-real-ip", "203.0.113.1"),
            ("x-request-id", "mine"),
        ]
    );
    // What it does not say is said by the gateway.
    let client = ClientAddress {
        ip: Some("192.0.2.7".parse().unwrap()),
        is_trusted: true,
        is_secure: false,
    };
    let sent = upstream_headers(map(&CLAIMS[..1]), &Forwarding { client, ..forwarding() });
    assert_eq!(
        lines(&sent),
        [
            ("host", "a:80"),
            ("via", "1.1 oncegate"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "a:80"),
            ("x-forwarded-proto", "http"),
            ("x-request-id", ID),
        ]
    );
}

#[test]
fn the_default_port_makes_no_difference_to_an_authority() {
    for (target, host) in [
        ("http://g/x", "g"),
        ("http://g:80/x", "g"),
        ("http://g/x", "g:80"),
        ("http://g:/x", "g"),
        ("http://[::1]:80/x", "[::1]"),
        ("http://G:80/x", "g"),
        ("https://g:443/x", "g"),
        ("http://g:8080/x", "g:8080"),
    ] {
        check("GET", target, &[("host", host)], Ok(()));
    }
    for (target, host) in [
        ("http://g:443/x", "g"),
        ("https://g:80/x", "g"),
        ("http://g:8080/x", "g"),
        ("http://g/x", "g:443"),
        ("http://h:80/x", "g"),
        ("http://[::80]/x", "[::]"),
    ] {
        check("GET", target, &[("host", host)], Err(HeadError::Target));
    }
}

#[test]
fn a_request_that_passed_three_times_goes_round_in_a_loop() {
    let via = |lines: &[&'static str]| -> Vec<(&str, &str)> {
        [("host", "a")].into_iter().chain(lines.iter().map(|line| ("via", *line))).collect()
    };
    for lines in [
        &[][..],
        &["1.1 oncegate, 1.1 oncegate"],
        &["1.1 oncegate", "1.1 nginx, 1.1 haproxy", "1.0 oncegate"],
        &["1.1 oncegate-2, 1.1 notoncegate, 1.1 oncegate, 1.1 a (oncegate), oncegate"],
    ] {
        check("GET", "/", &via(lines), Ok(()));
    }
    for lines in [
        &["1.1 oncegate, 1.1 oncegate, 1.1 oncegate"][..],
        &["1.1 oncegate", "1.0 nginx, HTTP/1.1 Oncegate (v1)", "2  oncegate "],
    ] {
        check("GET", "/", &via(lines), Err(HeadError::Loop));
    }
}

//! What is kept of an answer: status, end-to-end header lines and body, byte for byte.

use crate::support::{Act, Backend, Request, Response, Setup};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// The first answer and a replay of it.
fn twice(act: Act) -> (Response, Response) {
    let backend = Backend::start();
    backend.always(act);
    let gateway = Setup::before(&backend).start();
    let first = Request::redeem("k", BODY).send(gateway.addr);
    let again = Request::redeem("k", BODY).send(gateway.addr);
    assert_eq!(backend.calls(), 1);
    assert_eq!((first.disposition(), again.disposition()), ("executed".into(), "replayed".into()));
    assert_eq!(first.kept(), again.kept());
    (first, again)
}

#[test]
fn binary_bodies_are_replayed_byte_for_byte() {
    let body: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let (first, again) = twice(Act::whole(200, &[("content-type", "image/png")], &body));
    assert!(first.body == body && again.body == body);
}

#[test]
fn a_compressed_body_stays_as_it_came() {
    // An empty gzip member, RFC 1952.
    let gzip = [31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (first, again) = twice(Act::whole(200, &[("content-encoding", "gzip")], &gzip));
    assert_eq!((first.body.as_slice(), again.body.as_slice()), (&gzip[..], &gzip[..]));
    assert_eq!(again.header("content-encoding").as_deref(), Some("gzip"));
}

#[test]
fn answers_are_asked_for_without_compression() {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let request = Request::redeem("k", BODY).header("accept-encoding", "gzip, br");
    request.send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.last().header("accept-encoding").as_deref(), Some("identity"));
}

#[test]
fn cookies_and_challenges_are_given_once_and_never_replayed() {
    let headers =
        [("set-cookie", "a=1"), ("set-cookie", "b=2"), ("www-authenticate", "Basic"), ("x-a", "1")];
    let (first, again) = twice(Act::whole(200, &headers, b"{}"));
    assert_eq!(first.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(first.all("www-authenticate"), ["Basic"]);
    assert_eq!(again.all("set-cookie"), [""; 0]);
    assert_eq!(again.all("www-authenticate"), [""; 0]);
    assert_eq!(again.all("x-a"), ["1"]);
}

#[test]
fn header_lines_of_one_name_stay_separate_and_in_order() {
    let headers = [("x-note", "one, two"), ("x-other", "\"q\""), ("x-note", "three")];
    let (first, again) = twice(Act::whole(200, &headers, b"{}"));
    for response in [first, again] {
        assert_eq!(response.all("x-note"), ["one, two", "three"]);
        assert_eq!(response.all("x-other"), ["\"q\""]);
    }
}

#[test]
fn the_backends_date_is_replayed() {
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let (first, again) = twice(Act::whole(200, &[("date", date)], b"{}"));
    assert_eq!(
        (first.header("date"), again.header("date")),
        (Some(date.into()), Some(date.into()))
    );
}

#[test]
fn header_values_that_are_not_ascii_are_kept_as_bytes() {
    let backend = Backend::start();
    backend.always(Act::raw(b"HTTP/1.1 200 OK\r\nx-latin: caf\xe9\r\ncontent-length: 0\r\n\r\n"));
    let gateway = Setup::before(&backend).start();
    for disposition in ["executed", "replayed"] {
        let response = Request::redeem("k", BODY).send(gateway.addr);
        assert_eq!(response.disposition(), disposition);
        assert!(response.headers.contains(&("x-latin".to_owned(), b"caf\xe9".to_vec())));
    }
}

#[test]
fn hop_by_hop_and_nominated_headers_of_an_answer_stay_behind() {
    let headers = [
        ("connection", "x-private, keep-alive"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("proxy-authenticate", "Basic"),
        ("x-public", "1"),
    ];
    let (first, again) = twice(Act::whole(200, &headers, b"{}"));
    for response in [first, again] {
        assert_eq!(response.all("x-private"), [""; 0]);
        assert_eq!(response.all("keep-alive"), [""; 0]);
        assert_eq!(response.all("x-public"), ["1"]);
    }
}

#[test]
fn answers_without_a_body_stay_without_one() {
    let (first, again) = twice(Act::whole(204, &[("x-a", "1")], b""));
    for response in [first, again] {
        assert_eq!((response.status, response.body.len()), (204, 0));
        assert_eq!(response.header("content-length"), None);
    }
    let (first, again) = twice(Act::whole(200, &[], b""));
    assert_eq!((first.body.len(), again.body.len()), (0, 0));
}

#[test]
fn chunked_answers_are_kept_whole_without_their_trailers() {
    let act = Act::raw(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nx-sum: 9\r\n\r\n",
    );
    let (first, again) = twice(act);
    assert_eq!((first.text(), again.text()), ("abcde".into(), "abcde".into()));
    assert_eq!(again.header("x-sum"), None);
}

#[test]
fn redirects_are_kept_and_not_followed() {
    let (first, again) = twice(Act::whole(307, &[("location", "/elsewhere")], b"go"));
    for response in [first, again] {
        assert_eq!((response.status, response.text()), (307, "go".to_owned()));
        assert_eq!(response.header("location").as_deref(), Some("/elsewhere"));
    }
}

#[test]
fn interim_answers_do_not_count() {
    let interim = Act::raw("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    let (first, _) = twice(interim.then(Act::whole(201, &[], b"made")));
    assert_eq!((first.status, first.text()), (201, "made".to_owned()));
}

#[test]
fn a_body_that_ends_with_the_connection_is_whole_when_it_shows_its_own_end() {
    let act = Act::raw("HTTP/1.0 200 OK\r\nx-a: 1\r\n\r\n{\"to\":\"the end\"}").then(Act::close());
    let (first, again) = twice(act);
    assert_eq!(first.text(), r#"{"to":"the end"}"#);
    assert_eq!(again.text(), first.text());
}

#[test]
fn a_body_that_ends_with_the_connection_and_may_be_cut_short_is_unknown() {
    for body in [r#"{"to":"the e"#, "plain text", ""] {
        let backend = Backend::start();
        let head = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n";
        backend.always(Act::raw(format!("{head}{body}")).then(Act::close()));
        let gateway = Setup::before(&backend).start();
        let first = Request::redeem("k", BODY).send(gateway.addr);
        assert_eq!(first.disposition(), "unknown", "{body:?}: {first:?}");
        let again = Request::redeem("k", BODY).send(gateway.addr);
        again.is(409, "unknown", "outcome-unknown");
        assert_eq!(backend.calls(), 1);
    }
}

#[test]
fn head_gets_the_headers_alone() {
    let backend = Backend::start();
    backend.always(Act::raw("HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-a: 1\r\n\r\n"));
    let gateway = Setup::before(&backend).start();
    let mut conn = Request::new("HEAD", "/thing").begin(gateway.addr);
    let head = conn.read_to_head();
    assert_eq!((head.status, head.header("content-length").as_deref()), (200, Some("5")));
    assert_eq!(head.header("x-a").as_deref(), Some("1"));
    conn.write(Request::new("HEAD", "/thing").bytes());
    assert_eq!(conn.read_to_head().status, 200);
}

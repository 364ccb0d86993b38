//! What goes upstream is built anew: one request, one computed length, nothing of the connection it
//! came on.

use crate::support::{Backend, Conn, Request, Seen, Setup};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// What the backend sees of a request.
fn forwarded(bytes: &[u8]) -> Seen {
    let backend = Backend::start();
    let gateway = Setup::before(&backend).start();
    let mut conn = Conn::open(gateway.addr);
    conn.write(bytes);
    let reply = conn.read();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(backend.calls(), 1);
    backend.last()
}

#[test]
fn a_request_has_one_computed_length_and_no_hop_by_hop_header() {
    let seen = forwarded(
        &Request::redeem("k", BODY)
            .header("connection", "keep-alive, x-private, te")
            .header("x-private", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "keep-alive")
            .header("proxy-authorization", "Basic eA==")
            .header("te", "trailers")
            .header("trailer", "x-sum")
            .header("upgrade", "h2c")
            .header("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA")
            .header("x-public", "1")
            .header("x-public", "2")
            .bytes(),
    );
    for gone in [
        "connection",
        "x-private",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
        "transfer-encoding",
        "expect",
        "idempotency-key",
    ] {
        assert_eq!(seen.all(gone), [""; 0], "{gone}");
    }
    assert_eq!(seen.all("content-length"), ["14"]);
    assert_eq!(seen.all("host").len(), 1);
    assert_eq!(seen.all("x-public"), ["1", "2"]);
    assert_eq!(seen.line, "POST /v1/vouchers/redeem HTTP/1.1");
    assert_eq!(seen.text(), BODY);
}

#[test]
fn chunks_and_trailers_of_a_client_become_a_plain_body() {
    let seen = forwarded(
        b"POST /v1/vouchers/redeem HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\n\
          transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n",
    );
    assert_eq!(seen.all("content-length"), ["5"]);
    assert_eq!(seen.all("transfer-encoding"), [""; 0]);
    assert_eq!(seen.all("x-trailer"), [""; 0]);
    assert_eq!(seen.text(), "abcde");
}

#[test]
fn an_empty_body_has_the_length_zero() {
    let seen = forwarded(&Request::new("POST", "/v1/vouchers/redeem").key("k").bytes());
    assert_eq!(seen.all("content-length"), ["0"]);
    assert_eq!(seen.all("transfer-encoding"), [""; 0]);
}

#[test]
fn the_target_goes_upstream_as_it_came() {
    let target = "/v1/vouchers/redeem?a=%2F&b=+&&c=%zz";
    let request = Request::new("POST", target).key("k").json(BODY);
    assert_eq!(forwarded(&request.bytes()).line, format!("POST {target} HTTP/1.1"));
}

#[test]
fn an_upstream_may_have_a_path_of_its_own() {
    let backend = Backend::start();
    let url = format!("http://{}", backend.addr());
    let gateway = Setup::before(&backend).replacing(&url, format!("{url}/base")).start();
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.last().line, "POST /base/v1/vouchers/redeem HTTP/1.1");
}

#[test]
fn who_asked_is_said_in_the_forwarding_headers() {
    let seen = forwarded(&Request::redeem("k", BODY).bytes());
    assert_eq!(seen.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.all("x-forwarded-proto"), ["http"]);
    assert_eq!(seen.all("x-forwarded-host"), ["shop.example"]);
    assert!(seen.header("via").expect("Via").starts_with("1.1 "));
    let seen = forwarded(&Request::redeem("k", BODY).header("x-forwarded-for", "10.0.0.1").bytes());
    let list = seen.all("x-forwarded-for").join(", ");
    assert!(list.ends_with("127.0.0.1"), "{list}");
}

#[test]
fn a_request_id_is_kept_or_made_and_a_trace_goes_on() {
    let made = forwarded(&Request::redeem("k", BODY).bytes());
    assert!(made.header("x-request-id").is_some_and(|id| id.len() >= 16));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request =
        Request::redeem("k", BODY).header("x-request-id", "mine").header("traceparent", trace);
    let kept = forwarded(&request.bytes());
    assert_eq!(kept.header("x-request-id").as_deref(), Some("mine"));
    let onward = kept.header("traceparent").expect("a trace");
    assert!(onward.starts_with(&trace[..35]), "{onward}");
}

#[test]
fn credentials_and_other_headers_of_the_client_arrive() {
    let request = Request::redeem("k", BODY)
        .tenant("secret")
        .header("authorization", "Bearer t")
        .header("cookie", "a=1; b=2")
        .header("x-bytes", b"caf\xe9");
    let seen = forwarded(&request.bytes());
    assert_eq!(seen.all("x-api-key"), ["secret"]);
    assert_eq!(seen.all("authorization"), ["Bearer t"]);
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);
    assert!(seen.headers.contains(&("x-bytes".to_owned(), b"caf\xe9".to_vec())));
}

#[test]
fn a_passed_through_get_has_no_body() {
    let seen = forwarded(&Request::get("/balance").bytes());
    assert_eq!(seen.all("content-length"), [""; 0]);
    assert_eq!(seen.all("transfer-encoding"), [""; 0]);
    assert_eq!(seen.line, "GET /balance HTTP/1.1");
}

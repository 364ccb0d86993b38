//! Fingerprints of forms, multipart bodies, XML and compressed bodies, over the wire.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

use crate::support::{Backend, Gateway, Request, Setup};

const FORM: &str = "application/x-www-form-urlencoded";

fn before(backend: &Backend, lines: &str) -> Gateway {
    let route = format!("name = \"pay\"\nmethods = [\"POST\"]\npath = \"/pay\"\n{lines}");
    Setup::before(backend).route(&route).start()
}

fn typed(media: &str, body: &[u8]) -> Request {
    Request::new("POST", "/pay").key("k").header("content-type", media).body(body)
}

fn gzip(text: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_retry_with_another_boundary_is_the_same_request() {
    let backend = Backend::start();
    let gateway = before(&backend, "");
    let send = |boundary: &str, amount: &str| {
        let body = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"amount\"\r\n\r\n{amount}\r\n\
             --{boundary}\r\nContent-Disposition: form-data; name=\"qr\"\r\n\r\nrsg:1\r\n\
             --{boundary}--\r\n"
        );
        let media = format!("multipart/form-data; boundary={boundary}");
        typed(&media, body.as_bytes()).send(gateway.addr)
    };
    send("----first", "5").is(200, "executed", "");
    send("----again", "5").is(200, "replayed", "");
    let reply = send("----again", "6");
    reply.is(422, "rejected", "key-reused");
    assert_eq!(reply.json()["differing"], serde_json::json!(["amount"]));
    assert_eq!(backend.calls(), 1);
}

#[test]
fn fields_that_change_between_retries_are_excluded_by_name() {
    let backend = Backend::start();
    let lines = "fingerprint = { exclude = [\"sent_at\"], query = { exclude = [\"token\"] } }";
    let gateway = before(&backend, lines);
    let send = |target: &str, body: &str| {
        let request = Request::new("POST", target).key("k").header("content-type", FORM);
        request.body(body.as_bytes()).send(gateway.addr)
    };
    send("/pay?token=1&a=b", "qr=x&sent_at=1").is(200, "executed", "");
    send("/pay?a=b&token=2", "sent_at=2&qr=x").is(200, "replayed", "");
    let reply = send("/pay?a=b", "sent_at=2&qr=y");
    reply.is(422, "rejected", "key-reused");
    assert_eq!(reply.json()["differing"], serde_json::json!(["qr"]));
    send("/pay?a=c", "sent_at=2&qr=x").is(422, "rejected", "key-reused");
    assert_eq!(backend.last().target(), "/pay?token=1&a=b");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_compressed_retry_is_compared_by_its_content() {
    let backend = Backend::start();
    let gateway = before(&backend, "");
    let text = br#"{"qr":"rsg:1","amount":5}"#;
    let send = |coding: &str, body: &[u8]| {
        typed("application/json", body).header("content-encoding", coding).send(gateway.addr)
    };
    let first = gzip(text, 9);
    send("gzip", &first).is(200, "executed", "");
    // The body goes upstream as it came.
    assert_eq!(backend.last().body, first);
    assert_eq!(backend.last().header("content-encoding").as_deref(), Some("gzip"));
    send("gzip", &first).is(200, "replayed", "");
    send("gzip", &gzip(text, 0)).is(200, "replayed", "");
    send("gzip", &gzip(br#"{ "amount": 5, "qr": "rsg:1" }"#, 9)).is(200, "replayed", "");
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
    zlib.write_all(text).unwrap();
    send("deflate", &zlib.finish().unwrap()).is(200, "replayed", "");
    typed("application/json", text).send(gateway.addr).is(200, "replayed", "");
    let reply = send("gzip", &gzip(br#"{"qr":"rsg:1","amount":6}"#, 9));
    reply.is(422, "rejected", "key-reused");
    assert_eq!(reply.json()["differing"], serde_json::json!(["amount"]));
    send("gzip", b"not gzip").is(422, "rejected", "key-reused");
    assert_eq!(backend.calls(), 1);
}

#[test]
fn a_bomb_is_refused_and_claims_nothing() {
    let backend = Backend::start();
    let gateway = before(&backend, "max_body = \"64KiB\"");
    let bomb = gzip(&vec![b' '; 40 << 20], 9);
    assert!(bomb.len() < 64 << 10, "{} bytes", bomb.len());
    for media in ["application/json", "text/plain", FORM] {
        let request = typed(media, &bomb).header("content-encoding", "gzip");
        let reply = request.send(gateway.addr);
        assert_eq!((reply.status, reply.error()), (413, "body-too-large".to_owned()), "{media}");
    }
    assert_eq!(backend.calls(), 0);
    typed("application/json", b"{}").send(gateway.addr).is(200, "executed", "");
    // The same where the key itself is inside.
    let gateway = before(&backend, "max_body = \"64KiB\"\nkey.from = \"/id\"");
    let coded = |body: &[u8]| {
        let request = Request::new("POST", "/pay").header("content-type", "application/json");
        request.header("content-encoding", "gzip").body(body).send(gateway.addr)
    };
    coded(&bomb).is(413, "rejected", "body-too-large");
    coded(&gzip(br#"{"id":"k-1"}"#, 9)).is(200, "executed", "");
    coded(&gzip(br#"{"id": "k-1"}"#, 1)).is(200, "replayed", "");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn a_body_may_be_ignored_or_compared_byte_for_byte() {
    let backend = Backend::start();
    let gateway = before(&backend, "fingerprint.body = \"ignore\"");
    typed(FORM, b"a=1").send(gateway.addr).is(200, "executed", "");
    typed(FORM, b"something else").send(gateway.addr).is(200, "replayed", "");
    let gateway = before(&backend, "fingerprint.body = \"raw\"");
    typed(FORM, b"a=1&b=2").send(gateway.addr).is(200, "executed", "");
    typed(FORM, b"b=2&a=1").send(gateway.addr).is(422, "rejected", "key-reused");
    let gateway = before(&backend, "fingerprint.body = \"xml\"");
    typed("text/plain", b"<a b='1' c='2'/>").send(gateway.addr).is(200, "executed", "");
    typed("text/plain", b"<a c='2' b='1'></a>").send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 3);
}

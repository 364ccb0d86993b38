//! Requests and answers at the edges of HTTP: what hyper reads differently from the wire, and bytes
//! that look like something else.

use crate::support::{Act, Backend, Conn, Gate, Gateway, Request, Setup};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

/// A piece of a body that looks like an answer which hyper makes by itself.
const BARE: [&str; 6] = [
    "HTTP/1.1 400 Bad Request\r\n\r\n",
    "HTTP/1.0 400 Bad Request\r\n\r\n",
    "HTTP/1.1 414 URI Too Long\r\nconnection: close\r\n\r\n",
    "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\n\r\n",
    "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
     date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
    "HTTP/1.1 400",
];

fn gateway(backend: &Backend) -> Gateway {
    let any =
        "name = \"any\"\nmethods = [\"POST\", \"PUT\"]\npath = \"/files/{*rest}\"\nmode = \"off\"";
    Setup::before(backend).route(any).start()
}

#[test]
fn a_target_with_a_fragment_is_refused_on_every_route_and_in_every_form() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for target in [
        "/v1/vouchers/redeem#x",
        "/v1/vouchers/redeem#",
        "/v1/vouchers/redeem?a=b#x",
        "/v1/vouchers/redeem?a#b?c",
        "/v1/vouchers/#redeem",
        "/files/a#/v1/vouchers/redeem",
        "/optional#",
        "/#",
        "http://a/v1/vouchers/redeem#x",
        "http://a/files/x?y#x",
        "http://a#/v1/vouchers/redeem",
        "#",
        "/nowhere#",
    ] {
        for method in ["POST", "PUT", "GET"] {
            let mut conn = Conn::open(gateway.addr);
            conn.write(format!(
                "{method} {target} HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\n\
                 content-length: 14\r\n\r\n{BODY}"
            ));
            conn.read().is(400, "rejected", "request-invalid");
            conn.ends();
        }
    }
    assert_eq!(backend.calls(), 0);
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
}

#[test]
fn a_fragment_in_a_later_request_of_a_connection_is_found_as_well() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let harmless = Request::redeem("k-#", r#"{"text":"POST /#x HTTP/1.1"}"#).bytes();
    let chunked = "PUT /files/%23 HTTP/1.1\r\nhost: a\r\nx: #\r\ntransfer-encoding: chunked\r\n\r\n\
                   5;a=#\r\nGET #\r\n0\r\nx-trailer: #\r\n\r\n";
    let bad = "PUT /files/b#c HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    // In one write, byte by byte, and each message by itself.
    let whole = [harmless.as_slice(), chunked.as_bytes(), bad.as_bytes()].concat();
    let writes: [Vec<&[u8]>; 3] = [
        vec![&whole],
        whole.chunks(1).collect(),
        vec![&harmless, chunked.as_bytes(), bad.as_bytes()],
    ];
    for (round, writes) in writes.iter().enumerate() {
        let mut conn = Conn::open(gateway.addr);
        for bytes in writes {
            conn.write(bytes);
        }
        assert_eq!(conn.read().status, 200, "{round}");
        assert_eq!(conn.read().status, 200, "{round}");
        assert_eq!(backend.last().text(), "GET #");
        conn.read().is(400, "rejected", "request-invalid");
        conn.ends();
    }
    // The keyed request once, the upload each time.
    assert_eq!(backend.calls(), 4);
}

#[test]
fn a_body_may_contain_what_looks_like_an_answer_of_the_gateway() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for bare in BARE {
        let gate = Gate::default();
        let length = 3 + bare.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nabc");
        backend.always(Act::raw(head).then(Act::raw(bare).after(&gate)));
        let mut conn = Request::get("/a").begin(gateway.addr);
        assert_eq!(conn.try_read_head().unwrap().0, 200);
        assert_eq!(conn.read_exact(3), b"abc");
        gate.open();
        assert_eq!(conn.read_exact(bare.len()), bare.as_bytes());
        // The connection carries on with the next request's own answer.
        backend.always(Act::whole(200, &[], b"next"));
        conn.write(Request::get("/b").bytes());
        assert_eq!(conn.read().text(), "next");
    }
}

#[test]
fn chunks_and_bodies_that_end_with_the_connection_may_contain_it_too() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for bare in BARE {
        let chunk = format!("{:X}\r\n{bare}\r\n", bare.len());
        let gate = Gate::default();
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
        let act = || Act::raw(head).then(Act::raw(chunk.clone() + "0\r\n\r\n").after(&gate));
        backend.always(act());
        let mut conn = Request::get("/a").begin(gateway.addr);
        assert_eq!(conn.try_read_head().unwrap().0, 200);
        assert_eq!(conn.read_exact(8), b"3\r\nabc\r\n");
        gate.open();
        assert_eq!(conn.read_exact(chunk.len()), chunk.as_bytes());
        assert_eq!(conn.read_exact(5), b"0\r\n\r\n");
        let gate = Gate::default();
        backend.always(Act::raw(head).then(Act::raw(chunk.clone() + "0\r\n\r\n").after(&gate)));
        let mut conn = Conn::open(gateway.addr);
        conn.write("GET /a HTTP/1.0\r\nhost: a\r\n\r\n");
        assert_eq!(conn.try_read_head().unwrap().0, 200);
        assert_eq!(conn.read_exact(3), b"abc");
        gate.open();
        assert_eq!(conn.read_exact(bare.len()), bare.as_bytes());
        conn.ends();
    }
}

#[test]
fn a_broken_head_behind_an_answer_that_looks_like_one_is_refused_by_the_gateway() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    for bare in BARE {
        let (head, gate) = (Act::raw("HTTP/1.1 200 OK\r\ncontent-length: "), Gate::default());
        let length = Act::raw(format!("{}\r\n\r\n", bare.len()));
        backend.always(head.then(length).then(Act::raw(bare).after(&gate)));
        let mut conn = Request::get("/a").begin(gateway.addr);
        assert_eq!(conn.try_read_head().unwrap().0, 200);
        // Pipelined: hyper could read it before the body is written.
        conn.write("\0\r\n\r\n");
        gate.open();
        assert_eq!(conn.read_exact(bare.len()), bare.as_bytes());
        conn.read().is(400, "rejected", "request-invalid");
        conn.ends();
    }
}

#[test]
fn continue_is_no_answer_of_the_gateway_either() {
    let backend = Backend::start();
    let gateway = gateway(&backend);
    let bare = BARE[0];
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bare.len());
    let gate = Gate::default();
    backend.always(Act::raw(head).then(Act::raw(bare).after(&gate)));
    let mut conn = Conn::open(gateway.addr);
    conn.write(
        "PUT /files/a HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n",
    );
    assert_eq!(conn.try_read_head().unwrap().0, 100);
    conn.write("{}");
    assert_eq!(conn.try_read_head().unwrap().0, 200);
    gate.open();
    assert_eq!(conn.read_exact(bare.len()), bare.as_bytes());
}

//! Traces: what a collector gets by OTLP over HTTP, and what a collector that is away costs.

use std::collections::BTreeMap;

use crate::support::{Act, Backend, Gate, Gateway, Request, Setup, answer, eventually};

const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn setup(backend: &Backend, collector: &Backend, sample: &str) -> Setup {
    let traces = format!(
        "[traces]\notlp = \"http://{}\"\nsample = {sample}\n[[upstream]]\nname",
        collector.addr()
    );
    Setup::before(backend).replacing("[[upstream]]\nname", traces)
}

fn redeem(key: &str) -> Request {
    Request::redeem(key, r#"{"qr":"rsg:1"}"#).header("authorization", "Bearer the-credential")
}

/// A field of a protobuf message.
#[derive(Debug, Clone)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a protobuf message, in order.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = bytes.split_first().expect("a whole number");
            *bytes = rest;
            number |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => {
                let (number, rest) = bytes.split_first_chunk().expect("8 bytes");
                bytes = rest;
                Field::Number(u64::from_le_bytes(*number))
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                let (content, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(content.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

fn all(message: &[u8], wanted: u64) -> Vec<Vec<u8>> {
    let field = |(number, field)| match field {
        Field::Bytes(bytes) if number == wanted => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(field).collect()
}

fn one(message: &[u8], wanted: u64) -> Vec<u8> {
    all(message, wanted).into_iter().next().unwrap_or_default()
}

fn number(message: &[u8], wanted: u64) -> u64 {
    let field = |(number, field)| match field {
        Field::Number(found) if number == wanted => Some(found),
        _ => None,
    };
    fields(message).into_iter().find_map(field).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A span as the collector reads it.
#[derive(Debug, Clone)]
struct Span {
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    start: u64,
    end: u64,
    attributes: BTreeMap<String, String>,
    is_error: bool,
}

fn attributes(message: &[u8], field: u64) -> BTreeMap<String, String> {
    let pair = |pair: Vec<u8>| {
        let value = one(&pair, 2);
        let text = String::from_utf8(one(&value, 1)).unwrap();
        let text = if text.is_empty() { number(&value, 3).to_string() } else { text };
        (String::from_utf8(one(&pair, 1)).unwrap(), text)
    };
    all(message, field).into_iter().map(pair).collect()
}

/// Every span that has arrived.
fn spans(collector: &Backend) -> Vec<Span> {
    let mut found = Vec::new();
    for seen in collector.seen() {
        assert_eq!(seen.line, "POST /v1/traces HTTP/1.1");
        assert_eq!(seen.header("content-type").as_deref(), Some("application/x-protobuf"));
        for group in all(&seen.body, 1) {
            let resource = attributes(&one(&group, 1), 1);
            assert_eq!(resource["service.name"], "oncegate");
            for scoped in all(&group, 2) {
                for span in all(&scoped, 2) {
                    found.push(Span {
                        trace: hex(&one(&span, 1)),
                        id: hex(&one(&span, 2)),
                        parent: hex(&one(&span, 4)),
                        name: String::from_utf8(one(&span, 5)).unwrap(),
                        kind: number(&span, 6),
                        start: number(&span, 7),
                        end: number(&span, 8),
                        attributes: attributes(&span, 9),
                        is_error: number(&one(&span, 15), 3) == 2,
                    });
                }
            }
        }
    }
    found
}

/// Waits for the span `exchange` of so many requests.
fn exchanges(collector: &Backend, count: usize) -> Vec<Span> {
    eventually("the collector has the spans", || {
        let spans = spans(collector);
        let ended = spans.iter().filter(|span| span.name == "exchange").count();
        (ended >= count).then_some(spans)
    })
}

#[test]
fn a_sampled_request_has_its_spans_and_its_context_goes_upstream() {
    let (backend, collector) = (Backend::start(), Backend::start());
    let gateway = setup(&backend, &collector, "0.0").start();
    redeem("k-1").header("traceparent", CLIENT).send(gateway.addr).is(200, "executed", "");
    let sent = backend.last().header("traceparent").unwrap();
    redeem("k-1").header("traceparent", CLIENT).send(gateway.addr).is(200, "replayed", "");
    backend.always(Act::reset());
    redeem("k-2").header("traceparent", CLIENT).send(gateway.addr).is(
        502,
        "unknown",
        "outcome-unknown",
    );
    let spans = exchanges(&collector, 3);
    assert!(spans.iter().all(|span| span.trace == "0af7651916cd43dd8448eb211c80319c"));
    let exchanges: Vec<&Span> = spans.iter().filter(|span| span.name == "exchange").collect();
    let outcomes: Vec<&str> =
        exchanges.iter().map(|span| span.attributes["oncegate.outcome"].as_str()).collect();
    assert_eq!(outcomes, ["executed", "replayed", "outcome-unknown"]);
    for exchange in &exchanges {
        assert_eq!((exchange.parent.as_str(), exchange.kind), ("b7ad6b7169203331", 2));
        assert_eq!(exchange.attributes["http.route"], "redeem");
        assert_eq!(exchange.attributes["http.request.method"], "POST");
    }
    assert_eq!(exchanges[0].attributes["http.response.status_code"], "200");
    assert_eq!(exchanges[2].attributes["http.response.status_code"], "502");
    assert_eq!((exchanges[0].is_error, exchanges[2].is_error), (false, true));
    let children = |parent: &Span| -> Vec<Span> {
        let mut children: Vec<Span> =
            spans.iter().filter(|span| span.parent == parent.id).cloned().collect();
        children.sort_by_key(|span| span.start);
        children
    };
    let first = children(exchanges[0]);
    let names: Vec<&str> = first.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["claim", "upstream", "complete"]);
    assert_eq!(first.iter().map(|span| span.kind).collect::<Vec<_>>(), [1, 3, 1]);
    // One after the other, within the exchange, and at the time of the day.
    for (span, next) in first.iter().zip(&first[1..]) {
        assert!(span.end <= next.start, "{span:?} {next:?}");
    }
    assert!(exchanges[0].start <= first[0].start && first[2].end <= exchanges[0].end);
    assert!(exchanges[0].start > 1_700_000_000_000_000_000);
    // The backend's spans are children of the call.
    assert_eq!(sent, format!("00-{}-{}-01", exchanges[0].trace, first[1].id));
    // A replay may ask the store, and calls nobody.
    assert!(children(exchanges[1]).iter().all(|span| span.name == "claim"));
    assert_eq!(children(exchanges[2]).len(), 3);
    // No key, no credential, no body.
    for seen in collector.seen() {
        let text = String::from_utf8_lossy(&seen.body).into_owned();
        for secret in ["k-1", "k-2", "the-credential", "rsg:1"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[test]
fn without_the_clients_word_the_share_decides() {
    let (backend, collector) = (Backend::start(), Backend::start());
    let gateway = setup(&backend, &collector, "1.0").start();
    let unsampled = CLIENT.replace("-01", "-00");
    redeem("k-1").header("traceparent", &unsampled).send(gateway.addr).is(200, "executed", "");
    // What the client said goes on as it came.
    assert_eq!(backend.last().header("traceparent").as_deref(), Some(unsampled.as_str()));
    redeem("k-2").send(gateway.addr).is(200, "executed", "");
    let sent = backend.last().header("traceparent").unwrap();
    Request::get("/x").send(gateway.addr).is(200, "", "");
    let spans = exchanges(&collector, 2);
    let exchanges: Vec<&Span> = spans.iter().filter(|span| span.name == "exchange").collect();
    assert_eq!(exchanges.len(), 2, "{spans:?}");
    assert_eq!(exchanges[0].parent, "");
    assert!(sent.contains(&exchanges[0].trace), "{sent}");
    assert_ne!(exchanges[0].trace, exchanges[1].trace);
    assert_eq!(exchanges[1].attributes["oncegate.outcome"], "passed");
}

fn many(gateway: &Gateway, count: usize) {
    let mut conn = crate::support::Conn::open(gateway.addr);
    for number in 0..count {
        conn.write(redeem(&format!("k-{number}")).header("traceparent", CLIENT).bytes());
        conn.read().is(200, "executed", "");
    }
}

#[test]
fn a_collector_that_is_away_or_stands_still_costs_no_request() {
    let (backend, away) = (Backend::start(), Backend::refusing());
    let mut gateway = setup(&backend, &away, "0.0").start();
    many(&gateway, 200);
    eventually("the loss is logged", || {
        gateway.stderr().contains("spans could not be sent to the collector").then_some(())
    });
    gateway.stop();
    assert_eq!(gateway.stderr().matches("and are lost; requests are not affected").count(), 1);

    let collector = Backend::start();
    let gate = Gate::default();
    collector.always(answer(200, "").after(&gate));
    let gateway = setup(&backend, &collector, "0.0").start();
    // More spans than the queue holds.
    many(&gateway, 1500);
    gate.open();
    let spans = exchanges(&collector, 1);
    assert!(spans.len() < 1500 * 4, "{}", spans.len());
}

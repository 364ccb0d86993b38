//! Spans as an OTLP `ExportTraceServiceRequest` in protobuf. Five messages with a dozen fields are
//! written by hand; a generated library would bring 13 crates.

use super::{SpanName, SpanRecord, SpanValue};

/// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const LENGTH: u64 = 2;
/// Kinds of a span.
const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
/// Status code of a failed span.
const ERROR: u64 = 2;

/// The request that exports these spans. `instance`: the name of this process.
pub(crate) fn export_request(spans: &[SpanRecord], instance: &str) -> Vec<u8> {
    let mut resource = Vec::new();
    for (name, value) in [
        ("service.name", "oncegate"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ] {
        put_bytes(&mut resource, 1, &attribute(name, &value.into()));
    }
    let mut scope = Vec::new();
    put_bytes(&mut scope, 1, b"oncegate");
    let mut scoped = Vec::new();
    put_bytes(&mut scoped, 1, &scope);
    for span in spans {
        put_bytes(&mut scoped, 2, &encoded(span));
    }
    let mut group = Vec::new();
    put_bytes(&mut group, 1, &resource);
    put_bytes(&mut group, 2, &scoped);
    let mut request = Vec::new();
    put_bytes(&mut request, 1, &group);
    request
}

fn encoded(span: &SpanRecord) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    put_bytes(&mut out, 1, &span.trace);
    put_bytes(&mut out, 2, &span.span);
    if let Some(parent) = &span.parent {
        put_bytes(&mut out, 4, parent);
    }
    put_bytes(&mut out, 5, span.name.as_str().as_bytes());
    let kind = match span.name {
        SpanName::Exchange => SERVER,
        SpanName::Upstream => CLIENT,
        SpanName::Claim | SpanName::Complete => INTERNAL,
    };
    put_number(&mut out, 6, kind);
    put_fixed(&mut out, 7, span.start);
    put_fixed(&mut out, 8, span.end);
    for (name, value) in &span.attributes {
        put_bytes(&mut out, 9, &attribute(name, value));
    }
    if span.is_error {
        let mut status = Vec::new();
        put_number(&mut status, 3, ERROR);
        put_bytes(&mut out, 15, &status);
    }
    out
}

fn attribute(name: &str, value: &SpanValue) -> Vec<u8> {
    let mut any = Vec::new();
    match value {
        SpanValue::Text(text) => put_bytes(&mut any, 1, text.as_bytes()),
        SpanValue::Number(number) => put_number(&mut any, 3, *number),
    }
    let mut pair = Vec::new();
    put_bytes(&mut pair, 1, name.as_bytes());
    put_bytes(&mut pair, 2, &any);
    pair
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | LENGTH);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3 | VARINT);
    put_varint(out, number);
}

fn put_fixed(out: &mut Vec<u8>, field: u64, number: u64) {
    put_varint(out, field << 3 | FIXED64);
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_as_many_bytes_as_they_need() {
        let written = |number| {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            out
        };
        assert_eq!(written(0), [0]);
        assert_eq!(written(127), [0x7f]);
        assert_eq!(written(300), [0xac, 0x02]);
        assert_eq!(written(u64::MAX).len(), 10);
    }
}

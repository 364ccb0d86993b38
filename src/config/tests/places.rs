//! Places of keys and subjects, and the parts of a body that are compared.

use super::mistakes::check;
use super::{request_mode, route_with};
use crate::idempotency::fingerprint::{BodyCompare, Select};

fn places(lines: &str) -> Vec<String> {
    let config = route_with(&lines.replace("PATH", "/v1/orders/{id}"));
    request_mode(&config).key.places.iter().map(ToString::to_string).collect()
}

#[test]
fn a_key_stands_in_one_place_or_in_several() {
    for (lines, expected) in [
        ("key.from = \"header:X-Key\"", &["header:x-key"][..]),
        ("key.header = \"X-Key\"", &["header:x-key"]),
        ("key.from = \"pointer:/a\"", &["pointer:/a"]),
        ("key.from = \"/a\"", &["pointer:/a"]),
        ("key.pointer = \"/a\"", &["pointer:/a"]),
        ("key.from = \"query:transid\"", &["query:transid"]),
        ("key.from = \"form:MSGSUBID\"", &["form:MSGSUBID"]),
        ("key.from = \"xml:/R/@requestId\"", &["xml:/R/@requestId"]),
        ("key.from = [\"/store\", \"xml:/R/No\"]", &["pointer:/store", "xml:/R/No"]),
        ("key.from = [\"/store\"]", &["pointer:/store"]),
    ] {
        assert_eq!(places(lines), expected, "{lines}");
    }
    let config = route_with("record.subject = \"form:code\"");
    assert_eq!(request_mode(&config).record.subject[0].to_string(), "form:code");
    let config = route_with("record.subject = [\"/qr\", \"header:x-qr\"]");
    let shown = config.describe_json();
    assert_eq!(shown["routes"][0]["record"]["subject"][1], "header:x-qr");
    assert_eq!(shown["routes"][0]["key"]["from"][0], "header:idempotency-key");
}

#[test]
fn what_is_no_place_is_refused_with_what_to_write() {
    let kinds = "a place is one of header:NAME, pointer:/member, path:parameter, query:name, \
        form:field and xml:/Element/@attribute; a bare /member is a pointer";
    for (text, what) in [
        ("X-Key", format!("\"X-Key\": {kinds}; for a header write \"header:X-Key\"")),
        ("quey:a", "\"quey:a\": did you mean \"query:a\"?".to_owned()),
        ("cookie:a", format!("\"cookie:a\": {kinds}")),
        ("query:", "\"query:\": the name behind \"query:\" is missing".to_owned()),
        (
            "pointer:a",
            "\"pointer:a\": a JSON pointer is empty or starts with \"/\" (RFC 6901)".to_owned(),
        ),
        (
            "/items/*/id",
            "\"/items/*/id\" can never match: a JSON pointer has no \"*\"; write \"/items\" for \
             all of it, or \"/items/0/id\" for one element"
                .to_owned(),
        ),
        (
            "xml:/Order/Item[1]",
            "\"xml:/Order/Item[1]\": it is not XPath: names of elements from the root down, and \
             one attribute at the end, such as \"/Order/Item/@id\""
                .to_owned(),
        ),
        (
            "xml:/s:Envelope/@id",
            "\"xml:/s:Envelope/@id\": elements and attributes are found by local name; leave out \
             the prefix and its \":\""
                .to_owned(),
        ),
        (
            "path:code",
            "the route's `path` has no parameter \"code\"; write it there as \"{code}\"".to_owned(),
        ),
    ] {
        check(&format!("key.from = \"{text}\""), &[&format!("9:12: `from`: {what}")]);
        check(&format!("record.subject = \"{text}\""), &[&format!("9:18: `subject`: {what}")]);
    }
    check(
        "key.from = 5",
        &[
            "9:12: `route.key.from` is an integer, but must be a place such as \"pointer:/id\", or a list of places",
        ],
    );
    check("key.from = []", &["9:12: `from` is empty; name at least one place"]);
    check("key.from = [\"/a\", \"pointer:/a\"]", &["9:19: `from` names pointer:/a twice"]);
}

#[test]
fn a_parameter_of_the_path_must_be_there() {
    let path = |key: &str| {
        let route = super::ROUTE.replace("/v1/orders", "/v1/{{x}}/{orderId}/{*rest}");
        super::read(&format!("{route}{key}")).map(drop).map_err(|mistakes| mistakes.to_string())
    };
    assert_eq!(path("key.from = \"path:orderId\""), Ok(()));
    assert_eq!(path("key.from = [\"path:orderId\", \"path:rest\"]"), Ok(()));
    let message = path("key.from = \"path:orderid\"").unwrap_err();
    assert!(
        message.ends_with("no parameter \"orderid\"; did you mean \"path:orderId\"?"),
        "{message}"
    );
    let message = path("key.from = \"path:x\"").unwrap_err();
    assert!(message.ends_with("no parameter \"x\"; it has orderId, rest"), "{message}");
}

#[test]
fn no_part_of_a_key_is_a_credential() {
    check(
        "key.from = [\"/store\", \"header:authorization\"]",
        &[
            "9:23: authorization is one of [tenant] `headers`, so that every key would be another caller's",
        ],
    );
    check(
        "key.from = [\"/store\", \"header:cookie\"]",
        &[
            "9:23: cookie is a credential, and no part of a key: a renewed credential would be another key; name another place",
        ],
    );
    check(
        "key.header = \"X-Api-Key\"",
        &[
            "9:14: x-api-key is one of [tenant] `headers`, so that every key would be another caller's",
        ],
    );
}

#[test]
fn keys_of_a_header_have_no_use_elsewhere() {
    check(
        "[route.key]\nheader = \"X-Key\"\nfrom = \"/a\"",
        &["11:8: `from` and `header` are both given; keep `from`"],
    );
    check(
        "[route.key]\nfrom = \"query:a\"\nsyntax = \"strict\"\nforward = true",
        &[
            "11:10: `syntax` is about a key in a header; a key in another place has none",
            "12:11: `forward` is about a key in a header; other places go upstream as they are",
        ],
    );
    check(
        "[route.key]\nfrom = [\"/a\", \"/b\"]\nformat = \"uuid\"",
        &["11:10: `format` is about one text; a composite key is joined from several"],
    );
}

#[test]
fn parts_of_a_body_are_named_in_its_own_way() {
    let fingerprint = |lines: &str| request_mode(&route_with(lines)).fingerprint.clone();
    let rules = fingerprint(
        "fingerprint = { body = \"form\", exclude = [\"ts\"], query = { exclude = [\"token\"] } }",
    );
    assert_eq!(rules.body, BodyCompare::Form);
    assert_eq!(rules.query_exclude, ["token"]);
    let Select::Exclude(selection) = &rules.select else { panic!("{:?}", rules.select) };
    assert_eq!(selection.fields, ["ts"]);
    let rules = fingerprint("fingerprint.include = [\"/qr\", \"qr\"]");
    let Select::Include(selection) = &rules.select else { panic!("{:?}", rules.select) };
    assert_eq!(selection.names().collect::<Vec<_>>(), ["/qr", "qr"]);
    for (body, list, what) in [
        ("json", "\"qr\"", "`include`: \"qr\" is not a JSON pointer; write \"/qr\""),
        (
            "form",
            "\"/qr\"",
            "`include`: \"/qr\" is a JSON pointer, but the body is a form; write the name of a field",
        ),
        ("form", "\"a\", \"a\"", "`include` names a twice"),
        ("xml", "\"a\"", "`include` has no use with body = \"xml\"; remove one of them"),
        ("ignore", "\"a\"", "`include` has no use with body = \"ignore\"; remove one of them"),
        ("raw", "\"/a\"", "`include` has no use with body = \"raw\"; remove one of them"),
    ] {
        let lines = format!("fingerprint = {{ body = \"{body}\", include = [{list}] }}");
        let mistakes = super::read(&format!("{}{lines}", super::ROUTE)).unwrap_err();
        let messages: Vec<&str> =
            mistakes.list.iter().map(|mistake| mistake.what.as_str()).collect();
        assert_eq!(messages, [what], "{lines}");
    }
    check("fingerprint.body = \"xm\"", &["9:20: `body` cannot be \"xm\"; did you mean \"xml\"?"]);
}

//! Keys and subjects in every place of a request, over the wire.

use crate::support::{Backend, Gateway, Request, Response, Setup};

const FORM: &str = "application/x-www-form-urlencoded";

/// A route `pay` with these lines.
fn before(backend: &Backend, lines: &str) -> Gateway {
    let route = format!("name = \"pay\"\nmethods = [\"POST\", \"PUT\"]\npath = \"/pay\"\n{lines}");
    Setup::before(backend).route(&route).start()
}

fn typed(media: &str, body: &str) -> Request {
    Request::new("POST", "/pay").header("content-type", media).body(body.as_bytes())
}

/// The first request runs, its repetition is answered from the record, the same key in another
/// request is refused, and another key runs.
#[track_caller]
fn check_key(lines: &str, [first, again, changed, other]: [Request; 4]) {
    let backend = Backend::start();
    let gateway = before(&backend, lines);
    first.send(gateway.addr).is(200, "executed", "");
    let sent = backend.last();
    again.send(gateway.addr).is(200, "replayed", "");
    changed.send(gateway.addr).is(422, "rejected", "key-reused");
    other.send(gateway.addr).is(200, "executed", "");
    assert_eq!(backend.calls(), 2);
    let bytes = first.bytes();
    assert!(bytes.ends_with(&sent.body), "the body went upstream with other bytes");
    let target = String::from_utf8_lossy(&bytes).split(' ').nth(1).unwrap().to_owned();
    assert_eq!(sent.target(), target);
}

#[test]
fn a_field_of_a_form_is_a_key() {
    check_key(
        "key.from = \"form:MSGSUBID\"",
        [
            typed(FORM, "MSGSUBID=a%2D1&AMT=10.00"),
            typed(FORM, "AMT=10.00&MSGSUBID=a-1"),
            typed(FORM, "MSGSUBID=a-1&AMT=11.00"),
            typed(FORM, "MSGSUBID=a-2&AMT=10.00"),
        ],
    );
}

#[test]
fn an_attribute_or_an_element_of_xml_is_a_key() {
    let xml = |id: &str, code: &str| {
        typed(
            "text/xml",
            &format!(
                "<?xml version=\"1.0\"?>\r\n<s:Redeem xmlns:s=\"urn:gift\" s:requestId=\"{id}\">\
                 <Code>{code}</Code></s:Redeem>"
            ),
        )
    };
    let again = typed(
        "text/xml",
        "<s:Redeem s:requestId='k-1' xmlns:s='urn:gift'>\n  <Code>rsg&#58;1</Code>\n</s:Redeem>",
    );
    check_key(
        "key.from = \"xml:/Redeem/@requestId\"",
        [xml("k-1", "rsg:1"), again, xml("k-1", "rsg:2"), xml("k-2", "rsg:1")],
    );
    check_key(
        "key.from = \"xml:/Redeem/Code\"",
        [xml("1", "a"), xml("1", "a"), xml("2", "a"), xml("1", "b")],
    );
}

#[test]
fn a_parameter_of_the_query_or_of_the_path_is_a_key() {
    let query = |query: &str, body: &str| Request::new("POST", &format!("/pay?{query}")).json(body);
    check_key(
        "key.from = \"query:transid\"",
        [
            query("amount=5&transid=a%2D1", "{}"),
            query("amount=5&transid=a%2D1", "{ }"),
            query("amount=6&transid=a-1", "{}"),
            query("amount=5&transid=a-2", "{}"),
        ],
    );
    let backend = Backend::start();
    let route = "name = \"swish\"\nmethods = [\"PUT\"]\npath = \"/v2/requests/{id}\"\n\
        key.from = \"path:id\"";
    let gateway = Setup::before(&backend).route(route).start();
    let put = |id: &str, body: &str| {
        Request::new("PUT", &format!("/v2/requests/{id}")).json(body).send(gateway.addr)
    };
    put("AB-1", "{\"amount\":5}").is(200, "executed", "");
    put("AB-1", "{ \"amount\": 5 }").is(200, "replayed", "");
    put("AB-1", "{\"amount\":6}").is(422, "rejected", "key-reused");
    put("AB-2", "{\"amount\":5}").is(200, "executed", "");
    put("a%20b", "{}").is(400, "rejected", "key-invalid");
    assert_eq!(backend.calls(), 2);
}

#[test]
fn several_places_make_a_composite_key() {
    let json = |body: &str| typed("application/json", body);
    check_key(
        "key.from = [\"pointer:/store\", \"/receipt\"]",
        [
            json(r#"{"store":"7","receipt":12,"total":5}"#),
            json(r#"{"receipt":12,"total":5,"store":"7"}"#),
            json(r#"{"store":"7","receipt":12,"total":6}"#),
            json(r#"{"store":"71","receipt":2,"total":5}"#),
        ],
    );
    let backend = Backend::start();
    let gateway = before(&backend, "key.from = [\"/store\", \"/receipt\", \"header:x-till\"]");
    let send = |till: &str, body: &str| {
        let request = json(body);
        let request = if till.is_empty() { request } else { request.header("x-till", till) };
        request.send(gateway.addr)
    };
    // Joined without a mark, or with one that texts may hold, these would be one key.
    send("c", r#"{"store":"a,b","receipt":""}"#).is(400, "rejected", "key-invalid");
    for (store, receipt) in [("a,b", "c"), ("a", "b,c"), ("a%2Cb", "c"), ("a b", "é")] {
        let body = format!(r#"{{"store":"{store}","receipt":"{receipt}"}}"#);
        send("t", &body).is(200, "executed", "");
        assert_eq!(backend.last().header("x-till").as_deref(), Some("t"));
    }
    // Each part is needed, and the refusal names all of them.
    let reply = send("t", r#"{"store":"a"}"#);
    reply.is(400, "rejected", "key-missing");
    assert!(reply.text().contains("/store, /receipt and X-Till"), "{}", reply.text());
    send("", r#"{"store":"a","receipt":"b"}"#).is(400, "rejected", "key-missing");
    send("", "{}").is(400, "rejected", "key-missing");
    let long = "x".repeat(150);
    send(&long, &format!(r#"{{"store":"{long}","receipt":"b"}}"#)).is(
        400,
        "rejected",
        "key-invalid",
    );
    assert_eq!(backend.calls(), 4);
}

#[test]
fn a_body_of_another_form_is_refused_with_the_form_that_is_expected() {
    let bomb = "<!DOCTYPE a [<!ENTITY b \"bbbb\"><!ENTITY c \"&b;&b;&b;\">]><a id=\"1\">&c;</a>";
    let many = "f=1&".repeat(10_000);
    let deep = "<a>".repeat(5000);
    let wide = format!("<a{}/>", " b='1'".repeat(10_000));
    let nodes = format!("<a id='1'>{}</a>", "<b/>".repeat(200_000));
    let json = "application/json";
    for (from, media, body, form) in [
        ("pointer:/id", json, "{", "JSON"),
        ("pointer:/id", FORM, "id=1", "JSON"),
        ("pointer:/id", "text/plain", "<a/>", "JSON"),
        ("form:id", json, "{\"id\":1}", FORM),
        ("form:id", FORM, "id=%zz", FORM),
        ("form:id", FORM, many.as_str(), FORM),
        ("xml:/a/@id", "text/xml", "<a id='1'>", "XML"),
        ("xml:/a/@id", "text/xml", bomb, "XML"),
        ("xml:/a/@id", "text/xml", "<a id='1'>&evil;</a>", "XML"),
        ("xml:/a/@id", "text/xml", "<a id='1'/><a/>", "XML"),
        ("xml:/a/@id", "text/xml", deep.as_str(), "XML"),
        ("xml:/a/@id", "text/xml", wide.as_str(), "XML"),
        ("xml:/a/@id", "text/xml", nodes.as_str(), "XML"),
        ("xml:/a/@id", json, "{\"id\":1}", "XML"),
    ] {
        let backend = Backend::start();
        let gateway = before(&backend, &format!("key.from = \"{from}\""));
        let reply: Response = typed(media, body).send(gateway.addr);
        let shown = &body[..body.len().min(60)];
        assert_eq!(reply.summary(), (400, "rejected".into(), "body-invalid".into()), "{shown}");
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(form), "{shown}: {detail}");
        assert_eq!(backend.calls(), 0);
        // Nothing was claimed, and the gateway serves on.
        typed("text/xml", "<a id='1'/>").send(gateway.addr);
    }
}

#[test]
fn two_values_and_values_that_are_no_text_are_refused() {
    for (from, media, body) in [
        ("pointer:/id", "application/json", r#"{"id":"1","id":"2"}"#),
        ("pointer:/id", "application/json", r#"{"id":["1"]}"#),
        ("form:id", FORM, "id=1&id=1"),
        ("form:id", FORM, "id="),
        ("form:id", FORM, "id=a+b"),
        ("xml:/a/id", "text/xml", "<a><id>1</id><id>1</id></a>"),
        ("xml:/a/id", "text/xml", "<a><id><x>1</x></id></a>"),
        ("xml:/a/id", "text/xml", "<a><id/></a>"),
        ("xml:/a/@id", "text/xml", "<a x:id='1' y:id='2'/>"),
        ("query:id", "application/json", "{}"),
    ] {
        let backend = Backend::start();
        let gateway = before(&backend, &format!("key.from = \"{from}\""));
        let request = Request::new("POST", "/pay?id=1&id=2").header("content-type", media);
        let reply = request.body(body.as_bytes()).send(gateway.addr);
        assert_eq!(reply.summary(), (400, "rejected".into(), "key-invalid".into()), "{body}");
        assert_eq!(backend.calls(), 0);
    }
    for (from, media, body) in [
        ("form:id", FORM, "ID=1"),
        ("form:id", FORM, ""),
        ("xml:/a/@id", "text/xml", "<a/>"),
        ("query:none", FORM, "id=1"),
        ("header:x-none", FORM, "id=1"),
    ] {
        let backend = Backend::start();
        let gateway = before(&backend, &format!("key.from = \"{from}\""));
        typed(media, body).send(gateway.addr).is(400, "rejected", "key-missing");
        assert_eq!(backend.calls(), 0);
    }
}

#[test]
fn an_optional_key_that_is_not_there_lets_the_request_pass() {
    for (from, media, body) in [
        ("\"form:id\"", FORM, "ID=1"),
        ("\"form:id\"", "application/json", "{}"),
        ("\"xml:/a/@id\"", "text/xml", "<b/>"),
        ("\"xml:/a/@id\"", "text/plain", "plain"),
        ("\"query:id\"", "text/plain", "plain"),
        ("[\"/store\", \"/receipt\"]", "application/json", "{}"),
    ] {
        let backend = Backend::start();
        let gateway = before(&backend, &format!("key = {{ from = {from}, required = false }}"));
        let reply = typed(media, body).send(gateway.addr);
        assert_eq!(reply.summary(), (200, "bypassed".into(), String::new()), "{from}: {body}");
        assert_eq!(backend.last().text(), body);
    }
    // What may hold a key for the backend does not pass, nor does half a composite key.
    for (from, media, body, error) in [
        ("\"form:id\"", FORM, "id=%zz", "body-invalid"),
        ("\"xml:/a/@id\"", "text/xml", "<a id='1'>", "body-invalid"),
        ("\"xml:/a/@id\"", "text/plain", "<a id='1'>", "body-invalid"),
        ("[\"/store\", \"/receipt\"]", "application/json", r#"{"store":1}"#, "key-missing"),
    ] {
        let backend = Backend::start();
        let gateway = before(&backend, &format!("key = {{ from = {from}, required = false }}"));
        typed(media, body).send(gateway.addr).is(400, "rejected", error);
        assert_eq!(backend.calls(), 0);
    }
}

#[test]
fn the_contract_and_check_name_the_places() {
    let backend = Backend::start();
    let gateway = before(&backend, "key.from = [\"form:store\", \"xml:/R/@no\"]");
    let contract = Request::get("/.well-known/idempotency").send(gateway.addr).json();
    let routes = contract["routes"].as_array().unwrap();
    let pay = routes.iter().find(|route| route["name"] == "pay").unwrap();
    assert_eq!(pay["key"]["from"], serde_json::json!(["form:store", "xml:/R/@no"]));
    let config = gateway.setup().write_config();
    let reply = crate::support::gateway::run(&["check", "--config", &config]);
    assert!(reply.stdout.contains("form:store + xml:/R/@no"), "{}", reply.stdout);
    let reply = crate::support::gateway::run(&["check", "--config", &config, "--json"]);
    assert!(reply.stdout.contains("\"xml:/R/@no\""), "{}", reply.stdout);
}

#[test]
fn records_are_found_by_a_subject_in_any_place() {
    for (subject, request) in [
        ("\"form:qr\"", typed(FORM, "qr=rsg%3A1&a=2")),
        ("\"xml:/R/Qr\"", typed("text/xml", "<R><Qr> rsg:1 </Qr></R>")),
        ("\"query:qr\"", Request::new("POST", "/pay?qr=rsg%3A1").json("{}")),
        ("\"header:x-qr\"", typed("text/plain", "x").header("x-qr", "rsg:1")),
        ("[\"/qr\", \"/voucher/code\"]", typed("text/json", r#"{"voucher":{"code":"rsg:1"}}"#)),
    ] {
        let backend = Backend::start();
        let route = format!(
            "name = \"pay\"\nmethods = [\"POST\"]\npath = \"/pay\"\nrecord.subject = {subject}"
        );
        let setup = Setup::before(&backend).admin("token = \"t\"").tenant("headers = []");
        let gateway = setup.route(&route).start();
        request.key("k").send(gateway.addr).is(200, "executed", "");
        let found = |text: &str| {
            let tenant = "d1a1c9f9";
            let list = Request::get("/api/records").header("authorization", "Bearer t");
            let all = list.send(gateway.admin).json();
            let tenant = all["records"][0]["tenant"].as_str().unwrap_or(tenant).to_owned();
            let path = format!("/api/records?subject={text}&tenant={tenant}");
            let list = Request::get(&path).header("authorization", "Bearer t");
            list.send(gateway.admin).json()["records"].as_array().unwrap().len()
        };
        assert_eq!((found("rsg:1"), found("rsg:2")), (1, 0), "{subject}");
    }
}

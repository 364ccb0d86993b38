use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;

fn place(text: &str) -> Place {
    Place::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn places_are_read_as_they_are_written() {
    for text in [
        "header:x-voucher",
        "pointer:/qr",
        "pointer:/a~1b/0",
        "pointer:",
        "path:code",
        "query:transid",
        "form:MSGSUBID",
        "form:a:b",
        "xml:/StoredValueRedeemRequest/@requestId",
    ] {
        assert_eq!(place(text).to_string(), text);
    }
    assert_eq!(place("/qr"), place("pointer:/qr"));
    assert_eq!(place("header:X-Voucher"), place("header:x-voucher"));
}

#[test]
fn texts_that_are_no_places_are_refused() {
    for (text, error) in [
        ("", PlaceError::Kind),
        ("qr", PlaceError::Kind),
        ("body:/qr", PlaceError::Kind),
        ("Header:a", PlaceError::Kind),
        ("header:", PlaceError::NoName("header")),
        ("path:", PlaceError::NoName("path")),
        ("query:", PlaceError::NoName("query")),
        ("form:", PlaceError::NoName("form")),
        ("header:a b", PlaceError::Header("a b".to_owned())),
        ("pointer:qr", PlaceError::Pointer(PointerError::NoLeadingSlash)),
        ("/~2", PlaceError::Pointer(PointerError::Escape)),
        ("xml:", PlaceError::Xml(XmlPathError::NoLeadingSlash)),
        ("xml:/a[1]", PlaceError::Xml(XmlPathError::XPath)),
    ] {
        assert_eq!(Place::parse(text), Err(error), "{text}");
    }
}

/// A request whose body has this media type.
struct Sample {
    headers: HeaderMap,
    parameters: Vec<(String, String)>,
    body: &'static [u8],
}

impl Sample {
    fn new(media_type: &'static str, body: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        if !media_type.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        }
        let parameters = vec![("code".to_owned(), "rsg%3A1".to_owned())];
        Self { headers, parameters, body: body.as_bytes() }
    }

    fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        let value = HeaderValue::from_bytes(value).unwrap();
        self.headers.append(HeaderName::from_static(name), value);
        self
    }

    fn text(&self, at: &str) -> Result<Option<String>, ValueError> {
        let query = Some("transid=a%20b&x=1&x=2&bad=%zz&empty=");
        let values = RequestValues::new(&self.headers, query, &self.parameters, self.body);
        values.text(&place(at)).map(|text| text.map(std::borrow::Cow::into_owned))
    }

    #[track_caller]
    fn check(&self, at: &str, expected: Result<Option<&str>, ValueError>) -> &Self {
        assert_eq!(self.text(at), expected.map(|text| text.map(str::to_owned)), "{at}");
        self
    }
}

#[test]
fn values_are_found_in_the_head() {
    let sample = Sample::new("", "")
        .header("x-one", b"  v 1 ")
        .header("x-two", b"a")
        .header("x-two", b"a")
        .header("x-latin", b"\xe9");
    sample
        .check("header:x-one", Ok(Some("v 1")))
        .check("header:X-ONE", Ok(Some("v 1")))
        .check("header:x-two", Err(ValueError::Several))
        .check("header:x-latin", Err(ValueError::NotText))
        .check("header:x-none", Ok(None))
        .check("path:code", Ok(Some("rsg:1")))
        .check("path:other", Ok(None))
        .check("query:transid", Ok(Some("a b")))
        .check("query:empty", Ok(Some("")))
        .check("query:x", Err(ValueError::Several))
        .check("query:bad", Err(ValueError::NotText))
        .check("query:none", Ok(None));
}

#[test]
fn values_are_found_in_json_bodies() {
    let body = r#"{"qr":"rsg:1","n":17,"a":[1],"none":null,"in":{"x":"y"}}"#;
    let unreadable = Err(ValueError::Unreadable(BodyFormat::Json));
    // A body is read whatever its media type says.
    for media_type in ["application/json", "text/plain", ""] {
        Sample::new(media_type, body)
            .check("/qr", Ok(Some("rsg:1")))
            .check("/n", Ok(Some("17")))
            .check("/in/x", Ok(Some("y")))
            .check("/a/0", Ok(Some("1")))
            .check("/a", Err(ValueError::NotText))
            .check("/none", Err(ValueError::NotText))
            .check("/other", Ok(None));
        Sample::new(media_type, "{").check("/qr", unreadable);
        Sample::new(media_type, "").check("/qr", Ok(None));
    }
    Sample::new("", r#"{"qr":1,"x":1,"x":2}"#).check("/qr", Err(ValueError::DuplicateMember));
}

#[test]
fn values_are_found_in_forms() {
    let unreadable = Err(ValueError::Unreadable(BodyFormat::Form));
    let body = "MSGSUBID=a%2Db+c&x=1&x=1&empty=";
    for media_type in ["application/x-www-form-urlencoded; charset=utf-8", ""] {
        Sample::new(media_type, body)
            .check("form:MSGSUBID", Ok(Some("a-b c")))
            .check("form:empty", Ok(Some("")))
            .check("form:msgsubid", Ok(None))
            .check("form:x", Err(ValueError::Several));
        Sample::new(media_type, "a=%").check("form:a", unreadable);
        Sample::new(media_type, "").check("form:a", Ok(None));
    }
    Sample::new("application/json", body).check("form:MSGSUBID", unreadable);
    let many: &'static str = "f=1&".repeat(10_000).leak();
    Sample::new("", many).check("form:a", unreadable);
}

#[test]
fn values_are_found_in_xml_bodies() {
    let unreadable = Err(ValueError::Unreadable(BodyFormat::Xml));
    let body = "<s:R xmlns:s='u' requestId='k-1'><Code> 7 </Code><Code2/><X/><X/><N><a/></N></s:R>";
    for media_type in ["text/xml", "application/json", ""] {
        Sample::new(media_type, body)
            .check("xml:/R/@requestId", Ok(Some("k-1")))
            .check("xml:/R/Code", Ok(Some("7")))
            .check("xml:/R/Code2", Ok(Some("")))
            .check("xml:/R/X", Err(ValueError::Several))
            .check("xml:/R/N", Err(ValueError::NotText))
            .check("xml:/R/@none", Ok(None));
        Sample::new(media_type, "{}").check("xml:/R", unreadable);
        Sample::new(media_type, "<!DOCTYPE R><R/>").check("xml:/R", unreadable);
        Sample::new(media_type, "").check("xml:/R", Ok(None));
    }
}

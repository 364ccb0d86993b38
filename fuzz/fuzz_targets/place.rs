//! Places are written as they are read, and reading the value at a place ends for any request.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use oncegate::place::{Place, RequestValues};

fuzz_target!(|bytes: &[u8]| {
    let (text, body) = bytes.split_at(bytes.iter().position(|byte| *byte == 0).unwrap_or(0));
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.append("x-value", value);
    }
    let parameters = [("id".to_owned(), text.to_owned())];
    let body = body.get(1..).unwrap_or_default();
    let values = RequestValues::new(&headers, Some(text), &parameters, body);
    for place in ["header:x-value", "/a", "path:id", "query:a", "form:a", "xml:/a/b", "xml:/a/@b"] {
        let place = Place::parse(place).expect("a place");
        if let Ok(Some(found)) = values.text(&place) {
            assert!(found.len() <= bytes.len());
        }
    }
    let Ok(place) = Place::parse(text) else { return };
    assert_eq!(Place::parse(&place.to_string()), Ok(place));
});

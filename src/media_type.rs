//! Media types of bodies (RFC 9110 section 8.3), as far as the gateway tells forms of bodies apart.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

/// The media type without its parameters, as written.
pub fn essence(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(CONTENT_TYPE)?.as_bytes();
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    Some(value[..end].trim_ascii())
}

/// Reports a JSON media type: `application/json`, or a `+json` suffix (RFC 6839).
pub fn is_json(headers: &HeaderMap) -> bool {
    is_one_of(headers, &[b"application/json", b"text/json"], b"+json")
}

/// Reports an XML media type: `application/xml`, `text/xml`, or a `+xml` suffix (RFC 7303).
pub fn is_xml(headers: &HeaderMap) -> bool {
    is_one_of(headers, &[b"application/xml", b"text/xml"], b"+xml")
}

/// Reports the media type of forms.
pub fn is_form(headers: &HeaderMap) -> bool {
    essence(headers)
        .is_some_and(|media| media.eq_ignore_ascii_case(b"application/x-www-form-urlencoded"))
}

/// Reports `multipart/form-data`.
pub fn is_multipart(headers: &HeaderMap) -> bool {
    essence(headers).is_some_and(|media| media.eq_ignore_ascii_case(b"multipart/form-data"))
}

fn is_one_of(headers: &HeaderMap, names: &[&[u8]], suffix: &[u8]) -> bool {
    essence(headers).is_some_and(|media| {
        let end = media.len().checked_sub(suffix.len()).map(|at| &media[at..]);
        names.iter().any(|name| media.eq_ignore_ascii_case(name))
            || end.is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    })
}

/// Reports a body without content coding.
pub fn is_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    codings.all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

/// The `boundary` parameter of a multipart body (RFC 2046 section 5.1.1): 1 to 70 characters, as a
/// token or a quoted string. `None`: absent, given twice, or none that could be a boundary.
pub fn boundary(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let mut found = None;
    let mut rest = value.split_once(';')?.1;
    while !rest.trim().is_empty() {
        let (name, after) = rest.split_once('=')?;
        let (text, next) = parameter_value(after.trim_start())?;
        if name.trim().eq_ignore_ascii_case("boundary") && found.replace(text).is_some() {
            return None;
        }
        rest = match next.trim_start() {
            "" => "",
            next => next.strip_prefix(';')?,
        };
    }
    let legal = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    found.filter(|text| {
        (1..=70).contains(&text.len()) && !text.ends_with(' ') && text.bytes().all(legal)
    })
}

/// The value of a parameter at the start of `text`, and the text behind the value.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return Some((text[..end].trim_end().to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn typed(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(value))])
    }

    #[test]
    fn media_types_have_no_case_and_their_parameters_do_not_matter() {
        for json in ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"] {
            assert!(is_json(&typed(json)) && !is_xml(&typed(json)), "{json}");
        }
        for xml in ["text/xml", "application/xml;charset=UTF-8", "application/soap+XML"] {
            assert!(is_xml(&typed(xml)) && !is_json(&typed(xml)), "{xml}");
        }
        assert!(is_form(&typed("application/x-www-form-urlencoded; charset=utf-8")));
        assert!(is_multipart(&typed("multipart/form-data; boundary=a")));
        for none in ["", "json", "application/xmlx", "multipart/mixed"] {
            let headers = typed(none);
            let any = [is_json, is_xml, is_form, is_multipart].iter().any(|is| is(&headers));
            assert!(!any, "{none}");
        }
    }

    #[test]
    fn a_boundary_is_read_as_a_token_or_a_quoted_string() {
        for (value, expected) in [
            ("multipart/form-data; boundary=----WebKit7MA4", Some("----WebKit7MA4")),
            ("multipart/form-data;charset=utf-8; BOUNDARY=\"a b;c\"", Some("a b;c")),
            ("multipart/form-data; boundary=\"a\\\"b\" ; x=y", Some("a\"b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=\"open", None),
            ("multipart/form-data; boundary=a; boundary=b", None),
            ("multipart/form-data; boundary=\"a \"", None),
        ] {
            assert_eq!(boundary(&typed(value)).as_deref(), expected, "{value}");
        }
        let long: &'static str = format!("multipart/form-data; boundary={}", "b".repeat(71)).leak();
        assert_eq!(boundary(&typed(long)), None);
    }
}

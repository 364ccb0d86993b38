//! Samples of messages in the form of HTTP: a first line, header lines, an empty line, the body.
//!
//! Samples are written by hand. Lines may end with LF alone, lines before the first that start with
//! `#` are notes, the last line break of the file belongs to no body, and framing headers are left
//! to the gateway and its backend.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};

/// Headers of a sample that say how the message was once framed.
const FRAMING: [HeaderName; 6] =
    [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, TE, TRAILER, UPGRADE];

/// Host of a request sample without one.
const NO_HOST: HeaderValue = HeaderValue::from_static("sample.example");

/// Reads a request: `POST /v1/orders HTTP/1.1`, where the version may be left out.
///
/// # Errors
/// The line that cannot be read, and the reason.
pub(super) fn request(text: &[u8]) -> Result<Request<Bytes>, String> {
    let Sample { number, line, mut headers, body } = sample(text)?;
    let at = |what: &str| format!("line {number}: {what}");
    let mut words = line.split_ascii_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(at("a request starts with a method and a target, such as POST /v1/orders"));
    };
    let method = method.parse().map_err(|_| at(&format!("\"{method}\" is not a method")))?;
    if target.contains('#') {
        return Err(at("a target has no `#`, and the gateway refuses one that has; write %23"));
    }
    let is_target = target.starts_with('/') || target.contains("://") || target == "*";
    let uri: Option<Uri> = target.parse().ok().filter(|_| is_target);
    let uri = uri.ok_or_else(|| at(&format!("\"{target}\" is not a target such as /v1/orders")))?;
    if let Some(authority) = uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(HOST, host);
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str()).to_owned();
    headers.entry(HOST).or_insert(NO_HOST);
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().map_err(|_| at("the target has no path"))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Reads an answer: `HTTP/1.1 200 OK`, of which the status alone is enough.
///
/// # Errors
/// The line that cannot be read, and the reason.
pub(super) fn answer(text: &[u8]) -> Result<Response<Bytes>, String> {
    let Sample { number, line, headers, body } = sample(text)?;
    let status = line
        .split_ascii_whitespace()
        .find(|word| !word.starts_with("HTTP/"))
        .and_then(|status| status.parse::<StatusCode>().ok())
        .filter(|status| status.as_u16() >= 200);
    let what =
        || format!("line {number}: an answer starts with its status, such as HTTP/1.1 200 OK");
    let mut response = Response::new(body);
    *response.status_mut() = status.ok_or_else(what)?;
    *response.headers_mut() = headers;
    Ok(response)
}

/// The parts of a sample.
struct Sample {
    /// Number of the first line, counted from 1.
    number: usize,
    line: String,
    headers: HeaderMap,
    body: Bytes,
}

fn sample(text: &[u8]) -> Result<Sample, String> {
    let mut rest = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let (mut number, mut first, mut headers) = (0, None, HeaderMap::new());
    let body = loop {
        if rest.is_empty() {
            break rest;
        }
        let (line, behind) = split_line(rest);
        (number, rest) = (number + 1, behind);
        let line = std::str::from_utf8(line)
            .map_err(|_| format!("line {number}: the head is not UTF-8 text"))?;
        match &first {
            None if line.is_empty() || line.starts_with('#') => {}
            None => first = Some((number, line.to_owned())),
            Some(_) if line.is_empty() => break rest,
            Some(_) => {
                let (name, value) = header(line)
                    .ok_or_else(|| format!("line {number}: \"{line}\" is not a header line"))?;
                if !FRAMING.contains(&name) {
                    headers.append(name, value);
                }
            }
        }
    };
    let (number, line) = first
        .ok_or_else(|| "the sample is empty; write the message as HTTP sends it".to_owned())?;
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    let body = body.strip_suffix(b"\r").unwrap_or(body);
    Ok(Sample { number, line, headers, body: Bytes::copy_from_slice(body) })
}

/// The first line without its end, and the text behind the line.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| *byte == b'\n');
    let (line, rest) = match end {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    Some((name, HeaderValue::from_str(value.trim()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_is_written() {
        let text = b"# from the documentation\n\nPOST /v1/orders?a=1 HTTP/1.1\r\n\
                     Content-Type: application/json\r\n\
                     X-A: 1\nX-A: 2\nContent-Length: 99\n\n{\"a\":\n1}\n";
        let request = request(text).unwrap();
        assert_eq!(request.method(), "POST");
        assert_eq!(request.uri(), "/v1/orders?a=1");
        assert_eq!(request.headers().get_all("x-a").iter().count(), 2);
        assert_eq!(request.headers()[HOST], "sample.example");
        assert!(!request.headers().contains_key(CONTENT_LENGTH));
        assert_eq!(request.body(), "{\"a\":\n1}");
    }

    #[test]
    fn a_whole_address_names_the_host() {
        let request = request(b"GET https://api.example/v1/x").unwrap();
        assert_eq!(request.uri(), "/v1/x");
        assert_eq!(request.headers()[HOST], "api.example");
        assert!(request.body().is_empty());
    }

    #[test]
    fn an_answer_needs_its_status_only() {
        for text in [
            "HTTP/1.1 201 Created\nX-A: 1\n\nhi",
            "201\nX-A: 1\n\nhi\r\n",
            "HTTP/2 201\nX-A: 1\n\nhi",
        ] {
            let answer = answer(text.as_bytes()).unwrap();
            assert_eq!((answer.status().as_u16(), &answer.body()[..]), (201, &b"hi"[..]), "{text}");
            assert_eq!(answer.headers()["x-a"], "1");
        }
    }

    #[test]
    fn a_mistake_names_its_line() {
        for (text, line) in [
            ("", "empty"),
            ("POST", "line 1"),
            ("\nPO ST/ /x", "line 2"),
            ("POST /x\na b", "line 2"),
            ("POST /x#y HTTP/1.1", "line 1: a target has no `#`"),
        ] {
            let message = request(text.as_bytes()).unwrap_err();
            assert!(message.contains(line), "{text}: {message}");
        }
        for text in ["HTTP/1.1", "HTTP/1.1 abc", "HTTP/1.1 99", "100"] {
            assert!(answer(text.as_bytes()).unwrap_err().contains("line 1"), "{text}");
        }
    }
}

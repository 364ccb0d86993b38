//! Refusal of request heads accepted by hyper but open to two interpretations.

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, Version};

/// Reason for refusing a request head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// None of HTTP/1.0, HTTP/1.1 and HTTP/2.
    Version,
    /// CONNECT or TRACE.
    Method,
    /// The target's form does not fit the method, or its authority is not the `Host`.
    Target,
    /// No `Host`, several, or an invalid host name.
    Host,
    /// `Transfer-Encoding` other than exactly `chunked`, or with HTTP/1.0.
    TransferEncoding,
    /// `Content-Length` repeated, not a number, or next to `Transfer-Encoding`.
    ContentLength,
    /// `Expect` other than `100-continue`.
    Expect,
    /// `Connection` nominates a header required by the backend.
    Nomination,
    /// `Via` names this gateway too often.
    Loop,
}

impl HeadError {
    /// The status to answer with.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expect => StatusCode::EXPECTATION_FAILED,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Target
            | Self::Host
            | Self::TransferEncoding
            | Self::ContentLength
            | Self::Nomination => StatusCode::BAD_REQUEST,
        }
    }

    /// The detail of the problem: a plain sentence for the client.
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::Version => "Only HTTP/1.0, HTTP/1.1 and HTTP/2 are served here.",
            Self::Method => "CONNECT and TRACE are not served here.",
            Self::Target => "The request target does not fit the method or the Host header.",
            Self::Host => "The request needs exactly one valid Host header.",
            Self::TransferEncoding => "The only Transfer-Encoding served here is chunked.",
            Self::ContentLength => "The Content-Length header is repeated or not a number.",
            Self::Expect => "The only expectation served here is 100-continue.",
            Self::Loop => {
                "The request has passed this gateway three times already, so it goes round in a \
                 loop. The address of a backend leads back here."
            }
            Self::Nomination => "The Connection header names a header that must be forwarded.",
        }
    }
}

/// Headers that `Connection` may not nominate: without them the backend would see a different
/// framing or authority than the gateway.
const NEVER_NOMINATED: [&str; 12] = [
    "host",
    "authorization",
    "cookie",
    "content-length",
    "content-type",
    "content-encoding",
    "content-range",
    "transfer-encoding",
    "date",
    "via",
    "x-forwarded-for",
    "x-request-id",
];

/// Checks the head of a request as hyper's server gives it.
///
/// The target may have the origin form; the asterisk form with OPTIONS; and the absolute form,
/// which a server must accept (RFC 9112 section 3.2.2), when its authority is the one of `Host`. A
/// client must send the two alike (section 3.2), so a difference is an attack or a mistake.
/// `Upgrade` is no error: it is not forwarded, which is how it is declined.
///
/// # Errors
/// What is wrong; nothing of such a request may be used.
pub(crate) fn check_request_head(head: &Parts) -> Result<(), HeadError> {
    check_head(&head.method, &head.uri, head.version, &head.headers)
}

fn check_head(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), HeadError> {
    if !matches!(version, Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2) {
        return Err(HeadError::Version);
    }
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(HeadError::Method);
    }
    let lines = CriticalHeaders::of(headers);
    let host = host(version, &lines)?;
    check_target(method, uri, host)?;
    check_framing(version, &lines)?;
    if lines.passages >= MOST_PASSAGES {
        return Err(HeadError::Loop);
    }
    if lines.unknown_expectation {
        return Err(HeadError::Expect);
    }
    if lines.connection && super::options(headers).any(is_never_nominated) {
        return Err(HeadError::Nomination);
    }
    Ok(())
}

/// The header lines relevant to the reading of a head. A single pass finds all of them: looking up
/// each name costs more than every later check.
#[derive(Default)]
struct CriticalHeaders<'a> {
    host: Only<'a>,
    coding: Only<'a>,
    length: Only<'a>,
    connection: bool,
    unknown_expectation: bool,
    /// Times that `Via` names this gateway.
    passages: usize,
}

/// The value of a header with at most a single occurrence.
#[derive(Default)]
enum Only<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Repeated,
}

impl<'a> CriticalHeaders<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let mut lines = Self::default();
        for (name, value) in headers {
            let value = value.as_bytes();
            if *name == HOST {
                lines.host.add(value);
            } else if *name == TRANSFER_ENCODING {
                lines.coding.add(value);
            } else if *name == CONTENT_LENGTH {
                lines.length.add(value);
            } else if *name == CONNECTION {
                lines.connection = true;
            } else if *name == VIA {
                lines.passages += passages(value);
            } else if *name == EXPECT {
                lines.unknown_expectation |= !value.eq_ignore_ascii_case(b"100-continue");
            }
        }
        lines
    }
}

impl<'a> Only<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match self {
            Self::Absent => Self::Once(value),
            Self::Once(_) | Self::Repeated => Self::Repeated,
        };
    }
}

/// Times that a request may have passed this gateway. Two gateways in a row are usual, three are
/// not.
const MOST_PASSAGES: usize = 3;

/// Counts the members of a `Via` line that name this gateway: the protocol, the name, and perhaps a
/// comment (RFC 9110 section 7.6.3).
fn passages(line: &[u8]) -> usize {
    let names_this = |member: &&[u8]| {
        let mut words = member.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|name| name.eq_ignore_ascii_case(super::PSEUDONYM.as_bytes()))
    };
    line.split(|byte| *byte == b',').filter(names_this).count()
}

/// True when `Connection` nominates `name`. A route refuses such a request for its key header, a
/// tenant header or a header of its fingerprint: the gateway has read the header and the backend
/// would not get it, so gateway and backend would see different requests.
pub(crate) fn nominates(headers: &HeaderMap, name: &HeaderName) -> bool {
    super::options(headers).any(|option| option.eq_ignore_ascii_case(name.as_str().as_bytes()))
}

fn is_never_nominated(option: &[u8]) -> bool {
    NEVER_NOMINATED.iter().any(|name| option.eq_ignore_ascii_case(name.as_bytes()))
}

/// The only `Host`; HTTP/1.0 may have none.
fn host<'a>(version: Version, lines: &CriticalHeaders<'a>) -> Result<Option<&'a [u8]>, HeadError> {
    match lines.host {
        Only::Absent if version == Version::HTTP_10 => Ok(None),
        Only::Once(host) if is_authority(host) => Ok(Some(host)),
        Only::Absent | Only::Once(_) | Only::Repeated => Err(HeadError::Host),
    }
}

/// `uri-host [ ":" port ]` without user information (RFC 9110 section 7.2, RFC 3986 section 3.2).
fn is_authority(text: &[u8]) -> bool {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = literal.iter().position(|byte| *byte == b']') else { return false };
            let address = std::str::from_utf8(&literal[..end]).unwrap_or_default();
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            (&literal[..end], &literal[end + 1..])
        }
        None => {
            let end = text.iter().position(|byte| *byte == b':').unwrap_or(text.len());
            let (host, port) = text.split_at(end);
            if !host.iter().all(|byte| REG_NAME[usize::from(*byte)]) {
                return false;
            }
            (host, port)
        }
    };
    let port_is_valid = match port {
        [] => true,
        [b':', digits @ ..] => {
            // An empty port is allowed and means the default port.
            digits.len() <= 5
                && digits.iter().all(u8::is_ascii_digit)
                && digits.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(digit - b'0'))
                    <= u32::from(u16::MAX)
        }
        [_, ..] => false,
    };
    !host.is_empty() && port_is_valid
}

/// The characters of a host name. Percent-encoding is legal in RFC 3986 but occurs in no existing
/// host name, and only serves to hide a name behind a different spelling.
const REG_NAME: [bool; 256] = {
    let mut names = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        names[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        names[others[at] as usize] = true;
        at += 1;
    }
    names
};

fn check_target(method: &Method, uri: &Uri, host: Option<&[u8]>) -> Result<(), HeadError> {
    match (uri.scheme_str(), uri.authority()) {
        (None, None) if uri.path() == "*" && *method == Method::OPTIONS => Ok(()),
        (None, None) if uri.path().starts_with('/') => Ok(()),
        (Some(scheme @ ("http" | "https")), Some(authority)) => {
            let authority = authority.as_str().as_bytes();
            let same = host.is_none_or(|host| {
                let (host, authority) = (portless(host, scheme), portless(authority, scheme));
                host.eq_ignore_ascii_case(authority)
            });
            // HTTP/2 has a scheme and an authority beside `*` as well.
            let path = uri.path();
            let fits = path.starts_with('/') || (path == "*" && *method == Method::OPTIONS);
            if same && fits && is_authority(authority) { Ok(()) } else { Err(HeadError::Target) }
        }
        (_, _) => Err(HeadError::Target),
    }
}

/// The authority without a port that its scheme implies (RFC 9110 section 4.2.3).
fn portless<'a>(authority: &'a [u8], scheme: &str) -> &'a [u8] {
    let default: &[u8] = if scheme == "https" { b":443" } else { b":80" };
    let bare = authority.strip_suffix(default).or_else(|| authority.strip_suffix(b":"));
    bare.unwrap_or(authority)
}

fn check_framing(version: Version, lines: &CriticalHeaders<'_>) -> Result<(), HeadError> {
    let coded = match lines.coding {
        Only::Absent => false,
        Only::Once(coding) => {
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            if !chunked || version == Version::HTTP_10 {
                return Err(HeadError::TransferEncoding);
            }
            true
        }
        Only::Repeated => return Err(HeadError::TransferEncoding),
    };
    match lines.length {
        Only::Absent => Ok(()),
        Only::Once(length) if !coded && is_number(length) => Ok(()),
        Only::Once(_) | Only::Repeated => Err(HeadError::ContentLength),
    }
}

fn is_number(text: &[u8]) -> bool {
    // Any 19 digits are below 2^64.
    (1..=19).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
}

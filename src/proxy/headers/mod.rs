//! Heads as pure functions: which requests are refused, and what goes up, down and into a record.
//!
//! [`check`] refuses what hyper lets through, [`path`] gives the path that routes and fingerprints
//! see, and this file builds the header maps of the messages that are sent. Framing is not copied
//! in either direction; whoever writes a message computes it.

pub(crate) mod check;
pub(crate) mod path;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hops;

mod forwarded;

use std::net::IpAddr;

use http::Version;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, DATE, HOST, HeaderMap, HeaderName, HeaderValue,
    VIA,
};

use super::peer::ClientAddress;
use super::request_id::X_REQUEST_ID;
use crate::problem::{ERROR_HEADER, STATUS_HEADER};

/// The bytes of a name as servers spell it that read hyphens and underscores as one (CGI, WSGI).
pub(crate) fn spelled(name: &HeaderName) -> impl Iterator<Item = u8> {
    name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte })
}

/// Header with the end of an answer's retention; set by the gateway alone.
pub(crate) const EXPIRES_HEADER: &str = "idempotency-expires";

/// Header that names a suspected duplicate; set by the gateway alone.
pub(crate) const EARLIER_HEADER: &str = "idempotency-earlier";

/// Header by which a client insists on a request that looks like a duplicate.
pub(crate) const OVERRIDE: HeaderName = HeaderName::from_static("idempotency-override");

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Sets the proxy of a CGI program (`HTTP_PROXY`) and means nothing in HTTP.
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// The gateway's name in `Via` (RFC 9110 section 7.6.3).
const PSEUDONYM: &str = "oncegate";

/// The gateway's entry in `Via` for a message that was received in this version.
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_10 => "1.0 oncegate",
        Version::HTTP_2 => "2 oncegate",
        _ => "1.1 oncegate",
    })
}

/// Facts about a request relevant to its upstream headers, besides the client's headers.
#[derive(Debug, Clone)]
pub(crate) struct Forwarding<'a> {
    /// Address of the client.
    pub(crate) client: ClientAddress,
    /// The version of the client's message.
    pub(crate) version: Version,
    /// The `X-Request-Id` to set; `None`: the client's stays.
    pub(crate) request_id: Option<HeaderValue>,
    /// Key headers to be removed, unless the route forwards keys.
    pub(crate) hidden: &'a [HeaderName],
    /// True when the answer may be replayed to further clients, so compression must be avoided.
    pub(crate) keyed: bool,
}

/// The headers of a request to the backend, built anew from the client's.
///
/// Left out: everything that concerns one connection only (RFC 9110 section 7.6.1, and whatever
/// `Connection` nominates), framing, `Expect`, and every key header unless the route forwards keys.
/// Key and tenant must be read before this, from the client's own headers; see
/// [`check::nominates`] for
/// nominations that are refused.
///
/// `Host` keeps the client's value here; the upstream client replaces it by that of the URL it
/// sends to, and `X-Forwarded-Host` carries the original. `X-Forwarded-For`, `-Proto` and `-Host`
/// say what this gateway saw. Of a trusted proxy, what it says of its own client is kept, and the
/// lists are appended to; what others claim is left out.
pub(crate) fn upstream_headers(client: HeaderMap, forwarding: &Forwarding<'_>) -> HeaderMap {
    let mut headers = host_first(client);
    for key in forwarding.hidden {
        headers.remove(key);
    }
    let is_trusted = forwarding.client.is_trusted;
    let seen = strip(&mut headers, |name| {
        is_hop_by_hop(name) || *name == PROXY || (!is_trusted && forwarded::is_claim(name))
    });
    headers.reserve(MOST_ADDED);
    let client = forwarding.client.ip.and_then(address);
    extend(&mut headers, X_FORWARDED_FOR, seen.forwarded_for, client);
    extend(&mut headers, VIA, seen.via, Some(via(forwarding.version)));
    let scheme = if forwarding.client.is_secure { "https" } else { "http" };
    let host = headers.iter().next().filter(|(name, _)| **name == HOST);
    let host = host.map(|(_, host)| host.clone());
    if is_trusted {
        let element = forwarded::element(forwarding.client.ip, scheme, host.as_ref());
        let present = headers.contains_key(FORWARDED);
        extend(&mut headers, FORWARDED, present, element.filter(|_| present));
    }
    if !is_trusted || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if let Some(host) = host
        && (!is_trusted || !headers.contains_key(X_FORWARDED_HOST))
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    if forwarding.keyed {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    if let Some(id) = &forwarding.request_id {
        headers.insert(X_REQUEST_ID, id.clone());
    }
    headers
}

/// Maximum number of header lines added to a request for the upstream.
const MOST_ADDED: usize = 6;

/// The same headers with `Host` before all others, as recommended by RFC 9110 section 7.2. Nearly
/// every client sends `Host` first.
fn host_first(headers: HeaderMap) -> HeaderMap {
    if headers.keys().next() == Some(&HOST) || !headers.contains_key(HOST) {
        return headers;
    }
    let mut sorted = HeaderMap::with_capacity(headers.keys_len() + MOST_ADDED);
    if let Some(host) = headers.get(HOST) {
        sorted.insert(HOST, host.clone());
    }
    let others = headers.iter().filter(|(name, _)| *name != HOST);
    others.for_each(|(name, value)| {
        sorted.append(name, value.clone());
    });
    sorted
}

/// Names found in a head by [`strip`] and relevant to later additions.
#[derive(Default)]
struct Seen {
    via: bool,
    forwarded_for: bool,
    date: bool,
}

/// Removes `Content-Length` and every line of a `doomed` name or a name nominated by `Connection`,
/// and returns the found names. A single pass: looking up each name costs more than the rest of the
/// work on a head.
fn strip(headers: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) -> Seen {
    let mut seen = Seen::default();
    let (mut length, mut connection) = (false, false);
    let mut names: Vec<HeaderName> = Vec::new();
    for name in headers.keys() {
        if *name == CONTENT_LENGTH {
            // Almost always present, and almost always alone.
            length = true;
        } else if doomed(name) {
            connection |= *name == CONNECTION;
            names.push(name.clone());
        } else {
            seen.note(name);
        }
    }
    if length {
        headers.remove(CONTENT_LENGTH);
    }
    if connection {
        let nominated = Nominated::of(headers);
        let further = headers.keys().filter(|name| nominated.contains(name));
        names.extend(further.cloned());
        for name in names {
            headers.remove(name);
        }
        return Seen::of(headers);
    }
    for name in names {
        headers.remove(name);
    }
    seen
}

impl Seen {
    fn of(headers: &HeaderMap) -> Self {
        let mut seen = Self::default();
        headers.keys().for_each(|name| seen.note(name));
        seen
    }

    fn note(&mut self, name: &HeaderName) {
        match name.as_str() {
            "via" => self.via = true,
            "date" => self.date = true,
            "x-forwarded-for" => self.forwarded_for = true,
            _ => {}
        }
    }
}

/// An address in the form of `X-Forwarded-For`. IPv4 is formatted by hand: the standard formatting
/// costs as much as the rest of these headers.
fn address(client: IpAddr) -> Option<HeaderValue> {
    let IpAddr::V4(client) = client.to_canonical() else {
        return HeaderValue::try_from(client.to_string()).ok();
    };
    let mut text = [b'.'; 15];
    let mut length = 0;
    for (at, octet) in client.octets().into_iter().enumerate() {
        // The dots are there already.
        length += usize::from(at > 0);
        let digits = [(100, 100), (10, 10), (1, 0)];
        for (unit, least) in digits {
            if octet >= least {
                text[length] = b'0' + octet / unit % 10;
                length += 1;
            }
        }
    }
    HeaderValue::from_bytes(&text[..length]).ok()
}

/// Appends `member` to the list in header `name`, in a single line; `present`: the header exists.
fn extend(headers: &mut HeaderMap, name: HeaderName, present: bool, member: Option<HeaderValue>) {
    let Some(member) = member else { return };
    if !present {
        headers.insert(name, member);
        return;
    }
    let mut list = String::new();
    for line in headers.get_all(&name) {
        join(&mut list, line);
    }
    join(&mut list, &member);
    // The text was made of checked header values; should that ever be wrong, the client's list is
    // left out rather than the request lost.
    headers.insert(name, HeaderValue::from_str(&list).unwrap_or(member));
}

/// The headers of a response to the client, from the backend's.
///
/// Left out: what concerns one connection only, framing, and headers by which a backend could pass
/// its answer off as the gateway's: `Idempotency-Status`, `-Error`, `-Expires` and the route's own
/// `replayed` marker (a backend's marker of another name is its own business and passes).
///
/// `keep_length` keeps `Content-Length` on an answer that has no body but tells the length of one:
/// to HEAD, and with status 304. `date` is used when the backend sent none, so that a replay is the
/// same as the first answer. `version` is the backend's.
pub(crate) fn downstream_headers(
    backend: HeaderMap,
    replayed: Option<&HeaderName>,
    keep_length: bool,
    version: Version,
    date: impl FnOnce() -> HeaderValue,
) -> HeaderMap {
    let mut headers = backend;
    let length = if keep_length { headers.get(CONTENT_LENGTH).cloned() } else { None };
    let seen = strip(&mut headers, |name| {
        is_hop_by_hop(name) || is_ours(name) || replayed.is_some_and(|replayed| replayed == name)
    });
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length);
    }
    // A line of its own means the same as a further member of the list (RFC 9110 section 5.3).
    headers.append(VIA, via(version));
    if !seen.date {
        headers.insert(DATE, date());
    }
    headers
}

/// The headers of the first answer that a replay repeats: each line, in order, as bytes. Cookies
/// and challenges were meant for the first client alone, and the gateway's own headers
/// (`Idempotency-*`) are written anew for each exchange. A `Content-Length` that
/// [`downstream_headers`] left is no framing: it is the length of an absent body.
pub(crate) fn stored_headers(sent: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let kept = |name: &HeaderName| {
        *name == CONTENT_LENGTH
            || !(is_for_one_client(name) || is_hop_by_hop(name) || is_ours(name))
    };
    sent.iter()
        .filter(|(name, _)| kept(name))
        .filter_map(|(name, value)| {
            // Copied: the value is a slice of the connection's read buffer, and a cached answer
            // must not keep the whole buffer alive. The value was valid and stays valid.
            Some((name.clone(), HeaderValue::from_bytes(value.as_bytes()).ok()?))
        })
        .collect()
}

/// True for headers of a single connection or of a message's framing; they are never forwarded.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    match name.as_str() {
        "connection" | "keep-alive" | "te" | "trailer" | "transfer-encoding" | "upgrade"
        | "content-length" | "expect" | "http2-settings" => true,
        name => name.starts_with("proxy-"),
    }
}

/// True for headers reserved for the gateway.
fn is_ours(name: &HeaderName) -> bool {
    matches!(name.as_str(), STATUS_HEADER | ERROR_HEADER | EXPIRES_HEADER | EARLIER_HEADER)
}

fn is_for_one_client(name: &HeaderName) -> bool {
    // `Set-Cookie2` is obsolete, and as private as its successor. `Proxy-Authenticate` is
    // hop-by-hop already.
    matches!(name.as_str(), "set-cookie" | "set-cookie2" | "www-authenticate")
}

/// Header names nominated by the `Connection` lines of a message, in lower case.
struct Nominated(Vec<Vec<u8>>);

impl Nominated {
    /// Empty in the common cases: no `Connection` line, or only options with the names of headers
    /// removed in any case.
    fn of(headers: &HeaderMap) -> Self {
        const USUAL: [&[u8]; 4] = [b"close", b"keep-alive", b"te", b"upgrade"];
        let unusual =
            |option: &&[u8]| !USUAL.iter().any(|usual| option.eq_ignore_ascii_case(usual));
        Self(options(headers).filter(unusual).map(<[u8]>::to_ascii_lowercase).collect())
    }

    fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|nominated| nominated == name.as_str().as_bytes())
    }
}

/// The options of all `Connection` lines (RFC 9110 section 7.6.1).
fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers.get_all(CONNECTION).iter().flat_map(|line| {
        line.as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|option| !option.is_empty())
    })
}

/// Adds a line of a list to the lines before. Text other than ASCII cannot be part of these lists
/// and is left out.
fn join(list: &mut String, line: &HeaderValue) {
    if let Ok(line) = line.to_str()
        && !line.is_empty()
    {
        separate(list);
        list.push_str(line);
    }
}

fn separate(list: &mut String) {
    if !list.is_empty() {
        list.push_str(", ");
    }
}

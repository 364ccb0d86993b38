//! The path for routes and fingerprints: a single spelling per path, and no path open to a
//! different reading by a backend.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

use crate::percent;

/// Reason for refusing a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathViolation {
    /// The first character is no slash.
    Relative,
    /// A percent sign without two hexadecimal digits.
    Escape,
    /// A character forbidden in URIs, or an encoded control character.
    Character,
    /// A disguised slash or backslash: encoded, or any backslash.
    Separator,
    /// A segment `.` or `..`, plain or encoded, with or without parameters.
    DotSegment,
}

impl PathViolation {
    /// The detail of the problem: a plain sentence for the client.
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::Relative => "The request's path does not start with a slash.",
            Self::Escape => "The request's path has a percent sign without two hex digits.",
            Self::Character => "The request's path contains a character that is not allowed.",
            Self::Separator => "The request's path contains a backslash or an encoded slash.",
            Self::DotSegment => "The request's path contains a dot segment.",
        }
    }
}

/// Characters that need no check.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        plain[byte] =
            matches!(byte as u8, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_');
        byte += 1;
    }
    plain
};

/// The path in its single spelling: unreserved characters decoded, the digits of other escapes in
/// upper case (RFC 3986 section 6.2.2). Borrowed when nothing had to change.
///
/// The backend gets the client's own spelling, which means the same (RFC 3986 section 6.2.2) and
/// may be signed.
///
/// # Errors
/// For paths that a backend may read differently.
pub(crate) fn normalize_path(raw: &str) -> Result<Cow<'_, str>, PathViolation> {
    if !raw.starts_with('/') {
        return Err(PathViolation::Relative);
    }
    if raw.bytes().all(|byte| PLAIN[usize::from(byte)]) {
        return Ok(Cow::Borrowed(raw));
    }
    let (mut simple, mut dots) = (true, false);
    let mut before = b'/';
    for byte in raw.bytes() {
        match byte {
            b'%' => simple = false,
            b'.' => dots |= before == b'/',
            b'\\' => return Err(PathViolation::Separator),
            b'?' | b'#' => return Err(PathViolation::Character),
            0x21..=0x7e => {}
            _ => return Err(PathViolation::Character),
        }
        before = byte;
    }
    let path = if simple { Cow::Borrowed(raw) } else { decode(raw)? };
    // Decoding may bring up further dots.
    if (dots || !simple) && path.split('/').any(is_dot_segment) {
        return Err(PathViolation::DotSegment);
    }
    Ok(path)
}

/// Gives an absolute form without a path the root as its path, which it means (RFC 9112 section
/// 3.2.1).
pub(crate) fn complete_target(uri: &mut Uri) {
    let target = uri.path_and_query().map(PathAndQuery::as_str);
    let Some(query) = target.filter(|target| target.starts_with('?')) else { return };
    let Ok(target) = PathAndQuery::try_from(format!("/{query}")) else { return };
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(target);
    // The parts are those of a whole URI, with another path.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// True for a path with different readings among backends: an empty segment (merged by some),
/// parameters after `;` (cut off by some), or an encoded percent sign (decoded twice by some). An
/// unsafe request with such a path is refused, because the backend may see a different route.
pub(crate) fn ambiguous(path: &str) -> bool {
    let path = path.as_bytes();
    let has_empty_segment = path.windows(2).any(|pair| pair == b"//");
    has_empty_segment
        || path.contains(&b';')
        || (path.contains(&b'%') && path.windows(3).any(|three| three == b"%3B" || three == b"%25"))
}

/// Decodings after the first that are looked into. A path with more of them is refused.
const MOST_DECODINGS: usize = 4;

/// True for a path that becomes another one when it is decoded more than once: a separator, a dot
/// segment or a control appears only then. Some backends, or proxies in front of them, do that, and
/// their path would then be that of a different resource.
pub(crate) fn hides_another(path: &str) -> bool {
    let path = path.as_bytes();
    if !path.windows(3).any(|three| three == b"%25") {
        return false;
    }
    // One decoding is what every backend does, and what it brings up was checked with the route.
    let mut text = decode_once(path, |_| ());
    for _ in 0..MOST_DECODINGS {
        let mut is_hidden = false;
        let next = decode_once(&text, |byte| {
            is_hidden |= matches!(byte, b'/' | b'\\' | b';' | b'?' | b'#' | 0..=0x1f | 0x7f);
        });
        if next == text {
            return false;
        }
        if is_hidden || String::from_utf8_lossy(&next).split('/').any(is_dot_segment) {
            return true;
        }
        text = next;
    }
    true
}

/// Decodes every well-formed escape once; `found` is called with each decoded byte.
fn decode_once(text: &[u8], mut found: impl FnMut(u8)) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        match percent::byte(after).filter(|_| *first == b'%') {
            Some(byte) => {
                found(byte);
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

/// Some backends cut off `;…` before they resolve dots.
fn is_dot_segment(segment: &str) -> bool {
    if !segment.starts_with('.') {
        return false;
    }
    let bare = segment.split(';').next().unwrap_or(segment);
    let bare = bare.split("%3B").next().unwrap_or(bare);
    matches!(bare, "." | "..")
}

fn decode(raw: &str) -> Result<Cow<'_, str>, PathViolation> {
    let mut path = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, escaped)) = rest.split_once('%') {
        path.push_str(plain);
        let byte = percent::byte(escaped.as_bytes()).ok_or(PathViolation::Escape)?;
        match byte {
            b'/' | b'\\' => return Err(PathViolation::Separator),
            0..=0x1f | 0x7f => return Err(PathViolation::Character),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                path.push(char::from(byte));
            }
            _ => {
                path.push('%');
                path.extend(escaped[..2].chars().map(|digit| digit.to_ascii_uppercase()));
            }
        }
        rest = &escaped[2..];
    }
    path.push_str(rest);
    Ok(if path == raw { Cow::Borrowed(raw) } else { Cow::Owned(path) })
}

#[cfg(test)]
mod tests {
    use super::PathViolation::{Character, DotSegment, Escape, Relative, Separator};
    use super::{PathViolation, ambiguous, hides_another, normalize_path};

    fn check(raw: &str, expected: Result<&str, PathViolation>) {
        assert_eq!(normalize_path(raw).as_deref().map_err(|error| *error), expected, "{raw}");
    }

    #[test]
    fn one_path_has_one_spelling() {
        check("/", Ok("/"));
        check("/v1/vouchers/redeem", Ok("/v1/vouchers/redeem"));
        check("/v1/%76ouchers/redeem", Ok("/v1/vouchers/redeem"));
        check("/%7Euser/a%2db%5F", Ok("/~user/a-b_"));
        check("/caf%c3%a9", Ok("/caf%C3%A9"));
        check("/a%20b%3f%23", Ok("/a%20b%3F%23"));
        check("/100%25", Ok("/100%25"));
        check("/a//b;c=d", Ok("/a//b;c=d"));
        check("/.well-known/x", Ok("/.well-known/x"));
        check("/...", Ok("/..."));
    }

    #[test]
    fn a_path_that_a_backend_could_read_as_another_is_refused() {
        for path in ["/a/../b", "/./a", "/a/..", "/a/.", "/%2e%2e/a", "/.%2E/a", "/a/%2e"] {
            check(path, Err(DotSegment));
        }
        for path in ["/a/..;x=y/b", "/..;/a", "/.;/a", "/..%3b/a", "/%2e%2e%3B/a"] {
            check(path, Err(DotSegment));
        }
        for path in ["/a\\b", "/a%5cb", "/a%2Fb", "/a%2fb"] {
            check(path, Err(Separator));
        }
        for path in ["/a%00", "/a%0d%0a", "/a%7F", "/a b", "/a\u{e9}", "/a\t", "/a?b", "/a#b"] {
            check(path, Err(Character));
        }
        for path in ["/a%", "/a%2", "/a%zz", "/a%2x", "/%\u{e9}", "/%+1", "/% 1"] {
            assert!(matches!(normalize_path(path), Err(Escape | Character)), "{path}");
        }
        for path in ["", "a", "*", "%2fa"] {
            check(path, Err(Relative));
        }
    }

    #[test]
    fn a_path_that_further_decodings_turn_into_another_hides_it() {
        for path in [
            "/x%252e%252e%252fadmin",
            "/x/%252e%252e/admin",
            "/x/.%252E/admin",
            "/x%252fadmin",
            "/x%252Fadmin",
            "/x%255cadmin",
            "/x%253Badmin",
            "/x%253Fadmin",
            "/x%2523admin",
            "/x%2500",
            "/x%250d%250a",
            "/x%257f",
            "/x%25252fadmin",
            "/x%2525252fadmin",
            "/x%252%66admin",
            "/x/%25252e./admin",
            "/x/%252e%3Ba/admin",
            "/x%252525252525252525AB",
        ] {
            let path = normalize_path(path).unwrap();
            assert!(hides_another(&path), "{path}");
        }
        for path in [
            "/50%25OFF",
            "/50%25",
            "/%25",
            "/100%25%25",
            "/50%25AB/a%252eb",
            "/a%2525b",
            "/a%20b",
            "/caf%C3%A9",
            "/50%25-%3B",
            "/x%25%32G",
        ] {
            let path = normalize_path(path).unwrap();
            assert!(!hides_another(&path), "{path}");
        }
    }

    #[test]
    fn what_backends_disagree_about_is_ambiguous() {
        for path in ["//a", "/a//", "/a;b", "/a;", "/a%3Bb", "/a%252fb"] {
            assert!(ambiguous(path), "{path}");
        }
        for path in ["/", "/a/b", "/a%20b", "/a.b"] {
            assert!(!ambiguous(path), "{path}");
        }
    }
}

//! The fingerprint: a digest of what must not change between two requests with the same key.

use std::ops::Range;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::preimage::{PreimageMatcher, PreimageSink, field, lower_case, optional};
use super::tenant::TenantId;
use crate::json::{Document, JsonType, Pointer};

/// How many top-level members get a digest of their own. Bodies with more are still compared whole;
/// only the list of what differs stops here.
pub const MAX_MEMBERS: usize = 64;

/// Room for so many members is made at once.
const USUAL_MEMBERS: usize = 8;

/// Bytes of the longest member name that gets a digest of its own.
pub const MAX_MEMBER_NAME: usize = 64;

/// Bytes of the longest [`Verbatim::Text`].
pub const MAX_VERBATIM: usize = 512;

/// What must not change between retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// SHA-256 over everything that is compared.
    pub digest: [u8; 32],
    /// A short digest for each top-level member, to say which ones differ.
    pub members: Arc<[MemberDigest]>,
}

/// A short digest of one top-level member of the body. Four bytes: enough to see that two values
/// differ, too few to search for the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDigest {
    /// The member's name; records of one batch share it.
    pub name: Arc<str>,
    /// The start of a hash over name and value, seeded with the tenant.
    pub digest: [u8; 4],
}

/// `[route.fingerprint]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FingerprintRules {
    /// How bodies are compared.
    pub body: BodyCompare,
    /// Which parts of a JSON body count.
    pub select: Select,
    /// Headers whose values count too.
    pub headers: Vec<HeaderName>,
}

/// How bodies are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyCompare {
    /// As JSON when the media type is JSON, else byte for byte.
    ByMediaType,
    /// As JSON whatever the media type; byte for byte when it is not JSON.
    Json,
    /// Byte for byte.
    Raw,
}

/// Which parts of a JSON body count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// All of it.
    All,
    /// Only these.
    Include(Vec<Pointer>),
    /// All but these.
    Exclude(Vec<Pointer>),
}

/// The very bytes of a request: two that agree in them agree in everything that
/// [`FingerprintRules::preimage`] could compare. To compare them costs less than to digest them, so
/// few bytes are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verbatim {
    /// All of them, [`MAX_VERBATIM`] at most.
    Text(Vec<u8>),
    /// SHA-256 over them.
    Digest([u8; 32]),
}

/// The parts of a request that a fingerprint covers.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as matched: unreserved characters decoded.
    pub path: &'a str,
    /// The query's bytes, if there is one.
    pub query: Option<&'a str>,
    /// All headers; the media type, the content coding and those of [`FingerprintRules::headers`] count.
    pub headers: &'a HeaderMap,
    /// The caller.
    pub tenant: &'a TenantId,
    /// The body as received.
    pub body: &'a [u8],
    /// The body as JSON where it is compared as such, see [`FingerprintRules::wants_json`].
    pub json: Option<&'a Document<'a>>,
}

impl FingerprintRules {
    /// Whether a body under these headers is compared as JSON, so that it needs to be parsed.
    pub fn wants_json(&self, headers: &HeaderMap) -> bool {
        match self.body {
            BodyCompare::ByMediaType => is_json(headers),
            BodyCompare::Json => true,
            BodyCompare::Raw => false,
        }
    }

    /// The very bytes of a request, see [`Verbatim`].
    pub fn verbatim(&self, parts: &RequestParts<'_>) -> Verbatim {
        let mut text = self.head(parts);
        text.push(b'r');
        text.extend_from_slice(parts.body);
        if text.len() > MAX_VERBATIM {
            return Verbatim::Digest(Sha256::digest(&text).into());
        }
        Verbatim::Text(text)
    }

    /// Whether the very bytes of a request are these. Nothing is written down for the few of most
    /// requests.
    pub fn is_verbatim(&self, parts: &RequestParts<'_>, first: &Verbatim) -> bool {
        let Verbatim::Text(text) = first else { return self.verbatim(parts) == *first };
        let mut against = PreimageMatcher(Some(text));
        self.write_head(parts, &mut against);
        against.put(b"r");
        against.put(parts.body);
        against.0.is_some_and(<[u8]>::is_empty)
    }

    /// What is compared of a request but its body, written down, with room for the body.
    fn head(&self, parts: &RequestParts<'_>) -> Vec<u8> {
        let mut text = Vec::with_capacity(256 + parts.body.len());
        self.write_head(parts, &mut text);
        text
    }

    fn write_head(&self, parts: &RequestParts<'_>, text: &mut impl PreimageSink) {
        text.put(b"oncegate/fingerprint/1\0");
        field(text, parts.method.as_bytes());
        field(text, parts.path.as_bytes());
        optional(text, parts.query.map(str::as_bytes));
        lower_case(text, media_type(parts.headers));
        let coding = parts.headers.get(http::header::CONTENT_ENCODING);
        optional(text, coding.map(HeaderValue::as_bytes));
        text.put(parts.tenant.as_bytes());
        for name in &self.headers {
            field(text, name.as_str().as_bytes());
            for value in parts.headers.get_all(name) {
                optional(text, Some(value.as_bytes()));
            }
            optional(text, None);
        }
    }

    /// Writes down what is compared of a request, and digests it.
    pub fn preimage(&self, parts: &RequestParts<'_>) -> Preimage {
        let mut text = self.head(parts);
        let before_body = text.len();
        // Each value and name is written down with its length.
        text.reserve(2 * parts.body.len());
        let mut members = Vec::with_capacity(USUAL_MEMBERS);
        let as_json = parts.json.is_some_and(|document| {
            text.push(b'j');
            self.select.canonical(document, &mut text, &mut members)
        });
        if !as_json {
            members.clear();
            text.truncate(before_body);
            text.push(b'r');
            text.extend_from_slice(parts.body);
        }
        Preimage { digest: Sha256::digest(&text).into(), text, members }
    }
}

/// What is compared of a request, written down.
#[derive(Debug)]
pub struct Preimage {
    /// SHA-256 over everything.
    pub digest: [u8; 32],
    text: Vec<u8>,
    members: Vec<Piece>,
}

/// Where a top-level member stands in the text of a [`Preimage`].
#[derive(Debug)]
struct Piece {
    name: Range<usize>,
    whole: Range<usize>,
}

impl Preimage {
    /// The fingerprint: with a short digest for each top-level member.
    pub fn fingerprint(&self, tenant: &TenantId) -> Fingerprint {
        let members = self
            .members
            .iter()
            .filter(|piece| piece.name.len() <= MAX_MEMBER_NAME)
            .take(MAX_MEMBERS)
            .map(|piece| {
                let digest = member_digest(tenant, &self.text[piece.whole.clone()]);
                // It was text before it was written down.
                let name = std::str::from_utf8(&self.text[piece.name.clone()]).unwrap_or_default();
                let name = name.into();
                MemberDigest { name, digest }
            })
            .collect();
        Fingerprint { digest: self.digest, members }
    }
}

/// The short digest of a member, written down with its name. Two tenants with the same value have
/// different digests for it.
pub fn member_digest(tenant: &TenantId, text: &[u8]) -> [u8; 4] {
    let seed = tenant.as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes);
    let [a, b, c, d, ..] = xxh3_64_with_seed(text, seed).to_le_bytes();
    [a, b, c, d]
}

impl Fingerprint {
    /// The names of the top-level members that differ between two fingerprints, sorted; empty when
    /// the difference lies elsewhere (path, query, media type, a header, a body that is not an
    /// object) or cannot be told.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let all = |list: &[MemberDigest], name: &str| -> Vec<[u8; 4]> {
            let named = list.iter().filter(|member| &*member.name == name);
            named.map(|member| member.digest).collect()
        };
        let mut names: Vec<String> = Vec::new();
        for member in self.members.iter().chain(&*other.members) {
            let differs = all(&self.members, &member.name) != all(&other.members, &member.name);
            if differs && !names.iter().any(|name| **name == *member.name) {
                names.push(member.name.as_ref().to_owned());
            }
        }
        names.sort_unstable();
        names
    }
}

impl Select {
    /// Appends what counts of the document, and where its top-level members then stand; false when
    /// it cannot be compared as JSON because a member name stands twice in one object.
    fn canonical(
        &self,
        document: &Document<'_>,
        text: &mut Vec<u8>,
        pieces: &mut Vec<Piece>,
    ) -> bool {
        match self {
            Self::All => whole(document, &[], text, pieces),
            Self::Exclude(pointers) => {
                let found = pointers.iter().filter_map(|pointer| document.find(pointer));
                let skip: Vec<usize> = found.map(|value| value.place()).collect();
                whole(document, &skip, text, pieces)
            }
            Self::Include(pointers) => {
                !document.has_duplicates()
                    && pointers.iter().all(|pointer| {
                        let name = pointer.tokens().first().map_or("", String::as_str);
                        member(text, pieces, name, |text| match document.find(pointer) {
                            Some(value) => {
                                text.push(1);
                                value.canonical(text, &[])
                            }
                            None => {
                                text.push(0);
                                true
                            }
                        })
                    })
            }
        }
    }
}

/// The whole document but the values whose place is in `skip`.
fn whole(
    document: &Document<'_>,
    skip: &[usize],
    text: &mut Vec<u8>,
    pieces: &mut Vec<Piece>,
) -> bool {
    let root = document.root();
    if root.kind() != JsonType::Object || skip.contains(&root.place()) {
        return skip.contains(&root.place()) || root.canonical(text, skip);
    }
    let Some(members) = root.sorted_members() else { return false };
    text.push(b'{');
    let counted = members.iter().filter(|(_, value)| !skip.contains(&value.place()));
    for (name, value) in counted {
        if !member(text, pieces, name, |text| value.canonical(text, skip)) {
            return false;
        }
    }
    text.push(b'}');
    true
}

/// Appends a member's name, then its value by `append`, and notes where they stand.
fn member(
    text: &mut Vec<u8>,
    pieces: &mut Vec<Piece>,
    name: &str,
    append: impl FnOnce(&mut Vec<u8>) -> bool,
) -> bool {
    let start = text.len();
    field(text, name.as_bytes());
    let named = text.len();
    let appended = append(text);
    pieces.push(Piece { name: named - name.len()..named, whole: start..text.len() });
    appended
}

/// The media type without its parameters, as written.
fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(http::header::CONTENT_TYPE)?.as_bytes();
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    Some(value[..end].trim_ascii())
}

/// Whether the body is JSON by its media type (`application/json` or a `+json` suffix, RFC 6839)
/// and not compressed.
pub fn is_json(headers: &HeaderMap) -> bool {
    let plain = headers
        .get_all(http::header::CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    plain && names_json(headers)
}

/// Whether the media type names JSON, whatever the content coding.
pub fn names_json(headers: &HeaderMap) -> bool {
    media_type(headers).is_some_and(|media| {
        let suffix = media.len().checked_sub(b"+json".len()).map(|at| &media[at..]);
        media.eq_ignore_ascii_case(b"application/json")
            || media.eq_ignore_ascii_case(b"text/json")
            || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
    })
}

//! The fingerprint: a digest of what must not change between two requests with the same key
//! (SPEC 4.3).

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::tenant::TenantId;
use crate::json::{Document, Pointer, Value};

/// How many top-level members get a digest of their own. Bodies with more are still compared whole;
/// only the list of what differs stops here.
pub const MAX_MEMBERS: usize = 64;

/// Bytes of the longest member name that gets a digest of its own.
pub const MAX_MEMBER_NAME: usize = 64;

/// What must not change between retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// SHA-256 over everything that is compared.
    pub digest: [u8; 32],
    /// A short digest for each top-level member, to say which ones differ.
    pub members: Vec<MemberDigest>,
}

/// A short digest of one top-level member of the body. Four bytes: enough to see that two values
/// differ, too few to search for the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDigest {
    /// The member's name.
    pub name: String,
    /// The start of a digest over tenant, name and value.
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

/// The parts of a request that a fingerprint covers.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
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

    /// SHA-256 over everything that is compared.
    pub fn digest(&self, subject: &Subject<'_>) -> [u8; 32] {
        let mut text = Vec::with_capacity(256 + subject.body.len());
        text.extend_from_slice(b"oncegate/fingerprint/1\0");
        field(&mut text, subject.method.as_bytes());
        field(&mut text, subject.path.as_bytes());
        optional(&mut text, subject.query.map(str::as_bytes));
        optional(&mut text, media_type(subject.headers).as_deref());
        let coding = subject.headers.get(http::header::CONTENT_ENCODING);
        optional(&mut text, coding.map(|coding| coding.as_bytes()));
        text.extend_from_slice(subject.tenant.as_bytes());
        for name in &self.headers {
            field(&mut text, name.as_str().as_bytes());
            for value in subject.headers.get_all(name) {
                optional(&mut text, Some(value.as_bytes()));
            }
            optional(&mut text, None);
        }
        let before_body = text.len();
        let as_json = subject.json.is_some_and(|document| {
            text.push(b'j');
            self.select.canonical(document, &mut text)
        });
        if !as_json {
            text.truncate(before_body);
            text.push(b'r');
            text.extend_from_slice(subject.body);
        }
        Sha256::digest(&text).into()
    }

    /// A short digest of each top-level member that counts; none when the body is no object.
    pub fn members(&self, document: &Document<'_>, tenant: &TenantId) -> Vec<MemberDigest> {
        let mut members = Vec::new();
        let mut text = Vec::new();
        for (name, value) in document.root().members() {
            if members.len() == MAX_MEMBERS {
                break;
            }
            if name.len() > MAX_MEMBER_NAME || !self.select.touches(document, &value) {
                continue;
            }
            text.clear();
            text.extend_from_slice(b"oncegate/member/1\0");
            text.extend_from_slice(tenant.as_bytes());
            field(&mut text, name.as_bytes());
            let skip = self.select.skipped(document);
            if !value.canonical(&mut text, &skip) {
                return Vec::new();
            }
            let hash = Sha256::digest(&text);
            let mut digest = [0; 4];
            digest.copy_from_slice(&hash[..4]);
            members.push(MemberDigest { name: name.into_owned(), digest });
        }
        members
    }
}

impl Fingerprint {
    /// The names of the top-level members that differ between two fingerprints, sorted; empty when
    /// the difference lies elsewhere (path, query, media type, a header, a body that is not an
    /// object) or cannot be told.
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let find = |list: &[MemberDigest], name: &str| {
            list.iter().find(|member| member.name == name).map(|member| member.digest)
        };
        let mut names: Vec<String> = Vec::new();
        for member in self.members.iter().chain(&other.members) {
            let differs = find(&self.members, &member.name) != find(&other.members, &member.name);
            if differs && !names.contains(&member.name) {
                names.push(member.name.clone());
            }
        }
        names.sort_unstable();
        names
    }
}

impl Select {
    /// Appends what counts of the document; false when it cannot be compared as JSON because a
    /// member name stands twice in one object.
    fn canonical(&self, document: &Document<'_>, text: &mut Vec<u8>) -> bool {
        match self {
            Self::All | Self::Exclude(_) => {
                document.root().canonical(text, &self.skipped(document))
            }
            Self::Include(pointers) => {
                if document.has_duplicates() {
                    return false;
                }
                pointers.iter().all(|pointer| match document.find(pointer) {
                    Some(value) => {
                        text.push(1);
                        value.canonical(text, &[])
                    }
                    None => {
                        text.push(0);
                        true
                    }
                })
            }
        }
    }

    /// The values left out, by their place in the document.
    fn skipped(&self, document: &Document<'_>) -> Vec<usize> {
        match self {
            Self::All | Self::Include(_) => Vec::new(),
            Self::Exclude(pointers) => pointers
                .iter()
                .filter_map(|pointer| document.find(pointer).map(|value| value.place()))
                .collect(),
        }
    }

    /// Whether any part of this top-level member counts.
    fn touches(&self, document: &Document<'_>, member: &Value<'_, '_>) -> bool {
        match self {
            Self::All => true,
            Self::Exclude(_) => !self.skipped(document).contains(&member.place()),
            Self::Include(pointers) => pointers
                .iter()
                .any(|pointer| document.find(pointer).is_some_and(|value| member.contains(&value))),
        }
    }
}

/// The media type without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Option<Vec<u8>> {
    let value = headers.get(http::header::CONTENT_TYPE)?.as_bytes();
    let essence = value.split(|byte| *byte == b';').next().unwrap_or(value);
    Some(essence.trim_ascii().to_ascii_lowercase())
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
        media == b"application/json" || media == b"text/json" || media.ends_with(b"+json")
    })
}

fn field(text: &mut Vec<u8>, bytes: &[u8]) {
    text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    text.extend_from_slice(bytes);
}

fn optional(text: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => text.push(0),
        Some(bytes) => {
            text.push(1);
            field(text, bytes);
        }
    }
}

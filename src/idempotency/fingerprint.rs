//! The fingerprint: a digest of the parts of a request that must not change between requests with
//! the same key.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use super::compared_body::{BodyCompare, ComparedBody};
use super::preimage::{PreimageMatcher, PreimageSink, field, lower_case, optional};
use super::select::Piece;
pub use super::select::{Select, Selection};
use super::tenant::TenantId;
use crate::form::query_without;
use crate::media_type;

/// Top-level members with a digest of their own. Bodies with more members are still compared
/// whole; only the list of differences stops here.
pub const MAX_MEMBERS: usize = 64;

/// Initial capacity for members.
const USUAL_MEMBERS: usize = 8;

/// Bytes of the longest member name with a digest of its own.
pub const MAX_MEMBER_NAME: usize = 64;

/// The name in the place of the members of a body that has no canonical form, such as JSON with a
/// name twice: such a body cannot be compared with another member by member.
const NO_MEMBERS: &str = "\0";

/// Bytes of the longest [`Verbatim::Text`].
pub const MAX_VERBATIM: usize = 512;

/// A digest of the parts of a request that must not change between retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// SHA-256 over all compared parts.
    pub digest: [u8; 32],
    /// SHA-256 over the request as received. Equal bytes are the same request under any rule.
    pub verbatim: [u8; 32],
    /// The rule that made `digest`. Digests of two rules do not show that requests differ.
    pub rule: RuleId,
    /// Short digests of the top-level members, to name the members that differ.
    pub members: Arc<[MemberDigest]>,
}

/// The identity of a rule by which requests are compared: the start of a digest over the rule's
/// canonical text. Two spellings of one rule have one identity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleId([u8; 8]);

impl RuleId {
    /// The identity of the rule with this canonical text.
    pub fn of(text: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(b"oncegate/rule/1\0").chain_update(text).finalize();
        Self(digest.first_chunk().copied().unwrap_or_default())
    }

    /// An identity read back from a store.
    pub const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// A short digest of one top-level member of the body. Four bytes show that two values differ and
/// are too few to search for the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDigest {
    /// Name of the member; shared by the records of a batch.
    pub name: Arc<str>,
    /// Start of a hash over name and value, seeded with the tenant.
    pub digest: [u8; 4],
}

/// `[route.fingerprint]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FingerprintRules {
    /// Comparison of bodies.
    pub body: BodyCompare,
    /// Compared parts of a body.
    pub select: Select,
    /// Parameters of the query that are not compared, sorted.
    pub query_exclude: Vec<String>,
    /// Headers whose values are compared, sorted.
    pub headers: Vec<HeaderName>,
    /// The identity of the other fields.
    rule: RuleId,
}

/// The exact bytes of a request: two requests with equal bytes agree in everything that
/// [`FingerprintRules::preimage`] compares. Comparing bytes costs less than digesting, so short
/// requests are kept unhashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verbatim {
    /// The bytes, [`MAX_VERBATIM`] at most.
    Text(Vec<u8>),
    /// SHA-256 over the bytes.
    Digest([u8; 32]),
}

/// The parts of a request covered by a fingerprint.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: &'a str,
    /// The path as matched: unreserved characters decoded.
    pub path: &'a str,
    /// The query, if any.
    pub query: Option<&'a str>,
    /// All headers; only the media type, the content coding and [`FingerprintRules::headers`] are
    /// compared.
    pub headers: &'a HeaderMap,
    /// The caller.
    pub tenant: &'a TenantId,
    /// The body as received.
    pub body: &'a [u8],
    /// The body in the form in which it is compared; of no use for [`FingerprintRules::verbatim`].
    pub compared: ComparedBody<'a>,
    /// The compared body is the received one without its content coding.
    pub is_decoded: bool,
}

impl FingerprintRules {
    /// The rules; the order of names has no meaning.
    pub fn new(body: BodyCompare, select: Select, mut headers: Vec<HeaderName>) -> Self {
        headers.sort_unstable_by(|left, right| left.as_str().cmp(right.as_str()));
        let (select, query_exclude) = (select.sorted(), Vec::new());
        Self { body, select, query_exclude, headers, rule: RuleId::default() }.finished()
    }

    /// The rules without these parameters of the query.
    pub fn excluding_query(mut self, mut names: Vec<String>) -> Self {
        names.sort_unstable();
        self.query_exclude = names;
        self.finished()
    }

    /// The rules with the identity that their other fields make.
    fn finished(self) -> Self {
        let mut text = b"request\0".to_vec();
        text.push(match self.body {
            BodyCompare::ByMediaType => 0,
            BodyCompare::Json => 1,
            BodyCompare::Raw => 2,
            BodyCompare::Form => 3,
            BodyCompare::Multipart => 4,
            BodyCompare::Xml => 5,
            BodyCompare::Ignore => 6,
        });
        let mut list = |tag: u8, names: &mut dyn Iterator<Item = String>| {
            text.push(tag);
            names.for_each(|name| optional(&mut text, Some(name.as_bytes())));
            optional(&mut text, None);
        };
        match &self.select {
            Select::All => list(0, &mut std::iter::empty()),
            Select::Include(selection) => list(1, &mut selection.names()),
            Select::Exclude(selection) => list(2, &mut selection.names()),
        }
        list(3, &mut self.headers.iter().map(ToString::to_string));
        list(4, &mut self.query_exclude.iter().cloned());
        Self { rule: RuleId::of(&text), ..self }
    }

    /// The exact bytes of a request.
    pub fn verbatim(&self, parts: &RequestParts<'_>) -> Verbatim {
        let mut text = self.head(parts);
        text.push(b'r');
        text.extend_from_slice(parts.body);
        if text.len() > MAX_VERBATIM {
            return Verbatim::Digest(Sha256::digest(&text).into());
        }
        Verbatim::Text(text)
    }

    /// Compares a request with exact bytes, without writing a copy of short requests.
    pub fn is_verbatim(&self, parts: &RequestParts<'_>, first: &Verbatim) -> bool {
        let Verbatim::Text(text) = first else { return self.verbatim(parts) == *first };
        let mut against = PreimageMatcher(Some(text));
        self.write_head(parts, &mut against);
        against.put(b"r");
        against.put(parts.body);
        against.0.is_some_and(<[u8]>::is_empty)
    }

    /// The preimage of a request without its body, with capacity for the body.
    fn head(&self, parts: &RequestParts<'_>) -> Vec<u8> {
        let mut text = Vec::with_capacity(256 + parts.body.len());
        self.write_head(parts, &mut text);
        text
    }

    fn write_head(&self, parts: &RequestParts<'_>, text: &mut impl PreimageSink) {
        Self::write_line(parts, parts.query, coding(parts), text);
        self.write_headers(parts, text);
    }

    /// Writes everything before the body that is compared under any rule.
    fn write_line(
        parts: &RequestParts<'_>,
        query: Option<&str>,
        coding: Option<&[u8]>,
        text: &mut impl PreimageSink,
    ) {
        text.put(b"oncegate/fingerprint/1\0");
        field(text, parts.method.as_bytes());
        field(text, parts.path.as_bytes());
        optional(text, query.map(str::as_bytes));
        lower_case(text, media_type::essence(parts.headers));
        optional(text, coding);
        text.put(parts.tenant.as_bytes());
    }

    /// Writes [`Self::write_line`] as this rule compares it. Returns true when that is the line as
    /// received.
    fn write_compared_line(&self, parts: &RequestParts<'_>, text: &mut Vec<u8>) -> bool {
        // A body without its coding is the same however it was coded.
        let own_coding = coding(parts).filter(|_| !parts.is_decoded);
        let query = parts.query.filter(|_| !self.query_exclude.is_empty());
        match query.map(|query| query_without(query, &self.query_exclude)) {
            None => Self::write_line(parts, parts.query, own_coding, text),
            Some(rest) => {
                let rest = Some(rest.as_str()).filter(|rest| !rest.is_empty());
                Self::write_line(parts, rest, own_coding, text);
            }
        }
        query.is_none() && !parts.is_decoded
    }

    fn write_headers(&self, parts: &RequestParts<'_>, text: &mut impl PreimageSink) {
        for name in &self.headers {
            field(text, name.as_str().as_bytes());
            for value in parts.headers.get_all(name) {
                optional(text, Some(value.as_bytes()));
            }
            optional(text, None);
        }
    }

    /// Writes the preimage of a request and digests it.
    pub fn preimage(&self, parts: &RequestParts<'_>) -> Preimage {
        let mut text = Vec::with_capacity(256 + parts.body.len());
        let is_as_received = self.write_compared_line(parts, &mut text);
        let line = text.len();
        self.write_headers(parts, &mut text);
        let before_body = text.len();
        // Each value and name is written down with its length.
        text.reserve(2 * parts.body.len());
        let mut members = Vec::with_capacity(USUAL_MEMBERS);
        let is_canonical = parts.compared.write(&self.select, &mut text, &mut members);
        if !is_canonical {
            members.clear();
            text.truncate(before_body);
            text.push(b'r');
            text.extend_from_slice(match parts.compared {
                ComparedBody::Raw(content) => content,
                // Without a canonical form, as JSON with a repeated name.
                _ => parts.body,
            });
        }
        // The compared headers are no part of the verbatim digest: a rule may add some later.
        let start = Sha256::new().chain_update(&text[..line]);
        let digest = start.clone().chain_update(&text[line..]).finalize().into();
        let received = |start: Sha256| start.chain_update(b"r").chain_update(parts.body);
        let verbatim = if !is_as_received {
            let mut text = Vec::with_capacity(256);
            Self::write_line(parts, parts.query, coding(parts), &mut text);
            received(Sha256::new().chain_update(text)).finalize().into()
        } else if !is_canonical && line == before_body {
            // The whole preimage is the request as received.
            digest
        } else {
            received(start).finalize().into()
        };
        let has_members = match self.body.resolved(parts.headers) {
            BodyCompare::Json | BodyCompare::Form | BodyCompare::Multipart | BodyCompare::Xml => {
                is_canonical
            }
            BodyCompare::ByMediaType | BodyCompare::Raw | BodyCompare::Ignore => true,
        };
        Preimage { digest, verbatim, rule: self.rule, text, members, has_members }
    }
}

/// The preimage of a fingerprint.
#[derive(Debug)]
pub struct Preimage {
    /// SHA-256 over the text.
    pub digest: [u8; 32],
    /// See [`Fingerprint::verbatim`].
    verbatim: [u8; 32],
    rule: RuleId,
    text: Vec<u8>,
    members: Vec<Piece>,
    /// The members can be compared one by one.
    has_members: bool,
}

impl Preimage {
    /// The fingerprint, with a short digest for each top-level member.
    pub fn fingerprint(&self, tenant: &TenantId) -> Fingerprint {
        if !self.has_members {
            let members = [MemberDigest { name: NO_MEMBERS.into(), digest: [0; 4] }];
            return self.with_members(members.into());
        }
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
        self.with_members(members)
    }

    fn with_members(&self, members: Arc<[MemberDigest]>) -> Fingerprint {
        Fingerprint { digest: self.digest, verbatim: self.verbatim, rule: self.rule, members }
    }
}

/// The short digest of a member and its name. Two tenants with the same value have different
/// digests.
pub fn member_digest(tenant: &TenantId, text: &[u8]) -> [u8; 4] {
    let seed = tenant.as_bytes().first_chunk().copied().map_or(0, u64::from_le_bytes);
    let [a, b, c, d, ..] = xxh3_64_with_seed(text, seed).to_le_bytes();
    [a, b, c, d]
}

impl Fingerprint {
    /// Reports whether both are fingerprints of one request: the compared parts are equal, or the
    /// rule has changed in between and the bytes are equal.
    pub fn is_same_request(&self, other: &Self) -> bool {
        self.is_made_of(&other.digest, &other.verbatim, other.rule)
    }

    /// Reports the same as [`Self::is_same_request`] for the parts of another fingerprint.
    pub fn is_made_of(&self, digest: &[u8; 32], verbatim: &[u8; 32], rule: RuleId) -> bool {
        // Under one rule the digest decides alone: a compared header may differ where the bytes
        // of the verbatim digest are equal.
        self.digest == *digest || (self.rule != rule && self.verbatim == *verbatim)
    }

    /// Names of the top-level members that differ between two fingerprints, sorted. Empty when
    /// the difference lies elsewhere (path, query, media type, a header, a body that is not an
    /// object) or cannot be determined, as between fingerprints of two rules, of a body without a
    /// canonical form, or of a member that may be one of those beyond [`MAX_MEMBERS`].
    pub fn differing(&self, other: &Self) -> Vec<String> {
        let has_members = |one: &Self| one.members.iter().all(|it| &*it.name != NO_MEMBERS);
        if self.rule != other.rule || !has_members(self) || !has_members(other) {
            return Vec::new();
        }
        let all = |list: &[MemberDigest], name: &str| -> Vec<[u8; 4]> {
            let named = list.iter().filter(|member| &*member.name == name);
            named.map(|member| member.digest).collect()
        };
        let mut names: Vec<String> = Vec::new();
        for member in self.members.iter().chain(&*other.members) {
            let (one, two) = (all(&self.members, &member.name), all(&other.members, &member.name));
            let is_whole = self.holds_all(&member.name) && other.holds_all(&member.name);
            let differs = one.iter().zip(&two).any(|(one, two)| one != two)
                || (one.len() != two.len() && is_whole);
            if differs && !names.iter().any(|name| **name == *member.name) {
                names.push(member.name.as_ref().to_owned());
            }
        }
        names.sort_unstable();
        names
    }

    /// Reports whether the digests of every member of this name are kept: of a body with many
    /// members the last ones have none.
    fn holds_all(&self, name: &str) -> bool {
        let mut kept = self.members.iter().map(|member| &*member.name);
        self.members.len() < MAX_MEMBERS
            || (kept.clone().is_sorted() && kept.next_back().is_some_and(|last| name < last))
    }
}

/// The content coding, as written.
fn coding<'a>(parts: &RequestParts<'a>) -> Option<&'a [u8]> {
    parts.headers.get(http::header::CONTENT_ENCODING).map(HeaderValue::as_bytes)
}

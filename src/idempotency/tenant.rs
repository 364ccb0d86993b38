//! The tenant of a request: a digest of the caller's credentials (`[tenant] headers`).

use std::fmt;
use std::ops::Deref;

use http::header::{AUTHORIZATION, HOST, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::digest::first_16;
use crate::hex;

/// The headers whose values name a caller: a set, in order of the names. Another order in the
/// configuration must not turn every caller into another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialHeaders(Vec<HeaderName>);

impl CredentialHeaders {
    /// The set of these names.
    pub fn new(mut names: Vec<HeaderName>) -> Self {
        names.sort_unstable_by(|left, right| left.as_str().cmp(right.as_str()));
        names.dedup();
        Self(names)
    }
}

impl Deref for CredentialHeaders {
    type Target = [HeaderName];

    fn deref(&self) -> &[HeaderName] {
        &self.0
    }
}

/// A digest of the values of the tenant headers. The credentials themselves are never kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TenantId([u8; 16]);

impl TenantId {
    /// The tenant of a request, named by the credential headers that are present and not empty.
    /// Spellings that no server tells apart are one tenant: equal lines count once, lines of one
    /// header count in any order, and the scheme of `authorization` and the letters of `host`
    /// have no case.
    pub fn of(names: &CredentialHeaders, headers: &HeaderMap) -> Self {
        let mut text = Vec::new();
        write_down(&mut text, names, headers);
        Self::digest(&text)
    }

    /// The tenant with a name of some kind, within a space of names.
    pub fn named(kind: &str, space: &str, name: &str) -> Self {
        let mut text = b"oncegate/caller/1\0".to_vec();
        for part in [kind, space, name] {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        Self::digest(&text)
    }

    fn digest(text: &[u8]) -> Self {
        Self(first_16(&Sha256::digest(text)))
    }

    /// Parses the form written by [`fmt::Display`]: 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        hex::decode_lower(text).map(Self)
    }

    /// An id read back from a store.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The digest's bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Writes the preimage of a tenant id.
fn write_down(text: &mut Vec<u8>, names: &CredentialHeaders, headers: &HeaderMap) {
    text.extend_from_slice(b"oncegate/tenant/1\0");
    for name in names.iter() {
        let mut lines = headers
            .get_all(name)
            .iter()
            .map(|value| value.as_bytes().trim_ascii())
            .filter(|line| !line.is_empty());
        let Some(first) = lines.next() else { continue };
        text.extend_from_slice(&(name.as_str().len() as u64).to_le_bytes());
        text.extend_from_slice(name.as_str().as_bytes());
        let Some(second) = lines.next() else {
            // Nearly every caller sends one line, which needs no list.
            put_line(text, name, first);
            text.push(0);
            continue;
        };
        let mut several: Vec<Vec<u8>> = [first, second]
            .into_iter()
            .chain(lines)
            .map(|line| {
                let mut written = Vec::with_capacity(line.len() + 9);
                put_line(&mut written, name, line);
                written
            })
            .collect();
        several.sort_unstable();
        several.dedup();
        text.extend(several.into_iter().flatten());
        text.push(0);
    }
}

/// Appends a marker, the length and the line; what has no case in lower case.
fn put_line(text: &mut Vec<u8>, name: &HeaderName, line: &[u8]) {
    text.push(1);
    text.extend_from_slice(&(line.len() as u64).to_le_bytes());
    let start = text.len();
    text.extend_from_slice(line);
    let caseless = if *name == AUTHORIZATION || *name == PROXY_AUTHORIZATION {
        // Without a space the line is a bare credential and has no scheme.
        line.iter().position(|byte| *byte == b' ').unwrap_or(0)
    } else if *name == HOST {
        line.len()
    } else {
        0
    };
    text[start..start + caseless].make_ascii_lowercase();
}

/// Maximum bytes of credentials kept in a [`TenantMemo`].
const MAX_REMEMBERED: usize = 1024;

/// The tenant of the previous request of a connection. The next request nearly always has the
/// same credentials, and comparing costs less than digesting. Credentials are kept no longer than
/// their connection.
#[derive(Default)]
pub struct TenantMemo {
    /// Preimage of `tenant`.
    text: Vec<u8>,
    tenant: Option<TenantId>,
    /// Preimage of the present request; kept to reuse its allocation.
    asked: Vec<u8>,
}

impl TenantMemo {
    /// The tenant of a request, equal to [`TenantId::of`].
    pub fn of(&mut self, names: &CredentialHeaders, headers: &HeaderMap) -> TenantId {
        self.asked.clear();
        write_down(&mut self.asked, names, headers);
        if let Some(tenant) = self.tenant
            && self.text == self.asked
        {
            return tenant;
        }
        let tenant = TenantId::digest(&self.asked);
        if self.asked.len() <= MAX_REMEMBERED {
            self.tenant = Some(tenant);
            std::mem::swap(&mut self.text, &mut self.asked);
        } else {
            self.asked = Vec::new();
        }
        tenant
    }
}

impl fmt::Debug for TenantMemo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what named it: those are credentials.
        f.debug_struct("TenantMemo").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&'static str]) -> HeaderMap {
        let name = || http::header::AUTHORIZATION;
        values.iter().map(|value| (name(), http::HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn tenants_are_read_as_they_are_written() {
        let tenant = TenantId::from_bytes([0xa5; 16]);
        let text = tenant.to_string();
        assert_eq!(TenantId::parse(&text), Some(tenant));
        let upper = text.to_uppercase();
        for wrong in ["", "a5", &text[1..], &upper, &format!("{text}0"), &text.replace("a5", "+5")]
        {
            assert_eq!(TenantId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_last_tenant_is_never_taken_for_another() {
        let names = CredentialHeaders::new(vec![AUTHORIZATION]);
        let long: &'static str = "x".repeat(2 * MAX_REMEMBERED).leak();
        let callers: [&[&'static str]; 6] = [&["a"], &["b"], &[], &[""], &["a", "b"], &[long]];
        let mut last = TenantMemo::default();
        for first in callers {
            for second in callers {
                for caller in [first, second, second, first] {
                    let headers = headers(caller);
                    assert_eq!(last.of(&names, &headers), TenantId::of(&names, &headers));
                }
            }
        }
    }
}

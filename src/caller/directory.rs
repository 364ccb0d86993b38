//! The directory of callers: names, and the credentials and foreign names that belong to each.

use std::collections::HashMap;
use std::fmt;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::{HeaderMap, HeaderName};
use sha2::{Digest as _, Sha256};

use super::name::{Caller, CallerKind};
use crate::idempotency::TenantId;

/// Callers with their credentials and names.
#[derive(Debug, Default)]
pub struct Directory {
    callers: Vec<Caller>,
    /// Indices into `callers`, by the SHA-256 of a credential.
    digests: HashMap<[u8; 32], usize>,
    uris: HashMap<String, usize>,
    dns: HashMap<String, usize>,
    jwt: HashMap<String, usize>,
}

/// A caller of the directory, as written.
#[derive(Debug, Clone, Default)]
pub struct DirectoryEntry {
    /// The caller's name.
    pub name: String,
    /// SHA-256 of each of its credentials.
    pub digests: Vec<[u8; 32]>,
    /// Subject alternative names of its certificates: URIs.
    pub uris: Vec<String>,
    /// Subject alternative names of its certificates: names of hosts.
    pub dns: Vec<String>,
    /// Names of the caller in tokens.
    pub jwt: Vec<String>,
    /// The identity that the caller had before, which keeps its records.
    pub id: Option<TenantId>,
}

/// The reason an entry was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryError {
    /// Another caller has this credential, URI, host or name in tokens already.
    Taken {
        /// Key of the list.
        key: &'static str,
        /// Name of the other caller.
        other: String,
    },
    /// Another caller has this identity already.
    SameId {
        /// Name of the other caller.
        other: String,
    },
}

impl fmt::Display for DirectoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { key, other } => {
                write!(f, "an entry of `{key}` belongs to [{other}] already")
            }
            Self::SameId { other } => write!(f, "`id` is that of {other}"),
        }
    }
}

impl std::error::Error for DirectoryError {}

/// Two credentials of a request that belong to two callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialConflict;

impl Directory {
    /// Adds a caller.
    ///
    /// # Errors
    /// A credential, name or id of the entry belongs to another caller already.
    pub fn add(&mut self, entry: DirectoryEntry) -> Result<(), DirectoryError> {
        let mut caller = Caller::named(CallerKind::Directory, "", &entry.name);
        caller.id = entry.id.unwrap_or(caller.id);
        let named = |at: usize| self.callers[at].to_string();
        if let Some(at) = self.callers.iter().position(|other| other.id == caller.id) {
            return Err(DirectoryError::SameId { other: named(at) });
        }
        let at = self.callers.len();
        let taken = |key, other: Option<&usize>| match other {
            Some(&other) => Err(DirectoryError::Taken { key, other: named(other) }),
            None => Ok(()),
        };
        for digest in &entry.digests {
            taken("digests", self.digests.get(digest))?;
        }
        for (key, names, map) in [
            ("uris", &entry.uris, &self.uris),
            ("dns", &entry.dns, &self.dns),
            ("jwt", &entry.jwt, &self.jwt),
        ] {
            names.iter().try_for_each(|name| taken(key, map.get(name)))?;
        }
        self.digests.extend(entry.digests.into_iter().map(|digest| (digest, at)));
        self.uris.extend(entry.uris.into_iter().map(|name| (name, at)));
        self.dns.extend(entry.dns.into_iter().map(|name| (name, at)));
        self.jwt.extend(entry.jwt.into_iter().map(|name| (name, at)));
        self.callers.push(caller);
        Ok(())
    }

    /// Number of callers.
    pub fn len(&self) -> usize {
        self.callers.len()
    }

    /// Reports a directory without callers.
    pub fn is_empty(&self) -> bool {
        self.callers.is_empty()
    }

    /// The name of the caller with this identity.
    pub fn name_of(&self, id: &TenantId) -> Option<&Caller> {
        self.callers.iter().find(|caller| caller.id == *id)
    }

    /// The caller of a request's credentials: each line of the headers `names`, of
    /// `authorization` without the scheme.
    ///
    /// # Errors
    /// Two credentials belong to two callers.
    pub fn by_credentials(
        &self,
        names: &[HeaderName],
        headers: &HeaderMap,
    ) -> Result<Option<&Caller>, CredentialConflict> {
        let lines = names.iter().flat_map(|name| {
            headers.get_all(name).iter().map(|line| credential(name, line.as_bytes()))
        });
        let mut found: Option<usize> = None;
        for credential in lines.filter(|credential| !credential.is_empty()) {
            let digest: [u8; 32] = Sha256::digest(credential).into();
            match (found, self.digests.get(&digest)) {
                (Some(first), Some(&other)) if first != other => return Err(CredentialConflict),
                (_, Some(&at)) => found = Some(at),
                (_, None) => {}
            }
        }
        Ok(found.map(|at| &self.callers[at]))
    }

    /// The caller with this URI in its certificate.
    pub fn by_uri(&self, uri: &str) -> Option<&Caller> {
        self.uris.get(uri).map(|at| &self.callers[*at])
    }

    /// The caller with this host in its certificate.
    pub fn by_dns(&self, host: &str) -> Option<&Caller> {
        self.dns.get(host).map(|at| &self.callers[*at])
    }

    /// The caller with this name in tokens.
    pub fn by_jwt(&self, name: &str) -> Option<&Caller> {
        self.jwt.get(name).map(|at| &self.callers[*at])
    }
}

/// The credential in a header line: without the scheme, where the header has one.
fn credential<'a>(name: &HeaderName, line: &'a [u8]) -> &'a [u8] {
    let line = line.trim_ascii();
    let has_scheme = *name == AUTHORIZATION || *name == PROXY_AUTHORIZATION;
    match line.iter().position(|byte| *byte == b' ') {
        Some(space) if has_scheme => line[space + 1..].trim_ascii(),
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn digest(credential: &str) -> [u8; 32] {
        Sha256::digest(credential).into()
    }

    fn directory() -> Directory {
        let mut directory = Directory::default();
        let entry = |name: &str, credentials: &[&str]| DirectoryEntry {
            name: name.to_owned(),
            digests: credentials.iter().map(|credential| digest(credential)).collect(),
            ..DirectoryEntry::default()
        };
        directory.add(entry("shop-1", &["old", "new"])).unwrap();
        let before = TenantId::from_bytes([9; 16]);
        directory.add(DirectoryEntry { id: Some(before), ..entry("shop-2", &["two"]) }).unwrap();
        directory
    }

    fn name(lines: &[(&'static str, &'static str)]) -> Result<Option<String>, CredentialConflict> {
        let headers = lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = headers.collect();
        let names = [AUTHORIZATION, HeaderName::from_static("x-api-key")];
        let directory = directory();
        let caller = directory.by_credentials(&names, &headers)?;
        Ok(caller.map(ToString::to_string))
    }

    #[test]
    fn each_credential_of_a_caller_names_it() {
        let one = || Ok(Some("shop-1".to_owned()));
        assert_eq!(name(&[("authorization", "Bearer old")]), one());
        assert_eq!(name(&[("authorization", "bearer  new ")]), one());
        assert_eq!(name(&[("authorization", "new")]), one());
        assert_eq!(name(&[("x-api-key", "old"), ("authorization", "Bearer new")]), one());
        assert_eq!(name(&[("x-api-key", "old"), ("x-api-key", "stranger")]), one());
        assert_eq!(name(&[("x-api-key", "two")]), Ok(Some("shop-2".to_owned())));
        // A key header has no scheme, and another header is no credential.
        assert_eq!(name(&[("x-api-key", "Bearer old")]), Ok(None));
        assert_eq!(name(&[("x-other", "old")]), Ok(None));
        assert_eq!(name(&[("authorization", "Bearer Old")]), Ok(None));
        assert_eq!(name(&[("authorization", "")]), Ok(None));
        let two = [("x-api-key", "two"), ("authorization", "Bearer new")];
        assert_eq!(name(&two), Err(CredentialConflict));
    }

    #[test]
    fn a_caller_keeps_the_identity_it_had() {
        let directory = directory();
        let headers = |key| HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(key))]);
        let of = |key| directory.by_credentials(&[AUTHORIZATION], &headers(key)).unwrap().unwrap();
        assert_eq!(of("two").id, TenantId::from_bytes([9; 16]));
        assert_eq!(of("old").id, of("new").id);
        assert_eq!(of("old").id, Caller::named(CallerKind::Directory, "", "shop-1").id);
    }

    #[test]
    fn what_belongs_to_a_caller_belongs_to_no_other() {
        let add = |entry: DirectoryEntry| directory().add(entry).unwrap_err().to_string();
        let taken = DirectoryEntry { digests: vec![digest("new")], ..DirectoryEntry::default() };
        assert_eq!(add(taken), "an entry of `digests` belongs to [shop-1] already");
        let id = Some(TenantId::from_bytes([9; 16]));
        let same = DirectoryEntry { id, ..DirectoryEntry::default() };
        assert_eq!(add(same), "`id` is that of shop-2");
    }

    #[test]
    fn names_of_two_kinds_or_spaces_are_two_callers() {
        let all = [
            Caller::named(CallerKind::Directory, "", "a"),
            Caller::named(CallerKind::Certificate, "", "a"),
            Caller::named(CallerKind::Jwt, "i\0c", "a"),
            Caller::named(CallerKind::Jwt, "i\0d", "a"),
            Caller::named(CallerKind::Jwt, "i\0", "ca"),
            Caller::named(CallerKind::Authorize, "", "a"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|other| other.id != one.id), "{at}");
        }
        assert_eq!(Caller::unnamed(TenantId::from_bytes([1; 16])).to_string(), "01".repeat(16));
    }
}

//! The name of a caller, and the identity that the name makes.

use std::fmt;
use std::sync::{Arc, LazyLock};

use http::HeaderMap;

use crate::idempotency::TenantId;
use crate::idempotency::tenant::CredentialHeaders;

/// The caller of a request; by default the anonymous one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The identity under which keys are kept.
    pub id: TenantId,
    /// The name; `None`: the caller is known by credentials only, and shown by its identity.
    pub name: Option<Arc<str>>,
}

/// A kind of name. Equal names of two kinds are two callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerKind {
    /// A subject alternative name of a verified client certificate.
    Certificate,
    /// An entry of the directory.
    Directory,
    /// A claim of a verified token, behind the issuer and the claim's name.
    Jwt,
    /// A header of the answer of an authorization service.
    Authorize,
}

impl CallerKind {
    const fn label(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Directory => "directory",
            Self::Jwt => "jwt",
            Self::Authorize => "authorize",
        }
    }
}

/// The caller without credentials. Digested once: every request without a key has this caller.
static ANONYMOUS: LazyLock<TenantId> =
    LazyLock::new(|| TenantId::of(&CredentialHeaders::default(), &HeaderMap::new()));

impl Default for Caller {
    fn default() -> Self {
        Self::unnamed(*ANONYMOUS)
    }
}

impl Caller {
    /// A caller known by credentials, or the anonymous caller.
    pub const fn unnamed(id: TenantId) -> Self {
        Self { id, name: None }
    }

    /// The caller with a name. `space` is the issuer and the claim of a token, else empty: a name
    /// of another space is another caller.
    pub fn named(kind: CallerKind, space: &str, name: &str) -> Self {
        Self { id: TenantId::named(kind.label(), space, name), name: Some(name.into()) }
    }
}

impl fmt::Display for Caller {
    /// Writes the name, or the 32 hex digits of a caller without one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => f.write_str(name),
            None => self.id.fmt(f),
        }
    }
}
